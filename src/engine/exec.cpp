#include "engine/exec.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "engine/detach_keys.hpp"
#include "engine/exec_spec.hpp"
#include "engine/legacy_links.hpp"
#include "engine/messages.hpp"
#include "runtime/limits.hpp"

namespace gantry::engine {
namespace {

/// Ended execs are forgotten in the second round that finds them, as in Docker.
constexpr std::chrono::minutes kCollectEvery{5};
/// Above these the oldest that do not run are forgotten earlier.
constexpr std::size_t kMostEnded = 512;
constexpr std::size_t kMostRecords = 4096;
/// Of one exec's file. Bigger than any request's body.
constexpr std::size_t kMostStored = 32 << 20;

/// Throws as Docker words it. `reference` is how the client called the container.
void require_active(const Container& container, const std::string& reference) {
  if (!container.state.running) throw container_not_running(container.id.str());
  if (container.state.paused) throw container_is_paused(reference);
  if (container.state.restarting || !container.shim) throw container_is_restarting(container.id.str());
}

/// Behind the name of an exec's file: its `exec_die` was told.
constexpr std::string_view kTold = ".told";

void remove_files_blocking(const std::vector<sys::Path>& files) {
  std::error_code ignored;  // gone with its container
  for (const sys::Path& file : files) std::filesystem::remove(file, ignored);
}

}  // namespace

std::string Exec::command_text() const {
  const std::vector<std::string> args(options.command.begin() + 1, options.command.end());
  return options.command.front() + " " + join(args, " ");
}

Execs::Execs(Services& services, ContainerStore& store, Lifecycle& lifecycle)
    : services_(services), store_(store), lifecycle_(lifecycle), tasks_(services.loop) {}

Execs::~Execs() = default;

Task<ExecPtr> Execs::create(std::string reference, ExecOptions options) {
  if (options.command.empty()) throw Error(Errc::invalid_argument, "No exec command specified");
  ContainerPtr container = store_.get(reference);
  require_active(*container, reference);
  co_return co_await enter(container, std::move(options), false);
}

Task<ExecPtr> Execs::create_probe(ContainerPtr container, std::vector<std::string> command) {
  ExecOptions options;
  options.command = std::move(command);
  options.use_stdout = true;
  options.use_stderr = true;
  return enter(std::move(container), std::move(options), true);
}

Task<ExecPtr> Execs::enter(ContainerPtr container, ExecOptions options, bool is_probe) {
  auto exec = std::make_shared<Exec>();
  exec->id = random_id();
  exec->container_id = container->id.str();
  exec->container = container;
  exec->is_probe = is_probe;
  if (!options.detach_keys.empty()) exec->keys = parse_detach_keys(options.detach_keys);
  auto in = std::make_shared<ExecInputs>();
  in->config = container->config;
  in->host = container->host;
  in->options = options;
  in->hostname = container->config.Hostname;
  if (const auto* live = services_.networks.find_attachment(exec->container_id); live && !live->donor_id.empty())
    if (const ContainerPtr donor = store_.find(live->donor_id)) in->hostname = donor->config.Hostname;
  try {
    in->link_env = link_environment(store_, services_.networks, *container);
  } catch (const Error& e) {
    // What it is linked to has ended: no reason to keep anybody, least of all a health check, from looking inside.
    log::debug("container {}: {}", container->name, e.message());
  }
  in->rootfs = services_.paths.rootfs(exec->container_id);
  for (const auto& [name, limit] : services_.config.default_ulimits)
    in->default_ulimits.push_back({name, limit.soft, limit.hard});
  in->daemon_no_new_privileges = services_.config.no_new_privileges;
  exec->options = std::move(options);
  exec->options.env.clear();
  if (exec->options.user.empty()) exec->options.user = container->config.User;
  in->cgroup = runtime::cgroup_directory(container->cgroup_parent(services_.config.cgroup_parent), exec->container_id,
                                         services_.config.systemd_cgroups());
  BuiltProcess built =
      co_await services_.lanes.quick.run([in, facts = &services_.host] { return build_process_blocking(*in, *facts); });
  exec->process_json = std::move(built.process_json);
  exec->native = std::move(built.native);
  if (exec->native) exec->confinement = co_await confinement_of(container);
  if (!is_probe) {
    // Beside the shim, so that a daemon that comes after this one knows it; gone with the run, so it is not synced.
    co_await services_.lanes.quick.run(
        [text = encode_exec(*exec), directory = directory(exec->container_id), name = exec->id] {
          std::filesystem::create_directory(directory);
          sys::write_atomically(directory / name, text, 0600, false);
        });
    FAILPOINT("exec.create.after_file");
  }
  require_active(*container, container->id.str());
  make_room();
  exec->number = ++created_;
  by_id_[exec->id] = exec;
  if (!is_probe) container->execs.insert(exec->id);
  publish(*exec, "exec_create: " + exec->command_text());
  co_return exec;
}

/// As the container's config.json says, so that a daemon with other defaults confines an exec like its container.
Task<std::shared_ptr<const runtime::Confinement>> Execs::confinement_of(ContainerPtr container) {
  const std::uint64_t start = container->starts;
  const auto known = confined_.find(container->id.str());
  if (known != confined_.end() && known->second.start == start) co_return known->second.how;
  std::shared_ptr<const runtime::Confinement> how;
  try {
    how = co_await services_.lanes.quick.run(
        [this, file = (services_.paths.shim(container->id.str()) / "bundle/config.json").string()] {
          return confinements_.read_blocking(file);
        });
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    log::debug("container {}: the runtime makes its execs: {}", container->name, e.message());
  }
  confined_[container->id.str()] = {start, how};
  co_return how;
}

/// The event, once, whatever daemon is there by then.
Task<void> Execs::tell_end(ExecPtr exec) {
  publish(*exec, "exec_die", {{"exitCode", std::to_string(exec->exit_code.value_or(0))}});
  if (exec->is_probe) co_return;
  co_await services_.lanes.quick.run([file = directory(exec->container_id) / exec->id] {
    std::error_code gone;  // with its container
    std::filesystem::rename(file, file.string() + std::string(kTold), gone);
  });
}

void Execs::forget(const Exec& exec) { by_id_.erase(exec.id); }

void Execs::publish(const Exec& exec, std::string action, std::map<std::string, std::string> extra) {
  const ContainerPtr container = exec.container.lock();
  if (!container) return;
  extra["execID"] = exec.id;
  lifecycle_.publish(*container, std::move(action), std::move(extra));
}

ExecPtr Execs::get(const std::string& id) const {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) throw no_such_exec(id);
  const ContainerPtr container = found->second->container.lock();
  if (!container || container->removed) throw no_such_exec(id);
  return found->second;
}

