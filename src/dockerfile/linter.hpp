#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/checks.hpp"

namespace gantry::dockerfile {

/// Collects the warnings that the options let through.
class Linter {
 public:
  explicit Linter(CheckOptions options) : options_(std::move(options)) {}

  /// Uses also the `# check=…` in the comments above the instruction that is being looked at.
  void at(const std::vector<std::string>& comments);
  void warn(std::string_view rule, LineRange lines, const std::string& message);

  /// More warnings than anybody reads: what a hostile file asks for is not worth the time.
  bool full() const noexcept { return warnings_.size() >= kMaxWarnings; }
  const CheckOptions& options() const noexcept { return options_; }
  /// In the order of lines.
  std::vector<Warning> take();

 private:
  static constexpr std::size_t kMaxWarnings = 1000;
  bool wants(const CheckRule& rule) const;

  CheckOptions options_;
  CheckOptions inline_;
  std::multimap<int, Warning> warnings_;  // by line
};

}  // namespace gantry::dockerfile
