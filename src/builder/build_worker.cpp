#include "builder/build_worker.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <set>

#include <sys/statvfs.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "builder/build_server.hpp"
#include "builder/cache_requests.hpp"
#include "builder/classic_build.hpp"
#include "builder/context_trees.hpp"
#include "builder/session_build.hpp"
#include "builder/usage_reporter.hpp"
#include "builder/worker_process.hpp"
#include "buildops/operations.hpp"
#include "model/query.hpp"
#include "runtime/host_facts.hpp"
#include "session/sessions.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kTick{250};

std::int64_t disk_size(const sys::Path& directory) {
  struct statvfs st{};
  if (::statvfs(directory.c_str(), &st) != 0) throw Error::from_errno(errno, "statvfs");
  return static_cast<std::int64_t>(st.f_blocks) * static_cast<std::int64_t>(st.f_frsize);
}

buildcache::LayerHooks layer_hooks(buildlink::Engine& engine) {
  buildcache::LayerHooks hooks;
  hooks.hold = [&engine](const std::string& chain) { return engine.hold_layer(chain); };
  hooks.release = [&engine](const std::string& chain) { engine.release_layer(chain); };
  hooks.used_by_images = [&engine](const std::vector<std::string>& chains) { return engine.layers_of_images(chains); };
  return hooks;
}

/// Layers that a killed worker gave to the daemon without writing it down.
void release_unknown_layers(buildlink::Engine& engine, buildcache::Cache& cache) {
  const std::set<std::string> known = cache.daemon_layers();
  for (const std::string& chain : engine.leased_layers())
    if (!known.contains(chain)) engine.release_layer(chain);
}

/// Threads for requests, each joined when it has ended.
class Jobs {
 public:
  ~Jobs() { join_all(); }
  void start(std::function<void()> work) {
    collect();
    const std::lock_guard lock(mutex_);
    const auto place = threads_.emplace(threads_.end());
    *place = std::thread([this, place, work = std::move(work)] {
      work();
      const std::lock_guard ended(mutex_);
      over_.push_back(place);
      ended_.notify_all();
    });
  }
  std::size_t count() {
    collect();
    const std::lock_guard lock(mutex_);
    return threads_.size();
  }
  void join_all() {
    {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [&] { return over_.size() == threads_.size(); });
    }
    collect();
  }

 private:
  using Place = std::list<std::thread>::iterator;
  void collect() {
    std::deque<Place> over;
    {
      const std::lock_guard lock(mutex_);
      over.swap(over_);
    }
    for (const Place place : over) {
      place->join();
      const std::lock_guard lock(mutex_);
      threads_.erase(place);
    }
  }
  std::mutex mutex_;
  std::condition_variable ended_;
  std::list<std::thread> threads_;
  std::deque<Place> over_;
};

}  // namespace

struct BuildWorker::Parts {
  Parts(sys::Fd connections_socket, sys::Fd requests)
      : connections(std::move(connections_socket)),
        engine(buildlink::connect_engine(std::move(requests), [this] { gone = true; })),
        settings(engine->settings()),
        lock(take_lock()),
        cache(settings.DataRoot, layer_hooks(*engine)),
        operations{cache.snapshots(), cache.mutables(),     cache.index(), sessions, *engine, facts,
                   settings.DataRoot, settings.RunDirectory},
        solver(cache, make_factory(), solver_options()),
        server(Services{cache, solver, sessions, *engine, operations}),
        classic(Services{cache, solver, sessions, *engine, operations}, trees),
        reporter(cache, *engine) {
    release_unknown_layers(*engine, cache);
    cache.set_gc(gc_policies_of(settings, disk_size(settings.DataRoot)));
  }

  sys::Fd take_lock() {
    // The host's containers are none of ours; their mounts would only be kept busy.
    drop_mounts_below(settings.ExecRoot);
    drop_mounts_below(sys::Path(settings.DataRoot).parent_path() / "volumes");
    sys::make_directories(settings.RunDirectory, 0700);
    return lock_build_cache(settings.DataRoot);
  }

  solver::OperationFactory make_factory() {
    buildops::recover_run_directory(operations);
    return with_context_trees(buildops::make_operation_factory(operations), trees);
  }

  solver::SolverOptions solver_options() const {
    solver::SolverOptions options;
    options.parallelism = static_cast<std::size_t>(std::max(0, settings.Parallelism));
    return options;
  }

