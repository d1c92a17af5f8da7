#include "app.hpp"

#include <csignal>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include "api/archive_routes.hpp"
#include "api/build_routes.hpp"
#include "api/commit_routes.hpp"
#include "api/container_routes.hpp"
#include "api/exec_routes.hpp"
#include "api/image_routes.hpp"
#include "api/network_routes.hpp"
#include "api/server.hpp"
#include "api/system_routes.hpp"
#include "api/unsupported_routes.hpp"
#include "api/volume_routes.hpp"
#include "async/lanes.hpp"
#include "async/operation.hpp"
#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "async/watchdog.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/checks.hpp"
#include "base/text.hpp"
#include "build/builds.hpp"
#include "db/container_rows.hpp"
#include "database.hpp"
#include "db/event_rows.hpp"
#include "db/restore.hpp"
#include "db/sqlite.hpp"
#include "engine/attach.hpp"
#include "engine/containers.hpp"
#include "engine/event_history.hpp"
#include "engine/exec.hpp"
#include "engine/health.hpp"
#include "engine/lifecycle.hpp"
#include "engine/log_stream.hpp"
#include "engine/services.hpp"
#include "engine/system_info.hpp"
#include "exec_root.hpp"
#include "image/content_store.hpp"
#include "image/images.hpp"
#include "image/space_policy.hpp"
#include "image/transfers.hpp"
#include "network/networks.hpp"
#include "runtime/host_facts.hpp"
#include "runtime/realtime.hpp"
#include "runtime/seccomp.hpp"
#include "runtime/subordinate_ids.hpp"
#include "storage/layer_store.hpp"
#include "storage/rootfs.hpp"
#include "sys/listen.hpp"
#include "sys/memory.hpp"
#include "sys/paths.hpp"
#include "volume/volumes.hpp"

namespace asio = boost::asio;

namespace gantry {
namespace {

constexpr std::size_t kEventHistory = 1024;
constexpr std::chrono::seconds kShutdownGrace{2};
constexpr std::int64_t kDatabaseReserve = 4 << 20;
constexpr std::chrono::seconds kMemoryTrimEvery{20};

sys::Paths make_paths(const config::Config& config) {
  sys::Paths paths;
  paths.data_root = config.data_root;
  paths.exec_root = config.exec_root;
  return paths;
}

/// The pid file, removed at the end. A file of a process that is gone is replaced.
class PidFile {
 public:
  explicit PidFile(sys::Path path) : path_(std::move(path)) {
    if (path_.empty()) return;
    const auto old = sys::find_file(path_, 64);
    const auto pid = old ? parse_int(trim(*old)) : std::nullopt;
    if (pid && *pid > 0 && *pid != ::getpid() && runs_gantryd(*pid))
      throw Error(Errc::unavailable, fmt::format("ensure gantryd is not running or delete {}: process with PID {} is "
                                                 "still running",
                                                 path_.string(), *pid));
    sys::make_directories(path_.parent_path());
    sys::write_atomically(path_, fmt::format("{}\n", ::getpid()), 0644, false);
  }
  ~PidFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;

 private:
  static bool runs_gantryd(std::int64_t pid) {
    const auto name = sys::try_read_small(fmt::format("/proc/{}/comm", pid));
    return name && trim(*name) == "gantryd";
  }
  sys::Path path_;
};

sys::Path find_shim_program() {
  const sys::Path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const sys::Path& path : {here / "gantry-shim", here / "shim/gantry-shim", sys::Path("/usr/libexec/gantry/gantry-shim")})
    if (std::filesystem::exists(path)) return path;
  throw Error(Errc::not_found, "gantry-shim is neither beside gantryd nor in /usr/libexec/gantry: install it there");
}

/// Empty if builds are not installed: the rest works without.
sys::Path find_builder_program() {
  const sys::Path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const sys::Path& path :
       {here / "gantry-build", here / "builder/gantry-build", sys::Path("/usr/libexec/gantry/gantry-build")})
    if (std::filesystem::exists(path)) return path;
  return {};
}

