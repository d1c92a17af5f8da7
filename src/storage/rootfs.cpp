#include "storage/rootfs.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <boost/asio/this_coro.hpp>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/text.hpp"
#include "storage/layer_files.hpp"
#include "storage/overlay_probe.hpp"
#include "storage/pack.hpp"
#include "sys/mount.hpp"

namespace gantry::storage {
namespace {

/// Each packing has a thread, which waits for whoever reads.
constexpr unsigned kMostPackings = 128;

sys::Path upper_of(const sys::Paths& paths, const std::string& id) { return paths.container(id) / "upper"; }
sys::Path work_of(const sys::Paths& paths, const std::string& id) { return paths.container(id) / "work"; }

/// Also takes off what was mounted on top by mistake: only an unmounted directory may be removed.
void unmount_completely(const sys::Path& place) {
  while (sys::unmount(place, sys::Unmount::lazy)) {
  }
}

sys::Path views_of(const sys::Paths& paths, const std::string& id) { return paths.container_mounts() / id / "images"; }

/// A mapped root is a stranger to the directories above the containers' root file systems.
void require_search_permission(const sys::Path& path) {
  for (sys::Path at = path; at.has_relative_path(); at = at.parent_path()) {
    struct stat st{};
    if (::stat(at.c_str(), &st) == 0 && (st.st_mode & S_IXOTH) == 0)
      throw Error(Errc::unavailable,
                  fmt::format("{} restricts access to the remapped root uid/gid; please fix by allowing 'o+x' "
                              "permissions on existing directories",
                              at.string()));
  }
}

void remove_views(const sys::Path& views) {
  sys::unmount_all(views);
  struct stat st{};
  if (::lstat(views.c_str(), &st) != 0) return;
  for (const std::string& name : sys::list_directory(views)) (void)::rmdir((views / name).c_str());
  (void)::rmdir(views.c_str());
}

void remove_mount_directory(const sys::Path& place) {
  remove_views(place.parent_path() / "images");
  unmount_completely(place);
  for (const sys::Path& directory : {place, place.parent_path()})
    if (::rmdir(directory.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY)
      throw Error::from_errno(errno, fmt::format("remove {}", directory.string()));
}

/// The directories as one read-only tree. It is attached nowhere.
sys::Fd open_merged(const sys::Paths& paths, const std::vector<sys::Path>& lower, int lower_ids) {
  if (lower.size() == 1) {
    sys::Fd only = sys::open_file(lower.front(), O_RDONLY | O_DIRECTORY);
    return lower_ids < 0 ? std::move(only) : sys::clone_mapped_mount(only.get(), lower_ids);
  }
  sys::OverlaySpec spec;
  spec.lower = lower;
  spec.lower_ids = lower_ids;
  const sys::Path scratch = paths.tmp() / ("view-" + random_id().substr(0, 16));
  sys::make_directories(scratch, 0700);
  sys::Fd merged = sys::open_overlay(spec, scratch);
  ::rmdir(scratch.c_str());
  return merged;
}

}  // namespace

std::string RootfsInfo::lower_text() const {
  std::vector<std::string> texts;
  for (const sys::Path& path : lower) texts.push_back(path.string());
  return join(texts, ":");
}

RootfsStore::RootfsStore(async::Lanes& lanes, const LayerStore& layers, const sys::Paths& paths)
    : lanes_(lanes), layers_(layers), paths_(paths) {}

Task<StorageFacts> RootfsStore::probe() {
  co_return co_await lanes_.quick.run([paths = paths_] { return probe_storage(paths); });
}

Task<std::vector<Problem>> RootfsStore::recover(std::set<std::string> known) {
  co_return co_await lanes_.bulk.run([paths = paths_, known = std::move(known)] {
    std::vector<Problem> problems;
    sys::make_directories(paths.containers(), 0700);
    sys::spread_subdirectories(paths.containers());
    sys::make_directories(paths.container_mounts(), 0700);
    for (const std::string& id : sys::list_directory(paths.container_mounts())) {
      if (known.contains(id)) continue;
      const bool mounted = sys::is_mount_point(paths.rootfs(id));
      if (mounted) problems.push_back({"mount " + paths.rootfs(id).string(), "belongs to no container", "unmounted"});
      sys::unmount_all(paths.container_mounts() / id);
      sys::remove_tree(paths.container_mounts() / id);
    }
    for (const std::string& id : sys::list_directory(paths.containers())) {
      if (known.contains(id)) continue;
      problems.push_back({"directory " + paths.container(id).string(), "belongs to no container", "removed"});
      discard_directory(paths, paths.container(id));
    }
    return problems;
  });
}

void RootfsStore::set_id_mapping(const ContainerId& id, sys::IdMapping mapping) {
  if (mapping.empty()) id_mappings_.erase(id.str());
  else id_mappings_[id.str()] = std::move(mapping);
}

const sys::IdMapping& RootfsStore::id_mapping(const ContainerId& id) const {
  static const sys::IdMapping none;
  const auto found = id_mappings_.find(id.str());
  return found == id_mappings_.end() ? none : found->second;
}

Task<RootfsStore::SharedFd> RootfsStore::user_namespace(ContainerId id) {
  const sys::IdMapping ids = id_mapping(id);
  if (ids.empty()) co_return nullptr;
  for (const auto& [mapping, made] : user_namespaces_)
    if (mapping == ids) co_return made;
  SharedFd made =
      co_await lanes_.quick.run([ids] { return std::make_shared<const sys::Fd>(sys::make_user_namespace(ids)); });
  user_namespaces_.emplace_back(ids, made);
  co_return made;
}

Task<void> RootfsStore::require_id_mapping(sys::IdMapping mapping) {
  co_await lanes_.quick.run([paths = paths_, mapping] {
    require_search_permission(paths.container_mounts());
    const sys::Path scratch = paths.tmp() / ("mapped-" + random_id().substr(0, 16));
    struct Remove {
      const sys::Path& path;
      ~Remove() { sys::remove_tree(path); }
    } remove{scratch};
    sys::OverlaySpec spec;
    for (const char* name : {"a", "b"}) {
      sys::make_directories(scratch / name, 0755);
      spec.lower.push_back(scratch / name);
    }
    try {
      const sys::Fd ids = sys::make_user_namespace(mapping);
      spec.lower_ids = ids.get();
      const sys::Fd mounted = sys::open_overlay(spec, scratch);
    } catch (const Error& e) {
      throw Error(Errc::unavailable,
                  fmt::format("userns-remap needs Linux 6.15 or newer and a data root on a file system with mapped "
                              "mounts, such as ext4, xfs or btrfs: {}",
                              e.message()));
    }
  });
}

Task<void> RootfsStore::create(ContainerId id) {
  co_await lanes_.quick.run([paths = paths_, id, ids = id_mapping(id)] {
    sys::make_directories(paths.container(id.str()), 0700);
    // The upper directory's own looks are those of "/" in the container.
    sys::make_directories(upper_of(paths, id.str()), 0755);
    FAILPOINT("rootfs.create.after_upper");
    sys::make_directories(work_of(paths, id.str()), 0700);
    if (::chmod(upper_of(paths, id.str()).c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod");
    if (!ids.empty() && ::lchown(upper_of(paths, id.str()).c_str(), ids.host_uid(0), ids.host_gid(0)) != 0)
      throw Error::from_errno(errno, "chown");
  });
}

RootfsStore::MountStatePtr RootfsStore::mount_state(const ContainerId& id) {
  std::erase_if(mount_states_,
                [](const auto& item) { return item.second.use_count() == 1 && item.second->holds == 0; });
  MountStatePtr& state = mount_states_[id.str()];
  if (!state) state = std::make_shared<MountState>();
  return state;
}

Task<sys::Path> RootfsStore::mount_now(ContainerId id, std::string chain, bool* was_mounted) {
  sys::OverlaySpec spec;
  spec.lower = layers_.lower_directories(chain);
  spec.upper = upper_of(paths_, id.str());
  spec.work = work_of(paths_, id.str());
  const sys::Path place = paths_.rootfs(id.str());
  const SharedFd ids = co_await user_namespace(id);
  if (ids) spec.lower_ids = ids->get();
  *was_mounted = co_await lanes_.quick.run([place, ids, spec = std::move(spec)] {
    if (sys::is_mount_point(place)) return true;
    sys::make_directories(place, 0755);
    sys::mount_overlay(spec, place);
    FAILPOINT("rootfs.mount.after_mount");
    return false;
  });
  co_return place;
}

Task<sys::Path> RootfsStore::mount(ContainerId id, std::string chain) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.mount");
  bool was_mounted = false;
  const sys::Path place = co_await mount_now(id, std::move(chain), &was_mounted);
  state->unmount_at_end = false;
  co_return place;
}

sys::Path RootfsStore::view(const ContainerId& id, unsigned number) const {
  return views_of(paths_, id.str()) / std::to_string(number);
}

Task<sys::Path> RootfsStore::mount_view(ContainerId id, unsigned number, std::string chain) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.mount_view");
  std::vector<sys::Path> lower;
  for (const Layer& layer : layers_.get_chain(chain)) lower.push_back(layers_.directory(layer.chain_id));
  const SharedFd ids = co_await user_namespace(id);
  const sys::Path place = view(id, number);
  co_await lanes_.quick.run([place, ids, lower = std::move(lower), paths = paths_]() mutable {
    if (sys::is_mount_point(place)) return;
    sys::make_directories(place.parent_path(), 0711);
    sys::make_directories(place, 0755);
    if (lower.empty()) return;  // an image without layers is an empty directory
    // Always an overlay: it has nothing to write to. The directory of a layer itself could be made writable again by a
    // container that may mount, and all containers share it.
    lower.push_back(paths.data_root / "init" / "empty");
    sys::make_directories(lower.back(), 0755);
    const sys::Fd tree = open_merged(paths, lower, ids ? ids->get() : -1);
    sys::set_mount_attributes(tree.get(), MOUNT_ATTR_RDONLY, 0, MS_PRIVATE, false);
    sys::attach_mount(tree.get(), place);
    FAILPOINT("rootfs.view.after_mount");
  });
  co_return place;
}

Task<void> RootfsStore::unmount(ContainerId id) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.unmount");
  co_await lanes_.quick.run([views = views_of(paths_, id.str())] { remove_views(views); });
  state->unmount_at_end = state->holds > 0;
  if (state->unmount_at_end) co_return;
  co_await lanes_.quick.run([place = paths_.rootfs(id.str())] { unmount_completely(place); });
}

Task<sys::Path> RootfsStore::hold(ContainerId id, std::string chain) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.hold");
  bool was_mounted = false;
  const sys::Path place = co_await mount_now(id, std::move(chain), &was_mounted);
  if (!was_mounted) state->unmount_at_end = true;
  ++state->holds;
  co_return place;
}

