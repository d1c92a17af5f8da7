#include "logs/format.hpp"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gantry::logs {
namespace {

constexpr char kHex[] = "0123456789abcdef";

/// Bytes that cannot be copied as they are: control bytes, the escaped five, and everything outside ASCII.
constexpr std::array<bool, 256> make_special() {
  std::array<bool, 256> special{};
  for (int c = 0; c < 256; ++c)
    special[static_cast<std::size_t>(c)] =
        c < 0x20 || c >= 0x80 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&';
  return special;
}
constexpr std::array<bool, 256> kSpecial = make_special();

/// The length of the valid UTF-8 sequence at `p`, or 0.
std::size_t utf8_length(const unsigned char* p, const unsigned char* end) {
  const auto follows = [&](int i, unsigned low = 0x80, unsigned high = 0xbf) {
    return p + i < end && p[i] >= low && p[i] <= high;
  };
  const unsigned c = *p;
  if (c >= 0xc2 && c <= 0xdf) return follows(1) ? 2 : 0;
  if (c == 0xe0) return follows(1, 0xa0, 0xbf) && follows(2) ? 3 : 0;
  if (c == 0xed) return follows(1, 0x80, 0x9f) && follows(2) ? 3 : 0;  // no surrogates
  if (c >= 0xe1 && c <= 0xef) return follows(1) && follows(2) ? 3 : 0;
  if (c == 0xf0) return follows(1, 0x90, 0xbf) && follows(2) && follows(3) ? 4 : 0;
  if (c == 0xf4) return follows(1, 0x80, 0x8f) && follows(2) && follows(3) ? 4 : 0;
  if (c >= 0xf1 && c <= 0xf3) return follows(1) && follows(2) && follows(3) ? 4 : 0;
  return 0;
}

char* put(char* to, const char* text, std::size_t size) {
  std::memcpy(to, text, size);
  return to + size;
}

/// Escapes what starts at the special byte `*from`, and advances `from`.
char* write_special(char* to, const char*& from, const char* end) {
  const auto c = static_cast<unsigned char>(*from);
  if (c >= 0x80) {
    const auto* p = reinterpret_cast<const unsigned char*>(from);
    const std::size_t length = utf8_length(p, reinterpret_cast<const unsigned char*>(end));
    if (length == 0) {
      ++from;
      return put(to, "\\ufffd", 6);
    }
    from += length;
    if (length == 3 && c == 0xe2 && p[1] == 0x80 && (p[2] & 0xfe) == 0xa8) {
      to = put(to, "\\u202", 5);
      *to++ = kHex[p[2] & 0xf];
      return to;
    }
    return put(to, reinterpret_cast<const char*>(p), length);
  }
  ++from;
  switch (c) {
    case '"':
    case '\\': *to++ = '\\', *to++ = static_cast<char>(c); return to;
    case '\n': return put(to, "\\n", 2);
    case '\r': return put(to, "\\r", 2);
    default:
      to = put(to, "\\u00", 4);
      *to++ = kHex[c >> 4];
      *to++ = kHex[c & 0xf];
      return to;
  }
}

#if defined(__x86_64__)
/// Bit i is set if byte i is special. Unsigned comparisons by way of min/max.
inline unsigned special_mask(__m128i block) {
  const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
  const __m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
  const __m128i backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
  // '<' and '>' differ in one bit.
  const __m128i angle = _mm_cmpeq_epi8(_mm_or_si128(block, _mm_set1_epi8(2)), _mm_set1_epi8('>'));
  const __m128i ampersand = _mm_cmpeq_epi8(block, _mm_set1_epi8('&'));
  const __m128i any =
      _mm_or_si128(_mm_or_si128(_mm_or_si128(control, quote), _mm_or_si128(backslash, angle)), ampersand);
  return static_cast<unsigned>(_mm_movemask_epi8(any) | _mm_movemask_epi8(block));
}

/// Copies plain bytes in blocks. Stops at a special byte or when less than a block is left.
char* copy_plain_sse2(char* to, const char*& from, const char* end) {
  while (end - from >= 16) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), block);
    const unsigned mask = special_mask(block);
    const int plain = mask == 0 ? 16 : std::countr_zero(mask);
    to += plain;
    from += plain;
    if (plain != 16) break;
  }
  return to;
}

