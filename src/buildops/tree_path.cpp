#include "buildops/tree_path.hpp"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "storage/tree.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {
namespace {

constexpr int kMostLinks = 255;

bool means_missing(const Error& e) {
  return e.sys_errno() == ENOENT || e.sys_errno() == ENOTDIR || e.sys_errno() == ELOOP || e.sys_errno() == ENAMETOOLONG;
}

/// The target of the symbolic link at `path`; empty if it is none or does not exist.
std::string link_at(int root, const std::string& path) {
  const auto [directory, base] = split_last(path);
  try {
    const sys::Fd parent = open_directory(root, directory);
    const auto st = storage::find_stat(parent.get(), base.c_str());
    if (st && S_ISLNK(st->st_mode)) return storage::read_link(parent.get(), base.c_str());
  } catch (const Error& e) {
    if (!means_missing(e)) throw;
  }
  return {};
}

/// Decodes one UTF-8 character; a byte that is none counts as a character of its own, as in Go.
std::size_t character_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  std::size_t length = 1;
  if (first >= 0xf0 && first < 0xf8) length = 4;
  else if (first >= 0xe0) length = 3;
  else if (first >= 0xc2) length = 2;
  if (length > text.size() || first < 0xc2) return 1;
  for (std::size_t i = 1; i < length; ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 1;
  return length;
}

/// One character of a class or a literal, "\" taken off. nullopt: the pattern is malformed.
std::optional<std::string_view> take_character(std::string_view& pattern, bool in_class) {
  if (pattern.empty() || (in_class && (pattern[0] == '-' || pattern[0] == ']'))) return std::nullopt;
  if (pattern[0] == '\\') {
    pattern.remove_prefix(1);
    if (pattern.empty()) return std::nullopt;
  }
  const std::size_t length = character_length(pattern);
  const std::string_view c = pattern.substr(0, length);
  pattern.remove_prefix(length);
  return c;
}

/// The order of characters is the order of their UTF-8 bytes.
std::optional<bool> match_class(std::string_view& pattern, std::string_view c) {
  pattern.remove_prefix(1);
  const bool negated = !pattern.empty() && pattern[0] == '^';
  if (negated) pattern.remove_prefix(1);
  bool found = false;
  for (int ranges = 0;; ++ranges) {
    if (!pattern.empty() && pattern[0] == ']' && ranges > 0) break;
    const auto low = take_character(pattern, true);
    if (!low) return std::nullopt;
    auto high = low;
    if (!pattern.empty() && pattern[0] == '-') {
      pattern.remove_prefix(1);
      high = take_character(pattern, true);
      if (!high) return std::nullopt;
    }
    found = found || (*low <= c && c <= *high);
  }
  pattern.remove_prefix(1);
  return found != negated;
}

/// Matches what comes before the next `*` at the beginning of `name`; the rest of both remain. nullopt: malformed.
std::optional<bool> match_piece(std::string_view& pattern, std::string_view& name) {
  bool failed = false;
  while (!pattern.empty() && pattern[0] != '*') {
    // A malformed rest is to be noticed also where the match has failed already.
    std::string_view c = name.empty() ? std::string_view() : name.substr(0, character_length(name));
    if (pattern[0] == '[') {
      const auto in_class = match_class(pattern, c);
      if (!in_class) return std::nullopt;
      failed = failed || c.empty() || !*in_class;
    } else if (pattern[0] == '?') {
      pattern.remove_prefix(1);
      failed = failed || c.empty() || c == "/";
    } else {
      const auto literal = take_character(pattern, false);
      if (!literal) return std::nullopt;
      failed = failed || *literal != c;
    }
    name.remove_prefix(c.size());
  }
  return !failed;
}

struct Walk {
  std::string_view pattern;
  std::string base;  // of the walk, from the root
  std::vector<std::string> found;
  std::size_t deepest = 0;  // a `*` never matches "/": deeper paths cannot match

