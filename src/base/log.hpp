#pragma once

#include <string_view>

#include <fmt/format.h>

namespace gantry::log {

/// error: an operation failed that should not (a 5xx). warning: something is wrong outside of us, or was put right.
/// info: what an operator wants to read back. debug: for us.
enum class Level { debug, info, warning, error, off };

using Sink = void (*)(Level, std::string_view message);

/// Replaces where messages go (default: one line on standard error). Call before threads start.
void set_sink(Sink sink);
void set_level(Level level);
Level level() noexcept;
void write(Level level, std::string_view message);

template <class... Args>
void debug(fmt::format_string<Args...> text, Args&&... args) {
  if (level() <= Level::debug) write(Level::debug, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> text, Args&&... args) {
  if (level() <= Level::info) write(Level::info, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> text, Args&&... args) {
  if (level() <= Level::warning) write(Level::warning, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> text, Args&&... args) {
  if (level() <= Level::error) write(Level::error, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace gantry::log
