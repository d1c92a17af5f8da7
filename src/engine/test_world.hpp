#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "db/sqlite.hpp"
#include "engine/container_store.hpp"
#include "engine/services.hpp"

namespace gantry::engine {

/// The engine's services on an empty data root, for tests. Nothing has recovered, so nothing exists in the kernel:
/// good for what answers from memory.
class TestWorld {
 public:
  TestWorld() = default;
  ~TestWorld() { std::filesystem::remove_all(paths.data_root.parent_path()); }
  TestWorld(const TestWorld&) = delete;
  TestWorld& operator=(const TestWorld&) = delete;

  template <class T>
  T run(Task<T> task) {
    std::exception_ptr failure;
    std::optional<T> result;
    boost::asio::co_spawn(loop, std::move(task), [f = &failure, r = &result](std::exception_ptr error, T value) {
      *f = error;
      *r = std::move(value);
    });
    drive(failure);
    return std::move(*result);
  }
  void run(Task<void> task) {
    std::exception_ptr failure;
    boost::asio::co_spawn(loop, std::move(task), [f = &failure](std::exception_ptr error) { *f = error; });
    drive(failure);
  }

  /// A stored container with the id "<digit> × 64".
  ContainerPtr add(char digit, const std::string& name, std::int64_t created_seconds) {
    auto container = std::make_shared<Container>();
    container->id = ContainerId(std::string(64, digit));
    container->name = name;
    container->created = Timestamp(std::chrono::seconds(created_seconds));
    container->image_ref = "busybox";
    container->image_id = "sha256:" + std::string(64, 'f');
    container->path = "sleep";
    container->args = {"100"};
    run(store.insert(container));
    return container;
  }

  static sys::Paths make_paths() {
    char directory[] = "/tmp/gantry-engine-test-XXXXXX";
    if (::mkdtemp(directory) == nullptr) std::abort();
    sys::Paths made;
    made.data_root = sys::Path(directory) / "data";
    made.exec_root = sys::Path(directory) / "run";
    sys::make_directories(made.data_root);
    sys::make_directories(made.exec_root);
    return made;
  }
  static network::Options network_options(const sys::Paths& paths) {
    network::Options options;
    options.bridge_name = "none";
    options.netns_directory = paths.netns();
    options.run_directory = paths.exec_root;
    return options;
  }

  const sys::Paths paths = make_paths();
  config::Config config;
  boost::asio::io_context loop{1};
  db::Db database{paths.database()};
  async::Lanes lanes;
  async::Operations operations;
  runtime::HostFacts host;
  runtime::SeccompCache seccomp{host};
  events::Bus bus;
  storage::LayerStore layers{loop.get_executor(), lanes, database, paths};
  storage::RootfsStore rootfs{lanes, layers, paths};
  image::ContentStore content{lanes, database, paths};
  image::Images images{lanes, database, layers, content, bus};
  network::Networks networks{network_options(paths), database, lanes, loop.get_executor()};
  volume::Volumes volumes{paths, database, lanes, {}};
  Services services{loop.get_executor(),
                    lanes,
                    operations,
                    config,
                    paths,
                    host,
                    seccomp,
                    bus,
                    layers,
                    rootfs,
                    images,
                    networks,
                    volumes,
                    "/nonexistent"};
  ContainerStore store{lanes, database};

 private:
  void drive(const std::exception_ptr& failure) {
    loop.restart();
    loop.run();
    if (failure) std::rethrow_exception(failure);
  }
};

}  // namespace gantry::engine
