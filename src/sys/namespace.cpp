#include "sys/namespace.hpp"

#include <cerrno>
#include <csignal>
#include <exception>
#include <string>
#include <thread>

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
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

/// Makes the namespace in a process of its own: only one without other threads can enter a user namespace.
void create_owned_netns(const Path& path, const Path& user_namespace) {
  const Fd owner = open_file(user_namespace, O_RDONLY);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  // As fork(2): the child runs on a copy of our memory and calls nothing but the kernel.
  const long pid = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid < 0) throw Error::from_errno(errno, "fork");
  if (pid == 0) {
    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int failed = ::setns(owner.get(), CLONE_NEWUSER) != 0 || ::unshare(CLONE_NEWNET) != 0 ? errno : 0;
    (void)!::write(writer.get(), &failed, sizeof failed);
    for (;;) ::pause();
  }
  struct Reap {
    pid_t pid;
    ~Reap() {
      (void)::kill(pid, SIGKILL);
      while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  } reap{static_cast<pid_t>(pid)};
  writer = Fd();
  int failed = 0;
  if (::read(reader.get(), &failed, sizeof failed) != sizeof failed) failed = ECHILD;
  if (failed != 0) throw Error::from_errno(failed, "creating a network namespace in " + user_namespace.string());
  const std::string made = "/proc/" + std::to_string(pid) + "/ns/net";
  if (::mount(made.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0)
    throw Error::from_errno(errno, "mounting a network namespace on " + path.string());
}

}  // namespace

void create_netns(const Path& path, const std::function<void()>& inside, const Path& user_namespace) {
  make_directories(path.parent_path(), 0711);
  open_file(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0444);
  try {
    if (!user_namespace.empty()) {
      create_owned_netns(path, user_namespace);
      if (inside) enter_netns(path, inside);
      return;
    }
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
