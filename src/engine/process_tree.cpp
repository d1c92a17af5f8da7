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
  sys::Fd pidfd;
  pid_t parent = 0;
  pid_t session = 0;
};

/// From proc(5): "pid (name) state ppid pgrp session …". The name may hold spaces and parentheses. The pidfd comes
/// first, so that what is read is about the process that it names, or a signal to it fails. nullopt: gone, or a zombie.
std::optional<Process> look_at(pid_t pid) {
  try {
    Process process{sys::open_pidfd(pid)};
    const auto stat = sys::try_read_small("/proc/" + std::to_string(pid) + "/stat");
    const std::size_t end = stat ? stat->rfind(") ") : std::string::npos;
    if (end == std::string::npos) return std::nullopt;
    const std::vector<std::string> fields = split(std::string_view(*stat).substr(end + 2), ' ');
    if (fields.size() < 4 || fields[0] == "Z" || fields[0] == "X") return std::nullopt;
    process.parent = static_cast<pid_t>(parse_int(fields[1]).value_or(0));
    process.session = static_cast<pid_t>(parse_int(fields[3]).value_or(0));
    return process;
  } catch (const Error&) {
    return std::nullopt;
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
    try {
      sys::send_signal(process.pidfd.get(), SIGKILL);
      found = true;
    } catch (const Error&) {
      // gone meanwhile
    }
  }
  return found;
}

}  // namespace gantry::engine
