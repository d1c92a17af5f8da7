#include <sys/vfs.h>
#include <unistd.h>

#include "base/text.hpp"
#include "config/load.hpp"
#include "sys/file.hpp"

namespace gantry::config {

HostFacts probe_host() {
  HostFacts facts;
  // Source: sd_booted(3): the directory exists exactly when systemd is the init system.
  facts.systemd_running = ::access("/run/systemd/system", F_OK) == 0;
  struct statfs info{};
  constexpr long kCgroup2Magic = 0x63677270;  // Source: linux/magic.h
  facts.cgroup_v2_only = ::statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == kCgroup2Magic;
  facts.selinux = ::access("/sys/fs/selinux/enforce", F_OK) == 0;
  if (auto filesystems = sys::try_read_small("/proc/filesystems")) {
    // A module that is not loaded yet is not listed: only a kernel without modules is known to lack it.
    facts.overlayfs = filesystems->find("\toverlay\n") != std::string::npos || ::access("/proc/modules", F_OK) == 0;
  }
  return facts;
}

}  // namespace gantry::config
