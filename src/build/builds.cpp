#include "build/builds.hpp"

#include <cstdlib>

#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "image/platform.hpp"
#include "json/codec.hpp"
#include "storage/hash.hpp"

namespace gantry::build {
namespace {

constexpr std::chrono::milliseconds kStopPatience{5'000};
constexpr std::size_t kMaxUsageFile = 32 << 20;

protocol::UsageReport read_usage_blocking(const sys::Path& directory) {
  try {
    const auto text = sys::find_file(directory / "usage.json", kMaxUsageFile);
    if (text) return json::decode<protocol::UsageReport>(json::parse(*text));
  } catch (const Error& e) {
    log::debug("usage of the build cache: {}", e.message());  // told anew by the next worker
  }
  return {};
}

/// What is configured, else the environment's, in either case of letters.
std::string proxy_setting(const std::string& configured, const char* variable) {
  if (!configured.empty()) return configured;
  for (const std::string& name : {std::string(variable), to_lower(variable)})
    if (const char* value = std::getenv(name.c_str())) return value;
  return {};
}

}  // namespace

Builds::Builds(engine::Services& services, db::Db& db, image::Transfers& transfers, sys::Path program, EngineId id)
    : services_(services),
      program_(std::move(program)),
      id_(std::move(id)),
      leases_(services.lanes, db, services.layers, services.images.content()),
      answers_(
          services, transfers, leases_, [this] { return settings(); },
          [this](protocol::UsageReport report) { usage_ = std::move(report); }),
      worker_(
          services.loop, services.lanes, services.host.cgroup, [this] { return worker_options(); },
          [this](std::string method, std::string params, LinkCallPtr call) {
            return answers_.answer(std::move(method), std::move(params), std::move(call));
          },
          [this] { return ended(); }) {}

Builds::~Builds() = default;

Task<void> Builds::recover() {
  co_await worker_.recover();
  co_await leases_.recover();
  usage_ = co_await services_.lanes.quick.run([directory = services_.paths.builder(), run = services_.paths.build()] {
    sys::remove_tree(run / "networks");
    return read_usage_blocking(directory);
  });
  struct stat st{};
  has_cache_ = ::stat((services_.paths.builder() / "cache.db").c_str(), &st) == 0;
}

Task<void> Builds::stop() { co_await worker_.stop(kStopPatience); }

Task<void> Builds::ended() {
  co_await answers_.take_back();
  co_await answers_.collect();
}

void Builds::require_installed() const {
  if (program_.empty())
    throw Error(Errc::not_implemented,
                "gantry-build is neither beside gantryd nor in /usr/libexec/gantry: install it to build images");
}

bool Builds::has_cache() const { return has_cache_; }

Task<void> Builds::hand_over(protocol::Handover request, sys::Fd fd) {
  require_installed();
  has_cache_ = true;
  co_await worker_.hand_over(std::move(request), std::move(fd));
}

/// Named after the data root, so that two daemons on one machine have one each.
std::string Builds::cgroup() const {
  const std::string name =
      "buildkit-" + storage::digest_hex(storage::sha256_digest(services_.config.data_root)).substr(0, 12);
  if (services_.config.systemd_cgroups()) return "/" + name;
  const std::string parent = services_.config.cgroup_parent.empty() ? "/docker" : services_.config.cgroup_parent;
  return (sys::Path("/") / parent / name).lexically_normal().string();
}

WorkerOptions Builds::worker_options() const {
  WorkerOptions out;
  out.program = program_;
  out.cgroup = cgroup();
  out.memory = services_.config.builder.memory_bytes;
  out.flags = {"--log-format", services_.config.log_format, "--log-level",
               services_.config.debug ? "debug" : services_.config.log_level};
  return out;
}

protocol::BuildSettings Builds::settings() const {
  const config::Config& config = services_.config;
  protocol::BuildSettings out;
  out.EngineId = id_();
  out.DataRoot = services_.paths.builder().string();
  out.RunDirectory = services_.paths.build().string();
  out.ExecRoot = services_.paths.exec_root.string();
  out.Debug = config.debug;
  out.Experimental = config.experimental;
  out.AllowNetworkHost = config.builder.allow_network_host;
  out.AllowInsecure = config.builder.allow_security_insecure;
  out.AllowDevice = config.builder.allow_device;
  out.GcEnabled = config.builder.gc_enabled;
  out.GcReservedSpace = config.builder.gc_reserved_bytes;
  out.GcMaxUsedSpace = config.builder.gc_max_used_bytes;
  out.GcMinFreeSpace = config.builder.gc_min_free_bytes;
  out.HistoryEntries = config.builder.history_entries;
  out.IdleSeconds = config.builder.idle_seconds;
  out.CgroupParent = cgroup() + "/run";
  out.RuntimePath = services_.host.runc.path.empty() ? "runc" : services_.host.runc.path;
  out.Unconfined = config.seccomp_profile == "unconfined";
  if (!out.Unconfined && config.seccomp_profile != "builtin") out.SeccompProfile = config.seccomp_profile;
  for (const auto& [name, limit] : config.default_ulimits) out.DefaultUlimits.push_back({name, limit.soft, limit.hard});
  out.DefaultShmSize = config.default_shm_size;
  out.HostGatewayIps = config.host_gateway_ips;
  if (out.HostGatewayIps.empty())
    if (const auto bridge = services_.networks.find("bridge"))
      for (const network::IpamConfig& pool : bridge->ipam)
        if (!pool.gateway.empty()) out.HostGatewayIps.push_back(pool.gateway);
  out.Dns = config.dns;
  out.HttpProxy = proxy_setting(config.http_proxy, "HTTP_PROXY");
  out.HttpsProxy = proxy_setting(config.https_proxy, "HTTPS_PROXY");
  out.NoProxy = proxy_setting(config.no_proxy, "NO_PROXY");
  out.Platform = image::render_platform(image::host_platform());
  return out;
}

}  // namespace gantry::build
