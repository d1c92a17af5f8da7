#pragma once

#include <optional>

#include "config/options.hpp"

/// What makes a value of the right type wrong. Texts are dockerd's where dockerd has one. None of them blocks, except
/// seccomp_profile, which asks whether the file is there.
namespace gantry::config::check {

std::optional<Finding> data_root(const Config& c);
std::optional<Finding> exec_root(const Config& c);
std::optional<Finding> pidfile(const Config& c);
std::optional<Finding> labels(const Config& c);
std::optional<Finding> log_level(const Config& c);
std::optional<Finding> log_format(const Config& c);
std::optional<Finding> log_driver(const Config& c);
std::optional<Finding> log_opts(const Config& c);
std::optional<Finding> runtimes(const Config& c);
std::optional<Finding> default_runtime(const Config& c);
std::optional<Finding> exec_opts(const Config& c);
std::optional<Finding> default_cgroupns_mode(const Config& c);
std::optional<Finding> default_ipc_mode(const Config& c);
std::optional<Finding> default_shm_size(const Config& c);
std::optional<Finding> default_ulimits(const Config& c);
std::optional<Finding> init_path(const Config& c);
std::optional<Finding> seccomp_profile(const Config& c);
std::optional<Finding> storage_driver(const Config& c);
std::optional<Finding> storage_opts(const Config& c);
std::optional<Finding> cpu_rt_period(const Config& c);
std::optional<Finding> cpu_rt_runtime(const Config& c);
std::optional<Finding> insecure_registries(const Config& c);
std::optional<Finding> registry_mirrors(const Config& c);
std::optional<Finding> max_concurrent_downloads(const Config& c);
std::optional<Finding> max_concurrent_uploads(const Config& c);
std::optional<Finding> max_download_attempts(const Config& c);
std::optional<Finding> image_keep_free(const Config& c);
std::optional<Finding> http_proxy(const Config& c);
std::optional<Finding> https_proxy(const Config& c);
std::optional<Finding> bridge(const Config& c);
std::optional<Finding> bip(const Config& c);
std::optional<Finding> bip6(const Config& c);
std::optional<Finding> fixed_cidr(const Config& c);
std::optional<Finding> fixed_cidr_v6(const Config& c);
std::optional<Finding> default_gateway(const Config& c);
std::optional<Finding> default_gateway_v6(const Config& c);
std::optional<Finding> default_address_pools(const Config& c);
std::optional<Finding> dns(const Config& c);
std::optional<Finding> dns_search(const Config& c);
std::optional<Finding> host_gateway_ips(const Config& c);
std::optional<Finding> ip(const Config& c);
std::optional<Finding> mtu(const Config& c);
std::optional<Finding> firewall_backend(const Config& c);
std::optional<Finding> firewall_compat(const Config& c);
std::optional<Finding> bridge_accept_fwmark(const Config& c);
std::optional<Finding> metrics_addr(const Config& c);
std::optional<Finding> min_api_version(const Config& c);

/// Combinations of keys that exclude each other; `key` names the one that is dropped.
struct Clash {
  std::string key;
  std::string message;
};
std::vector<Clash> clashes(const Config& c);

}  // namespace gantry::config::check

namespace gantry::config {

/// "mark" or "mark/mask", in C's notations for numbers; without a mask the whole mark counts. Empty text: {0, 0}.
std::optional<std::pair<std::uint32_t, std::uint32_t>> parse_fwmark(const std::string& text);

}  // namespace gantry::config
