#include <algorithm>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "engine/detach_keys.hpp"
#include "engine/exec.hpp"
#include "engine/messages.hpp"
#include "engine/process_tree.hpp"
#include "engine/splice.hpp"

namespace gantry::engine {
namespace {

/// The code of a process whose shim went away with it.
constexpr int kLostExitCode = 137;
constexpr int kNotStartedExitCode = 126;
/// Between the end of the output and the news of the exit.
constexpr std::chrono::seconds kExitPatience{10};
constexpr std::chrono::seconds kResizePatience{10};
/// A tree that forks faster than this kills it is left to the next round of its owner.
constexpr int kKillRounds = 20;
constexpr std::chrono::milliseconds kSettleEvery{200};

/// Carries the exit code that a failed start leaves.
class ExecStartError : public Error {
 public:
  explicit ExecStartError(StartFailure failure) : Error(std::move(failure.error)), exit_code_(failure.exit_code) {}
  int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

}  // namespace

void Execs::mark_running(const ExecPtr& exec, const ContainerPtr& container) {
  exec->phase = ExecPhase::running;
  if (!exec->is_probe) container->execs.insert(exec->id);
  exec->changed.notify();
}

void Execs::mark_ended(Exec& exec, int exit_code) {
  exec.phase = ExecPhase::ended;
  exec.exit_code = exit_code;
  if (const ContainerPtr container = exec.container.lock()) container->execs.erase(exec.id);
  exec.changed.notify();
}

/// From created to running, once. What goes wrong leaves the exec ended, with Docker's exit code.
Task<Execs::StreamPtr> Execs::launch(ExecPtr exec, bool attached, ExecTerminalSize size) {
  if (exec->phase == ExecPhase::ended)
    throw Error(Errc::conflict, fmt::format("exec command {} has already run", exec->id));
  if (exec->phase != ExecPhase::created)
    throw Error(Errc::conflict, fmt::format("exec command {} is already running", exec->id));
  const ContainerPtr container = exec->container.lock();
  if (!container || !container->shim) throw container_not_running(exec->container_id);
  exec->phase = ExecPhase::starting;
  publish(*exec, "exec_start: " + exec->command_text());
  runtime::ShimClient shim = container->live_shim();
  StreamPtr stream;
  std::exception_ptr failure;
  int exit_code = kNotStartedExitCode;
  bool shim_remembers = false;  // what became of it, for a daemon that comes after this one
  try {
    stream = co_await start_in_shim(exec, shim, attached, size);
  } catch (const ExecStartError& e) {
    exit_code = e.exit_code();
    shim_remembers = !exec->is_probe;
    failure = std::current_exception();
  } catch (const Error& e) {
    // The container ended, or is just ending.
    failure = std::make_exception_ptr(container->shim ? e : container_not_running(exec->container_id));
  }
  exec->process_json = std::string();
  exec->native.reset();
  exec->confinement.reset();
  if (failure) {
    mark_ended(*exec, exit_code);
    if (!shim_remembers) co_await remove_in_shim(shim, exec->shim_id());
    std::rethrow_exception(failure);
  }
  mark_running(exec, container);
  tasks_.spawn("exec " + exec->id.substr(0, 12), watch(exec, container, shim));
  co_return stream;
}

namespace {

/// Empty if only the runtime can make the process, or if it is too big for a message: then the runtime says so.
std::string encode_native(const Exec& exec) {
  constexpr std::size_t kMost = 2 << 20;
  if (!exec.native || !exec.confinement) return {};
  protocol::NativeProcess process = *exec.native;
  if (exec.confinement->filter) {
    process.filter = exec.confinement->filter->code;
    process.filter_flags = exec.confinement->filter->flags;
  }
  process.apparmor_profile = exec.confinement->apparmor_profile;
  process.selinux_label = exec.confinement->selinux_label;
  std::string bytes = protocol::encode_native(process);
  return bytes.size() + exec.process_json.size() <= kMost ? bytes : std::string();
}

}  // namespace

/// Attached before the process runs, so that no output is lost.
Task<Execs::StreamPtr> Execs::start_in_shim(ExecPtr exec, runtime::ShimClient shim, bool attached,
                                            ExecTerminalSize size) {
  const ExecOptions& options = exec->options;
  runtime::ExecRequest request;
  request.exec_id = exec->shim_id();
  request.process_json = exec->process_json;
  if (shim.has_feature("native-exec")) request.native = encode_native(*exec);
  request.tty = options.tty;
  request.open_stdin = attached && options.use_stdin;
  const ExecTerminalSize wanted = size.rows != 0 || size.columns != 0 ? size : options.size;
  request.rows = wanted.rows;
  request.columns = wanted.columns;
  co_await shim.exec_create(std::move(request));
  FAILPOINT("exec.start.after_create");
  StreamPtr stream;
  if (attached) {
    runtime::AttachRequest attach;
    attach.exec_id = exec->shim_id();
    attach.use_stdin = options.use_stdin;
    attach.use_stdout = options.use_stdout;
    attach.use_stderr = options.use_stderr;
    stream = std::make_shared<runtime::AttachStream>(co_await shim.attach(std::move(attach)));
  }
  const runtime::ExecStartResult started = co_await shim.exec_start(exec->shim_id());
  if (started.failure) throw ExecStartError(render_exec_failure(*started.failure, options.command.front()));
  FAILPOINT("exec.start.after_process");
  exec->pid = started.pid;
  co_return stream;
}

/// The state of an exec that a former daemon began, once its start is over. nullopt: the shim does not know it.
Task<std::optional<runtime::ExecState>> Execs::settled(runtime::ShimClient shim, std::string shim_id) {
  for (;;) {
    const std::vector<runtime::ExecState> states = co_await shim.exec_list();
    const auto found = std::ranges::find(states, shim_id, &runtime::ExecState::id);
    if (found == states.end()) co_return std::nullopt;
    if (found->status != runtime::ShimStatus::starting) co_return *found;
    // The shim bounds how long; nobody can be told when, since the connection that asked for the start is gone.
    co_await async::sleep_for(kSettleEvery);
  }
}

/// Records the end.
Task<void> Execs::watch(ExecPtr exec, ContainerPtr container, runtime::ShimClient shim) {
  int exit_code = kLostExitCode;
  for (;;) {
    try {
      if (exec->pid == 0)
        if (const auto state = co_await settled(shim, exec->shim_id())) exec->pid = state->pid;
      exit_code = (co_await shim.wait(exec->shim_id())).exit_code;
      break;
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      if (e.code() == Errc::timed_out) continue;
      log::debug("exec {} of container {}: its shim is gone: {}", exec->id, container->name, e.message());
      break;
    }
  }
  mark_ended(*exec, exit_code);
  co_await tell_end(exec);
  if (exec->is_probe) co_await remove_in_shim(shim, exec->shim_id());
}

Task<void> Execs::remove_in_shim(runtime::ShimClient shim, std::string shim_id) {
  try {
    co_await shim.exec_remove(shim_id);
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    log::debug("exec {} stays in its shim: {}", shim_id, e.message());  // which forgets the oldest by itself
  }
}

Task<void> Execs::start_detached(ExecPtr exec, ExecTerminalSize size) {
  (void)co_await async::shielded(launch(exec, false, size));
}

Task<Execs::StreamPtr> Execs::start_attached(ExecPtr exec) {
  const ExecTerminalSize as_created;
  co_return co_await async::shielded(launch(exec, true, as_created));
}

Task<void> Execs::run_attached(ExecPtr exec, ClientPtr client, bool framed, ExecTerminalSize size) {
  StreamPtr stream;
  std::string complaint;
  try {
    stream = co_await async::shielded(launch(exec, true, size));
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    complaint = e.message() + "\r\n";
  }
  if (!stream) {
    co_await client->write(frame_text(complaint, framed));
    co_return;
  }
  const bool tty = exec->options.tty;
  SpliceOptions how;
  how.use_stdin = exec->options.use_stdin;
  how.close_stdin = !tty;
  how.strip_frames = !tty && !framed;
  how.add_frames = tty && framed;
  if (tty) how.detach_keys = exec->keys.empty() ? parse_detach_keys("") : exec->keys;
  const SpliceEnd end = co_await splice(stream, client, how);
  stream->close();
  if (end == SpliceEnd::detached) publish(*exec, "exec_detach");
  if (end != SpliceEnd::output_ended) co_return;
  // A client asks for the exit code when it sees the end of the stream.
  const auto deadline = std::chrono::steady_clock::now() + kExitPatience;
  while (exec->phase != ExecPhase::ended) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0) || !co_await exec->changed.wait_for(left)) co_return;
  }
}

