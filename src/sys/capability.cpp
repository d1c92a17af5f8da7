#include "sys/capability.hpp"

#include <charconv>
#include <string>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/file.hpp"

namespace gantry::sys {
namespace {

std::uint64_t mask_after(std::string_view status, std::string_view key) {
  const auto at = status.find(key);
  if (at == std::string_view::npos) throw Error(Errc::internal, "/proc/self/status has no " + std::string(key));
  const auto rest = status.substr(at + key.size());
  const auto digits = trim(rest.substr(0, rest.find('\n')));
  std::uint64_t mask = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), mask, 16);
  return mask;
}

}  // namespace

CapabilitySets read_own_capabilities() {
  const std::string status = read_file("/proc/self/status", 1 << 16);
  return {.bounding = mask_after(status, "\nCapBnd:"),
          .permitted = mask_after(status, "\nCapPrm:"),
          .effective = mask_after(status, "\nCapEff:")};
}

const std::vector<std::string_view>& capability_names() {
  static const std::vector<std::string_view> names{"CAP_CHOWN",
                                                   "CAP_DAC_OVERRIDE",
                                                   "CAP_DAC_READ_SEARCH",
                                                   "CAP_FOWNER",
                                                   "CAP_FSETID",
                                                   "CAP_KILL",
                                                   "CAP_SETGID",
                                                   "CAP_SETUID",
                                                   "CAP_SETPCAP",
                                                   "CAP_LINUX_IMMUTABLE",
                                                   "CAP_NET_BIND_SERVICE",
                                                   "CAP_NET_BROADCAST",
                                                   "CAP_NET_ADMIN",
                                                   "CAP_NET_RAW",
                                                   "CAP_IPC_LOCK",
                                                   "CAP_IPC_OWNER",
                                                   "CAP_SYS_MODULE",
                                                   "CAP_SYS_RAWIO",
                                                   "CAP_SYS_CHROOT",
                                                   "CAP_SYS_PTRACE",
                                                   "CAP_SYS_PACCT",
                                                   "CAP_SYS_ADMIN",
                                                   "CAP_SYS_BOOT",
                                                   "CAP_SYS_NICE",
                                                   "CAP_SYS_RESOURCE",
                                                   "CAP_SYS_TIME",
                                                   "CAP_SYS_TTY_CONFIG",
                                                   "CAP_MKNOD",
                                                   "CAP_LEASE",
                                                   "CAP_AUDIT_WRITE",
                                                   "CAP_AUDIT_CONTROL",
                                                   "CAP_SETFCAP",
                                                   "CAP_MAC_OVERRIDE",
                                                   "CAP_MAC_ADMIN",
                                                   "CAP_SYSLOG",
                                                   "CAP_WAKE_ALARM",
                                                   "CAP_BLOCK_SUSPEND",
                                                   "CAP_AUDIT_READ",
                                                   "CAP_PERFMON",
                                                   "CAP_BPF",
                                                   "CAP_CHECKPOINT_RESTORE"};
  return names;
}

unsigned last_capability() {
  const auto top = static_cast<unsigned>(capability_names().size() - 1);
  const auto text = try_read_small("/proc/sys/kernel/cap_last_cap");
  const auto last = text ? parse_int(trim(*text)) : std::nullopt;
  return last && *last >= 0 && *last < static_cast<std::int64_t>(top) ? static_cast<unsigned>(*last) : top;
}

}  // namespace gantry::sys
