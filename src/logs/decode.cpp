#include <cstring>

#include "logs/format.hpp"

namespace gantry::logs {
namespace {

/// Reads one JSON object of our own kind from left to right. No recursion beyond skipping a nested value.
class LineParser {
 public:
  LineParser(std::string_view line, std::string& scratch)
      : at_(line.data()), end_(at_ + line.size()), scratch_(scratch) {}

  /// One text, whose opening quote is already taken.
  bool parse_text(std::string_view& out) { return string_rest(out); }

  bool parse(Entry& entry) {
    bool have_time = false;
    entry = Entry{};
    if (!take('{')) return false;
    for (;;) {
      std::string_view key;
      if (!plain_string(key) || !take(':')) return false;
      if (key == "log") {
        if (!text_string(entry.text)) return false;
      } else if (key == "stream") {
        std::string_view name;
        if (!plain_string(name)) return false;
        entry.stream = name == "stderr" ? Stream::err : Stream::out;
      } else if (key == "time") {
        if (!plain_string(entry.time)) return false;
        have_time = true;
      } else {
        std::string_view value;
        if (!skip_value(value)) return false;
        if (key == "attrs") entry.attrs = value;
      }
      if (take('}')) break;
      if (!take(',')) return false;
    }
    spaces();
    return at_ == end_ && have_time;
  }

 private:
  void spaces() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  bool take(char c) {
    spaces();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  /// A string whose escapes do not matter to us: its bytes as written.
  bool plain_string(std::string_view& out) {
    if (!take('"')) return false;
    const char* const start = at_;
    while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' && end_ - at_ > 1 ? 2 : 1;
    if (at_ >= end_) return false;
    out = {start, static_cast<std::size_t>(at_ - start)};
    ++at_;
    return true;
  }

  /// The log text, unescaped into scratch_.
  bool text_string(std::string_view& out) { return take('"') && string_rest(out); }

  /// As text_string, behind the opening quote.
  bool string_rest(std::string_view& out) {
    scratch_.resize(static_cast<std::size_t>(end_ - at_));
    char* to = scratch_.data();
    for (;;) {
      const auto left = static_cast<std::size_t>(end_ - at_);
      const auto* quote = static_cast<const char*>(std::memchr(at_, '"', left));
      if (quote == nullptr) return false;
      const auto plain = static_cast<std::size_t>(quote - at_);
      const auto* escape = static_cast<const char*>(std::memchr(at_, '\\', plain));
      const char* const stop = escape != nullptr ? escape : quote;
      std::memcpy(to, at_, static_cast<std::size_t>(stop - at_));
      to += stop - at_;
      at_ = stop + 1;
      if (escape == nullptr) break;
      if (!unescape_one(to)) return false;
    }
    out = {scratch_.data(), static_cast<std::size_t>(to - scratch_.data())};
    return true;
  }

  bool unescape_one(char*& to) {
    if (at_ == end_) return false;
    switch (*at_++) {
      case 'n': *to++ = '\n'; return true;
      case 'r': *to++ = '\r'; return true;
      case 't': *to++ = '\t'; return true;
      case 'b': *to++ = '\b'; return true;
      case 'f': *to++ = '\f'; return true;
      case '"': *to++ = '"'; return true;
      case '\\': *to++ = '\\'; return true;
      case '/': *to++ = '/'; return true;
      case 'u': break;
      default: return false;
    }
    unsigned code = 0;
    if (!four_digits(code)) return false;
    if (code >= 0xd800 && code < 0xdc00 && end_ - at_ >= 6 && at_[0] == '\\' && at_[1] == 'u') {
      const char* const back = at_;
      at_ += 2;
      unsigned low = 0;
      if (!four_digits(low)) return false;
      if (low >= 0xdc00 && low < 0xe000) code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      else at_ = back;
    }
    if (code >= 0xd800 && code < 0xe000) code = 0xfffd;
    put_utf8(to, code);
    return true;
  }

  bool four_digits(unsigned& code) {
    if (end_ - at_ < 4) return false;
    code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = *at_++;
      unsigned digit = 0;
      if (c >= '0' && c <= '9') digit = static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f') digit = static_cast<unsigned>(c - 'a') + 10;
      else if (c >= 'A' && c <= 'F') digit = static_cast<unsigned>(c - 'A') + 10;
      else return false;
      code = code << 4 | digit;
    }
    return true;
  }

  /// At most four bytes, always fewer than the escape took in the line.
  static void put_utf8(char*& to, unsigned code) {
    if (code < 0x80) {
      *to++ = static_cast<char>(code);
      return;
    }
    if (code < 0x800) {
      *to++ = static_cast<char>(0xc0 | code >> 6);
    } else {
      if (code < 0x10000) {
        *to++ = static_cast<char>(0xe0 | code >> 12);
      } else {
        *to++ = static_cast<char>(0xf0 | code >> 18);
        *to++ = static_cast<char>(0x80 | (code >> 12 & 0x3f));
      }
      *to++ = static_cast<char>(0x80 | (code >> 6 & 0x3f));
    }
    *to++ = static_cast<char>(0x80 | (code & 0x3f));
  }

  /// Any JSON value, checked only for balanced brackets and whole strings.
  bool skip_value(std::string_view& out) {
    spaces();
    const char* const start = at_;
    int depth = 0;
    while (at_ < end_) {
      const char c = *at_;
      if (c == '"') {
        std::string_view ignored;
        if (!plain_string(ignored)) return false;
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        if (depth == 0) break;
        --depth;
        ++at_;
      } else if (c == ',' && depth == 0) {
        break;
      } else {
        ++at_;
      }
    }
    out = {start, static_cast<std::size_t>(at_ - start)};
    return depth == 0 && !out.empty();
  }

  const char* at_;
  const char* const end_;
  std::string& scratch_;
};

}  // namespace

bool decode_line(std::string_view line, Entry& entry, std::string& scratch) {
  return LineParser(line, scratch).parse(entry);
}

std::optional<std::string> unescape_json(std::string_view raw) {
  std::string scratch;
  std::string_view text;
  if (!LineParser(raw, scratch).parse_text(text)) return std::nullopt;
  return std::string(text);
}

}  // namespace gantry::logs