Task<void> Execs::wait_end(ExecPtr exec) {
  while (exec->phase != ExecPhase::ended) co_await exec->changed.wait();
}

Task<void> Execs::resize(std::string id, ExecTerminalSize size) {
  ExecPtr exec = get_startable(id);
  const auto deadline = std::chrono::steady_clock::now() + kResizePatience;
  while (exec->phase == ExecPhase::created || exec->phase == ExecPhase::starting) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0) || !co_await exec->changed.wait_for(left))
      throw Error(Errc::internal, "timeout waiting for exec session ready");
  }
  if (exec->pid == 0) throw Error(Errc::invalid_argument, "exec process is not started");
  const ContainerPtr container = exec->container.lock();
  // Without a terminal there is nothing to do, and after the end nobody to see it.
  if (!exec->options.tty || exec->phase != ExecPhase::running || !container || !container->shim) co_return;
  runtime::ShimClient shim = container->live_shim();
  try {
    co_await shim.resize(size.rows, size.columns, exec->shim_id());
  } catch (const Error& e) {
    if (e.code() != Errc::conflict && e.code() != Errc::not_found) throw;
  }
}

Task<void> Execs::kill_tree(ExecPtr exec) {
  const ContainerPtr container = exec->container.lock();
  if (exec->phase != ExecPhase::running || exec->pid <= 0 || !container || !container->shim) co_return;
  runtime::ShimClient shim = container->live_shim();
  co_await kill_pid(shim, exec->pid);
}

/// Again until nothing is found: a process that was just forking may have left a child behind.
Task<void> Execs::kill_pid(runtime::ShimClient shim, std::int64_t pid) {
  TreeKiller killer(static_cast<pid_t>(pid));
  for (int round = 0; round < kKillRounds; ++round) {
    const std::vector<pid_t> candidates = co_await shim.pids();
    auto shared = std::make_shared<TreeKiller>(killer);
    const bool found = co_await services_.lanes.quick.run([shared, candidates] { return shared->kill(candidates); });
    killer = *shared;
    if (!found) co_return;
  }
}

Task<void> Execs::kill_old_probes(ContainerPtr container) {
  if (!container->shim) co_return;
  runtime::ShimClient shim = container->live_shim();
  const std::vector<runtime::ExecState> states = co_await shim.exec_list();
  for (const runtime::ExecState& listed : states) {
    if (!listed.id.starts_with("probe-")) continue;
    const auto state = co_await settled(shim, listed.id);
    if (!state) continue;
    if (state->status == runtime::ShimStatus::created) co_await shim.exec_remove(listed.id);
    if (!state->exit && state->pid > 0) co_await kill_pid(shim, state->pid);
  }
}

}  // namespace gantry::engine
