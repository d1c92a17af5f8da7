#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.hpp"

/// Docker's json-file format, byte for byte: one JSON object per line,
///   {"log":"text\n","stream":"stdout","attrs":{…},"time":"2026-11-22T13:29:07.4144Z"}
/// "attrs" only where there are some. Text is escaped as Go's encoding/json does it: <, > and & as \u00XX, control
/// bytes except \n and \r as \u00XX, U+2028 and U+2029 as \u2028 and \u2029, every invalid UTF-8 byte as \ufffd.
namespace gantry::logs {

enum class Stream : std::uint8_t { out = 1, err = 2 };
std::string_view stream_name(Stream stream) noexcept;

/// A longer line is written as several entries, of which only the last ends in "\n".
inline constexpr std::size_t kMaxLine = 16 << 10;
/// Where a line that is too long is cut, given its first kMaxLine bytes: there, or up to three bytes before it so that
/// no character is split.
std::size_t cut_point(const char* text) noexcept;
/// The most that escaping makes of one byte.
inline constexpr std::size_t kWorstEscape = 6;

/// Writes `size` bytes at `from`, escaped, to `to`, which has room for kWorstEscape * size + 32 bytes.
/// Returns the end of what it wrote.
char* write_escaped(char* to, const char* from, std::size_t size) noexcept;

/// One entry as it stands in the file, with the newline that ends it. For tests and rare paths; Writer is the fast one.
std::string encode_line(std::string_view text, Stream stream, Timestamp time, std::string_view attrs = {});

/// What a line says. The views point into the line or into the scratch string.
struct Entry {
  std::string_view text;
  std::string_view attrs;  // a JSON object or empty
  std::string_view time;   // as written
  Stream stream = Stream::out;
};

/// Reads a line without the newline that ends it. Accepts fields in any order and unknown ones. false if it is not a
/// whole entry. `scratch` is overwritten; keep it for the next call.
bool decode_line(std::string_view line, Entry& entry, std::string& scratch);

/// What a JSON string says: `raw` begins behind its opening quote. nullopt if it does not end or is malformed.
std::optional<std::string> unescape_json(std::string_view raw);

}  // namespace gantry::logs
