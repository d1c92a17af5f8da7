#include "shim/container.hpp"

#include <algorithm>
#include <csignal>

#include <unistd.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/time.hpp"
#include "shim/failure.hpp"

namespace gantry::shim {
namespace {

using protocol::Message;
using protocol::Stage;
using protocol::Status;
using protocol::Tag;

constexpr const char* kPidFile = "init.pid";
constexpr const char* kExitFile = "exit";
constexpr int kMaxCgroupDepth = 8;
constexpr std::chrono::seconds kAbandonedCheck{60};

std::int64_t now_ns() { return now().time_since_epoch().count(); }

constexpr std::size_t kMaxPids = 500'000;  // 2 MB on the wire

/// Appends the processes of a cgroup and of those below it.
void collect_pids(const sys::Path& cgroup, int depth, std::vector<pid_t>& into) {
  const std::string text = sys::try_read_small(cgroup / "cgroup.procs").value_or(std::string());
  std::size_t at = 0;
  while (at < text.size() && into.size() < kMaxPids) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const unsigned long pid = std::strtoul(text.c_str() + at, nullptr, 10);
    if (pid != 0) into.push_back(static_cast<pid_t>(pid));
    at = end + 1;
  }
  if (depth == 0) return;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(cgroup, ignored))
    if (entry.is_directory(ignored)) collect_pids(entry.path(), depth - 1, into);
}

}  // namespace

Container::Container(Loop& loop, Reaper& reaper, protocol::ShimConfig config)
    : loop_(loop),
      reaper_(reaper),
      config_(std::move(config)),
      log_(loop, reaper, config_),
      execs_(loop, reaper, config_, buffer_) {
  main_.io =
      std::make_unique<Stdio>(loop_, buffer_, StdioOptions{config_.tty, config_.open_stdin, config_.stdin_once}, &log_);
  if (config_.tty && config_.rows != 0) main_.io->resize({config_.rows, config_.columns});
}

void Container::run(std::vector<std::string> args, int stdin_fd, std::function<void(CommandResult)> done) {
  RuntimeCommand::Options options;
  options.args = std::move(args);
  options.stdin_fd = stdin_fd;
  lifecycle_ = std::make_unique<RuntimeCommand>(loop_, reaper_, config_, std::move(options), std::move(done));
}

/// Runs what waited for the end of a lifecycle command.
void Container::finish_command() {
  for (const auto& action : std::exchange(after_lifecycle_, {})) action();
}

// ---- start

/// Takes the options of one runtime command from here, and the ends of the pipes that only the container may hold.
RuntimeCommand::Options Container::launch_options() {
  RuntimeCommand::Options options;
  // The runtimes whose processes we may signal ourselves are also those that create and start in one go.
  if (config_.direct) options.args = {"run", "--detach"};
  else options.args = {"create"};
  options.args.insert(options.args.end(), {"--bundle", config_.bundle, "--pid-file", absolute_path(kPidFile)});
  if (config_.tty) {
    console_ = std::make_unique<ConsoleSocket>();
    options.args.insert(options.args.end(), {"--console-socket", console_->path()});
  } else {
    ends_ = main_.io->open_pipes();
    options.stdin_fd = ends_.in.get();
    options.stdout_fd = ends_.out.get();
    options.stderr_fd = ends_.err.get();
  }
  options.args.push_back(config_.container_id);
  return options;
}

void Container::start(const Reply& reply) {
  if (main_.status != Status::empty || lifecycle_) throw Error(Errc::conflict, "the container was started already");
  main_.status = Status::creating;
  log_.when_ready([this, reply](const std::string& failure) {
    // A removal may have come while the log's server was looked for.
    if (main_.status != Status::creating || lifecycle_)
      return reply.fail(protocol::ErrorCode::conflict, "the container was removed");
    if (failure.empty()) return launch(reply);
    main_.status = Status::empty;
    reply.fail(protocol::ErrorCode::internal, "failed to initialize logging driver: " + failure);
    main_.io->end({}, {});
  });
}

