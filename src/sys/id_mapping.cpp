#include "sys/id_mapping.hpp"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "sys/xattr.hpp"

namespace gantry::sys {
namespace {

constexpr std::uint32_t kNobody = 65534;  // /proc/sys/kernel/overflowuid

std::uint32_t to_outside(const std::vector<IdRange>& ranges, std::uint32_t id, const char* kind) {
  if (ranges.empty()) return id;
  for (const IdRange& range : ranges)
    if (id >= range.inside && id - range.inside < range.count) return range.outside + (id - range.inside);
  throw Error(Errc::invalid_argument, fmt::format("Container ID {} cannot be mapped to a host ID: the user namespace's "
                                                  "{} end before it",
                                                  id, kind));
}

std::uint32_t to_inside(const std::vector<IdRange>& ranges, std::uint32_t id) noexcept {
  if (ranges.empty()) return id;
  for (const IdRange& range : ranges)
    if (id >= range.outside && id - range.outside < range.count) return range.inside + (id - range.outside);
  return kNobody;
}

std::string map_text(const std::vector<IdRange>& ranges) {
  std::string text;
  for (const IdRange& range : ranges)
    fmt::format_to(std::back_inserter(text), "{} {} {}\n", range.inside, range.outside, range.count);
  return text;
}

void write_map(pid_t pid, const char* file, const std::vector<IdRange>& ranges) {
  const Path path = fmt::format("/proc/{}/{}", pid, file);
  const std::string text = map_text(ranges);
  const Fd fd = open_file(path, O_WRONLY);
  // The kernel takes the whole table in one write.
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw Error::from_errno(errno, fmt::format("write {} ({})", path.string(), text.substr(0, text.find('\n'))));
}

/// A process that only holds a new user namespace open, killed and reaped at the end.
class Holder {
 public:
  Holder() {
    // As fork(2): the child runs on a copy of our memory and calls nothing but the kernel.
    const long pid = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid < 0) throw Error::from_errno(errno, "create a user namespace");
    if (pid == 0) {
      (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
    pid_ = static_cast<pid_t>(pid);
  }
  ~Holder() {
    (void)::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  pid_t pid() const noexcept { return pid_; }

 private:
  pid_t pid_ = -1;
};

}  // namespace

std::uint32_t IdMapping::host_uid(std::uint32_t inside) const { return to_outside(uids, inside, "users"); }
std::uint32_t IdMapping::host_gid(std::uint32_t inside) const { return to_outside(gids, inside, "groups"); }
std::uint32_t IdMapping::container_uid(std::uint32_t outside) const noexcept { return to_inside(uids, outside); }
std::uint32_t IdMapping::container_gid(std::uint32_t outside) const noexcept { return to_inside(gids, outside); }

Fd make_user_namespace(const IdMapping& mapping) {
  const Holder holder;
  write_map(holder.pid(), "uid_map", mapping.uids);
  write_map(holder.pid(), "gid_map", mapping.gids);
  return open_file(fmt::format("/proc/{}/ns/user", holder.pid()), O_RDONLY);
}

void create_user_namespace(const Path& path, const IdMapping& mapping) {
  remove_user_namespace(path);
  make_directories(path.parent_path(), 0711);
  const Fd made = make_user_namespace(mapping);
  open_file(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0444);
  if (::mount(fd_path(made.get()).c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0) return;
  const int failed = errno;
  (void)::unlink(path.c_str());
  throw Error::from_errno(failed, fmt::format("mount a user namespace on {}", path.string()));
}

void remove_user_namespace(const Path& path) {
  while (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT) throw Error::from_errno(errno, "unmount " + path.string());
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw Error::from_errno(errno, "remove " + path.string());
}

}  // namespace gantry::sys
