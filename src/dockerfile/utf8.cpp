#include "dockerfile/utf8.hpp"

#include <algorithm>
#include <array>

namespace gantry::dockerfile {
namespace {

constexpr char32_t kRawByte = 0xDC00;

unsigned char byte_at(std::string_view text, std::size_t at) { return static_cast<unsigned char>(text[at]); }

}  // namespace

DecodedChar decode_char(std::string_view text, std::size_t at) {
  const unsigned char first = byte_at(text, at);
  if (first < 0x80) return {first, 1};
  const DecodedChar raw{kRawByte + first, 1};
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > text.size()) return raw;
  char32_t value = first & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    const unsigned char next = byte_at(text, at + i);
    if ((next & 0xc0) != 0x80) return raw;
    value = (value << 6) | (next & 0x3f);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  if (overlong || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return raw;
  return {value, length};
}

std::u32string decode(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    out.push_back(c.value);
    at += c.length;
  }
  return out;
}

void append_char(std::string& out, char32_t value) {
  if (value < 0x80) {
    out.push_back(static_cast<char>(value));
  } else if (value >= kRawByte && value <= kRawByte + 0xff) {
    out.push_back(static_cast<char>(value - kRawByte));
  } else if (value < 0x800) {
    out.push_back(static_cast<char>(0xc0 | (value >> 6)));
    out.push_back(static_cast<char>(0x80 | (value & 0x3f)));
  } else {
    if (value < 0x10000) {
      out.push_back(static_cast<char>(0xe0 | (value >> 12)));
    } else {
      out.push_back(static_cast<char>(0xf0 | (value >> 18)));
      out.push_back(static_cast<char>(0x80 | ((value >> 12) & 0x3f)));
    }
    out.push_back(static_cast<char>(0x80 | ((value >> 6) & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (value & 0x3f)));
  }
}

std::string encode(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append_char(out, c);
  return out;
}

bool is_space(char32_t value) {
  if (value < 0x80) return value == ' ' || (value >= '\t' && value <= '\r');
  return value == 0x85 || value == 0xa0 || value == 0x1680 || (value >= 0x2000 && value <= 0x200a) || value == 0x2028 ||
         value == 0x2029 || value == 0x202f || value == 0x205f || value == 0x3000;
}

bool is_letter(char32_t value) {
  if (value < 0x80) return (value >= 'a' && value <= 'z') || (value >= 'A' && value <= 'Z');
  if (value < 0xc0) return value == 0xaa || value == 0xb5 || value == 0xba;
  struct Range {
    char32_t first;
    char32_t last;
  };
  // Signs, punctuation, symbols, surrogates (which stand for bytes that are no UTF-8) and private use.
  static constexpr std::array<Range, 9> kNoLetters = {{{0xd7, 0xd7},
                                                       {0xf7, 0xf7},
                                                       {0x2000, 0x206f},
                                                       {0x20a0, 0x20cf},
                                                       {0x2190, 0x2bff},
                                                       {0x3000, 0x3004},
                                                       {0x3007, 0x3020},
                                                       {0xd800, 0xf8ff},
                                                       {0x1f000, 0x1faff}}};
  return std::none_of(kNoLetters.begin(), kNoLetters.end(),
                      [&](const Range& r) { return value >= r.first && value <= r.last; });
}

std::string_view trim_left_space(std::string_view text) {
  while (!text.empty()) {
    const DecodedChar c = decode_char(text, 0);
    if (!is_space(c.value)) break;
    text.remove_prefix(c.length);
  }
  return text;
}

std::string_view trim_space(std::string_view text) {
  text = trim_left_space(text);
  while (!text.empty()) {
    std::size_t start = text.size() - 1;  // of the last character
    while (start > 0 && text.size() - start < 4 && (byte_at(text, start) & 0xc0) == 0x80) --start;
    const DecodedChar c = decode_char(text, start);
    if (start + c.length != text.size() || !is_space(c.value)) break;
    text.remove_suffix(c.length);
  }
  return text;
}

}  // namespace gantry::dockerfile
