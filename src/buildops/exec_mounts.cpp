#include "buildops/exec_mounts.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <cerrno>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildops/tree_path.hpp"
#include "session/sessions.hpp"
#include "storage/tree.hpp"

namespace gantry::buildops {

ExecMounts::ExecMounts(const Services& services, solver::OpContext& context, const pb::ExecOp& op,
                       const std::vector<buildcache::SnapshotPtr>& inputs, ExecDirectory& directory)
    : services_(services), context_(context), op_(op), inputs_(inputs), directory_(directory) {
  for (const pb::Mount& mount : op.mounts())
    if (absolute_path(mount.dest()) == "/") add_root(mount);
  if (!root_) throw Error(Errc::invalid_argument, "no root mount");
  acquire_caches();
  for (const pb::Mount& mount : op.mounts()) {
    if (absolute_path(mount.dest()) == "/") continue;
    switch (mount.mount_type()) {
      case pb::MOUNT_BIND: add_bind(mount); break;
      case pb::MOUNT_CACHE: add_cache(mount); break;
      case pb::MOUNT_TMPFS: add_tmpfs(mount); break;
      case pb::MOUNT_SECRET: add_secret(mount); break;
      case pb::MOUNT_SSH: add_agent(mount); break;
      default: throw Error(Errc::invalid_argument, fmt::format("mount type {} not implemented", +mount.mount_type()));
    }
  }
}

ExecMounts::~ExecMounts() = default;

buildcache::SnapshotPtr ExecMounts::input(const pb::Mount& mount) const {
  return mount.input() < 0 ? nullptr : inputs_.at(static_cast<std::size_t>(mount.input()));
}

std::string ExecMounts::command() const { return join({op_.meta().args().begin(), op_.meta().args().end()}, " "); }

/// A new layer on the mount's input, kept if it is an output.
sys::Path ExecMounts::work_on(const pb::Mount& mount) {
  works_.push_back({services_.snapshots.create(input(mount), buildcache::RecordType::regular,
                                               fmt::format("mount {} from exec {}", mount.dest(), command())),
                    mount.output()});
  return works_.back().workspace->mount();
}

void ExecMounts::add_root(const pb::Mount& mount) {
  if (root_) throw Error(Errc::invalid_argument, "more than one root mount");
  if (mount.mount_type() != pb::MOUNT_BIND) throw Error(Errc::invalid_argument, "the root mount must be a bind mount");
  root_is_read_only_ = mount.readonly() && mount.output() < 0;
  if (root_is_read_only_) {
    views_.push_back(services_.snapshots.view(input(mount)));
    root_path_ = views_.back()->path();
  } else {
    root_path_ = work_on(mount);
  }
  if (!mount.selector().empty() && absolute_path(mount.selector()) != "/") {
    const sys::Fd tree = sys::open_file(root_path_, O_PATH | O_DIRECTORY);
    root_path_ /= resolve_path(tree.get(), mount.selector());
  }
  root_ = sys::open_file(root_path_, O_RDONLY | O_DIRECTORY);
}

void ExecMounts::add(runtime::Mount mount, bool directory) {
  mount.destination = absolute_path(mount.destination);
  targets_.push_back({mount.destination, directory});
  mounts_.push_back(std::move(mount));
}

/// Binds the selected part of a tree. If others may change the tree meanwhile, what was found is pinned: between our
/// look and the runtime's, a directory could become a link that leads out of it.
void ExecMounts::bind(const sys::Path& tree, const pb::Mount& mount, bool may_change) {
  const sys::Fd root = sys::open_file(tree, O_RDONLY | O_DIRECTORY);
  const std::string inside = resolve_path(root.get(), mount.selector());
  sys::Fd selected;
  try {
    selected = sys::open_beneath(root.get(), inside.empty() ? "." : inside, O_PATH | O_NOFOLLOW);
  } catch (const Error& e) {
    if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR) throw;
    throw Error(Errc::not_found, fmt::format("{}: not found", quote(absolute_path(mount.selector()))));
  }
  const struct stat st = storage::get_stat(selected.get());
  if (S_ISLNK(st.st_mode)) throw Error(Errc::conflict, fmt::format("/{} keeps changing", inside));
  const bool pinned = may_change && !inside.empty();
  const sys::Path source = pinned ? directory_.pin(selected.get()) : inside.empty() ? tree : tree / inside;
  runtime::BindOptions options;
  options.read_only = mount.readonly();
  add(runtime::bind_mount(source.string(), mount.dest(), options, services_.facts), S_ISDIR(st.st_mode));
}

