#include <gtest/gtest.h>

#include <sched.h>

#include <fcntl.h>
#include <sys/mount.h>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "buildops/world_for_test.hpp"
#include "sys/mount.hpp"
#include "sys/namespace.hpp"

namespace gantry::buildops::test {
namespace {

class Line final : public solver::Progress::Status {
 public:
  void update(std::int64_t, std::int64_t) override {}
  void complete() override {}
};

}  // namespace

void CollectedProgress::log(int, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  text_ += bytes;
}

std::shared_ptr<solver::Progress::Status> CollectedProgress::status(std::string id, std::string) {
  const std::lock_guard lock(mutex_);
  statuses_.push_back(std::move(id));
  return std::make_shared<Line>();
}

std::string CollectedProgress::text() const {
  const std::lock_guard lock(mutex_);
  return text_;
}

std::vector<std::string> CollectedProgress::statuses() const {
  const std::lock_guard lock(mutex_);
  return statuses_;
}

buildlink::Image LonelyEngine::resolve_image(const buildlink::ImageRequest& request,
                                             const std::function<void(const buildlink::PullProgress&)>&,
                                             std::stop_token) {
  asked.push_back(request);
  const auto found = images.find(request.reference);
  if (found == images.end()) throw Error(Errc::not_found, "no such image: " + request.reference);
  return found->second;
}

buildlink::ImageLayer LonelyEngine::commit_layer(const std::string&, const sys::Path&, std::stop_token) {
  throw Error(Errc::not_implemented, "no layers here");
}

buildlink::Network LonelyEngine::attach_network(const buildlink::NetworkRequest& request, std::stop_token) {
  attached.push_back(request);
  buildlink::Network network;
  network.hosts = "127.0.0.1\tlocalhost " + request.hostname + "\n";
  network.resolv_conf = "nameserver 192.0.2.1\n";
  if (request.mode == "host") return network;
  network.netns = directory / request.id;
  sys::create_netns(network.netns, [] {});
  ++networks;
  network.lease = std::shared_ptr<void>(nullptr, [this, path = network.netns](void*) {
    sys::remove_netns(path);
    --networks;
  });
  return network;
}

World::World() {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    throw Error::from_errno(errno, "unshare");
  facts = runtime::probe_host();
  cache = std::make_unique<buildcache::Cache>(scratch / "buildkit", buildcache::LayerHooks{});
  engine.directory = scratch / "netns";
  sys::make_directories(engine.directory);
  engine.configured.CgroupParent = "/docker/buildops-test-" + random_id().substr(0, 8) + "/run";
  services = std::make_unique<Services>(Services{cache->snapshots(), cache->mutables(), cache->index(), sessions,
                                                 engine, facts, scratch / "work", scratch / "run"});
  recover_run_directory(*services);
  factory = make_operation_factory(*services);
}

World::~World() {
  const std::string& group = engine.configured.CgroupParent;
  sys::remove_cgroup(facts.cgroup, group.substr(0, group.rfind('/')));
  cache.reset();
  sys::unmount_all(scratch.path());
}

buildcache::SnapshotPtr World::tree(const std::function<void(Tree&)>& fill, buildcache::SnapshotPtr parent) {
  auto work = cache->snapshots().create(std::move(parent), buildcache::RecordType::regular, "test");
  {
    Tree tree(work->mount());
    fill(tree);
  }
  return work->commit();
}

buildcache::SnapshotPtr World::busybox() {
  return tree([](Tree& tree) {
    tree.file("bin/busybox", sys::read_file("/bin/busybox"), 0755);
    for (const char* name : {"sh", "true", "echo", "cat", "id", "ls", "touch", "mkdir", "stat", "sleep", "test", "env",
                             "hostname", "grep", "head", "mount", "find", "rm", "pwd"})
      tree.symlink(std::string("bin/") + name, "busybox");
    tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/home/d:/bin/sh\n")
        .file("etc/group", "root:x:0:\ndaemon:x:1:\nextra:x:77:daemon\n")
        .directory("tmp", 01777)
        .directory("root", 0700);
    for (const char* name : {"proc", "sys", "dev"}) tree.directory(name);
  });
}

llb::VertexPtr World::vertex(pb::Op op, std::size_t inputs, std::map<std::string, std::string> description) {
  llb::Graph graph;
  for (std::size_t i = 0; i < inputs; ++i) {
    pb::Op source;
    source.mutable_source()->set_identifier("local://" + std::to_string(i));
    op.add_inputs()->set_digest(graph.add(source, {}).digest);
  }
  pb::OpMetadata metadata;
  for (const auto& [name, value] : description) (*metadata.mutable_description())[name] = value;
  const llb::Output head = graph.add(op, metadata);
  return llb::Definition::parse(graph.definition(head)).head().vertex;
}

std::vector<buildcache::SnapshotPtr> World::execute(const llb::VertexPtr& vertex,
                                                    const std::vector<buildcache::SnapshotPtr>& inputs) {
  solver::OpContext context{progress, stop.get_token(), {}, entitlements};
  return factory(*vertex)->execute(context, inputs);
}

solver::CacheMap World::cache_map(const llb::VertexPtr& vertex) {
  solver::OpContext context{progress, stop.get_token(), {}, entitlements};
  return factory(*vertex)->cache_map(context);
}

std::map<std::string, std::string> World::look(const buildcache::SnapshotPtr& snapshot) {
  const auto view = cache->snapshots().view(snapshot);
  return Tree(view->path()).describe();
}

std::string World::look(const buildcache::SnapshotPtr& snapshot, const std::string& path) {
  const auto view = cache->snapshots().view(snapshot);
  return Tree(view->path()).look(path);
}

}  // namespace gantry::buildops::test
