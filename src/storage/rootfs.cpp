#include "storage/rootfs.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>
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

void remove_mount_directory(const sys::Path& place) {
  unmount_completely(place);
  for (const sys::Path& directory : {place, place.parent_path()})
    if (::rmdir(directory.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY)
      throw Error::from_errno(errno, fmt::format("remove {}", directory.string()));
}

/// The directories as one read-only tree. It is attached nowhere.
sys::Fd open_merged(const sys::Paths& paths, const std::vector<sys::Path>& lower) {
  if (lower.size() == 1) return sys::open_file(lower.front(), O_RDONLY | O_DIRECTORY);
  sys::OverlaySpec spec;
  spec.lower = lower;
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
      unmount_completely(paths.rootfs(id));
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

Task<void> RootfsStore::create(ContainerId id) {
  co_await lanes_.quick.run([paths = paths_, id] {
    sys::make_directories(paths.container(id.str()), 0700);
    // The upper directory's own looks are those of "/" in the container.
    sys::make_directories(upper_of(paths, id.str()), 0755);
    FAILPOINT("rootfs.create.after_upper");
    sys::make_directories(work_of(paths, id.str()), 0700);
    if (::chmod(upper_of(paths, id.str()).c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod");
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
  *was_mounted = co_await lanes_.quick.run([place, spec = std::move(spec)] {
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

Task<void> RootfsStore::unmount(ContainerId id) {
  const auto state = mount_state(id);
  const auto turn = co_await state->order.lock("rootfs.unmount");
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
  co_return co_await lanes_.bulk.run([paths = paths_, upper = upper_of(paths_, id.str()), lower = std::move(lower)] {
    const sys::Fd below = open_merged(paths, lower);
    const sys::Fd above = sys::open_file(upper, O_RDONLY | O_DIRECTORY);
    return list_changes(above.get(), below.get());
  });
}

/// Packs into the channel; its end, or what went wrong, goes there too.
Task<void> RootfsStore::pack_directory(MountStatePtr state, sys::Path directory, PackMode mode,
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
  co_await lane.run([state, directory, mode, channel] {
    const sys::Fd root = sys::open_file(directory, O_RDONLY | O_DIRECTORY);
    PackOptions options;
    options.mode = mode;
    pack(root.get(), options, [&channel](std::string_view bytes) { channel->write_blocking(bytes); });
    if (state->removed) throw Error(Errc::conflict, "the container was removed while its files were read");
    channel->close();
  });
}

Task<void> RootfsStore::pack_changes(ContainerId id, std::shared_ptr<ByteChannel> channel) {
  try {
    co_await pack_directory(mount_state(id), upper_of(paths_, id.str()), PackMode::layer, channel);
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
    co_await pack_directory(mount_state(id), place, PackMode::tree, channel);
  } catch (const std::exception&) {
    failure = std::current_exception();
    channel->fail(failure);
  }
  if (held) co_await release(id);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace gantry::storage
