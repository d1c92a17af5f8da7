#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::image {

/// What a program image runs on, in Go's words: "linux", "arm64", "v8".
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // empty: the architecture's base
  std::string os_version;

  bool operator==(const Platform&) const = default;
};

/// "linux/arm64/v8"; parts that are empty are left out.
std::string render_platform(const Platform& platform);

/// Common spellings to Go's: x86_64 to amd64, aarch64 to arm64, armhf to arm/v7; arm without a variant to v7; amd64/v1
/// and arm64/v8 to no variant.
Platform normalize(Platform platform);

/// Reads "os[/arch[/variant]]" or "arch[/variant]"; what is missing is the host's. Throws invalid_argument.
Platform parse_platform(std::string_view text);

/// This machine.
Platform host_platform();

/// Chooses among the platforms of an index: what fits exactly first, then older variants, then architectures that the
/// wanted one also runs (arm64: 32-bit arm; amd64: 386).
class PlatformMatcher {
 public:
  /// This machine, with everything its processor can run: an amd64/v3 image is preferred on an x86-64-v3 processor.
  static PlatformMatcher host();
  static PlatformMatcher only(Platform wanted);

  /// 0 is best; nullopt: does not fit. A candidate without architecture and OS never fits.
  std::optional<int> rank(const Platform& candidate) const;
  bool matches(const Platform& candidate) const { return rank(candidate).has_value(); }
  /// As error texts name it.
  const std::string& text() const { return text_; }

 private:
  PlatformMatcher(std::string text, std::vector<Platform> order) : text_(std::move(text)), order_(std::move(order)) {}
  std::string text_;
  std::vector<Platform> order_;
};

}  // namespace gantry::image
