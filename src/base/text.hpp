#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gantry {

std::vector<std::string> split(std::string_view text, char separator);
/// The parts before and after the first `separator`; the second is empty if there is none.
std::pair<std::string_view, std::string_view> split_once(std::string_view text, char separator);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view trim(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);
bool equals_ignoring_case(std::string_view a, std::string_view b);

/// The whole of `text` as a decimal integer, or nullopt.
std::optional<std::int64_t> parse_int(std::string_view text);
/// Sizes as Docker writes them: a number and b, k, m, g, t or p (with optional "b" or "ib"), powers of 1024.
std::optional<std::int64_t> parse_size(std::string_view text);
/// Docker's reading of a query flag: "", 0, no, false and none (any case, trimmed) are false; all else is true.
bool parse_query_bool(std::string_view text);
/// "4.2MB": powers of 1000 with three or four significant digits, as Docker prints sizes.
std::string render_human_size(std::int64_t bytes);
/// Quotes as Go's %q does: double quotes, with escapes for quotes, backslashes, control and invalid bytes.
std::string quote(std::string_view text);
std::string render_hex(std::string_view bytes);
bool is_lower_hex(std::string_view text);
bool is_valid_utf8(std::string_view text);
/// Bytes that are no UTF-8 become U+FFFD, one for each.
std::string replace_invalid_utf8(std::string_view text);
std::string base64_encode(std::string_view bytes);
/// Standard or URL alphabet, padding optional. nullopt if it is neither.
std::optional<std::string> base64_decode(std::string_view text);
/// The known word closest to `word`, if it is close enough to be a slip of the keyboard.
std::optional<std::string> closest_word(std::string_view word, const std::vector<std::string>& known);

}  // namespace gantry
