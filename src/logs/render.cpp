#include "logs/render.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/text.hpp"
#include "logs/reader.hpp"

namespace gantry::logs {
namespace {

constexpr std::size_t kSecondLength = 19;  // "2026-11-22T13:29:07"

/// As Go's url.QueryEscape: space becomes '+'.
std::string url_escape(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '_' || c == '.' || c == '~';
    if (plain) out += c;
    else if (c == ' ') out += '+';
    else out.append({'%', kHex[static_cast<unsigned char>(c) >> 4], kHex[static_cast<unsigned char>(c) & 15]});
  }
  return out;
}

std::string unescape(std::string_view raw) { return unescape_json(std::string(raw) + '"').value_or(std::string(raw)); }

/// The raw text between the quotes at or after `at`; advances behind them.
std::optional<std::string_view> raw_string(std::string_view json, std::size_t& at) {
  const std::size_t open = json.find('"', at);
  if (open == std::string_view::npos) return std::nullopt;
  std::size_t close = open + 1;
  while (close < json.size() && json[close] != '"') close += json[close] == '\\' ? 2 : 1;
  if (close >= json.size()) return std::nullopt;
  at = close + 1;
  return json.substr(open + 1, close - open - 1);
}

/// What "attrs" says, sorted by the names.
std::vector<std::pair<std::string, std::string>> parse_attrs(std::string_view attrs) {
  std::vector<std::pair<std::string, std::string>> pairs;
  std::size_t at = 0;
  while (const auto key = raw_string(attrs, at)) {
    const auto value = raw_string(attrs, at);
    if (!value) break;
    pairs.emplace_back(unescape(*key), unescape(*value));
  }
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

void append_escaped(std::string& out, std::string_view text) {
  const std::size_t start = out.size();
  out.resize(start + text.size() * kWorstEscape + 32);
  const char* const end = write_escaped(out.data() + start, text.data(), text.size());
  out.resize(static_cast<std::size_t>(end - out.data()));
}

/// One object per line, as the API's format=json has it from version 1.54 on.
void append_json(std::string& out, const Entry& entry, Timestamp time, bool details) {
  out += "{\"Line\":\"";
  append_escaped(out, entry.text);
  out.append("\",\"Source\":\"").append(stream_name(entry.stream));
  out.append("\",\"Timestamp\":\"").append(render_rfc3339_nano(time)) += '"';
  std::string_view before = ",\"Attrs\":[";
  if (details) {
    for (const auto& [key, value] : parse_attrs(entry.attrs)) {
      out.append(before).append("{\"Key\":\"");
      append_escaped(out, key);
      out += "\",\"Value\":\"";
      append_escaped(out, value);
      out += "\"}";
      before = ",";
    }
  }
  out += before == "," ? "]}\n" : "}\n";
}

}  // namespace

bool SecondCache::parse(std::string_view text, Timestamp& time) {
  const bool plain = text.size() >= kSecondLength + 1 && text.back() == 'Z';
  if (plain && text.substr(0, kSecondLength) == text_) {
    std::string_view fraction = text.substr(kSecondLength, text.size() - kSecondLength - 1);
    long nanos = 0;
    if (!fraction.empty()) {
      if (fraction.size() < 2 || fraction.size() > 10 || fraction[0] != '.') return false;
      for (std::size_t i = 1; i < 10; ++i) {
        const char c = i < fraction.size() ? fraction[i] : '0';
        if (c < '0' || c > '9') return false;
        nanos = nanos * 10 + (c - '0');
      }
    }
    time = second_ + std::chrono::nanoseconds(nanos);
    return true;
  }
  const auto parsed = parse_rfc3339(text);
  if (!parsed) return false;
  time = *parsed;
  if (plain) {
    text_.assign(text.substr(0, kSecondLength));
    second_ = std::chrono::floor<std::chrono::seconds>(time);
  }
  return true;
}

void SecondCache::append_fixed(std::string& out, Timestamp time) {
  const auto second = std::chrono::floor<std::chrono::seconds>(time);
  if (rendered_.empty() || second != rendered_second_) {
    rendered_ = render_rfc3339_fixed(second).substr(0, kSecondLength + 1);
    rendered_second_ = second;
  }
  out += rendered_;
  char digits[10];
  auto nanos = static_cast<long>((time - second).count());
  for (int i = 8; i >= 0; --i, nanos /= 10) digits[i] = static_cast<char>('0' + nanos % 10);
  digits[9] = 'Z';
  out.append(digits, sizeof digits);
}

std::string render_details(std::string_view attrs) {
  std::string out;
  for (const auto& [key, value] : parse_attrs(attrs)) {
    if (!out.empty()) out += ',';
    out += url_escape(key) + "=" + url_escape(value);
  }
  return out;
}

void append_entry(std::string& out, const Entry& entry, Timestamp time, const RenderOptions& render,
                  SecondCache& seconds) {
  if (render.json) return append_json(out, entry, time, render.details);
  const std::size_t start = out.size();
  if (render.framed) out.append(8, '\0');
  if (render.timestamps) {
    seconds.append_fixed(out, time);
    out += ' ';
  }
  if (render.details) {
    out += render_details(entry.attrs);
    out += ' ';
  }
  out += entry.text;
  if (!render.framed) return;
  const auto size = static_cast<std::uint32_t>(out.size() - start - 8);
  out[start] = static_cast<char>(entry.stream);
  for (std::size_t i = 0; i < 4; ++i) out[start + 4 + i] = static_cast<char>(size >> (24 - 8 * i));
}

}  // namespace gantry::logs