  void descend(int directory, const std::string& below) {
    const std::size_t depth = static_cast<std::size_t>(std::ranges::count(below, '/')) + (below.empty() ? 0 : 1);
    for (const std::string& name : storage::list_names(directory)) {
      const std::string path = join_path(below, name);
      if (match_glob(pattern, path)) {
        found.push_back(join_path(base, path));
        continue;
      }
      if (depth >= deepest) continue;
      const auto st = storage::find_stat(directory, name.c_str());
      if (st && S_ISDIR(st->st_mode)) descend(storage::open_subdirectory(directory, name.c_str()).get(), path);
    }
  }
};

}  // namespace

std::string absolute_path(std::string_view path) { return "/" + storage::clamp_relative(path); }

std::string resolve_path(int root, std::string_view path, bool follow_last) {
  std::deque<std::string> pending;
  for (std::string& part : split(path, '/')) pending.push_back(std::move(part));
  while (!pending.empty() && (pending.back().empty() || pending.back() == ".")) pending.pop_back();
  std::string done;
  for (int links = 0; !pending.empty();) {
    const std::string part = std::move(pending.front());
    pending.pop_front();
    const std::string next = storage::clamp_relative(done + "/" + part);
    if (part.empty() || part == "." || part == ".." || next.empty()) {
      done = next;
      continue;
    }
    const bool last = pending.empty() && !follow_last;
    const std::string target = last ? std::string() : link_at(root, next);
    if (target.empty()) {
      done = next;
      continue;
    }
    if (++links > kMostLinks)
      throw Error(Errc::invalid_argument, fmt::format("too many links: {}", absolute_path(path)));
    if (target.starts_with('/')) done.clear();
    const std::vector<std::string> parts = split(target, '/');
    pending.insert(pending.begin(), parts.begin(), parts.end());
  }
  return done;
}

sys::Fd open_directory(int root, const std::string& path) {
  return sys::open_beneath(root, path.empty() ? "." : path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

std::pair<std::string, std::string> split_last(const std::string& path) { return storage::split_path(path); }

std::string join_path(std::string_view directory, std::string_view name) {
  if (directory.empty() || name.empty()) return fmt::format("{}{}", directory, name);
  return fmt::format("{}/{}", directory, name);
}

bool has_wildcards(std::string_view path) {
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\') ++i;
    else if (path[i] == '*' || path[i] == '?' || path[i] == '[') return true;
  }
  return false;
}

bool match_glob(std::string_view pattern, std::string_view name) {
  // `star` is where the last run of `*` may still take one character more.
  std::string_view star_pattern;
  std::string_view star_name;
  bool has_star = false;
  for (;;) {
    std::string_view piece_pattern = pattern;
    std::string_view piece_name = name;
    const auto matched = match_piece(piece_pattern, piece_name);
    if (!matched) return false;
    const bool ended = piece_pattern.empty();
    if (*matched && (!ended || piece_name.empty())) {
      if (ended) return true;
      while (!piece_pattern.empty() && piece_pattern[0] == '*') piece_pattern.remove_prefix(1);
      has_star = true;
      pattern = star_pattern = piece_pattern;
      name = star_name = piece_name;
      if (pattern.empty()) return name.find('/') == std::string_view::npos;
      continue;
    }
    if (!has_star || star_name.empty() || star_name[0] == '/') return false;
    star_name.remove_prefix(character_length(star_name));
    pattern = star_pattern;
    name = star_name;
  }
}

std::vector<std::string> expand_wildcards(int root, std::string_view pattern, bool follow) {
  const std::string clean = storage::clamp_relative(pattern);
  std::string fixed;
  std::string rest;
  for (const std::string& part : split(clean, '/')) {
    std::string& side = rest.empty() && !has_wildcards(part) ? fixed : rest;
    side = join_path(side, part);
  }
  if (rest.empty()) return {clean};
  Walk walk;
  walk.pattern = rest;
  walk.deepest = static_cast<std::size_t>(std::ranges::count(rest, '/'));
  walk.base = resolve_path(root, fixed, follow);
  try {
    const sys::Fd directory = open_directory(root, walk.base);
    walk.descend(directory.get(), "");
  } catch (const Error& e) {
    if (!walk.found.empty() || !means_missing(e)) throw;
  }
  return std::move(walk.found);
}

}  // namespace gantry::buildops
