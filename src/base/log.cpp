#include "base/log.hpp"

#include <atomic>
#include <cstdio>

namespace gantry::log {
namespace {

const char* label(Level level) {
  switch (level) {
    case Level::debug: return "debug";
    case Level::info: return "info";
    case Level::warning: return "warning";
    case Level::error: return "error";
    case Level::off: return "off";
  }
  return "?";
}

void to_stderr(Level level, std::string_view message) {
  std::fprintf(stderr, "%s: %.*s\n", label(level), static_cast<int>(message.size()), message.data());
}

std::atomic<Sink> g_sink{to_stderr};
std::atomic<Level> g_level{Level::info};

}  // namespace

void set_sink(Sink sink) { g_sink = sink; }
void set_level(Level level) { g_level = level; }
Level level() noexcept { return g_level.load(std::memory_order_relaxed); }
void write(Level level, std::string_view message) { g_sink.load()(level, message); }

}  // namespace gantry::log
