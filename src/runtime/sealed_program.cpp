#include "runtime/sealed_program.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::runtime {
namespace {

// Of kernels newer than the headers that we are built with.
constexpr unsigned kMemfdExec = 0x10;  // MFD_EXEC, Linux 6.3
constexpr int kSealExec = 0x20;        // F_SEAL_EXEC: the execute bits stay what they are

sys::Fd make_memory_file() {
  constexpr const char* kName = "gantry-shim";
  sys::Fd file(::memfd_create(kName, MFD_CLOEXEC | MFD_ALLOW_SEALING | kMemfdExec));
  if (!file && errno == EINVAL) file = sys::Fd(::memfd_create(kName, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file) return file;
  const int number = errno;
  if (number == EACCES)
    throw Error(Errc::not_implemented,
                "sysctl vm.memfd_noexec=2 forbids programs in memory, which protect the host's own from containers: "
                "set it to 1 or 0");
  throw Error::from_errno(number, "memfd_create");
}

void copy_all(int from, int to, const sys::Path& program) {
  for (;;) {
    const ssize_t copied = ::sendfile(to, from, nullptr, 1 << 20);
    if (copied == 0) return;
    if (copied < 0 && errno != EINTR) throw Error::from_errno(errno, fmt::format("copy {}", program.string()));
  }
}

sys::Fd make_copy(const sys::Path& program) {
  const sys::Fd source = sys::open_file(program, O_RDONLY);
  const sys::Fd file = make_memory_file();
  copy_all(source.get(), file.get(), program);
  if (::fchmod(file.get(), 0555) != 0) throw Error::from_errno(errno, "fchmod");
  constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if (::fcntl(file.get(), F_ADD_SEALS, kSeals | kSealExec) != 0 && ::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0)
    throw Error::from_errno(errno, "seal the copy of " + program.string());
  // A file that is open for writing cannot be executed.
  return sys::open_file(fmt::format("/proc/self/fd/{}", file.get()), O_RDONLY);
}

/// The directory of the program as a read-only mount of nobody's. Empty if the kernel or its rules do not allow it.
sys::Fd read_only_view(const sys::Path& directory) {
  sys::Fd mount(::open_tree(AT_FDCWD, directory.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!mount) return mount;
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (::mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) mount.reset();
  return mount;
}

}  // namespace

SealedPrograms::Sealed SealedPrograms::seal(const sys::Path& program) {
  Sealed sealed;
  const sys::Path absolute = std::filesystem::absolute(program);
  sealed.mount = read_only_view(absolute.parent_path());
  if (sealed.mount)
    sealed.file = sys::Fd(::openat(sealed.mount.get(), absolute.filename().c_str(), O_PATH | O_CLOEXEC));
  if (!sealed.file) sealed = {sys::Fd(), make_copy(program)};
  return sealed;
}

std::string SealedPrograms::path_of(const sys::Path& program) {
  const std::lock_guard lock(mutex_);
  Sealed& sealed = programs_[program.string()];
  if (!sealed.file) sealed = seal(program);
  // Not /proc/self: the child that executes it has closed its own descriptors by then.
  return fmt::format("/proc/{}/fd/{}", ::getpid(), sealed.file.get());
}

void SealedPrograms::forget(const sys::Path& program) {
  const std::lock_guard lock(mutex_);
  programs_.erase(program.string());
}

}  // namespace gantry::runtime
