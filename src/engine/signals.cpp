#include <array>
#include <csignal>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/lifecycle.hpp"

namespace gantry::engine {
namespace {

constexpr std::pair<std::string_view, int> kSignals[] = {
    {"HUP", SIGHUP},   {"INT", SIGINT},       {"QUIT", SIGQUIT},     {"ILL", SIGILL},   {"TRAP", SIGTRAP},
    {"ABRT", SIGABRT}, {"IOT", SIGIOT},       {"BUS", SIGBUS},       {"FPE", SIGFPE},   {"KILL", SIGKILL},
    {"USR1", SIGUSR1}, {"SEGV", SIGSEGV},     {"USR2", SIGUSR2},     {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},
    {"TERM", SIGTERM}, {"STKFLT", SIGSTKFLT}, {"CHLD", SIGCHLD},     {"CLD", SIGCHLD},  {"CONT", SIGCONT},
    {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},     {"TTIN", SIGTTIN},     {"TTOU", SIGTTOU}, {"URG", SIGURG},
    {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},     {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH},
    {"IO", SIGIO},     {"POLL", SIGPOLL},     {"PWR", SIGPWR},       {"SYS", SIGSYS},
};
constexpr int kRealtimeMin = 34;  // glibc keeps 32 and 33 for itself
constexpr int kRealtimeMax = 64;

}  // namespace

int parse_signal(std::string_view text) {
  const Error invalid(Errc::invalid_argument, fmt::format("invalid signal: {}", text));
  if (const auto number = parse_int(text)) {
    if (*number < 1 || *number > kRealtimeMax) throw invalid;
    return static_cast<int>(*number);
  }
  std::string name = to_upper(text);
  if (name.starts_with("SIG")) name.erase(0, 3);
  for (const auto& [known, number] : kSignals)
    if (name == known) return number;
  if (name == "RTMIN") return kRealtimeMin;
  if (name == "RTMAX") return kRealtimeMax;
  if (name.starts_with("RTMIN+") || name.starts_with("RTMAX-")) {
    const auto offset = parse_int(name.substr(6));
    if (offset && *offset >= 0 && *offset <= kRealtimeMax - kRealtimeMin)
      return name[3] == 'I' ? kRealtimeMin + static_cast<int>(*offset) : kRealtimeMax - static_cast<int>(*offset);
  }
  throw invalid;
}

}  // namespace gantry::engine
