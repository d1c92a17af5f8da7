#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gantry::dockerfile {

struct DecodedChar {
  char32_t value = 0;
  std::size_t length = 1;
};
/// The character at `at`, which must be inside. A byte that is no UTF-8 is a character of its own, U+DC00 + byte, so
/// that different bytes stay different.
DecodedChar decode_char(std::string_view text, std::size_t at);
std::u32string decode(std::string_view text);
void append_char(std::string& out, char32_t value);
std::string encode(std::u32string_view text);

/// Unicode's blanks (Go's unicode.IsSpace).
bool is_space(char32_t value);
/// ASCII letters, and every other character that is neither blank, sign nor punctuation: near enough to Unicode's
/// letters for names of variables, without its tables.
bool is_letter(char32_t value);
/// For bytes of a text, where U+0085 and U+00A0 would be parts of other characters.
inline bool is_ascii_space(char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }
inline bool is_digit(char32_t value) { return value >= '0' && value <= '9'; }

/// Without Unicode's blanks at the beginning (and the end).
std::string_view trim_left_space(std::string_view text);
std::string_view trim_space(std::string_view text);

}  // namespace gantry::dockerfile
