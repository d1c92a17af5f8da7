#include "engine/system_warnings.hpp"

#include <algorithm>

namespace gantry::engine {

std::vector<std::string> security_options(const config::Config& config, const runtime::HostFacts& host) {
  std::vector<std::string> options;
  if (host.apparmor) options.emplace_back("name=apparmor");
  if (host.seccomp) {
    const std::string& profile = config.seccomp_profile;
    options.push_back("name=seccomp,profile=" + (profile.empty() ? "builtin" : profile));
  }
  if (config.selinux_enabled && host.selinux) options.emplace_back("name=selinux");
  if (!config.userns_remap.empty()) options.emplace_back("name=userns");
  if (host.cgroup_namespaces) options.emplace_back("name=cgroupns");
  if (config.no_new_privileges) options.emplace_back("name=no-new-privileges");
  return options;
}

std::vector<std::string> daemon_warnings(const config::Config& config, const runtime::HostFacts& host) {
  std::vector<std::string> warnings;
  for (const std::string& address : config.hosts) {
    if (!address.starts_with("tcp://") || config.tlsverify.value_or(false)) continue;
    const std::string shown = "http://" + address.substr(6);
    if (config.tls.value_or(false))
      warnings.push_back("[DEPRECATION NOTICE]: API is accessible on https://" + address.substr(6) +
                         " without TLS client verification.\n         Whoever can connect to it is root on this "
                         "host: set tlsverify.");
    else
      warnings.push_back("[DEPRECATION NOTICE]: API is accessible on " + shown +
                         " without encryption.\n         Whoever can connect to it is root on this host: use a unix "
                         "socket, or set tlsverify.");
  }
  if (config.seccomp_profile == "unconfined")
    warnings.emplace_back("WARNING: daemon is not using the default seccomp profile");
  for (std::string& warning : runtime::host_warnings(host)) warnings.push_back(std::move(warning));
  return warnings;
}

std::string mask_credentials(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const std::size_t begin = scheme == std::string_view::npos ? 0 : scheme + 3;
  const std::size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const std::size_t at = url.substr(0, end).rfind('@');
  if (at == std::string_view::npos || at < begin) return std::string(url);
  return std::string(url.substr(0, begin)) + "xxxxx:xxxxx" + std::string(url.substr(at));
}

}  // namespace gantry::engine
