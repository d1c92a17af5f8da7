#pragma once

#include <string>
#include <string_view>

#include "logs/format.hpp"

namespace gantry::logs {

struct RenderOptions;

/// Parses and renders times of log entries. Neighbours mostly share their second, which is remembered.
class SecondCache {
 public:
  /// RFC 3339 as the writer writes it, or any other form of it.
  bool parse(std::string_view text, Timestamp& time);
  /// Exactly nine digits of fraction, in UTC.
  void append_fixed(std::string& out, Timestamp time);

 private:
  std::string text_;  // "2026-11-22T13:29:07"
  Timestamp second_{};
  std::string rendered_;
  Timestamp rendered_second_{};
};

/// Appends an entry as a log client gets it.
void append_entry(std::string& out, const Entry& entry, Timestamp time, const RenderOptions& render,
                  SecondCache& seconds);
/// A JSON object of strings as "k=v,k2=v2", URL-escaped and sorted by key.
std::string render_details(std::string_view attrs);

}  // namespace gantry::logs