network::Options network_options(const config::Config& config, const sys::Paths& paths) {
  network::Options options;
  if (!config.bridge.empty()) options.bridge_name = config.bridge;
  // The table is named after the bridge, so that two engines on one machine have one each.
  if (options.bridge_name != config::kDefaultBridge && options.bridge_name != "none")
    options.table_name = "gantry-" + options.bridge_name;
  options.bip = config.bip;
  options.fixed_cidr = config.fixed_cidr;
  options.ipv6 = config.ipv6;
  options.bip6 = config.bip6;
  options.fixed_cidr_v6 = config.fixed_cidr_v6;
  options.default_gateway = config.default_gateway;
  options.default_gateway_v6 = config.default_gateway_v6;
  options.default_network_opts = config.default_network_opts;
  options.iptables = config.iptables;
  options.ip6tables = config.ip6tables;
  options.allow_direct_routing = config.allow_direct_routing;
  options.firewall_compat = config.firewall_compat;
  std::tie(options.accept_mark, options.accept_mask) = config::parse_fwmark(config.bridge_accept_fwmark).value();
  for (const config::AddressPool& pool : config.default_address_pools)
    options.address_pools.push_back({network::Cidr::parse(pool.base, "default-address-pools"), static_cast<unsigned>(pool.size)});
  options.mtu = static_cast<unsigned>(config.mtu);
  options.icc = config.icc;
  options.ip_masq = config.ip_masq;
  options.ip_forward = config.ip_forward;
  options.ip_forward_no_drop = config.ip_forward_no_drop;
  options.relay = config.userland_proxy;
  if (config.ip != "0.0.0.0") options.default_bind_ip = config.ip;
  options.dns = config.dns;
  options.dns_search = config.dns_search;
  options.dns_options = config.dns_opts;
  options.host_gateway_ips = config.host_gateway_ips;
  options.netns_directory = paths.netns();
  options.names_directory = paths.names();
  options.embedded_dns = true;
  options.run_directory = paths.exec_root;
  if (!config.resolv_conf.empty()) options.host_resolv_conf = config.resolv_conf;
  return options;
}

network::NetworkEventHook network_hook(events::Bus& bus) {
  return [&bus](const network::NetworkEvent& event) {
    if (event.container_id.starts_with(protocol::kSandboxPrefix)) return;  // builds' containers are nobody's
    std::map<std::string, std::string> attributes{{"name", event.network_name}, {"type", event.driver}};
    if (!event.container_id.empty()) attributes["container"] = event.container_id;
    if (!event.detail.empty()) attributes["detail"] = event.detail;
    bus.publish("network", event.action, event.network_id, std::move(attributes));
  };
}

volume::Volumes::Notify volume_hook(events::Bus& bus) {
  return [&bus](const volume::VolumeEvent& event) {
    std::map<std::string, std::string> attributes;
    if (event.action == "prune") {
      attributes["reclaimed"] = std::to_string(event.reclaimed);
      bus.publish("volume", event.action, "", std::move(attributes));
      return;
    }
    attributes["driver"] = event.driver;
    if (!event.container.empty()) attributes["container"] = event.container;
    if (event.action == "mount") {
      attributes["read/write"] = event.use.read_write ? "true" : "false";
      attributes["destination"] = event.use.destination;
      attributes["propagation"] = event.use.propagation;
    }
    bus.publish("volume", event.action, event.name, std::move(attributes));
  };
}

runtime::ProbeOptions probe_options(const config::Config& config) {
  runtime::ProbeOptions options;
  if (!config.init_path.empty()) options.init = config.init_path;
  else if (config.default_init != config::Config{}.default_init) options.init = config.default_init;
  return options;
}

