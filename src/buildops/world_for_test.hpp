#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "buildcache/cache.hpp"
#include "buildlink/engine.hpp"
#include "buildops/operations.hpp"
#include "buildops/test_support.hpp"
#include "llb/graph.hpp"
#include "runtime/host_facts.hpp"
#include "session/sessions.hpp"

/// For the tests of this module only: a build cache and a daemon of a kind, in a mount namespace of their own.
namespace gantry::buildops::test {

class CollectedProgress final : public solver::Progress {
 public:
  void log(int stream, std::string_view bytes) override;
  std::shared_ptr<Status> status(std::string id, std::string name) override;
  void warn(solver::Warning) override {}
  /// What was printed, both streams in order of arrival.
  std::string text() const;
  std::vector<std::string> statuses() const;

 private:
  mutable std::mutex mutex_;
  std::string text_;
  std::vector<std::string> statuses_;
};

/// Gives networks and settings; knows no images.
class LonelyEngine : public buildlink::Engine {
 public:
  buildlink::Image resolve_image(const buildlink::ImageRequest& request,
                                 const std::function<void(const buildlink::PullProgress&)>& progress,
                                 std::stop_token stop) override;
  buildlink::ImageLayer commit_layer(const std::string& parent, const sys::Path& directory, std::stop_token) override;
  void release_layer(const std::string&) override {}
  std::vector<std::string> leased_layers() override { return {}; }
  std::shared_ptr<void> hold_layer(const std::string&) override { return nullptr; }
  std::set<std::string> layers_of_images(const std::vector<std::string>&) override { return {}; }
  buildlink::CreatedImage create_image(const buildlink::NewImage&, std::stop_token) override { return {}; }
  sys::Fd save_image(const std::vector<std::string>&) override { return {}; }
  buildlink::Network attach_network(const buildlink::NetworkRequest& request, std::stop_token stop) override;
  buildlink::Settings settings() override { return configured; }
  bool may_leave(std::uint64_t) override { return true; }
  void tell_usage(const protocol::UsageReport&) override {}
  void tell_pruned(std::int64_t) override {}

  buildlink::Settings configured;
  std::map<std::string, buildlink::Image> images;  // by reference
  std::vector<buildlink::NetworkRequest> attached;
  std::vector<buildlink::ImageRequest> asked;
  sys::Path directory;            // for network namespaces
  std::atomic<int> networks = 0;  // that are attached now
};

class World {
 public:
  World();
  ~World();

  /// A tree of these files.
  buildcache::SnapshotPtr tree(const std::function<void(Tree&)>& fill, buildcache::SnapshotPtr parent = nullptr);
  /// busybox with its usual names, /etc/passwd and the directories of an image.
  buildcache::SnapshotPtr busybox();
  /// A step on top of `inputs` sources.
  llb::VertexPtr vertex(pb::Op op, std::size_t inputs, std::map<std::string, std::string> description = {});
  /// Executes it.
  std::vector<buildcache::SnapshotPtr> execute(const llb::VertexPtr& vertex,
                                               const std::vector<buildcache::SnapshotPtr>& inputs);
  solver::CacheMap cache_map(const llb::VertexPtr& vertex);
  /// What a tree looks like.
  std::map<std::string, std::string> look(const buildcache::SnapshotPtr& snapshot);
  std::string look(const buildcache::SnapshotPtr& snapshot, const std::string& path);

  TemporaryDirectory scratch;
  runtime::HostFacts facts;
  LonelyEngine engine;
  std::unique_ptr<buildcache::Cache> cache;
  session::Sessions sessions;
  std::unique_ptr<Services> services;
  solver::OperationFactory factory;
  CollectedProgress progress;
  std::stop_source stop;
  solver::Entitlements entitlements;
};

}  // namespace gantry::buildops::test