void ExecMounts::add_bind(const pb::Mount& mount) {
  if (mount.readonly() && mount.output() < 0) {
    views_.push_back(services_.snapshots.view(input(mount)));
    return bind(views_.back()->path(), mount, false);
  }
  bind(work_on(mount), mount, false);
}

ExecMounts::CacheKey ExecMounts::cache_key(const pb::Mount& mount) const {
  const buildcache::SnapshotPtr initial = input(mount);
  return {mount.cache_opt().id(), initial ? initial->id() : std::string()};
}

/// All of them in the order of their names, so that steps that lock several do not wait for each other in a circle; one
/// that is mounted twice is held once.
void ExecMounts::acquire_caches() {
  std::map<CacheKey, buildcache::MutableRequest> wanted;
  for (const pb::Mount& mount : op_.mounts()) {
    if (mount.mount_type() != pb::MOUNT_CACHE) continue;
    const std::string& id = mount.cache_opt().id();
    if (id.empty()) throw Error(Errc::invalid_argument, "missing cache mount options");
    buildcache::MutableRequest& request = wanted[cache_key(mount)];
    request.key = "cachemount:" + id;
    request.description = fmt::format("cached mount {} from exec {} with id {}", mount.dest(), command(), quote(id));
    request.initial = input(mount);
    if (mount.cache_opt().sharing() == pb::SHARING_LOCKED) request.sharing = buildcache::Sharing::locked;
    else if (mount.cache_opt().sharing() == pb::SHARING_PRIVATE && request.sharing == buildcache::Sharing::shared)
      request.sharing = buildcache::Sharing::private_copy;
  }
  for (auto& [key, request] : wanted) caches_[key] = services_.mutables.acquire(std::move(request), context_.stop);
}

void ExecMounts::add_cache(const pb::Mount& mount) { bind(caches_.at(cache_key(mount))->path(), mount, true); }

void ExecMounts::add_tmpfs(const pb::Mount& mount) {
  runtime::Mount tmpfs{"tmpfs", "tmpfs", mount.dest(), {"nosuid"}};
  if (mount.readonly()) tmpfs.options.emplace_back("ro");
  if (mount.tmpfs_opt().size() > 0) tmpfs.options.push_back(fmt::format("size={}", mount.tmpfs_opt().size()));
  add(std::move(tmpfs), true);
}

void ExecMounts::add_secret(const pb::Mount& mount) {
  const pb::SecretOpt& secret = mount.secret_opt();
  if (secret.id().empty()) throw Error(Errc::invalid_argument, "secret ID missing from mount options");
  std::string content;
  try {
    content = services_.sessions.secret(context_.sessions.ids(), secret.id(), context_.stop);
  } catch (const Error& e) {
    if (e.code() == Errc::not_found && secret.optional()) return;
    throw;
  }
  const sys::Path file = directory_.write(fmt::format("secret-{}", mounts_.size()), content, secret.mode() & 0777,
                                          secret.uid(), secret.gid());
  add({"bind", file.string(), mount.dest(), {"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"}}, false);
}

void ExecMounts::add_agent(const pb::Mount& mount) {
  const pb::SSHOpt& ssh = mount.ssh_opt();
  const std::string id = ssh.id().empty() ? "default" : ssh.id();
  std::shared_ptr<session::Session> agent;
  for (const auto& session : services_.sessions.find(context_.sessions.ids(), session::kCheckAgent, context_.stop))
    if (!agent && session->check_agent(id, context_.stop)) agent = session;
  if (!agent) {
    if (ssh.optional()) return;
    throw Error(Errc::not_found, fmt::format("no SSH key {} forwarded from the client", quote(id)));
  }
  const sys::Path socket = directory_.path() / fmt::format("ssh-{}", mounts_.size());
  agents_.push_back(agent->forward_agent(id, socket, ssh.uid(), ssh.gid(), ssh.mode() & 0777));
  if (agent_socket_.empty()) agent_socket_ = absolute_path(mount.dest());
  add({"bind", socket.string(), mount.dest(), {"bind", "nosuid", "nodev", "noexec", "rprivate"}}, false);
}

std::vector<buildcache::SnapshotPtr> ExecMounts::commit(std::size_t outputs) {
  root_.reset();
  std::vector<buildcache::SnapshotPtr> results(outputs);
  for (const pb::Mount& mount : op_.mounts())
    if (mount.output() >= 0) results.at(static_cast<std::size_t>(mount.output())) = input(mount);
  for (Work& work : works_)
    if (work.output >= 0) results.at(static_cast<std::size_t>(work.output)) = work.workspace->commit();
  return results;
}

}  // namespace gantry::buildops