api::ServerOptions server_options(const config::Config& config) {
  api::ServerOptions options;
  options.hosts = config.hosts;
  options.socket_group = config.group;
  options.socket_group_required = config.group != config::Config{}.group;
  options.tls = config::tls_enabled(config);
  options.tls_files = {config.tlscert, config.tlskey, config.tlscacert, config.tlsverify.value_or(false)};
  options.engine_version = std::string(engine::kEngineVersion);
  options.experimental = config.experimental;
  return options;
}

void report(const std::vector<storage::Problem>& problems) {
  for (const storage::Problem& problem : problems)
    log::warning("{}: {}; {}", problem.subject, problem.text, problem.repair);
}

}  // namespace

struct App::State {
  State(config::ParsedCommandLine line, config::LoadResult loaded)
      : command_line(std::move(line)), config(std::move(loaded.config)), paths(make_paths(config)),
        lock(lock_data_root(paths)), pid_file(config.pidfile) {}

  // In the order in which things depend on each other; destroyed from the end.
  config::ParsedCommandLine command_line;
  config::Config config;
  sys::Paths paths;
  sys::Fd lock;
  PidFile pid_file;
  ExecRoot exec_root{paths};
  asio::io_context loop{1};
  bool restored = false;        // the database was damaged
  bool storage_probed = false;  // not while the disk is full
  std::unique_ptr<db::Db> database = open_database(paths, &restored);
  async::Lanes lanes;
  async::Operations operations;
  runtime::HostFacts host = runtime::probe_host(probe_options(config));
  runtime::SeccompCache seccomp{host};
  engine::EventHistory history{lanes, *database, kEventHistory};
  events::Bus bus{kEventHistory, [this](const events::Event& event) { history.add(event); }};
  storage::LayerStore layers{loop.get_executor(), lanes, *database, paths};
  storage::RootfsStore rootfs{lanes, layers, paths};
  image::ContentStore content{lanes, *database, paths};
  image::Images images{lanes, *database, layers, content, bus};
  image::Transfers transfers{loop.get_executor(), lanes, images, bus, paths, config};
  network::Networks networks{network_options(config, paths), *database, lanes, loop.get_executor(), network_hook(bus)};
  volume::Volumes volumes{paths, *database, lanes, volume_hook(bus)};
  engine::Services services{loop.get_executor(), lanes,   operations, config, paths,    host,    seccomp,
                            bus,                 layers,  rootfs,     images, networks, volumes, find_shim_program()};
  engine::ContainerStore containers_store{lanes, *database};
  engine::Lifecycle lifecycle{services, containers_store};
  engine::Containers containers{services, containers_store, lifecycle};
  engine::Execs execs{services, containers_store, lifecycle};
  engine::Health health{services, containers_store, lifecycle, execs};
  engine::LogStreams logs{services, containers_store};
  engine::Attach attach{containers_store, lifecycle, logs};
  engine::SystemInfoSource system_info{services, containers_store};
  build::Builds builds{services, *database, transfers, find_builder_program(), [this] { return system_info.id(); }};
  api::Router router;
  api::SystemRoutes system_routes{system_info, bus, operations};
  api::ImageRoutes image_routes{images, transfers};
  api::ContainerRoutes container_routes{services, containers_store, containers, lifecycle, attach, logs};
  api::ArchiveRoutes archive_routes{services, containers_store, lifecycle};
  api::BuildRoutes build_routes{builds, loop.get_executor()};
  api::CommitRoutes commit_routes{services, containers_store, lifecycle, transfers};
  api::ExecRoutes exec_routes{execs};
  api::NetworkRoutes network_routes{services, containers_store};
  api::VolumeRoutes volume_routes{volumes, loop.get_executor()};
  Metrics metrics;
  std::unique_ptr<api::Server> server;
  std::unique_ptr<async::Watchdog> watchdog;
  async::TaskGroup tasks{loop.get_executor()};
  int exit_status = 0;

  Task<void> run();
  void set_up_metrics();
  Task<void> apply_container_settings();
  void limit_shutdown();
  Task<void> recover();
  Task<void> keep_memory_small();
  Task<void> probe_storage();
  Task<void> look_after_store();
  Task<void> serve(asio::signal_set& signals);
  Task<void> stop();
  Task<void> reload();
  Task<int> next_signal(asio::signal_set& signals);
};

