#include "dockerfile/ignore.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/utf8.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::size_t kMaxIgnoreLine = 65535;

[[noreturn]] void refuse(const std::string& message) { throw Error(Errc::invalid_argument, message); }

std::string_view base_name(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

std::vector<std::string> parse_ignore_file(std::string_view text) {
  if (text.size() > kMaxIgnoreFileSize) refuse(".dockerignore is too large");
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::vector<std::string> patterns;
  while (!text.empty()) {
    const auto [line, rest] = split_once(text, '\n');
    text = rest;
    if (line.size() > kMaxIgnoreLine) refuse("error reading .dockerignore: bufio.Scanner: token too long");
    if (line.starts_with('#')) continue;
    std::string_view pattern = trim_space(line);
    if (pattern.empty()) continue;
    const bool negated = pattern.starts_with('!');
    if (negated) pattern = trim_space(pattern.substr(1));
    std::string cleaned;
    if (!pattern.empty()) cleaned = clean_path(pattern);
    if (cleaned.size() > 1 && cleaned.front() == '/') cleaned.erase(0, 1);
    patterns.push_back((negated ? "!" : "") + cleaned);
  }
  return patterns;
}

IgnoreMatcher::IgnoreMatcher(const std::vector<std::string>& patterns) {
  if (patterns.size() > kMaxIgnorePatterns) refuse("too many patterns in .dockerignore");
  for (const std::string& written : patterns) {
    const std::string_view trimmed = trim_space(written);
    if (trimmed.empty()) continue;
    std::string text = clean_path(trimmed);
    Pattern pattern;
    pattern.negated = text.starts_with('!');
    if (pattern.negated) {
      if (text.size() == 1) refuse("illegal exclusion pattern: \"!\"");
      text.erase(0, 1);
      has_negations_ = true;
    }
    pattern.compiled = PathPattern(text);
    pattern.text = std::move(text);
    const int index = static_cast<int>(patterns_.size());
    const std::string& suffix = pattern.compiled.literal_suffix();
    const bool any_depth_name =
        pattern.compiled.kind() == PathPattern::Kind::suffix && suffix.size() > 1 && suffix.rfind('/') == 0;
    if (pattern.compiled.kind() == PathPattern::Kind::exact) {
      exact_[pattern.text] = index;
    } else if (any_depth_name) {
      any_depth_name_[suffix.substr(1)] = index;
    } else {
      others_.push_back(index);
    }
    patterns_.push_back(std::move(pattern));
  }
  std::reverse(others_.begin(), others_.end());
}

/// The last pattern behind `above` that matches the path itself, or `above`.
int IgnoreMatcher::last_match(std::string_view path, int above) const {
  int last = above;
  if (const auto at = exact_.find(path); at != exact_.end()) last = std::max(last, at->second);
  if (const auto at = any_depth_name_.find(base_name(path)); at != any_depth_name_.end())
    last = std::max(last, at->second);
  for (const int index : others_) {
    if (index <= last) break;
    if (patterns_[static_cast<std::size_t>(index)].compiled.matches(path)) return index;
  }
  return last;
}

bool IgnoreMatcher::excludes(std::string_view path) const {
  if (patterns_.empty()) return false;
  Verdict verdict;
  for (std::size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1))
    verdict.last = last_match(path.substr(0, slash), verdict.last);
  verdict.last = last_match(path, verdict.last);
  return excluded(verdict);
}

IgnoreMatcher::Verdict IgnoreMatcher::judge(std::string_view path, Verdict parent) const {
  return {last_match(path, parent.last)};
}

bool IgnoreMatcher::may_include_below(std::string_view directory, Verdict verdict) const {
  if (!has_negations_) return false;
  const std::string below = std::string(directory) + "/";
  for (std::size_t i = static_cast<std::size_t>(verdict.last + 1); i < patterns_.size(); ++i) {
    if (!patterns_[i].negated) continue;
    const std::string& prefix = patterns_[i].compiled.literal_prefix();
    // What it matches begins with `prefix`: it must be possible to be below the directory.
    if (prefix.starts_with(below) || std::string_view(below).starts_with(prefix)) return true;
  }
  return false;
}

bool IgnoreMatcher::excludes_root() const {
  return std::any_of(patterns_.begin(), patterns_.end(), [](const Pattern& pattern) {
    return !pattern.negated && (pattern.text == "*" || pattern.text == "**" || pattern.text == "**/*");
  });
}

std::vector<std::string> with_build_files(std::vector<std::string> patterns, std::string_view dockerfile) {
  if (patterns.empty()) return patterns;
  const IgnoreMatcher matcher(patterns);
  if (matcher.excludes(".dockerignore")) patterns.emplace_back("!.dockerignore");
  const std::string path = clean_path(dockerfile);
  if (matcher.excludes(path)) patterns.push_back("!" + path);
  return patterns;
}

}  // namespace gantry::dockerfile