void Container::launch(const Reply& reply) {
  try {
    lifecycle_ =
        std::make_unique<RuntimeCommand>(loop_, reaper_, config_, launch_options(),
                                         [this, reply](CommandResult result) { launched(std::move(result), reply); });
    if (!config_.cgroup_shim.empty()) warmth_.emplace(loop_, config_.cgroup_shim);
  } catch (const Error& e) {
    fail_start(classify_failure(Stage::create, e.message()), reply);
  }
  ends_ = {};  // only the container may hold them, or its end would not be the end of the streams
}

/// The runtime has made the container. Its process runs, unless the runtime wants to be told with a second command.
void Container::launched(CommandResult result, const Reply& reply) {
  const std::unique_ptr<RuntimeCommand> command = std::move(lifecycle_);  // its Hold lasts until the pid is known
  warmth_.reset();
  const std::unique_ptr<ConsoleSocket> console = std::move(console_);
  try {
    if (!result.ok) {
      fail_start(failure_of(Stage::create, std::move(result)), reply);
    } else {
      main_.child.pid = read_pid_file(kPidFile);
      open_child();
      if (config_.tty) main_.io->set_console(console->receive());
      created_ns_ = now_ns();
      oom_ = std::make_unique<OomWatch>(loop_, config_.cgroup_memory, [this] { oom_changed(); });
      main_.status = config_.direct ? Status::running : Status::starting;
      reaper_.expect(main_.child.pid, [this](int status, std::int64_t when) { process_ended(status, when); });
      main_.io->begin();
      if (config_.direct) running(reply);
      else
        run({"start", config_.container_id}, -1,
            [this, reply](CommandResult end) { second_step_done(std::move(end), reply); });
    }
  } catch (const Error& e) {
    // The runtime made something that cannot be supervised. What remains of it is for `remove`.
    if (main_.child.pid > 0) {
      reaper_.forget(main_.child.pid);  // its end is not the end of a run
      (void)::kill(main_.child.pid, SIGKILL);
    }
    main_.child = {};
    fail_start(classify_failure(Stage::create, e.message()), reply);
  }
  finish_command();
}

void Container::second_step_done(CommandResult result, const Reply& reply) {
  const std::unique_ptr<RuntimeCommand> command = std::move(lifecycle_);
  if (result.ok) {
    main_.status = Status::running;
    running(reply);
  } else {
    main_.status = Status::created;
    reply.fail(failure_of(Stage::start, std::move(result)));
  }
  // The answer to the start comes before the end, also for a process that is faster than the runtime.
  if (const auto end = std::exchange(early_end_, std::nullopt)) process_ended(end->first, end->second);
  finish_command();
}

/// The process may have ended and been reaped before the runtime did.
void Container::open_child() {
  try {
    main_.child.pidfd = sys::open_pidfd(main_.child.pid);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
  }
}

void Container::running(const Reply& reply) {
  main_.started_ns = now_ns();
  Message message = reply.success();
  message.put_number(Tag::pid, static_cast<std::uint64_t>(main_.child.pid));
  reply.send(message.put_number(Tag::started_ns, static_cast<std::uint64_t>(main_.started_ns)));
}

/// Clients that attached for the output of a container that never ran see their stream end.
void Container::fail_start(const protocol::RuntimeFailure& failure, const Reply& reply) {
  main_.status = Status::empty;
  reply.fail(failure);
  main_.io->end({}, {});
}

protocol::RuntimeFailure Container::failure_of(Stage stage, CommandResult result) {
  protocol::RuntimeFailure failure = classify_failure(stage, std::move(result.failure));
  if (result.timed_out) failure.kind = protocol::FailureKind::timed_out;
  return failure;
}

// ---- the end

