#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "solver/operation.hpp"
#include "storage/hash.hpp"

namespace gantry::solver {

/// Makes a cache key of parts: "sha256:…". Each part goes in with its length, so that no two lists make the same key.
class KeyHash {
 public:
  KeyHash& add(std::string_view part);
  KeyHash& add(std::uint64_t number) { return add(std::to_string(number)); }
  KeyHash& add(const std::vector<std::string>& parts);
  std::string key() { return hash_.digest(); }

 private:
  storage::Sha256 hash_;
};

/// What tells one selector from another, in a few bytes.
std::string selector_key(const Selector& selector);

}  // namespace gantry::solver