App::App(config::ParsedCommandLine command_line, config::LoadResult loaded)
    : state_(std::make_unique<State>(std::move(command_line), std::move(loaded))) {}

App::~App() = default;

int App::run() {
  State& state = *state_;
  std::exception_ptr failure;
  auto work = asio::make_work_guard(state.loop);
  asio::co_spawn(state.loop, state.run(), [&](std::exception_ptr error) {
    failure = error;
    state.loop.stop();
  });
  state.loop.run();
  if (failure) std::rethrow_exception(failure);
  return state.exit_status;
}

Task<void> App::State::run() {
  containers.attach_to_images();
  lifecycle.set_containers(&containers);
  lifecycle.on_started([this](engine::ContainerPtr container) { health.begin(std::move(container)); });
  watchdog = std::make_unique<async::Watchdog>(loop.get_executor(), operations);
  co_await apply_container_settings();
  co_await recover();
  router.set_min_version(*api::parse_api_version(config.min_api_version));
  system_routes.provide_disk_usage("image", [this](api::ApiVersion v) { return image_routes.disk_usage(v); });
  system_routes.provide_disk_usage("container", [this](api::ApiVersion v) { return container_routes.disk_usage(v); });
  system_routes.provide_disk_usage("volume", [this](api::ApiVersion v) { return volume_routes.disk_usage(v); });
  system_routes.provide_disk_usage("build-cache", [this](api::ApiVersion v) { return build_routes.disk_usage(v); });
  set_up_metrics();
  system_routes.set_metrics(&metrics);
  system_routes.add_to(router);
  api::add_unsupported_routes(router);
  image_routes.add_to(router);
  archive_routes.add_to(router);
  build_routes.add_to(router);
  commit_routes.add_to(router);
  exec_routes.add_to(router);
  container_routes.add_to(router);
  network_routes.add_to(router);
  volume_routes.add_to(router);
  server = std::make_unique<api::Server>(loop.get_executor(), router, server_options(config));
  // Before anybody can know that we serve: a signal that comes at once would end us without stop().
  asio::signal_set signals(loop, SIGTERM, SIGINT, SIGHUP);
  signals.add(SIGUSR1);
  server->start();
  lifecycle.follow_up();
  tasks.spawn("memory", keep_memory_small());
  sys::notify_service_manager("READY=1");
  log::info("gantryd {} serves {}", GANTRY_VERSION, join(config.hosts, ", "));
  tasks.spawn("looking after the store", look_after_store());
  co_await serve(signals);
  co_await stop();
}

void App::State::set_up_metrics() {
  const auto gauge = [this](std::string name, std::string help, auto read) {
    metrics.gauge(std::move(name), std::move(help), [read] { return static_cast<double>(read()); });
  };
  gauge("gantry_containers", "Containers, running or not", [this] { return containers_store.size(); });
  gauge("gantry_containers_running", "Containers that run", [this] {
    std::size_t running = 0;
    for (const auto& container : containers_store.list()) running += container->state.running ? 1 : 0;
    return running;
  });
  gauge("gantry_operations_in_flight", "Multi-step verbs that are not over", [this] { return operations.list().size(); });
  gauge("gantry_event_readers", "Clients of /events", [this] { return bus.readers(); });
  gauge("gantry_connections", "API connections", [this] { return server->connections(); });
  gauge("gantry_requests_total", "API requests", [this] { return server->requests(); });
  gauge("gantry_network_repairs_total", "Foreign changes to networks and the firewall that were put right",
        [this] { return networks.repairs(); });
  gauge("gantry_layers_bytes", "Bytes of unpacked layers", [this] { return layers.total_size(); });
  gauge("gantry_loop_stalls_total", "How often the event loop was late", [this] { return watchdog->stalls(); });
  gauge("gantry_loop_longest_stall_ms", "The longest time that it was late", [this] {
    return watchdog->longest_stall().count();
  });
  const auto depth = [this](const char* lane, const async::Lane& of) {
    metrics.gauge("gantry_lane_depth", "Jobs that wait or run in a lane", [&of] { return static_cast<double>(of.depth()); },
                  std::string("{lane=\"") + lane + "\"}");
  };
  depth("db", lanes.db);
  depth("net", lanes.net);
  depth("quick", lanes.quick);
  depth("bulk", lanes.bulk);
}

