#include "engine/process_tree.hpp"

#include <csignal>
#include <map>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/process.hpp"

namespace gantry::engine {
namespace {

struct Process {
  pid_t parent = 0;
  pid_t session = 0;
  std::string began;  // with the pid this names a process for good
};

/// From proc(5): "pid (name) state ppid pgrp session … starttime …". The name may hold spaces and parentheses.
/// nullopt: gone, or a zombie.
std::optional<Process> look_at(pid_t pid) {
  constexpr std::size_t kStartTime = 19;  // counted from the state
  const auto stat = sys::try_read_small("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t end = stat ? stat->rfind(") ") : std::string::npos;
  if (end == std::string::npos) return std::nullopt;
  std::vector<std::string> fields = split(std::string_view(*stat).substr(end + 2), ' ');
  if (fields.size() <= kStartTime || fields[0] == "Z" || fields[0] == "X") return std::nullopt;
  return Process{static_cast<pid_t>(parse_int(fields[1]).value_or(0)),
                 static_cast<pid_t>(parse_int(fields[3]).value_or(0)), std::move(fields[kStartTime])};
}

/// False if it is gone.
bool kill_one(pid_t pid, const Process& process) {
  try {
    const sys::Fd pidfd = sys::open_pidfd(pid);
    // The descriptor first, and then whether it is still the process that was looked at.
    const auto now = look_at(pid);
    if (!now || now->began != process.began) return false;
    sys::send_signal(pidfd.get(), SIGKILL);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

bool TreeKiller::kill(const std::vector<pid_t>& candidates) {
  std::map<pid_t, Process> alive;
  for (const pid_t pid : candidates)
    if (auto process = look_at(pid)) alive.emplace(pid, std::move(*process));
  const std::set<pid_t> before = seen_;
  for (bool grown = true; grown;) {
    grown = false;
    for (const auto& [pid, process] : alive)
      if ((process.session == root_ || seen_.contains(process.parent)) && seen_.insert(pid).second) grown = true;
  }
  bool found = false;
  for (const auto& [pid, process] : alive) {
    // One that was killed in an earlier round and is not gone yet: only if it still belongs to the tree.
    if (!seen_.contains(pid)) continue;
    if (pid != root_ && before.contains(pid) && process.session != root_ && !before.contains(process.parent)) continue;
    found = kill_one(pid, process) || found;
  }
  return found;
}

}  // namespace gantry::engine
