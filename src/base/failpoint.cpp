#include "base/failpoint.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry {
namespace {

enum class Action { kill, error, hang };

struct Armed {
  Action action = Action::kill;
  std::int64_t passes_left = 1;
};

std::atomic<bool> g_any{false};
std::mutex g_mutex;
std::map<std::string, Armed, std::less<>> g_armed;

Action parse_action(std::string_view text) {
  if (text == "kill") return Action::kill;
  if (text == "error") return Action::error;
  if (text == "hang") return Action::hang;
  throw Error(Errc::invalid_argument, "failpoint action " + quote(text) + " is not one of kill, error, hang");
}

}  // namespace

void arm_failpoints(std::string_view text) {
  std::map<std::string, Armed, std::less<>> armed;
  for (const std::string& item : split(text, ';')) {
    if (trim(item).empty()) continue;
    auto [where, action] = split_once(trim(item), '=');
    auto [name, pass] = split_once(where, '@');
    armed[std::string(name)] = {parse_action(action), pass.empty() ? 1 : parse_int(pass).value_or(1)};
  }
  std::lock_guard lock(g_mutex);
  g_armed = std::move(armed);
  g_any = !g_armed.empty();
}

void arm_failpoints_from_environment() {
  if (const char* text = std::getenv("GANTRY_FAILPOINTS")) arm_failpoints(text);
}

void failpoint(std::string_view name) {
  if (!g_any.load(std::memory_order_relaxed)) return;
  Action action{};
  {
    std::lock_guard lock(g_mutex);
    auto it = g_armed.find(name);
    if (it == g_armed.end() || --it->second.passes_left > 0) return;
    action = it->second.action;
    g_armed.erase(it);
  }
  switch (action) {
    case Action::kill: ::kill(::getpid(), SIGKILL); [[fallthrough]];
    case Action::hang:
      for (;;) ::pause();
    case Action::error: throw Error(Errc::internal, "failpoint " + std::string(name));
  }
}

}  // namespace gantry