void Container::process_ended(int status, std::int64_t when_ns) {
  if (main_.status == Status::starting) {
    early_end_.emplace(status, when_ns);
    return;
  }
  protocol::ExitRecord record = exit_record(status, std::max(when_ns, main_.started_ns));
  if (oom_) oom_->refresh();
  record.oom_kills = oom_ ? oom_->kills() : 0;
  // Only the container's own process makes it "killed for want of memory"; children are counted. A SIGKILL that
  // somebody asked for, or long after the last kill of the kernel, is another matter.
  record.oom_killed = record.signal == SIGKILL && !kill_asked_ && oom_ && oom_->rose_within(std::chrono::seconds(5));
  main_.exit = record;
  if (main_.status != Status::deleted) main_.status = Status::stopped;
  paused_ = false;
  record_end();
  main_.io->end({}, [this] { publish_end(); });
}

/// On disk before anybody is told: a daemon that is away reads it later.
void Container::record_end() {
  try {
    sys::write_atomically(kExitFile, protocol::render_exit(*main_.exit), 0600, false);
  } catch (const Error& e) {
    log::error("cannot record the exit: {}", e.message());
  }
}

void Container::publish_end() {
  main_.publish();
  for (const auto& [seen, reply] : std::exchange(oom_waiters_, {}))
    reply.fail(protocol::ErrorCode::conflict, "the container has ended");
  leave_if_abandoned();
}

/// A shim stays after the end, to answer for it, until the daemon sends it away. If its directory is gone nobody can.
void Container::leave_if_abandoned() {
  if (::access("config", F_OK) != 0) return loop_.stop();
  abandoned_ = loop_.after(kAbandonedCheck, [this] { leave_if_abandoned(); });
}

void Container::remove(const Reply& reply) {
  if (main_.status == Status::deleted) return reply.ok();
  kill_asked_ = true;
  execs_.kill_all();
  if (lifecycle_) {
    // Whatever the runtime is busy with is no longer wanted. If that is a removal, this one finds it done.
    if (main_.status == Status::creating || main_.status == Status::starting) lifecycle_->abort(false);
    after_lifecycle_.push_back([this, reply] {
      try {
        remove(reply);
      } catch (const Error& e) {
        reply.fail(protocol::ErrorCode::internal, e.message());
      }
    });
    return;
  }
  delete_now(reply);
}

void Container::delete_now(const Reply& reply) {
  run({"delete", "--force", config_.container_id}, -1, [this, reply](CommandResult result) {
    const std::unique_ptr<RuntimeCommand> command = std::move(lifecycle_);
    if (result.ok) {
      main_.status = Status::deleted;  // its process may still be on its way out
      reply.ok();
    } else {
      reply.fail(result.timed_out ? protocol::ErrorCode::timed_out : protocol::ErrorCode::internal,
                 "runtime delete: " + result.failure);
    }
    finish_command();
  });
}

// ---- verbs on a running container

void Container::kill(int signal, bool all, const Reply& reply) {
  if (!main_.alive()) throw Error(Errc::conflict, "the container is not running");
  kill_asked_ = kill_asked_ || signal == SIGKILL;
  if (config_.direct && !all) {
    main_.signal(signal);
    return reply.ok();
  }
  std::vector<std::string> args{"kill"};
  if (all) args.emplace_back("--all");
  args.insert(args.end(), {config_.container_id, std::to_string(signal)});
  run_simple(std::move(args), -1, "kill", reply, {});
}

void Container::pause(bool paused, const Reply& reply) {
  if (main_.status != Status::running) throw Error(Errc::conflict, "the container is not running");
  if (paused_ == paused)
    throw Error(Errc::conflict, paused ? "the container is already paused" : "the container is not paused");
  if (!freezer_) freezer_ = std::make_unique<Freezer>(loop_, config_.cgroup_freezer);
  if (freezer_->busy()) throw Error(Errc::conflict, "the container is being paused or unpaused");
  if (config_.direct && freezer_->usable()) {
    freezer_->set(paused, [this, paused, reply](const std::string& failure) { paused_now(paused, failure, reply); });
    return;
  }
  run_simple({paused ? "pause" : "resume", config_.container_id}, -1, paused ? "pause" : "resume", reply,
             [this, paused] { paused_ = paused; });
}