/// Settings that concern containers and the machine at once.
Task<void> App::State::apply_container_settings() {
  if (!config.userns_remap.empty()) {
    services.id_mapping = co_await lanes.quick.run(
        [setting = config.userns_remap] { return runtime::read_id_mapping_blocking(setting); });
    if (services.id_mapping.empty()) {
      log::warning("user namespaces: root cannot be remapped with itself; user namespaces are OFF");
      config.userns_remap.clear();
    } else {
      volumes.set_owner(services.id_mapping.host_uid(0), services.id_mapping.host_gid(0));
    }
  }
  const std::string parent = config.cgroup_parent.empty() ? "/docker" : config.cgroup_parent;
  co_await lanes.quick.run([facts = &host, parent, period = config.cpu_rt_period, share = config.cpu_rt_runtime] {
    runtime::set_realtime_share_blocking(*facts, parent, period, share);
  });
}

/// Every module in layer order: rows against the kernel, before the first client is let in.
Task<void> App::State::recover() {
  bus.restore(co_await history.load());
  tasks.spawn("event history", history.run());
  for (const std::string& problem : co_await containers_store.load()) log::error("{}", problem);
  std::set<std::string> known;
  for (const engine::ContainerPtr& container : containers_store.list()) {
    known.insert(container->id.str());
    rootfs.set_id_mapping(container->id, container->id_mapping);
  }
  for (const db::ContainerRow& row : co_await lanes.db.run([&db = *database] { return db::load_containers(db); }))
    known.insert(row.id);  // those that cannot be read, too: their files stay
  if (restored) co_await lanes.quick.run([p = paths, known] { set_aside_unknown_containers_blocking(p, known); });
  const std::set<std::string> live = co_await lanes.quick.run([p = paths] {
    return engine::Lifecycle::find_live_blocking(p);
  });

  report(co_await layers.recover());
  report(co_await rootfs.recover(known));
  try {
    co_await probe_storage();
  } catch (const Error& e) {
    // What runs goes on, and room can be made: containers need the file system only when they are created.
    if (e.sys_errno() != ENOSPC) throw;
    log::error("the data root {} is full: remove something, or enlarge its disk", paths.data_root.string());
  }
  if (!services.id_mapping.empty()) co_await rootfs.require_id_mapping(services.id_mapping);
  report(co_await content.recover());
  report(co_await images.recover());
  co_await builds.recover();  // its processes end before their networks go, its layers are held before any is removed
  const network::RecoverReport repaired = co_await networks.recover(live);
  for (const std::string& text : repaired.repaired) log::info("network: {}", text);
  const volume::RecoverReport volume_report = co_await volumes.recover();
  for (const std::string& text : volume_report.messages) log::warning("volumes: {}", text);
  for (const std::string& text : co_await lifecycle.recover()) log::info("{}", text);
  co_await execs.recover();
  // Adopted containers have claimed their volumes' mounts by now; the others' are taken down.
  co_await volumes.forget_other_containers(known);
  // What an interrupted pull or load left: now it is known which layers containers need.
  const std::int64_t freed = co_await images.collect_interrupted();
  if (freed > 0) log::info("images: {} of interrupted pulls and loads were put aside", render_human_size(freed));
  co_await system_info.load_identity(*database);
}

