#include "engine/container_codec.hpp"

#include "json/codec.hpp"

namespace gantry::volume {

BOOST_DESCRIBE_STRUCT(MountPoint, (),
                      (type, origin, name, source, destination, driver, mode, rw, propagation, copy_data, create_source,
                       non_recursive, read_only_non_recursive, read_only_force_recursive, subpath, labels,
                       driver_options, tmpfs_options, anonymous, image_id, chain_id))

}  // namespace gantry::volume

namespace gantry::sys {

BOOST_DESCRIBE_STRUCT(IdRange, (), (inside, outside, count))
BOOST_DESCRIBE_STRUCT(IdMapping, (), (uids, gids))

}  // namespace gantry::sys

namespace gantry::engine {
namespace {

struct StoredConfig {
  std::string image_id;
  std::string image_ref;
  std::string chain_id;
  std::string platform;
  model::ContainerConfig config;
  model::HostConfig host;
  std::map<std::string, model::EndpointSettings> networks;
  std::string path;
  std::vector<std::string> args;
  std::vector<volume::MountPoint> mounts;
  std::string log_path;
  sys::IdMapping id_mapping;
  bool left_own_network = false;
};
BOOST_DESCRIBE_STRUCT(StoredConfig, (),
                      (image_id, image_ref, chain_id, platform, config, host, networks, path, args, mounts, log_path,
                       id_mapping, left_own_network))

struct StoredHealthResult {
  std::int64_t start_ns = 0;
  std::int64_t end_ns = 0;
  int exit_code = 0;
  std::string output;
};
BOOST_DESCRIBE_STRUCT(StoredHealthResult, (), (start_ns, end_ns, exit_code, output))

struct StoredHealth {
  std::int64_t run_ns = 0;
  HealthStatus status = HealthStatus::starting;
  std::int64_t failing_streak = 0;
  std::vector<StoredHealthResult> log;
};
BOOST_DESCRIBE_STRUCT(StoredHealth, (), (run_ns, status, failing_streak, log))

struct StoredState {
  bool starting = false;
  bool running = false;
  bool paused = false;
  bool restarting = false;
  bool oom_killed = false;
  bool dead = false;
  std::int64_t pid = 0;
  int exit_code = 0;
  std::string error;
  std::int64_t started_ns = 0;
  std::int64_t finished_ns = 0;
  std::int64_t restart_count = 0;
  bool manually_stopped = false;
  bool has_been_started = false;
  std::int64_t backoff_ms = 0;
  json::Omit<StoredHealth> health;
};
BOOST_DESCRIBE_STRUCT(StoredState, (),
                      (starting, running, paused, restarting, oom_killed, dead, pid, exit_code, error, started_ns,
                       finished_ns, restart_count, manually_stopped, has_been_started, backoff_ms, health))

std::int64_t to_ns(Timestamp t) { return static_cast<std::int64_t>(t.time_since_epoch().count()); }
Timestamp from_ns(std::int64_t ns) { return Timestamp(std::chrono::nanoseconds(ns)); }

StoredHealth to_stored(const HealthState& health) {
  StoredHealth stored{to_ns(health.run), health.status, health.failing_streak, {}};
  for (const HealthResult& result : health.log)
    stored.log.push_back({to_ns(result.start), to_ns(result.end), result.exit_code, result.output});
  return stored;
}

HealthState from_stored(StoredHealth&& stored) {
  HealthState health{from_ns(stored.run_ns), stored.status, stored.failing_streak, {}};
  for (StoredHealthResult& result : stored.log)
    health.log.push_back(
        {from_ns(result.start_ns), from_ns(result.end_ns), result.exit_code, std::move(result.output)});
  return health;
}

}  // namespace

std::string encode_config(const Container& c) {
  StoredConfig stored{c.image_id, c.image_ref, c.chain_id, c.platform,   c.config,          c.host, c.networks, c.path,
                      c.args,     c.mounts,    c.log_path, c.id_mapping, c.left_own_network};
  return json::encode_text(stored);
}

std::string encode_state(const ContainerState& s) {
  StoredState stored{s.starting,
                     s.running,
                     s.paused,
                     s.restarting,
                     s.oom_killed,
                     s.dead,
                     s.pid,
                     s.exit_code,
                     s.error,
                     to_ns(s.started),
                     to_ns(s.finished),
                     s.restart_count,
                     s.manually_stopped,
                     s.has_been_started,
                     s.backoff_ms,
                     {}};
  if (s.health) stored.health = to_stored(*s.health);
  return json::encode_text(stored);
}

void decode_config(const std::string& text, Container& into) {
  auto stored = json::decode_text<StoredConfig>(text);
  into.image_id = std::move(stored.image_id);
  into.image_ref = std::move(stored.image_ref);
  into.chain_id = std::move(stored.chain_id);
  into.platform = std::move(stored.platform);
  into.config = std::move(stored.config);
  into.host = std::move(stored.host);
  into.networks = std::move(stored.networks);
  into.path = std::move(stored.path);
  into.args = std::move(stored.args);
  into.mounts = std::move(stored.mounts);
  into.log_path = std::move(stored.log_path);
  into.id_mapping = std::move(stored.id_mapping);
  into.left_own_network = stored.left_own_network;
}

ContainerState decode_state(const std::string& text) {
  auto stored = json::decode_text<StoredState>(text);
  ContainerState s;
  s.starting = stored.starting;
  s.running = stored.running;
  s.paused = stored.paused;
  s.restarting = stored.restarting;
  s.oom_killed = stored.oom_killed;
  s.dead = stored.dead;
  s.pid = stored.pid;
  s.exit_code = stored.exit_code;
  s.error = stored.error;
  s.started = from_ns(stored.started_ns);
  s.finished = from_ns(stored.finished_ns);
  s.restart_count = stored.restart_count;
  s.manually_stopped = stored.manually_stopped;
  s.has_been_started = stored.has_been_started;
  s.backoff_ms = stored.backoff_ms;
  if (stored.health) s.health = from_stored(std::move(*stored.health));
  return s;
}

}  // namespace gantry::engine
