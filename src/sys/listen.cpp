#include "sys/listen.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::sys {
namespace {

constexpr int kFirstActivatedFd = 3;  // SD_LISTEN_FDS_START
constexpr int kMaxActivatedFds = 256;

struct UnixAddress {
  sockaddr_un address{};
  socklen_t size = 0;
};

/// Throws invalid_argument for a path that the kernel's structure has no room for. A leading "@" is the abstract
/// namespace.
UnixAddress unix_address(const std::string& path) {
  UnixAddress out;
  out.address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof out.address.sun_path)
    throw Error(Errc::invalid_argument, "socket path " + quote(path) + " must have 1 to " +
                                            std::to_string(sizeof out.address.sun_path - 1) + " bytes");
  std::memcpy(out.address.sun_path, path.data(), path.size());
  if (path.front() == '@') out.address.sun_path[0] = '\0';
  out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  return out;
}

Fd new_unix_socket(int type) {
  Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw Error::from_errno(errno, "unix socket");
  return fd;
}

/// Throws conflict if `path` is something that we must not replace.
void require_replaceable(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return;
  if (!S_ISSOCK(st.st_mode)) throw Error(Errc::conflict, path + " exists and is not a socket");
  const Fd probe = new_unix_socket(SOCK_STREAM);
  const UnixAddress address = unix_address(path);
  const int result = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address.address), address.size);
  if (result == 0 || errno == EAGAIN) throw Error(Errc::conflict, path + " is in use: another daemon listens on it");
}

/// nullopt if there is no such group.
std::optional<gid_t> find_group(const std::string& name) {
  if (const auto number = parse_int(name); number && *number >= 0) return static_cast<gid_t>(*number);
  std::vector<char> buffer(16384);
  group entry{};
  group* found = nullptr;
  if (::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
    return std::nullopt;
  return found->gr_gid;
}

void set_group(UnixListener& listener, const std::string& path, const UnixListenOptions& options) {
  if (options.group.empty()) return;
  const auto gid = find_group(options.group);
  if (!gid) {
    const std::string text = "there is no group " + quote(options.group) + " to give the socket to";
    if (options.group_required) throw Error(Errc::invalid_argument, text);
    listener.warning = text;
    return;
  }
  if (::lchown(path.c_str(), static_cast<uid_t>(-1), *gid) == 0) return;
  const int err = errno;
  if (options.group_required) throw Error::from_errno(err, "give " + path + " to group " + options.group);
  listener.warning = "cannot give the socket to group " + options.group + ": " + std::strerror(err);
}

}  // namespace

void UnixListener::unlink_if_ours() const noexcept {
  struct stat st{};
  if (::lstat(path.c_str(), &st) == 0 && st.st_dev == device && st.st_ino == inode) (void)::unlink(path.c_str());
}

UnixListener listen_unix(const Path& path, const UnixListenOptions& options) {
  const std::string name = path.string();
  require_replaceable(name);
  if (path.has_parent_path()) make_directories(path.parent_path());
  // Made under another name and renamed, so that it is never there with wrong permissions or without anybody behind.
  const std::string temporary = name + "." + std::to_string(::getpid());
  const UnixAddress address = unix_address(temporary);
  (void)::unlink(temporary.c_str());
  UnixListener out;
  out.path = path;
  out.fd = new_unix_socket(SOCK_STREAM);
  if (::bind(out.fd.get(), reinterpret_cast<const sockaddr*>(&address.address), address.size) != 0)
    throw Error::from_errno(errno, "listen on " + name);
  try {
    set_group(out, temporary, options);
    struct stat st{};
    if (::chmod(temporary.c_str(), options.mode) != 0 || ::lstat(temporary.c_str(), &st) != 0 ||
        ::listen(out.fd.get(), options.backlog) != 0 || ::rename(temporary.c_str(), name.c_str()) != 0)
      throw Error::from_errno(errno, "listen on " + name);
    out.device = st.st_dev;
    out.inode = st.st_ino;
  } catch (const Error&) {
    (void)::unlink(temporary.c_str());
    throw;
  }
  return out;
}

std::vector<ActivatedSocket> take_activated_sockets() {
  const char* pid_text = ::getenv("LISTEN_PID");
  const char* count_text = ::getenv("LISTEN_FDS");
  const char* names_text = ::getenv("LISTEN_FDNAMES");
  const auto pid = parse_int(pid_text == nullptr ? "" : pid_text);
  const auto count = parse_int(count_text == nullptr ? "" : count_text);
  const auto names = split(names_text == nullptr ? "" : names_text, ':');
  for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(variable);
  std::vector<ActivatedSocket> out;
  if (!pid || *pid != ::getpid() || !count || *count <= 0) return out;
  if (*count > kMaxActivatedFds) throw Error(Errc::invalid_argument, "LISTEN_FDS is too large");
  for (int i = 0; i < *count; ++i) {
    const int number = kFirstActivatedFd + i;
    int listening = 0;
    int type = 0;
    int family = 0;
    socklen_t size = sizeof(int);
    const bool ok = ::getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening != 0 &&
                    ::getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
                    ::getsockopt(number, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0;
    if (!ok)
      throw Error(Errc::invalid_argument, "descriptor " + std::to_string(number) +
                                              " from the service manager is not a listening stream socket");
    (void)::fcntl(number, F_SETFD, FD_CLOEXEC);
    (void)::fcntl(number, F_SETFL, ::fcntl(number, F_GETFL) | O_NONBLOCK);
    const auto place = static_cast<std::size_t>(i);
    out.push_back({Fd(number), place < names.size() ? names[place] : "", family});
  }
  return out;
}

bool notify_service_manager(std::string_view state) {
  const char* path = ::getenv("NOTIFY_SOCKET");
  if (path == nullptr || *path == '\0') return false;
  const UnixAddress address = unix_address(path);
  const Fd fd = new_unix_socket(SOCK_DGRAM);
  return ::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&address.address), address.size) >= 0;
}

}  // namespace gantry::sys