ExecPtr Execs::get_startable(const std::string& id) const {
  ExecPtr exec = get(id);
  require_active(*exec->container.lock(), exec->container_id);
  return exec;
}

/// Keeps the number of records bounded, whatever clients create and never start, and however many they run.
void Execs::make_room() {
  if (by_id_.size() < kMostEnded) return;
  std::vector<ExecPtr> ended;
  std::vector<ExecPtr> created;
  for (const auto& [id, exec] : by_id_) {
    if (exec->phase == ExecPhase::ended) ended.push_back(exec);
    else if (exec->phase == ExecPhase::created) created.push_back(exec);
  }
  const auto forget_oldest = [this](std::vector<ExecPtr>& idle, std::size_t count) {
    std::ranges::sort(idle, {}, &Exec::number);
    idle.resize(std::min(idle.size(), count));
    erase(idle);
  };
  if (ended.size() >= kMostEnded) forget_oldest(ended, kMostEnded / 8);
  else if (by_id_.size() >= kMostRecords) forget_oldest(created.empty() ? ended : created, kMostRecords / 8);
}

void Execs::erase(const std::vector<ExecPtr>& old) {
  std::vector<sys::Path> files;
  for (const ExecPtr& exec : old) {
    by_id_.erase(exec->id);
    if (exec->is_probe) continue;
    if (const ContainerPtr container = exec->container.lock()) container->execs.erase(exec->id);
    const sys::Path file = directory(exec->container_id) / exec->id;
    files.insert(files.end(), {file, file.string() + std::string(kTold)});
  }
  if (files.empty()) return;
  tasks_.spawn("removal of old exec records",
               services_.lanes.quick.run([files = std::move(files)] { remove_files_blocking(files); }));
}