/// After work has been done, and while none is being done.
Task<void> App::State::keep_memory_small() {
  std::optional<std::uint64_t> trimmed_at;
  asio::steady_timer timer(loop);
  for (;;) {
    timer.expires_after(kMemoryTrimEvery);
    co_await timer.async_wait(asio::use_awaitable);
    if (trimmed_at == server->requests() || !operations.list().empty()) continue;
    trimmed_at = server->requests();
    co_await lanes.quick.run([] { return sys::trim_resident_memory(); });
  }
}

Task<void> App::State::probe_storage() {
  if (storage_probed) co_return;
  system_info.set_storage_facts(co_await rootfs.probe());
  storage_probed = true;
}

/// Copies the database when it has changed, and keeps the space free that the configuration asks for.
Task<void> App::State::look_after_store() {
  constexpr std::chrono::seconds kInterval{30};
  std::int64_t copied = -1;
  for (;;) {
    try {
      const std::int64_t changes = co_await lanes.db.run([&db = *database, copied, file = paths.database()] {
        const std::int64_t now = db.total_changes();
        db.keep_reserve(file.string() + ".reserve", kDatabaseReserve);
        if (now != copied) db::copy_database(db, file);
        return now;
      });
      copied = changes;
      co_await probe_storage();
      (void)co_await image::keep_space(images, lanes, paths.data_root, config.image_keep_free);
    } catch (const Error& e) {
      if (e.code() == Errc::cancelled) throw;
      log::warning("looking after the store: {}", e.message());  // a full disk, for example: tried again
    }
    co_await async::sleep_for(kInterval);
  }
}

Task<int> App::State::next_signal(asio::signal_set& signals) { co_return co_await signals.async_wait(asio::use_awaitable); }

Task<void> App::State::serve(asio::signal_set& signals) {
  for (;;) {
    switch (co_await next_signal(signals)) {
      case SIGHUP: co_await reload(); break;
      case SIGUSR1:
        for (const auto& op : operations.list())
          log::info("in flight: {} {} @ {} for {} ms", op.what, op.subject, op.step, op.age.count());
        break;
      default: co_return;
    }
  }
}

/// Whatever hangs then (a dead file server, a client that does not read): the next start recovers from it.
void App::State::limit_shutdown() {
  if (config.shutdown_timeout < 0) return;
  auto timer = std::make_shared<asio::steady_timer>(loop, std::chrono::seconds(config.shutdown_timeout));
  timer->async_wait([timer, limit = config.shutdown_timeout](const boost::system::error_code& error) {
    if (error) return;
    log::warning("the shutdown took longer than shutdown-timeout ({} s): leaving at once", limit);
    std::fflush(nullptr);
    ::_exit(0);
  });
}

Task<void> App::State::stop() {
  limit_shutdown();
  sys::notify_service_manager("STOPPING=1");
  log::info("gantryd stops; containers keep running");
  content.keep_unfinished();
  co_await build_routes.stop();
  co_await builds.stop();
  co_await server->stop(kShutdownGrace);
  co_await health.stop();
  co_await execs.stop();
  co_await lifecycle.stop_supervising();
  co_await networks.stop();
  co_await layers.stop();
  co_await history.flush();
  co_await lanes.quick.run([this] { exec_root.release(); });
}

Task<void> App::State::reload() {
  sys::notify_service_manager("RELOADING=1");
  try {
    auto result = co_await lanes.quick.run([line = command_line, running = config] {
      return config::reload(line, config::probe_host(), running);
    });
    config = std::move(result.config);
    transfers.configure(config);
    log::set_level(config.debug ? log::Level::debug : log::Level::info);
    for (const std::string& key : result.changed) log::info("reloaded: {} has a new value", key);
    for (const std::string& key : result.needs_restart) log::warning("{} takes effect at the next start", key);
    bus.publish("daemon", "reload", system_info.id(), system_info.reload_attributes());
  } catch (const Error& e) {
    log::error("the configuration was not reloaded, the former one stays: {}", e.message());
  }
  sys::notify_service_manager("READY=1");
}

}  // namespace gantry
