#include "buildops/mode_change.hpp"

#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::buildops {
namespace {

constexpr mode_t kAll = 07777;
constexpr mode_t kUser = 04700;
constexpr mode_t kGroup = 02070;
constexpr mode_t kOther = 00007;
constexpr mode_t kSticky = 01000;
constexpr std::size_t kLongest = 1024;

std::optional<mode_t> parse_octal(std::string_view text) {
  if (text.empty() || text.size() > 5) return std::nullopt;
  mode_t mode = 0;
  for (const char c : text) {
    if (c < '0' || c > '7') return std::nullopt;
    mode = mode * 8 + static_cast<mode_t>(c - '0');
  }
  if (mode > kAll) return std::nullopt;
  return mode;
}

/// The permission that one letter names, for user, group and others at once.
std::optional<mode_t> permission(char letter) {
  switch (letter) {
    case 'r': return 0444;
    case 'w': return 0222;
    case 'x': return 0111;
    case 's': return 06000;
    case 't': return kSticky;
    default: return std::nullopt;
  }
}

/// The three bits that `mode` gives to `who`, for user, group and others at once.
mode_t spread(mode_t mode, char who) {
  const mode_t bits = (mode >> (who == 'u' ? 6 : who == 'g' ? 3 : 0)) & 7;
  return static_cast<mode_t>(bits << 6 | bits << 3 | bits);
}

}  // namespace

ModeChange ModeChange::bits(mode_t mode) {
  ModeChange change;
  change.bits_ = mode & kAll;
  return change;
}

ModeChange ModeChange::parse(std::string_view text) {
  ModeChange change;
  if ((change.bits_ = parse_octal(text))) return change;
  if (auto clauses = parse_clauses(text)) change.clauses_ = std::move(*clauses);
  if (change.clauses_.empty())
    throw Error(Errc::invalid_argument,
                fmt::format("invalid chmod parameter: '{}'. it should be octal string and between 0 and 07777", text));
  return change;
}

std::optional<std::vector<ModeChange::Clause>> ModeChange::parse_clauses(std::string_view text) {
  if (text.empty() || text.size() > kLongest) return std::nullopt;
  std::vector<Clause> clauses;
  for (const std::string& part : split(text, ',')) {
    std::string_view rest = part;
    mode_t who = 0;
    for (; !rest.empty(); rest.remove_prefix(1)) {
      if (rest[0] == 'u') who |= kUser;
      else if (rest[0] == 'g') who |= kGroup;
      else if (rest[0] == 'o') who |= kOther;
      else if (rest[0] == 'a') who |= kAll;
      else break;
    }
    if (who == 0) who = kAll;
    who |= kSticky;  // it belongs to nobody in particular
    if (rest.empty()) return std::nullopt;
    while (!rest.empty()) {
      Clause clause;
      clause.who = who;
      clause.operation = rest[0];
      if (rest[0] != '+' && rest[0] != '-' && rest[0] != '=') return std::nullopt;
      rest.remove_prefix(1);
      for (; !rest.empty() && rest[0] != '+' && rest[0] != '-' && rest[0] != '='; rest.remove_prefix(1)) {
        const bool copies = rest[0] == 'u' || rest[0] == 'g' || rest[0] == 'o';
        if (copies && clause.copy_from == 0 && clause.permissions == 0 && !clause.conditional_execute) {
          clause.copy_from = rest[0];
        } else if (const auto bits = permission(rest[0]); bits && clause.copy_from == 0) {
          clause.permissions |= *bits;
        } else if (rest[0] == 'X' && clause.copy_from == 0) {
          clause.conditional_execute = true;
        } else {
          return std::nullopt;
        }
      }
      clauses.push_back(clause);
    }
  }
  return clauses;
}

mode_t ModeChange::apply(mode_t mode) const {
  if (bits_) return *bits_;
  mode_t now = mode & kAll;
  const bool directory = S_ISDIR(mode);
  for (const Clause& clause : clauses_) {
    mode_t bits = clause.permissions;
    if (clause.copy_from != 0) bits = spread(now, clause.copy_from);
    if (clause.conditional_execute && (directory || (now & 0111) != 0)) bits |= 0111;
    bits &= clause.who;
    if (clause.operation == '+') {
      now |= bits;
    } else if (clause.operation == '-') {
      now &= ~bits;
    } else {
      // chmod(1) leaves a directory's set-id bits alone unless they are named, and the sticky bit unless all are meant.
      mode_t cleared = clause.who & ~kSticky;
      if ((clause.who & kAll) == kAll) cleared |= kSticky;
      if (directory) cleared &= ~mode_t{06000};
      now = (now & ~cleared) | bits;
    }
  }
  return now;
}

}  // namespace gantry::buildops
