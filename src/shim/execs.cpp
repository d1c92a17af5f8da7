#include "shim/execs.hpp"

#include <algorithm>
#include <csignal>

#include <malloc.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/time.hpp"
#include "shim/failure.hpp"

namespace gantry::shim {
namespace {

using protocol::Stage;
using protocol::Status;

constexpr std::size_t kMaxEnded = 128;
constexpr std::size_t kMaxExecs = 1024;

/// Puts "consoleSize" in front of the members of a process object: `exec --detach` runs the process at once, so it may
/// look at its terminal before we have it. A size that the object has already comes later and wins.
std::string with_size(std::string json, sys::TerminalSize size) {
  const std::size_t brace = json.find('{');
  if (brace == std::string::npos || (size.rows == 0 && size.columns == 0)) return json;
  return json.insert(brace + 1, "\"consoleSize\":{\"height\":" + std::to_string(size.rows) +
                                    ",\"width\":" + std::to_string(size.columns) + "},");
}

void open_child(sys::Child& child) {
  try {
    child.pidfd = sys::open_pidfd(child.pid);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;  // it has ended and is reaped: the reaper knows
  }
}

}  // namespace

Execs::Execs(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config, ReadBuffer& buffer)
    : loop_(loop), reaper_(reaper), config_(config), buffer_(buffer) {}

Execs::Exec& Execs::find(const std::string& id) {
  const auto it = execs_.find(id);
  if (it == execs_.end() || it->second->removed) throw Error(Errc::not_found, "no exec " + id);
  return *it->second;
}

Supervised& Execs::get(const std::string& id) { return find(id); }

void Execs::create(protocol::ExecRequest request) {
  if (execs_.contains(request.exec_id)) throw Error(Errc::conflict, "exec " + request.exec_id + " exists already");
  if (execs_.size() >= kMaxExecs) throw Error(Errc::conflict, "too many execs in this container");
  auto exec = std::make_unique<Exec>();
  exec->id = request.exec_id;
  exec->tty = request.tty;
  exec->status = Status::created;
  // A runtime that hides its processes (a virtual machine) has nothing that we could join.
  if (config_.direct && !request.native.empty())
    exec->process = std::make_unique<protocol::NativeProcess>(protocol::decode_native(request.native));
  else exec->process_json = std::move(request.process_json);
  // An exec's input ends with the client that began it.
  exec->io = std::make_unique<Stdio>(loop_, buffer_, StdioOptions{request.tty, request.open_stdin, true}, nullptr);
  if (request.tty) exec->io->resize({request.rows, request.columns});
  else exec->ends = exec->io->open_pipes();
  execs_[request.exec_id] = std::move(exec);
}

void Execs::start(const std::string& id, const sys::Child& init, const Reply& reply) {
  Exec& exec = find(id);
  if (exec.status != Status::created) throw Error(Errc::conflict, "exec " + id + " was started already");
  if (exec.process) start_native(exec, init, reply);
  else start_by_runtime(exec, reply);
  exec.status = Status::starting;
  exec.process_json = std::string();
  exec.ends = {};  // only the process may hold them, or its end would not be the end of the stream
}

void Execs::start_native(Exec& exec, const sys::Child& init, const Reply& reply) {
  NativeExec::Options options;
  options.process = std::move(exec.process);
  options.init_pid = init.pid;
  options.init_pidfd = init.pidfd.get();
  options.tty = exec.tty;
  options.size = exec.io->wanted_size();
  options.streams[0] = exec.ends.in.get();
  options.streams[1] = exec.ends.out.get();
  options.streams[2] = exec.ends.err.get();
  exec.native = std::make_unique<NativeExec>(
      loop_, reaper_, config_, std::move(options),
      [this, &exec, reply](NativeResult result) { joined(exec, std::move(result), reply); });
}

void Execs::joined(Exec& exec, NativeResult result, const Reply& reply) {
  const std::unique_ptr<NativeExec> native = std::move(exec.native);  // its Hold lasts until the process is expected
  if (result.failure) return failed(exec, *result.failure, reply);
  exec.child = std::move(result.child);
  if (exec.tty) exec.io->set_console(std::move(result.terminal));
  take_over(exec, reply);
}

void Execs::start_by_runtime(Exec& exec, const Reply& reply) {
  const sys::Path process_file = "exec-" + exec.id + ".json";
  sys::write_atomically(process_file, with_size(exec.process_json, exec.io->wanted_size()), 0600, false);
  RuntimeCommand::Options options;
  options.args = {"exec",       "--detach",
                  "--pid-file", absolute_path("exec-" + exec.id + ".pid"),
                  "--process",  absolute_path(process_file.string())};
  if (exec.tty) {
    exec.console = std::make_unique<ConsoleSocket>();
    options.args.insert(options.args.end(), {"--console-socket", exec.console->path()});
  }
  options.args.push_back(config_.container_id);
  options.stdin_fd = exec.ends.in.get();
  options.stdout_fd = exec.ends.out.get();
  options.stderr_fd = exec.ends.err.get();
  exec.command = std::make_unique<RuntimeCommand>(
      loop_, reaper_, config_, std::move(options),
      [this, &exec, reply](CommandResult result) { launched(exec, std::move(result), reply); });
}

void Execs::launched(Exec& exec, CommandResult result, const Reply& reply) {
  const std::unique_ptr<RuntimeCommand> command = std::move(exec.command);  // its Hold lasts until the pid is known
  const std::string pid_file = "exec-" + exec.id + ".pid";
  try {
    if (result.ok) {
      exec.child.pid = read_pid_file(pid_file);
      open_child(exec.child);
      if (exec.tty) exec.io->set_console(exec.console->receive());
      take_over(exec, reply);
    } else {
      protocol::RuntimeFailure failure = classify_failure(Stage::exec, std::move(result.failure));
      if (result.timed_out) failure.kind = protocol::FailureKind::timed_out;
      failed(exec, failure, reply);
    }
  } catch (const Error& e) {
    if (exec.child.pid > 0) (void)::kill(exec.child.pid, SIGKILL);
    failed(exec, classify_failure(Stage::exec, e.message()), reply);
  }
  exec.console.reset();
  ::unlink(pid_file.c_str());
  ::unlink(("exec-" + exec.id + ".json").c_str());
}

void Execs::take_over(Exec& exec, const Reply& reply) {
  exec.started_ns = now().time_since_epoch().count();
  exec.status = Status::running;
  protocol::Message message = reply.success();
  message.put_number(protocol::Tag::pid, static_cast<std::uint64_t>(exec.child.pid));
  message.put_number(protocol::Tag::started_ns, static_cast<std::uint64_t>(exec.started_ns));
  reply.send(message);
  exec.io->begin();
  reaper_.expect(exec.child.pid, [this, &exec](int status, std::int64_t when) { ended(exec, status, when); });
}

void Execs::failed(Exec& exec, const protocol::RuntimeFailure& failure, const Reply& reply) {
  exec.child = {};
  protocol::ExitRecord record;
  record.exit_code =
      failure.kind == protocol::FailureKind::executable_not_found || failure.kind == protocol::FailureKind::no_such_file
          ? 127
          : 126;
  record.finished_ns = now().time_since_epoch().count();
  exec.exit = record;
  exec.status = Status::stopped;
  exec.order = ++ends_;
  reply.fail(failure);
  exec.io->on_idle([this, id = exec.id] { idle(id); });
  exec.io->end([&exec] { exec.publish(); }, {});
}

void Execs::ended(Exec& exec, int status, std::int64_t when_ns) {
  exec.exit = exit_record(status, when_ns);
  exec.child.pidfd.reset();
  exec.status = Status::stopped;
  exec.order = ++ends_;
  exec.io->on_idle([this, id = exec.id] { idle(id); });
  // Published before the streams close: a client asks for the exit code when it sees the end of the output.
  exec.io->end([&exec] { exec.publish(); }, {});
}

void Execs::remove(const std::string& id) {
  const auto it = execs_.find(id);
  if (it == execs_.end()) return;
  Exec& exec = *it->second;
  if (exec.status == Status::starting || exec.status == Status::running)
    throw Error(Errc::conflict, "exec " + id + " is running");
  exec.removed = true;
  if (exec.status == Status::created || exec.published) idle(id);
}

/// Nothing of it moves any more: it goes if it was removed or is old.
void Execs::idle(const std::string& id) {
  const auto it = execs_.find(id);
  if (it == execs_.end() || sweep_.pending()) return;
  // Later: the caller may be the exec's own Stdio.
  sweep_ = loop_.after(std::chrono::milliseconds(0), [this] { forget_old(); });
}

void Execs::forget_old() {
  std::erase_if(execs_, [](const auto& item) {
    const Exec& exec = *item.second;
    const bool still = exec.io->attached() == 0 && (exec.status == Status::created || exec.published);
    return exec.removed && still;
  });
  std::vector<std::pair<std::uint64_t, std::string>> ended;
  for (const auto& [id, exec] : execs_)
    if (exec->published && exec->io->attached() == 0) ended.emplace_back(exec->order, id);
  std::sort(ended.begin(), ended.end());
  for (std::size_t i = 0; i + kMaxEnded < ended.size(); ++i) execs_.erase(ended[i].second);
  (void)::malloc_trim(0);  // a request with its filter is the largest thing that a shim ever holds
}

void Execs::list(const Reply& reply) const {
  protocol::Message message = reply.success();
  std::size_t count = 0;
  for (const auto& [id, exec] : execs_) {
    if (exec->removed || ++count > protocol::kMaxFields) continue;
    protocol::ExecState state{id, exec->status, exec->tty, std::max(exec->child.pid, 0), exec->started_ns, exec->exit};
    protocol::Message entry;
    protocol::put(entry, state);
    message.put(protocol::Tag::entry, entry.encode_fields());
  }
  reply.send(message);
}

void Execs::kill_all() noexcept {
  for (const auto& [id, exec] : execs_) {
    if (exec->command) exec->command->abort(false);
    if (exec->native) exec->native->abort(false);
    if (exec->alive()) (void)::kill(exec->child.pid, SIGKILL);
  }
}

std::uint32_t Execs::attached() const noexcept {
  std::uint32_t count = 0;
  for (const auto& [id, exec] : execs_) count += exec->io->attached();
  return count;
}

}  // namespace gantry::shim
