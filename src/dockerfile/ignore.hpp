#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "dockerfile/path_pattern.hpp"

/// `.dockerignore` and the same patterns in `COPY --exclude`. Facts: moby/patternmatcher.
namespace gantry::dockerfile {

inline constexpr std::size_t kMaxIgnoreFileSize = 1024 * 1024;
inline constexpr std::size_t kMaxIgnorePatterns = 20000;

/// The patterns of a file: comments (`#` in the first column) and blank lines dropped, blanks around trimmed, paths
/// cleaned, a leading `/` removed, `!` kept. Throws Error(invalid_argument) for a file or line that is too large.
std::vector<std::string> parse_ignore_file(std::string_view text);

/// Patterns made ready for many paths. The last pattern that matches a path or one of its parents decides; `!` takes it
/// back in. Thread-compatible: const members may be used at the same time.
class IgnoreMatcher {
 public:
  IgnoreMatcher() = default;
  /// Throws Error(invalid_argument): `illegal exclusion pattern: "!"`, `syntax error in pattern`.
  explicit IgnoreMatcher(const std::vector<std::string>& patterns);

  /// `path` is relative and clean: `a/b`. Time: the number of patterns times the path's depth.
  bool excludes(std::string_view path) const;

  /// For walks: what is known about a directory, so that its entries need not look at their parents again.
  struct Verdict {
    int last = -1;  // the pattern that decides; -1: none matches
  };
  /// `parent` is the verdict of the directory that holds `path` (the default for the root's entries).
  Verdict judge(std::string_view path, Verdict parent) const;
  bool excluded(Verdict verdict) const noexcept {
    return verdict.last >= 0 && !patterns_[static_cast<std::size_t>(verdict.last)].negated;
  }
  /// Can a `!` pattern take something below this excluded directory back in? If not, a walk may skip it.
  bool may_include_below(std::string_view directory, Verdict verdict) const;

  bool empty() const noexcept { return patterns_.empty(); }
  bool has_negations() const noexcept { return has_negations_; }
  /// A pattern that excludes every entry of the root: `*`, `**` or `**/*`.
  bool excludes_root() const;

 private:
  struct Pattern {
    std::string text;  // cleaned, without `!`
    PathPattern compiled;
    bool negated = false;
  };
  int last_match(std::string_view path, int above) const;

  std::vector<Pattern> patterns_;
  bool has_negations_ = false;
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  // Patterns without wildcards, and `**/name`, are looked up; the others are tried one by one, the last first.
  std::unordered_map<std::string, int, Hash, std::equal_to<>> exact_;
  std::unordered_map<std::string, int, Hash, std::equal_to<>> any_depth_name_;
  std::vector<int> others_;
};

/// What the classic builder's client adds to the patterns, so that the daemon gets what it needs: `!.dockerignore` and
/// `!<dockerfile>`. The daemon removes both from the context again if the patterns of the file itself exclude them.
std::vector<std::string> with_build_files(std::vector<std::string> patterns, std::string_view dockerfile);

}  // namespace gantry::dockerfile