void Container::paused_now(bool paused, const std::string& failure, const Reply& reply) {
  if (!failure.empty()) return reply.fail(protocol::ErrorCode::internal, failure);
  paused_ = paused && main_.status == Status::running;
  reply.ok();
}

void Container::update(const std::string& resources, const Reply& reply) {
  if (!main_.alive()) throw Error(Errc::conflict, "the container is not running");
  const sys::Fd input = text_file(resources);
  run_simple({"update", "--resources", "-", config_.container_id}, input.get(), "update", reply, {});
}

void Container::run_simple(std::vector<std::string> args, int stdin_fd, const char* verb, const Reply& reply,
                           std::function<void()> on_success) {
  if (side_.size() >= 32) throw Error(Errc::conflict, "too many runtime commands at once");
  RuntimeCommand::Options options;
  options.args = std::move(args);
  options.stdin_fd = stdin_fd;
  auto slot = std::make_shared<RuntimeCommand*>(nullptr);
  auto done = [this, slot, verb, reply, on_success = std::move(on_success)](const CommandResult& result) {
    if (result.ok) {
      if (on_success) on_success();
      reply.ok();
    } else {
      reply.fail(result.timed_out ? protocol::ErrorCode::timed_out : protocol::ErrorCode::internal,
                 std::string("runtime ") + verb + ": " + result.failure);
    }
    std::erase_if(side_, [&slot](const auto& other) { return other.get() == *slot; });
  };
  side_.push_back(std::make_unique<RuntimeCommand>(loop_, reaper_, config_, std::move(options), std::move(done)));
  *slot = side_.back().get();
}

// ---- questions

void Container::state(const Reply& reply) {
  if (oom_ && main_.alive()) oom_->refresh();
  protocol::ContainerState state;
  state.status = main_.status;
  state.paused = paused_;
  state.pid = main_.alive() ? main_.child.pid : 0;
  state.shim_pid = ::getpid();
  state.created_ns = created_ns_;
  state.started_ns = main_.started_ns;
  state.oom_kills = oom_ ? oom_->kills() : 0;
  state.dropped_log_bytes = log_.dropped_bytes();
  state.attached = attached();
  state.exit = main_.exit;
  Message message = reply.success();
  protocol::put(message, state);
  reply.send(message);
}

void Container::pids(bool packed, const Reply& reply) {
  std::vector<pid_t> found;
  if (main_.alive()) {
    if (!config_.cgroup_procs.empty()) collect_pids(config_.cgroup_procs, kMaxCgroupDepth, found);
    else found.push_back(main_.child.pid);
  }
  Message message = reply.success();
  if (packed) {
    message.put(Tag::pids, protocol::pack_pids(found));
  } else {
    if (found.size() > protocol::kMaxFields) found.resize(protocol::kMaxFields);
    for (const pid_t pid : found) message.put_number(Tag::pid, static_cast<std::uint64_t>(pid));
  }
  reply.send(message);
}

void Container::wait_oom(std::uint64_t seen, const Reply& reply) {
  if (!main_.alive()) throw Error(Errc::conflict, "the container is not running");
  if (oom_waiters_.size() >= 64) std::erase_if(oom_waiters_, [](const auto& waiter) { return !waiter.second.alive(); });
  oom_waiters_.emplace_back(seen, reply);
  oom_changed();
}

void Container::oom_changed() {
  if (!oom_) return;
  const std::uint64_t kills = oom_->kills();
  std::erase_if(oom_waiters_, [kills](const auto& waiter) {
    if (kills <= waiter.first) return false;
    Message message = waiter.second.success();
    waiter.second.send(message.put_number(Tag::oom_kills, kills));
    return true;
  });
}

Stdio& Container::streams(const std::string& exec_id) { return exec_id.empty() ? *main_.io : *execs_.get(exec_id).io; }

bool Container::gone() const noexcept {
  return !lifecycle_ && !main_.alive() &&
         (main_.status == Status::empty || main_.status == Status::deleted || main_.published);
}

std::uint32_t Container::attached() const noexcept { return main_.io->attached() + execs_.attached(); }

}  // namespace gantry::shim
