#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/task.hpp"
#include "base/ids.hpp"
#include "storage/byte_source.hpp"
#include "storage/changes.hpp"
#include "storage/layer_store.hpp"
#include "storage/pack.hpp"
#include "sys/id_mapping.hpp"
#include "sys/paths.hpp"

namespace gantry::storage {

/// What `GraphDriver.Data` of a container shows.
struct RootfsInfo {
  std::vector<sys::Path> lower;  // topmost first
  sys::Path upper;
  sys::Path work;
  sys::Path merged;
  /// The lower directories with ":" between them, as Docker prints them.
  std::string lower_text() const;
};

/// What the data root's file system and the kernel can do, for `info`.
struct StorageFacts {
  std::string backing_filesystem;  // "extfs", "xfs", "btrfs" …: Docker's names
  bool supports_d_type = false;
  bool native_overlay_diff = false;  // upper directories can be read as diffs
  bool metacopy = false;             // always off: a metacopy upper is not a diff
  bool userxattr = false;            // only inside a user namespace
  bool layers_by_fd = false;         // the kernel takes lower directories one by one (6.13)
};

/// The root file systems of containers: an upper directory each, over the layers of its image.
///
///   <data-root>/containers/<id>/{upper,work}     durable: the container's changes
///   <exec-root>/containers/<id>/rootfs           derived: the merged mount
///   <exec-root>/containers/<id>/images/<number>  derived: images that are mounted into it
///
/// With an id mapping the layers are mapped when they are mounted, so all containers share them; what a container
/// writes belongs on disk to the host's ids, and is translated back where it leaves as an archive or a layer.
///
/// The owner writes the container's row before create() and deletes it after remove(). All verbs are idempotent.
class RootfsStore {
 public:
  RootfsStore(async::Lanes& lanes, const LayerStore& layers, const sys::Paths& paths);

  /// Mounts a scratch overlay below tmp/ and looks at it. Throws unavailable, saying what to do, if containers cannot
  /// live on the data root's file system. After LayerStore::recover().
  Task<StorageFacts> probe();
  /// Removes the directories and unmounts the root file systems of containers that are not in `known`. At start,
  /// before anything else here. Directories of `known` ones stay, and so do their mounts. Returns what was found.
  Task<std::vector<Problem>> recover(std::set<std::string> known);

  /// Whose ids the container's files have. To be called before anything else for a container that has a mapping.
  void set_id_mapping(const ContainerId& id, sys::IdMapping mapping);
  const sys::IdMapping& id_mapping(const ContainerId& id) const;
  /// Whether mapped layers can be mounted here: a kernel from 6.15, and a file system that allows mapped mounts. Throws
  /// unavailable, saying what is missing.
  Task<void> require_id_mapping(sys::IdMapping mapping);

  /// Makes the upper and work directories.
  Task<void> create(ContainerId id);
  /// Mounts the merged tree on top of `chain` (empty: no layers) and returns where. A mount that is there is kept.
  /// Throws not_found if a layer is not ready.
  Task<sys::Path> mount(ContainerId id, std::string chain);
  /// Mounts the files of an image, read-only, for a container, and returns where: the layers of `chain` and nothing
  /// else. `number` tells several of one container apart. Goes with unmount().
  Task<sys::Path> mount_view(ContainerId id, unsigned number, std::string chain);
  /// Where mount_view() puts it.
  sys::Path view(const ContainerId& id, unsigned number) const;
  /// Detaches the merged tree and the views; processes that still use it keep it until they end. Nothing mounted is
  /// fine. While it is held, this happens when the last hold is given back.
  Task<void> unmount(ContainerId id);
  /// As mount(), for work in the files of a container that may start and end meanwhile: the kernel must never see two
  /// writable overlays on one upper directory, so the mount stays until every hold is given back. Each hold() that
  /// returns needs one release().
  Task<sys::Path> hold(ContainerId id, std::string chain);
  /// Gives one hold back; the last one unmounts, unless mount() was called meanwhile.
  Task<void> release(ContainerId id);
  bool is_mounted_blocking(const ContainerId& id) const;
  /// Unmounts, and removes upper and work with all content, and the mount directory. The rest of the container's
  /// directory (logs, hosts …) is the engine's. Returns the bytes freed.
  Task<std::uint64_t> remove(ContainerId id);

  RootfsInfo info(const ContainerId& id, const std::string& chain) const;
  /// Allocated bytes of the upper directory. Walks it: ask only where the client asked for sizes.
  Task<std::uint64_t> upper_size(ContainerId id);
  /// What the container changed, as `docker diff` lists it.
  Task<std::vector<Change>> changes(ContainerId id, std::string chain);
  /// The container's changes as a layer tar into `channel`, which is closed, or failed, at the end. For commit.
  /// Resumes when all is read; a reader that leaves earlier must abort() the channel, which ends the packing. Each has
  /// a thread of its own, so a slow reader delays nobody; unavailable beyond a limit. A container that is removed
  /// meanwhile fails the channel.
  Task<void> pack_changes(ContainerId id, std::shared_ptr<ByteChannel> channel);
  /// The whole merged tree as a plain tar into `channel`. For export. The tree needs not be mounted.
  Task<void> pack_rootfs(ContainerId id, std::string chain, std::shared_ptr<ByteChannel> channel);

 private:
  /// Orders what is done to one container's mount.
  struct MountState {
    async::Mutex order;
    unsigned holds = 0;
    bool unmount_at_end = false;
    std::atomic<bool> removed{false};  // what was read since may not have been all
  };
  using MountStatePtr = std::shared_ptr<MountState>;
  MountStatePtr mount_state(const ContainerId& id);
  using SharedFd = std::shared_ptr<const sys::Fd>;
  /// A user namespace for mapped mounts; nullptr without a mapping.
  Task<SharedFd> user_namespace(ContainerId id);
  Task<sys::Path> mount_now(ContainerId id, std::string chain, bool* was_mounted);
  Task<void> pack_directory(MountStatePtr state, sys::Path directory, PackMode mode, sys::IdMapping ids,
                            std::shared_ptr<ByteChannel> channel);

  async::Lanes& lanes_;
  const LayerStore& layers_;
  const sys::Paths paths_;
  std::map<std::string, MountStatePtr> mount_states_;  // of containers that something is done to
  std::map<std::string, sys::IdMapping> id_mappings_;  // by container
  std::vector<std::pair<sys::IdMapping, SharedFd>> user_namespaces_;
  unsigned packings_ = 0;
};

}  // namespace gantry::storage