Task<void> RootfsStore::release(ContainerId id) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.release");
  if (state->holds == 0 || --state->holds > 0 || !state->unmount_at_end) co_return;
  state->unmount_at_end = false;
  co_await lanes_.quick.run([place = paths_.rootfs(id.str())] { unmount_completely(place); });
}

bool RootfsStore::is_mounted_blocking(const ContainerId& id) const {
  return sys::is_mount_point(paths_.rootfs(id.str()));
}

Task<std::uint64_t> RootfsStore::remove(ContainerId id) {
  mount_state(id)->removed = true;
  id_mappings_.erase(id.str());
  co_return co_await lanes_.bulk.run([paths = paths_, id] {
    remove_mount_directory(paths.rootfs(id.str()));
    FAILPOINT("rootfs.remove.after_unmount");
    return sys::remove_tree(upper_of(paths, id.str())) + sys::remove_tree(work_of(paths, id.str()));
  });
}

RootfsInfo RootfsStore::info(const ContainerId& id, const std::string& chain) const {
  return {layers_.lower_directories(chain), upper_of(paths_, id.str()), work_of(paths_, id.str()),
          paths_.rootfs(id.str())};
}

Task<std::uint64_t> RootfsStore::upper_size(ContainerId id) {
  co_return co_await lanes_.bulk.run([upper = upper_of(paths_, id.str())] { return sys::tree_size(upper); });
}

