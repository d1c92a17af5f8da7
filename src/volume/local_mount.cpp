#include "volume/local_mount.hpp"

#include <cerrno>
#include <cstring>
#include <memory>

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/mount.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::volume {
namespace {

struct FlagWord {
  std::string_view word;
  unsigned long set;
  unsigned long clear;
};

constexpr FlagWord kFlagWords[] = {
    {"defaults", 0, 0},
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"mand", MS_MANDLOCK, 0},
    {"nomand", 0, MS_MANDLOCK},
    {"noatime", MS_NOATIME, 0},
    {"atime", 0, MS_NOATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"relatime", MS_RELATIME, 0},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, 0},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"bind", MS_BIND, 0},
    {"rbind", MS_BIND | MS_REC, 0},
};

const std::string& option(const std::map<std::string, std::string>& options, const std::string& key) {
  static const std::string none;
  const auto found = options.find(key);
  return found == options.end() ? none : found->second;
}

/// The first address of a host name; numeric ones pass through.
std::string look_up(const std::string& host) {
  in6_addr ignored{};
  if (::inet_pton(AF_INET, host.c_str(), &ignored) == 1 || ::inet_pton(AF_INET6, host.c_str(), &ignored) == 1)
    return host;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &list); failed != 0)
    throw Error(Errc::internal, fmt::format("error resolving passed in network volume address {}: {}", quote(host),
                                            ::gai_strerror(failed)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  char text[NI_MAXHOST];
  if (::getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
    throw Error(Errc::internal, "error resolving passed in network volume address " + quote(host));
  return text;
}

void mount_or_throw(const std::string& device, const sys::Path& target, const std::string& type, unsigned long flags,
                    const std::string& data) {
  if (::mount(device.c_str(), target.c_str(), type.c_str(), flags, data.empty() ? nullptr : data.c_str()) == 0) return;
  // The text is Docker's, and `docker run` decides by "no such file or directory" and "permission denied" in it.
  const std::string reason = to_lower(std::strerror(errno));
  throw Error(Errc::internal, fmt::format("failed to mount local volume: mount {}:{}{}{}: {}", device, target.string(),
                                          flags == 0 ? std::string() : fmt::format(", flags: {:#x}", flags),
                                          data.empty() ? std::string() : ", data: " + data, reason));
}

}  // namespace

void validate_local_options(std::string_view name, const std::map<std::string, std::string>& options) {
  const auto reject = [&](std::string_view why, std::string_view key) {
    throw Error(Errc::invalid_argument, fmt::format("create {}: {}: {}", name, why, quote(key)));
  };
  for (const auto& [key, value] : options) {
    if (key == "size")
      throw Error(Errc::invalid_argument, fmt::format("create {}: quota size requested but no quota support", name));
    if (key != "type" && key != "o" && key != "device") reject("invalid option", key);
    if (value.size() > 4000 || value.find('\0') != std::string::npos) reject("invalid value of option", key);
  }
  const bool any = !options.empty();
  if (any && option(options, "device").empty()) reject("missing required option", "device");
  if (any && option(options, "type").empty()) reject("missing required option", "type");
}

LocalMount parse_local_options(const std::map<std::string, std::string>& options) {
  LocalMount out;
  out.type = option(options, "type");
  out.device = option(options, "device");
  std::vector<std::string> data;
  for (const std::string& word : split(option(options, "o"), ',')) {
    if (word.empty()) continue;
    bool flag = false;
    for (const FlagWord& known : kFlagWords)
      if (known.word == word) {
        out.flags = (out.flags | known.set) & ~known.clear;
        flag = true;
      }
    if (flag) continue;
    if (word.starts_with("addr=")) out.address = word.substr(5);
    data.push_back(word);
  }
  out.data = join(data, ",");
  return out;
}

void mount_local_blocking(const LocalMount& mount, const sys::Path& target) {
  std::string data = mount.data;
  if (!mount.address.empty() && (mount.type.starts_with("nfs") || mount.type == "cifs")) {
    const std::string wanted = "addr=" + mount.address;
    data.replace(data.find(wanted), wanted.size(), "addr=" + look_up(mount.address));
  }
  mount_or_throw(mount.device, target, mount.type, mount.flags, data);
  // mount(2) ignores all other flags when it binds; they take a second call.
  const unsigned long rest = mount.flags & ~static_cast<unsigned long>(MS_BIND | MS_REC);
  if ((mount.flags & MS_BIND) == 0 || rest == 0) return;
  try {
    mount_or_throw(mount.device, target, "", MS_BIND | MS_REMOUNT | rest, {});
  } catch (const Error&) {
    ::umount2(target.c_str(), MNT_DETACH);
    throw;
  }
}

}  // namespace gantry::volume