__attribute__((target("avx2"))) char* copy_plain_avx2(char* to, const char*& from, const char* end) {
  while (end - from >= 32) {
    const __m256i block = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), block);
    const __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(block, _mm256_set1_epi8(0x1f)), block);
    const __m256i quote = _mm256_cmpeq_epi8(block, _mm256_set1_epi8('"'));
    const __m256i backslash = _mm256_cmpeq_epi8(block, _mm256_set1_epi8('\\'));
    const __m256i angle = _mm256_cmpeq_epi8(_mm256_or_si256(block, _mm256_set1_epi8(2)), _mm256_set1_epi8('>'));
    const __m256i ampersand = _mm256_cmpeq_epi8(block, _mm256_set1_epi8('&'));
    const __m256i any =
        _mm256_or_si256(_mm256_or_si256(_mm256_or_si256(control, quote), _mm256_or_si256(backslash, angle)),
                        _mm256_or_si256(ampersand, block));
    const auto mask = static_cast<unsigned>(_mm256_movemask_epi8(any));
    const int plain = mask == 0 ? 32 : std::countr_zero(mask);
    to += plain;
    from += plain;
    if (plain != 32) return to;
  }
  return copy_plain_sse2(to, from, end);
}
#endif

using CopyPlain = char* (*)(char*, const char*&, const char*);

char* copy_plain_portable(char* to, const char*& from, const char* end) {
  while (from < end && !kSpecial[static_cast<unsigned char>(*from)]) *to++ = *from++;
  return to;
}

CopyPlain choose_copy() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") ? copy_plain_avx2 : copy_plain_sse2;
#else
  return copy_plain_portable;
#endif
}
const CopyPlain copy_plain = choose_copy();

}  // namespace

std::string_view stream_name(Stream stream) noexcept { return stream == Stream::err ? "stderr" : "stdout"; }

char* write_escaped(char* to, const char* from, std::size_t size) noexcept {
  const char* const end = from + size;
  while (from < end) {
    to = copy_plain(to, from, end);
    // The block copy stops short of the end; the rest is a few bytes.
    to = copy_plain_portable(to, from, end);
    while (from < end && kSpecial[static_cast<unsigned char>(*from)]) to = write_special(to, from, end);
  }
  return to;
}

std::size_t cut_point(const char* text) noexcept {
  std::size_t cut = kMaxLine;
  while (cut > kMaxLine - 3 && (static_cast<unsigned char>(text[cut - 1]) & 0xc0) == 0x80) --cut;
  if ((static_cast<unsigned char>(text[cut - 1]) & 0xc0) != 0xc0) return kMaxLine;  // not UTF-8, or it ends here
  const auto lead = static_cast<unsigned char>(text[cut - 1]);
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  return cut - 1 + length <= kMaxLine ? kMaxLine : cut - 1;
}

std::string encode_line(std::string_view text, Stream stream, Timestamp time, std::string_view attrs) {
  std::string escaped(text.size() * kWorstEscape + 32, '\0');
  escaped.resize(static_cast<std::size_t>(write_escaped(escaped.data(), text.data(), text.size()) - escaped.data()));
  std::string out = "{\"log\":\"" + escaped + "\",\"stream\":\"";
  out += stream_name(stream);
  out += '"';
  if (!attrs.empty()) out.append(",\"attrs\":").append(attrs);
  return out + ",\"time\":\"" + render_rfc3339_nano(time) + "\"}\n";
}

}  // namespace gantry::logs
