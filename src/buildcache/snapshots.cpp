#include "buildcache/snapshots.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/log.hpp"
#include "buildcache/store.hpp"
#include "sys/mount.hpp"

namespace gantry::buildcache {
namespace {

/// The kernel takes 500 lower directories.
constexpr std::size_t kMostLayers = 400;

/// The root of a tree looks as below it: an overlay shows the upper directory's owner, mode and time.
void adopt_looks(const sys::Path& upper, const Snapshot* parent) {
  if (parent == nullptr) {
    if (::chmod(upper.c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod");
    return;
  }
  struct stat st{};
  if (::stat(parent->directory().c_str(), &st) != 0) {
    if (errno == ENOENT) return;  // it is being moved just now: the default does
    throw Error::from_errno(errno, "stat");
  }
  const timespec times[2] = {st.st_atim, st.st_mtim};
  if (::chown(upper.c_str(), st.st_uid, st.st_gid) != 0 || ::chmod(upper.c_str(), st.st_mode & 07777) != 0 ||
      ::utimensat(AT_FDCWD, upper.c_str(), times, 0) != 0)
    throw Error::from_errno(errno, "copy attributes of the root directory");
}

class TreeWorkspace final : public Workspace {
 public:
  TreeWorkspace(Store& store, SnapshotPtr parent, RecordType type, std::string description)
      : store_(store), parent_(std::move(parent)) {
    row_.id = new_record_id();
    row_.parent = parent_ ? parent_->id() : std::string();
    row_.state = "making";
    row_.type = type;
    row_.description = std::move(description);
    row_.created = row_.last_used = now();
    {
      const std::lock_guard lock(store_.mutex);
      store_.insert_row(row_);
    }
    FAILPOINT("buildcache.create.after_row");
    try {
      sys::make_directories(upper(), 0755);
      sys::make_directories(work(), 0700);
      adopt_looks(upper(), parent_.get());
    } catch (...) {
      discard();
      throw;
    }
  }
  ~TreeWorkspace() override {
    if (!committed_) discard();
  }

  sys::Path mount() override {
    if (point_) return point_->path;
    auto point = std::make_shared<MountPoint>(store_.new_mount_point());
    const std::vector<sys::Fd> below = Store::open_directories(parent_, point->directories);
    sys::OverlaySpec spec;
    for (const sys::Fd& fd : below) spec.lower.push_back(fmt::format("/proc/self/fd/{}", fd.get()));
    if (spec.lower.empty()) spec.lower.push_back(store_.empty());
    spec.upper = upper();
    spec.work = work();
    spec.unsafe_and_fast = true;  // what a crash leaves is not used: see Store::settle()
    sys::mount_overlay(spec, point->path);
    point_ = std::move(point);
    return point_->path;
  }
  sys::Path upper() const override { return store_.diff(row_.id); }

  SnapshotPtr commit() override {
    point_.reset();
    sys::remove_tree(work());
    FAILPOINT("buildcache.commit.after_unmount");
    row_.size = static_cast<std::int64_t>(sys::tree_size(upper()));
    const std::lock_guard lock(store_.mutex);
    db::Stmt done(store_.db(), "UPDATE records SET state = 'ready', size = ? WHERE id = ?");
    done.bind(1, row_.size).bind(2, row_.id).run();
    FAILPOINT("buildcache.commit.after_row");
    committed_ = true;
    return store_.make_snapshot(row_, parent_, nullptr);
  }

 private:
  sys::Path work() const { return store_.tree(row_.id) / "work"; }
  void discard() noexcept {
    try {
      point_.reset();
      sys::remove_tree(store_.tree(row_.id));
      const std::lock_guard lock(store_.mutex);
      store_.delete_row(row_.id);
    } catch (const Error& e) {
      log::debug("build cache: discarding {}: {}", row_.id, e.what());  // the next start finds it
    }
  }

  Store& store_;
  const SnapshotPtr parent_;
  Row row_;
  std::shared_ptr<MountPoint> point_;
  bool committed_ = false;
};

class TreeView final : public View {
 public:
  TreeView(std::shared_ptr<MountPoint> point, SnapshotPtr snapshot, sys::Path path)
      : snapshot_(std::move(snapshot)), point_(std::move(point)), path_(std::move(path)) {}
  const sys::Path& path() const override { return path_; }

 private:
  const SnapshotPtr snapshot_;
  const std::shared_ptr<MountPoint> point_;  // goes first
  const sys::Path path_;
};

class RunningMove final : public Move {
 public:
  explicit RunningMove(std::function<void()> end) : end_(std::move(end)) {}
  ~RunningMove() override { end_(); }

 private:
  const std::function<void()> end_;
};

}  // namespace

Snapshot::~Snapshot() = default;

std::string Snapshot::chain_id() const {
  const std::lock_guard lock(state_->mutex);
  return state_->chain_id;
}

std::string Snapshot::diff_id() const {
  const std::lock_guard lock(state_->mutex);
  return state_->diff_id;
}

sys::Path Snapshot::directory() const {
  const std::lock_guard lock(state_->mutex);
  return state_->directory->path;
}

std::int64_t Snapshot::size() const {
  const std::lock_guard lock(state_->mutex);
  return state_->size;
}

std::vector<sys::Path> Snapshot::lower_directories() const {
  std::vector<sys::Path> out;
  for (const Snapshot* at = this; at != nullptr; at = at->parent().get()) out.push_back(at->directory());
  return out;
}

std::unique_ptr<Workspace> Snapshots::create(SnapshotPtr parent, RecordType type, std::string description) {
  if (parent && parent->depth() >= kMostLayers)
    throw Error(Errc::invalid_argument, fmt::format("max depth exceeded: a tree has at most {} layers", kMostLayers));
  store_.require_space();
  store_.remember_layers(parent);
  store_.detach_frozen(parent);
  return std::make_unique<TreeWorkspace>(store_, std::move(parent), type, std::move(description));
}

std::unique_ptr<View> Snapshots::view(const SnapshotPtr& snapshot) {
  if (!snapshot) return std::make_unique<TreeView>(nullptr, nullptr, store_.empty());
  std::shared_ptr<MountPoint> point = store_.mount_view(snapshot);
  sys::Path path = point->path;
  return std::make_unique<TreeView>(std::move(point), snapshot, std::move(path));
}

SnapshotPtr Snapshots::adopt_image(const std::vector<ImageLayer>& layers, std::shared_ptr<void> lease) {
  return store_.adopt_image(layers, std::move(lease));
}

std::unique_ptr<Move> Snapshots::begin_move(const SnapshotPtr& snapshot) {
  store_.detach_frozen(snapshot);
  Snapshot::State& state = *snapshot->state_;
  std::unique_lock lock(state.mutex);
  state.moved.wait(lock, [&] { return !state.moving; });
  state.moving = true;
  return std::make_unique<RunningMove>([snapshot] {
    const std::lock_guard end(snapshot->state_->mutex);
    snapshot->state_->moving = false;
    snapshot->state_->moved.notify_all();
  });
}

void Snapshots::became_layer(const SnapshotPtr& snapshot, std::string chain_id, std::string diff_id,
                             sys::Path directory, std::int64_t size) {
  {
    const std::lock_guard lock(store_.mutex);
    db::Stmt set(store_.db(), "UPDATE records SET chain_id = ?, diff_id = ?, directory = ?, size = ? WHERE id = ?");
    set.bind(1, chain_id).bind(2, diff_id).bind(3, directory.string()).bind(4, size).bind(5, snapshot->id()).run();
  }
  FAILPOINT("buildcache.became_layer.after_row");
  DirectoryPtr old;  // goes without the mutex: that may remove a tree
  Snapshot::State& state = *snapshot->state_;
  const std::lock_guard lock(state.mutex);
  state.chain_id = std::move(chain_id);
  state.diff_id = std::move(diff_id);
  state.size = size;
  old = std::exchange(state.directory, std::make_shared<Directory>(std::move(directory)));
  old->removed_at_end = old->path != state.directory->path;
}

}  // namespace gantry::buildcache
