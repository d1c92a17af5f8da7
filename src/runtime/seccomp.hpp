#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/host_facts.hpp"

namespace gantry::runtime {

/// Our default profile (packaging/seccomp/default.json), in the format of Docker's profiles.
std::string_view default_seccomp_profile();

/// Reads a profile in Docker's or OCI's format and evaluates it for one container: groups that do not fit the
/// capabilities, the architecture or the kernel are left out, and so are names that libseccomp does not know.
/// `capabilities` is the container's bounding set. Returns the OCI `linux.seccomp` object as JSON text.
/// Throws invalid_argument: "Decoding seccomp profile failed: …". `profile` may be of any size up to 1 MiB.
std::string render_seccomp(std::string_view profile, const std::vector<std::string>& capabilities,
                           const HostFacts& facts);

/// Checks a user's profile without keeping the result: for `create`.
void validate_seccomp_profile(std::string_view profile, const HostFacts& facts);

/// Remembers what render_seccomp gave, since containers mostly share a profile and a capability set. Any thread.
class SeccompCache {
 public:
  explicit SeccompCache(const HostFacts& facts) : facts_(facts) {}

  std::shared_ptr<const std::string> get_default(const std::vector<std::string>& capabilities);
  std::shared_ptr<const std::string> get(std::string_view profile, const std::vector<std::string>& capabilities);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const std::string> text;
  };
  static constexpr std::size_t kLimit = 32;

  const HostFacts& facts_;
  std::mutex mutex_;
  std::vector<Entry> entries_;  // most recently used first
};

}  // namespace gantry::runtime
