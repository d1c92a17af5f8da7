#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::runtime {

/// A filter as the kernel takes it.
struct SeccompProgram {
  std::string code;         // struct sock_filter[]
  std::uint32_t flags = 0;  // SECCOMP_FILTER_FLAG_*
};

/// Compiles an OCI `linux.seccomp` object (render_seccomp's text) as runc does, so that an exec is confined like its
/// container: a call newer than everything that the profile knows gives ENOSYS, unless the default action lets it pass.
/// Null if only the runtime can apply it: SCMP_ACT_NOTIFY, or something that we do not know.
/// Takes about 15 ms. Throws corrupted for what is not such an object.
std::shared_ptr<const SeccompProgram> compile_seccomp(std::string_view profile);

/// How the processes of a container are confined beside their capabilities, as its config.json says.
struct Confinement {
  std::shared_ptr<const SeccompProgram> filter;  // null: none
  std::string apparmor_profile;
  std::string selinux_label;
};

/// Reads it and keeps the compiled filters, since containers mostly share one. Any thread.
class ConfinementReader {
 public:
  /// Null if only the runtime can confine a process in the same way, also when the file is not there. Blocks.
  std::shared_ptr<const Confinement> read_blocking(const std::string& config_json_path);

 private:
  std::shared_ptr<const SeccompProgram> compiled(std::string text);

  struct Entry {
    std::string text;
    std::shared_ptr<const SeccompProgram> program;
  };
  static constexpr std::size_t kLimit = 16;

  std::mutex mutex_;
  std::vector<Entry> entries_;  // most recently used first
};

}  // namespace gantry::runtime
