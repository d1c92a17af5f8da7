#include "shim/native_start.hpp"

#include <cerrno>
#include <cstring>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.hpp"

namespace gantry::shim {
namespace {

using protocol::FailureKind;

FailureKind kind_of(int number) {
  switch (number) {
    case ENOENT: return FailureKind::no_such_file;
    case ENOTDIR: return FailureKind::not_directory;
    case EISDIR: return FailureKind::is_directory;
    case EACCES:
    case EPERM: return FailureKind::permission_denied;
    default: return FailureKind::other;
  }
}

/// 0, or why it is not a program. Any execute bit counts, as in runc: the kernel decides in the end.
int check_program(const std::string& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) return errno;
  if (S_ISDIR(st.st_mode)) return EISDIR;
  return (st.st_mode & 0111) != 0 ? 0 : EACCES;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

void NativeStart::try_directory() { directory_error_ = ::chdir(process_.directory.c_str()) == 0 ? 0 : errno; }

void NativeStart::run() {
  become_session();
  // Without no_new_privs only a privileged process may load one, so it comes before the capabilities go.
  if (!process_.no_new_privileges) load_filter();
  give_up_capabilities();
  require_directory();
  const std::string program = find_program();
  if (process_.no_new_privileges) load_filter();
  execute(program);
}

void NativeStart::become_session() {
  if (::setsid() < 0) report_.fail_errno("setsid");
  if (job_.tty && ::ioctl(0, TIOCSCTTY, 0) != 0) report_.fail_errno("make it the controlling terminal");
}

void NativeStart::load_filter() {
  if (process_.filter.empty()) return;
  std::vector<sock_filter> code(process_.filter.size() / sizeof(sock_filter));
  std::memcpy(code.data(), process_.filter.data(), code.size() * sizeof(sock_filter));
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, process_.filter_flags, &program) != 0)
    report_.fail_errno("load the seccomp filter");
}

void NativeStart::give_up_capabilities() {
  const protocol::Capabilities& wanted = process_.capabilities;
  if (!set_capabilities(wanted.permitted, wanted.effective, wanted.inheritable))
    report_.fail_errno("apply capabilities");
  for (unsigned number = 0; number < 64; ++number)
    if ((wanted.ambient >> number & 1) != 0 && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0)
      report_.fail_errno("raise ambient capabilities");
}

void NativeStart::require_directory() {
  // Again with what the process itself may and sees: the user's rights, and /proc/self of this pid namespace.
  if (directory_error_ != 0 && ::chdir(process_.directory.c_str()) != 0) {
    const int number = directory_error_ == EACCES || directory_error_ == EPERM ? errno : directory_error_;
    report_.fail(kind_of(number), {},
                 "chdir to cwd (" + quote(process_.directory) + ") set in config.json failed: " + errno_text(number));
  }
  // "(unreachable)/…" is what the kernel says of a directory that is not below our root (CVE-2024-21626).
  char path[4096];
  if (::syscall(SYS_getcwd, path, sizeof path) < 0 || path[0] != '/')
    report_.fail("current working directory is outside of container mount namespace root");
}

std::string NativeStart::find_program() {
  const std::string& name = process_.args.front();
  if (name.find('/') == std::string::npos) return find_in_path(name);
  if (const int number = check_program(name); number != 0) not_executable(name, number);
  return name;
}

std::string NativeStart::find_in_path(const std::string& name) {
  std::string_view path;
  for (const std::string& entry : process_.env)
    if (entry.starts_with("PATH=")) path = std::string_view(entry).substr(5);
  bool more = !path.empty() && !name.empty();
  while (more) {
    const std::size_t end = path.find(':');
    std::string directory(path.substr(0, end));
    more = end != std::string_view::npos;
    if (more) path.remove_prefix(end + 1);
    const bool absolute = directory.starts_with('/');
    if (directory.empty()) directory = ".";
    if (!directory.ends_with('/')) directory += '/';
    directory += name;
    if (check_program(directory) != 0) continue;
    if (absolute) return directory;
    report_.fail("exec: " + quote(name) + ": cannot run executable found relative to current directory");
  }
  report_.fail(FailureKind::executable_not_found, name,
               "exec: " + quote(name) + ": executable file not found in $PATH");
}

void NativeStart::not_executable(const std::string& path, int number) {
  const bool from_stat = number != EACCES && number != EISDIR;
  report_.fail(
      kind_of(number), path,
      "exec: " + quote(path) + ": " + (from_stat ? "stat " + path + ": " : std::string()) + errno_text(number));
}

void NativeStart::execute(const std::string& path) {
  const std::vector<char*> argv = pointers(process_.args);
  const std::vector<char*> envp = pointers(process_.env);
  ::execve(path.c_str(), argv.data(), envp.data());
  const int number = errno;
  report_.fail(kind_of(number), path, "exec " + path + ": " + errno_text(number));
}

}  // namespace gantry::shim
