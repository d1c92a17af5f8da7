#include "engine/detach_keys.hpp"

#include <optional>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::engine {
namespace {

/// Does not return what stands for no key.
std::optional<char> key_code(std::string_view key) {
  if (key.size() == 1) return key.front();
  if (key == "DEL") return '\x7f';
  if (key.size() != 6 || !equals_ignoring_case(key.substr(0, 5), "ctrl-")) return std::nullopt;
  const char last = key[5] >= 'A' && key[5] <= 'Z' ? static_cast<char>(key[5] - 'A' + 'a') : key[5];
  if (last >= 'a' && last <= 'z') return static_cast<char>(last - 'a' + 1);
  switch (last) {
    case '@': return '\0';
    case '[': return '\x1b';
    case '\\': return '\x1c';
    case ']': return '\x1d';
    case '^': return '\x1e';
    case '_': return '\x1f';
    default: return std::nullopt;
  }
}

}  // namespace

std::string parse_detach_keys(std::string_view text) {
  if (text.empty()) return "\x10\x11";
  std::string keys;
  for (const std::string& part : split(text, ',')) {
    const auto code = key_code(part);
    if (!code) throw Error(Errc::invalid_argument, "Invalid detach keys (" + std::string(text) + ") provided");
    keys.push_back(*code);
  }
  return keys;
}

DetachScanner::Result DetachScanner::feed(std::string_view typed) {
  Result result;
  if (keys_.empty()) {
    result.forward = typed;
    return result;
  }
  for (const char c : typed) {
    // What is held back is always a beginning of the sequence; find the longest one that goes on with this byte.
    std::size_t keep = matched_;
    while (keep > 0 && keys_[keep] != c) {
      std::size_t shorter = keep - 1;
      while (shorter > 0 && keys_.compare(0, shorter, keys_, matched_ - shorter, shorter) != 0) --shorter;
      keep = shorter;
    }
    const bool goes_on = keys_[keep] == c;
    result.forward.append(keys_, 0, matched_ - keep);
    matched_ = keep;
    if (!goes_on) {
      result.forward.push_back(c);
      continue;
    }
    if (++matched_ == keys_.size()) {
      matched_ = 0;
      result.detached = true;
      return result;
    }
  }
  return result;
}

}  // namespace gantry::engine
