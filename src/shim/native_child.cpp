#include "shim/native_child.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shim/native_report.hpp"
#include "shim/native_start.hpp"
#include "sys/fd.hpp"

namespace gantry::shim {
namespace {

struct Namespace {
  const char* name;
  unsigned flag;
};
constexpr Namespace kNamespaces[] = {
    {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},  {"pid", CLONE_NEWPID},       {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME},
};
constexpr unsigned kLastSignal = 64;
constexpr std::uint64_t kSysAdmin = std::uint64_t{1} << CAP_SYS_ADMIN;

/// Closes everything above the standard streams but `keep`.
void keep_only(std::vector<int> keep) {
  std::sort(keep.begin(), keep.end());
  unsigned next = 3;
  for (const int fd : keep) {
    if (fd < 3) continue;
    const auto number = static_cast<unsigned>(fd);
    if (number > next) (void)::close_range(next, number - 1, 0);
    next = number + 1;
  }
  (void)::close_range(next, ~0U, 0);
}

void reset_signals() {
  // The kernel's own struct sigaction, all zero: the C library keeps its two internal signals from us.
  const std::uint64_t defaults[4] = {};
  for (unsigned number = 1; number <= kLastSignal; ++number)
    (void)::syscall(SYS_rt_sigaction, number, defaults, nullptr, sizeof(std::uint64_t));
  sigset_t none;
  sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// Writes to a file below /proc or a control group. errno is set if it cannot.
bool write_text(const std::string& path, std::string_view text) {
  const sys::Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// A path of the container that must not go through a symbolic link.
sys::Fd open_plainly(const char* path, std::uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return sys::Fd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how)));
}

bool is_null_device(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3); }

/// The first process.
class Joiner {
 public:
  explicit Joiner(const NativeJob& job) : job_(job), process_(*job.process), report_(job.status) {}

  [[noreturn]] void run() {
    (void)::prctl(PR_SET_DUMPABLE, 0);
    reset_signals();
    take_descriptors();
    join_cgroups();
    set_labels();
    enter_namespaces();
    join_keyring();
    if (job_.tty) make_terminal();
    else fill_streams();
    own_streams();
    (void)::umask(process_.umask);
    // As root first: what the user may not search is reachable as a working directory, as in runc.
    NativeStart start{job_, report_};
    start.try_directory();
    set_limits();
    drop_privileges();
    // Changing the user has set what fs.suid_dumpable says.
    (void)::prctl(PR_SET_DUMPABLE, 0);
    start_second(start);
  }

 private:
  void take_descriptors() {
    if (!job_.tty)
      for (int fd = 0; fd < 3; ++fd)
        if (job_.streams[fd] >= 0) (void)::dup2(job_.streams[fd], fd);
    keep_only({job_.status, job_.init_pidfd});
  }

  /// In version 1 a thread that moves itself through `tasks` waits for nobody; cgroup.procs would wait for the end of
  /// an RCU grace period. In version 2 this process was born in the group.
  void join_cgroups() {
    for (const std::string& directory : process_.cgroups_v1)
      // A hierarchy that the runtime does not use: the container's processes are in no other group of it than we.
      if (!write_text(directory + "/tasks", "0") && errno != ENOENT) report_.fail_errno("join cgroup " + directory);
    if (process_.oom_score_adj && !write_text("/proc/self/oom_score_adj", std::to_string(*process_.oom_score_adj)))
      report_.fail_errno("write oom_score_adj");
  }

  /// They apply at the next execve, and a fork inherits them until then (proc(5), attr/exec).
  void set_labels() {
    if (!process_.apparmor_profile.empty()) {
      const std::string text = "exec " + process_.apparmor_profile;
      if (!write_text("/proc/self/attr/apparmor/exec", text) && !write_text("/proc/self/attr/exec", text))
        report_.fail_errno("apply apparmor profile");
    }
    if (!process_.selinux_label.empty() && !write_text("/proc/self/attr/exec", process_.selinux_label))
      report_.fail_errno("apply SELinux label");
  }

  void enter_namespaces() {
    const std::string init = "/proc/" + std::to_string(job_.init_pid) + "/ns/";
    unsigned flags = 0;
    for (const Namespace& ns : kNamespaces) {
      struct stat ours{}, theirs{};
      if (::stat((std::string("/proc/self/ns/") + ns.name).c_str(), &ours) != 0) continue;  // not in this kernel
      if (::stat((init + ns.name).c_str(), &theirs) != 0) report_.fail_errno("look at the container's namespaces");
      if (ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev) flags |= ns.flag;
    }
    // Whatever that process is, it is not inside of a container.
    if ((flags & CLONE_NEWNS) == 0) report_.fail("the container has no mount namespace of its own");
    if (::setns(job_.init_pidfd, static_cast<int>(flags)) != 0) report_.fail_errno("join the container's namespaces");
    own_user_namespace_ = (flags & CLONE_NEWUSER) != 0;
    // Our ids of before mean nobody in there.
    if (own_user_namespace_ && (::setresgid(0, 0, 0) != 0 || ::setresuid(0, 0, 0) != 0))
      report_.fail_errno("become the container's root");
  }

