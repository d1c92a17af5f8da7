#include "sys/namespace.hpp"

#include <cerrno>
#include <exception>
#include <thread>

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::sys {
namespace {

// Runs `body` on a thread of its own and hands its failure over.
void on_throwaway_thread(const std::function<void()>& body) {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      body();
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void create_netns(const Path& path, const std::function<void()>& inside) {
  make_directories(path.parent_path(), 0711);
  open_file(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0444);
  try {
    on_throwaway_thread([&] {
      if (::unshare(CLONE_NEWNET) != 0) throw Error::from_errno(errno, "creating a network namespace");
      if (::mount("/proc/thread-self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) != 0)
        throw Error::from_errno(errno, "mounting a network namespace on " + path.string());
      if (inside) inside();
    });
  } catch (const Error&) {
    remove_netns(path);
    throw;
  }
}

void enter_netns(const Path& path, const std::function<void()>& inside) {
  Fd netns = open_file(path, O_RDONLY);
  on_throwaway_thread([&] {
    if (::setns(netns.get(), CLONE_NEWNET) != 0)
      throw Error::from_errno(errno, "entering the network namespace " + path.string());
    inside();
  });
}

void remove_netns(const Path& path) {
  // Detached, so that a process that holds a file of it cannot keep us waiting. It may be mounted more than once.
  while (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT) throw Error::from_errno(errno, "unmounting " + path.string());
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw Error::from_errno(errno, "removing " + path.string());
}

bool is_netns(const Path& path) {
  struct statfs info{};
  return ::statfs(path.c_str(), &info) == 0 && info.f_type == NSFS_MAGIC;
}

}  // namespace gantry::sys