  void accept(buildlink::Incoming incoming);
  void serve_exchange(buildlink::Incoming incoming);
  void serve_build(buildlink::Incoming incoming);
  std::size_t busy() { return server.busy() + jobs.count(); }

  buildlink::Connections connections;
  std::atomic<bool> gone = false;  // the daemon
  std::unique_ptr<buildlink::Engine> engine;
  const buildlink::Settings settings;
  const sys::Fd lock;
  const runtime::HostFacts facts = runtime::probe_host();
  session::Sessions sessions;
  buildcache::Cache cache;
  ContextTrees trees;
  buildops::Services operations;
  solver::Solver solver;
  BuildServer server;
  ClassicBuilds classic;
  UsageReporter reporter;
  Jobs jobs;
  std::stop_source ending;
  std::uint64_t received = 0;
};

void BuildWorker::Parts::accept(buildlink::Incoming incoming) {
  ++received;
  const std::string kind = incoming.request.Kind;
  log::debug("the builder got a connection: {}", kind);
  try {
    if (kind == "grpc") {
      server.serve(std::move(incoming.fd));
    } else if (kind == "session") {
      std::vector<std::pair<std::string, std::string>> fields;
      for (const protocol::LinkHeader& header : incoming.request.Headers)
        fields.emplace_back(to_lower(header.Name), header.Value);
      server.serve_session(std::move(incoming.fd), session::read_session_headers(fields));
    } else {
      auto shared = std::make_shared<buildlink::Incoming>(std::move(incoming));
      jobs.start([this, shared] { serve_exchange(std::move(*shared)); });
    }
  } catch (const Error& e) {
    log::info("a connection of the builder: {}", e.message());
  }
}

void BuildWorker::Parts::serve_build(buildlink::Incoming incoming) {
  try {
    if (!check_build_request(incoming, settings)) return classic.serve(std::move(incoming));
  } catch (const Error& e) {
    buildlink::Exchange(std::move(incoming.fd)).fail(e);
    return;
  }
  buildlink::Exchange exchange(std::move(incoming.fd));
  std::stop_source stop;
  const std::stop_callback hang_up(exchange.client_gone(), [&] { stop.request_stop(); });
  const std::stop_callback end(ending.get_token(), [&] { stop.request_stop(); });
  serve_session_build(server.builds(), incoming, exchange, stop.get_token());
}

void BuildWorker::Parts::serve_exchange(buildlink::Incoming incoming) {
  const std::string kind = incoming.request.Kind;
  try {
    if (kind == "build") {
      serve_build(std::move(incoming));
    } else {
      buildlink::Exchange exchange(std::move(incoming.fd));
      try {
        if (kind == "prune") {
          serve_prune(cache, *engine, incoming, exchange);
        } else if (kind == "cancel") {
          classic.cancel(model::Query::parse(incoming.request.Query).get("id"));
          exchange.finish();
        } else {
          throw Error(Errc::not_implemented, "unknown request to the builder: " + kind);
        }
      } catch (const Error& e) {
        exchange.fail(e);
      }
    }
  } catch (const Error& e) {
    log::info("a request to the builder: {}", e.message());
  }
  if (kind == "build") cache.collect_soon();
  reporter.poke();
}

BuildWorker::BuildWorker(sys::Fd connections, sys::Fd requests)
    : parts_(std::make_unique<Parts>(std::move(connections), std::move(requests))) {}

BuildWorker::~BuildWorker() {
  parts_->ending.request_stop();
  parts_->server.stop();
  parts_->classic.cancel_all();
  parts_->jobs.join_all();
}

void BuildWorker::run(const std::atomic<bool>& ending) {
  Parts& parts = *parts_;
  parts.reporter.poke();
  auto last_busy = Clock::now();
  bool was_busy = false;
  while (!ending && !parts.gone) {
    std::optional<buildlink::Incoming> incoming;
    try {
      incoming = parts.connections.receive(kTick);
    } catch (const Error& e) {
      if (e.code() == Errc::unavailable) return;
      throw;
    }
    if (incoming) parts.accept(std::move(*incoming));
    const bool busy = parts.busy() > 0;
    if (was_busy && !busy) parts.reporter.poke();
    was_busy = busy;
    if (busy || incoming) last_busy = Clock::now();
    if (Clock::now() - last_busy < std::chrono::seconds(parts.settings.IdleSeconds)) continue;
    parts.reporter.report();
    if (parts.engine->may_leave(parts.received)) return;
    last_busy = Clock::now();
  }
}

}  // namespace gantry::builder