  void join_keyring() {
    if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, job_.keyring.c_str()) < 0 && errno != ENOSYS)
      report_.fail_errno("join the container's session keyring");
  }

  /// From the container's own devpts, found without following a link, and the other end without a path at all.
  void make_terminal() {
    struct statfs fs{};
    struct stat st{};
    const sys::Fd directory = open_plainly("/dev/pts", O_PATH | O_DIRECTORY);
    if (!directory) report_.fail_errno("open /dev/pts");
    if (::fstatfs(directory.get(), &fs) != 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
      report_.fail("there is no terminal file system at /dev/pts");
    const sys::Fd master(::openat(directory.get(), "ptmx", O_RDWR | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC));
    if (!master) report_.fail_errno("open /dev/pts/ptmx");
    if (::fstat(master.get(), &st) != 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
      report_.fail("/dev/pts/ptmx is not a terminal multiplexer");
    int unlocked = 0;
    if (::ioctl(master.get(), TIOCSPTLCK, &unlocked) != 0) report_.fail_errno("unlock the terminal");
    const sys::Fd slave(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!slave) report_.fail_errno("open the terminal");
    winsize size{job_.size.rows, job_.size.columns, 0, 0};
    if (size.ws_row != 0 || size.ws_col != 0) (void)::ioctl(master.get(), TIOCSWINSZ, &size);
    report_.send_descriptor(NativeReport::kTerminal, {}, master.get());
    for (int fd = 0; fd < 3; ++fd) (void)::dup2(slave.get(), fd);
  }

  /// The container's own null device where a stream is not wanted: the host's could be changed through it. If that is
  /// not what stands there, something that is always at its end.
  void fill_streams() {
    for (int fd = 0; fd < 3; ++fd) {
      if (job_.streams[fd] >= 0) continue;
      struct stat st{};
      const sys::Fd null = open_plainly("/dev/null", O_PATH);
      sys::Fd file;
      if (null && ::fstat(null.get(), &st) == 0 && is_null_device(st))
        file = open_plainly("/dev/null", (fd == 0 ? O_RDONLY : O_WRONLY) | O_NONBLOCK);
      if (file && ::fstat(file.get(), &st) == 0 && is_null_device(st)) {
        (void)::fcntl(file.get(), F_SETFL, 0);
      } else {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) report_.fail_errno("pipe");
        const sys::Fd other(ends[fd == 0 ? 1 : 0]);
        file = sys::Fd(ends[fd == 0 ? 0 : 1]);
      }
      (void)::dup2(file.get(), fd);
    }
  }

  /// A program opens /dev/stdout again: it must belong to the user. Null devices are everybody's.
  void own_streams() {
    for (int fd = 0; fd < 3; ++fd) {
      struct stat st{};
      if (::fstat(fd, &st) != 0 || is_null_device(st) || st.st_uid == process_.uid) continue;
      // EINVAL, EPERM: ids without a mapping in the user namespace.
      if (::fchown(fd, process_.uid, static_cast<gid_t>(-1)) != 0 && errno != EINVAL && errno != EPERM &&
          errno != EROFS)
        report_.fail_errno("change the owner of a standard stream");
    }
  }

  void set_limits() {
    (void)::setrlimit(RLIMIT_NOFILE, &job_.open_files);
    for (const protocol::ResourceLimit& limit : process_.limits) {
      const rlimit value{limit.soft, limit.hard};
      if (::setrlimit(static_cast<__rlimit_resource_t>(limit.resource), &value) != 0)
        report_.fail_errno("error setting rlimit type " + std::to_string(limit.resource));
    }
  }

  /// Leaves what the process is to have, and CAP_SYS_ADMIN for the two things that are still to be done with it: a
  /// filter without no_new_privs, and a fork that RLIMIT_NPROC does not count.
  void drop_privileges() {
    const protocol::Capabilities& wanted = process_.capabilities;
    for (unsigned number = 0; number < 64; ++number)
      if ((wanted.bounding >> number & 1) == 0 && ::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0 && errno != EINVAL)
        report_.fail_errno("drop capabilities");
    (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (::prctl(PR_SET_KEEPCAPS, 1) != 0) report_.fail_errno("keep capabilities");
    const std::vector<gid_t> groups(process_.groups.begin(), process_.groups.end());
    // A user namespace may forbid it (/proc/<pid>/setgroups).
    if (::setgroups(groups.size(), groups.data()) != 0 && !(own_user_namespace_ && errno == EPERM))
      report_.fail_errno("setgroups");
    if (::setresgid(process_.gid, process_.gid, process_.gid) != 0) report_.fail_errno("setgid");
    if (::setresuid(process_.uid, process_.uid, process_.uid) != 0) report_.fail_errno("setuid");
    (void)::prctl(PR_SET_KEEPCAPS, 0);
    const std::uint64_t kept = wanted.permitted | kSysAdmin;
    if (!set_capabilities(kept, kept, wanted.inheritable)) report_.fail_errno("apply capabilities");
    if (process_.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
      report_.fail_errno("set no_new_privs");
  }

  /// A sibling, not a child: the shim reaps it.
  [[noreturn]] void start_second(NativeStart& start) {
    int pidfd = -1;
    clone_args how{};
    how.flags = CLONE_PARENT | CLONE_PIDFD;
    how.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
    const long pid = ::syscall(SYS_clone3, &how, sizeof how);
    if (pid < 0) report_.fail_errno("fork");
    if (pid == 0) start.run();
    const auto number = static_cast<std::uint32_t>(pid);
    report_.send_descriptor(NativeReport::kPid, {reinterpret_cast<const char*>(&number), sizeof number}, pidfd);
    ::_exit(0);
  }

  const NativeJob& job_;
  const protocol::NativeProcess& process_;
  NativeReporter report_;
  bool own_user_namespace_ = false;
};

}  // namespace

void run_native_child(const NativeJob& job) noexcept {
  try {
    Joiner(job).run();
  } catch (const std::exception& e) {
    NativeReporter(job.status).fail(e.what());  // no memory: the limits may be narrow
  }
}

}  // namespace gantry::shim