/// Forgets what is over.
Task<void> Execs::collect() {
  for (;;) {
    co_await async::sleep_for(kCollectEvery);
    std::vector<ExecPtr> old;
    for (const auto& [id, exec] : by_id_) {
      const ContainerPtr container = exec->container.lock();
      if (!container || container->removed || exec->can_remove) old.push_back(exec);
      else if (exec->phase == ExecPhase::ended) exec->can_remove = true;
    }
    erase(old);
    std::erase_if(confined_, [this](const auto& item) { return !store_.find(item.first); });
  }
}

Task<void> Execs::recover() {
  tasks_.spawn("exec records", collect());
  for (const ContainerPtr& container : store_.list()) {
    if (!container->shim) continue;
    Files files = co_await services_.lanes.quick.run([directory = directory(container->id.str())] {
      Files found;
      std::error_code none;
      if (!std::filesystem::is_directory(directory, none)) return found;
      for (const std::string& name : sys::list_directory(directory))
        if (auto text = sys::find_file(directory / name, kMostStored)) found.emplace_back(name, std::move(*text));
      return found;
    });
    if (files.empty()) continue;
    try {
      co_await adopt(container, std::move(files));
    } catch (const Error& e) {
      log::warning("container {}: its execs are not known any more: {}", container->name, e.log_detail());
    }
  }
}

/// Takes over what the former daemon began in one container. A file without an exec in the shim is one that was never
/// started: the shim keeps the last that ended.
Task<void> Execs::adopt(ContainerPtr container, Files files) {
  runtime::ShimClient shim = container->live_shim();
  std::map<std::string, runtime::ExecState> states;
  for (runtime::ExecState& state : co_await shim.exec_list()) states[state.id] = state;
  for (const auto& [name, text] : files) {
    const bool told = name.ends_with(kTold);
    auto exec = std::make_shared<Exec>();
    exec->id = told ? name.substr(0, name.size() - kTold.size()) : name;
    exec->container_id = container->id.str();
    exec->container = container;
    exec->number = ++created_;
    decode_exec(text, *exec);
    by_id_[exec->id] = exec;
    container->execs.insert(exec->id);
    const auto found = states.find(exec->id);
    if (found == states.end()) continue;
    // Made, not started: the next start makes it again.
    if (found->second.status == runtime::ShimStatus::created) co_await shim.exec_remove(exec->id);
    else adopt_one(exec, container, found->second, told);
  }
}

/// `told`: its end was an event already.
void Execs::adopt_one(const ExecPtr& exec, const ContainerPtr& container, const runtime::ExecState& state, bool told) {
  exec->process_json.clear();
  exec->pid = state.pid;
  const std::string name = "exec " + exec->id.substr(0, 12);
  if (!state.exit) {
    mark_running(exec, container);
    tasks_.spawn(name, watch(exec, container, container->live_shim()));
    return;
  }
  mark_ended(*exec, state.exit->exit_code);
  // One that could not be started has no end, as in Docker.
  if (!told && state.started_ns != 0) tasks_.spawn(name, tell_end(exec));
}

Task<void> Execs::stop() {
  tasks_.cancel();
  co_await tasks_.join();
}

}  // namespace gantry::engine