Task<std::vector<Change>> RootfsStore::changes(ContainerId id, std::string chain) {
  auto lower = layers_.lower_directories(chain);
  const SharedFd ids = co_await user_namespace(id);
  co_return co_await lanes_.bulk.run(
      [paths = paths_, upper = upper_of(paths_, id.str()), lower = std::move(lower), ids] {
        const sys::Fd below = open_merged(paths, lower, ids ? ids->get() : -1);
        const sys::Fd above = sys::open_file(upper, O_RDONLY | O_DIRECTORY);
        return list_changes(above.get(), below.get());
      });
}

/// Packs into the channel; its end, or what went wrong, goes there too.
Task<void> RootfsStore::pack_directory(MountStatePtr state, sys::Path directory, PackMode mode, sys::IdMapping ids,
                                       std::shared_ptr<ByteChannel> channel) {
  if (packings_ >= kMostPackings)
    throw Error(Errc::unavailable, fmt::format("{} file systems of containers are being read, which is the limit: wait "
                                               "until one is done",
                                               packings_));
  struct Counted {
    unsigned& count;
    explicit Counted(unsigned& c) : count(c) { ++count; }
    ~Counted() { --count; }
  } counted{packings_};
  async::Lane lane("pack", 1);
  co_await lane.run([state, directory, mode, ids, channel] {
    const sys::Fd root = sys::open_file(directory, O_RDONLY | O_DIRECTORY);
    PackOptions options;
    options.mode = mode;
    options.ids = ids;
    pack(root.get(), options, [&channel](std::string_view bytes) { channel->write_blocking(bytes); });
    if (state->removed) throw Error(Errc::conflict, "the container was removed while its files were read");
    channel->close();
  });
}

Task<void> RootfsStore::pack_changes(ContainerId id, std::shared_ptr<ByteChannel> channel) {
  try {
    co_await pack_directory(mount_state(id), upper_of(paths_, id.str()), PackMode::layer, id_mapping(id), channel);
  } catch (const std::exception&) {
    channel->fail(std::current_exception());
    throw;
  }
}

Task<void> RootfsStore::pack_rootfs(ContainerId id, std::string chain, std::shared_ptr<ByteChannel> channel) {
  // Only the end of the packing ends this; aborting the channel makes it come.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  std::exception_ptr failure;
  bool held = false;
  try {
    const sys::Path place = co_await hold(id, std::move(chain));
    held = true;
    co_await pack_directory(mount_state(id), place, PackMode::tree, id_mapping(id), channel);
  } catch (const std::exception&) {
    failure = std::current_exception();
    channel->fail(failure);
  }
  if (held) co_await release(id);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace gantry::storage
