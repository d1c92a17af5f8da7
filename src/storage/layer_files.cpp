#include "storage/layer_files.hpp"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "storage/decompress.hpp"
#include "storage/hash.hpp"
#include "storage/tree.hpp"
#include "storage/tree_compare.hpp"
#include "sys/xattr.hpp"

namespace gantry::storage {
namespace {

constexpr std::size_t kReadAhead = 4 << 20;
constexpr unsigned kCoresForThirdThread = 4;

/// Passes bytes on and hashes them.
class HashingSource final : public ByteSource {
 public:
  explicit HashingSource(std::shared_ptr<ByteSource> source) : source_(std::move(source)) {}
  std::size_t read(char* to, std::size_t size) override {
    const std::size_t got = source_->read(to, size);
    hash_.update({to, got});
    return got;
  }
  void abort() noexcept override { source_->abort(); }
  std::string digest() { return hash_.digest(); }

 private:
  std::shared_ptr<ByteSource> source_;
  Sha256 hash_;
};

/// Stops before the disk is full, because then nothing else on it could be written either, our database included.
class SpaceGuard final : public ByteSource {
 public:
  SpaceGuard(std::shared_ptr<ByteSource> source, int directory) : source_(std::move(source)), directory_(directory) {}
  std::size_t read(char* to, std::size_t size) override {
    constexpr std::uint64_t kInterval = 16 << 20;
    if (read_ >= next_check_) {
      check();
      next_check_ = read_ + kInterval;
    }
    const std::size_t got = source_->read(to, size);
    read_ += got;
    return got;
  }
  void abort() noexcept override { source_->abort(); }

 private:
  void check() const {
    struct statvfs st{};
    if (::fstatvfs(directory_, &st) != 0) throw Error::from_errno(errno, "statvfs");
    const std::uint64_t all = std::uint64_t{st.f_blocks} * st.f_frsize;
    const std::uint64_t left = std::uint64_t{st.f_bavail} * st.f_frsize;
    const std::uint64_t reserve = std::min<std::uint64_t>(all / 50, 256 << 20);
    if (left < reserve)
      throw Error(Errc::unavailable, fmt::format("no space left for the layer: {} of {} are free, and {} are kept in "
                                                 "reserve; remove something or enlarge the disk of --data-root",
                                                 render_human_size(static_cast<std::int64_t>(left)),
                                                 render_human_size(static_cast<std::int64_t>(all)),
                                                 render_human_size(static_cast<std::int64_t>(reserve))));
  }
  std::shared_ptr<ByteSource> source_;
  const int directory_;
  std::uint64_t read_ = 0;
  std::uint64_t next_check_ = 0;
};

/// How `path` looks in the layers below, or nothing if it is not a directory there.
sys::Fd find_below(const std::string& path, const std::vector<sys::Path>& parents) {
  for (const sys::Path& parent : parents) {
    const sys::Fd root = sys::open_file(parent, O_RDONLY | O_DIRECTORY);
    try {
      const sys::Fd found = sys::open_in_root(root.get(), path, O_PATH | O_NOFOLLOW);
      if (!S_ISDIR(get_stat(found.get()).st_mode)) return {};
      return sys::open_in_root(root.get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    } catch (const Error& e) {
      if (e.sys_errno() != ENOENT) return {};  // a parent of it is something else here, which ends the search
    }
  }
  return {};
}

void adopt_looks(int directory, int below) {
  const struct stat st = get_stat(below);
  if (::fchown(directory, st.st_uid, st.st_gid) != 0 || ::fchmod(directory, st.st_mode & 07777) != 0)
    throw Error::from_errno(errno, "copy attributes of a directory");
  for (const sys::Xattr& attribute : sys::list_xattrs(below))
    if (is_allowed_xattr(attribute.name)) sys::set_xattr(directory, attribute);
  const timespec times[2] = {{0, UTIME_NOW}, st.st_mtim};
  if (::futimens(directory, times) != 0) throw Error::from_errno(errno, "copy times of a directory");
}

void hide_all_below(int root, const std::vector<sys::Path>& parents, UnpackResult& result) {
  for (const sys::Path& parent : parents) {
    const sys::Fd below = sys::open_file(parent, O_RDONLY | O_DIRECTORY);
    for (const std::string& name : list_names(below.get())) {
      const auto own = find_stat(root, name.c_str());
      if (own && S_ISDIR(own->st_mode)) set_opaque(open_subdirectory(root, name.c_str()).get());
      if (own) continue;
      if (::mknodat(root, name.c_str(), S_IFCHR, 0) != 0) throw Error::from_errno(errno, "create whiteout");
      ++result.entries;
    }
  }
}

}  // namespace

StagedLayer::~StagedLayer() {
  if (directory.empty()) return;
  try {
    sys::remove_tree(directory);
  } catch (const Error& e) {
    log::debug("removing {}: {}", directory.string(), e.what());  // recover() empties tmp/
  }
}

std::unique_ptr<StagedLayer> stage_layer(const sys::Paths& paths, const std::shared_ptr<ByteSource>& source,
                                         const UnpackBudget& budget) {
  auto staged = std::make_unique<StagedLayer>();
  const sys::Path directory = paths.tmp() / ("layer-" + random_id().substr(0, 16));
  sys::make_directories(directory, 0700);
  staged->directory = directory;
  sys::spread_subdirectories(directory);
  sys::make_directories(directory / "diff", 0755);
  if (::chmod((directory / "diff").c_str(), 0755) != 0) throw Error::from_errno(errno, "chmod");
  const sys::Fd root = sys::open_file(directory / "diff", O_RDONLY | O_DIRECTORY);
  FAILPOINT("layer.after_stage_directory");

  // Inflating, hashing and writing are a thread each where there are cores for them; on few cores they would only
  // take them from the other layers.
  std::shared_ptr<ByteSource> plain = decompress(source, budget);
  if (std::thread::hardware_concurrency() >= kCoresForThirdThread) plain = read_ahead(std::move(plain), kReadAhead);
  auto hashing = std::make_shared<HashingSource>(std::move(plain));
  SpaceGuard ahead(read_ahead(hashing, kReadAhead), root.get());
  UnpackOptions options;
  options.mode = UnpackMode::layer;
  options.budget = budget;
  staged->result = unpack(root.get(), ahead, options);
  staged->diff_id = hashing->digest();
  FAILPOINT("layer.after_unpack");
  return staged;
}

void settle_layer(StagedLayer& staged, const std::vector<sys::Path>& parents) {
  const sys::Fd root = sys::open_file(staged.directory / "diff", O_RDONLY | O_DIRECTORY);
  for (const std::string& path : staged.result.implicit) {
    const sys::Fd below = find_below(path, parents);
    if (!below) continue;
    try {
      adopt_looks(sys::open_beneath(root.get(), path, O_RDONLY | O_DIRECTORY).get(), below.get());
    } catch (const Error& e) {
      if (e.sys_errno() != ENOENT && e.sys_errno() != ENOTDIR) throw;  // replaced later in the same tar
    }
  }
  if (staged.result.opaque_root) hide_all_below(root.get(), parents, staged.result);
  staged.fingerprint = fingerprint_tree(root.get());
}

void install_layer(StagedLayer& staged, const sys::Path& place) {
  const sys::Fd root = sys::open_file(staged.directory, O_RDONLY | O_DIRECTORY);
  // One flush for all files: fsync of each would cost a journal commit each.
  if (::syncfs(root.get()) != 0) throw Error::from_errno(errno, "write the layer to disk");
  FAILPOINT("layer.after_sync");
  sys::remove_tree(place);
  if (::rename(staged.directory.c_str(), place.c_str()) != 0)
    throw Error::from_errno(errno, fmt::format("rename layer to {}", place.string()));
  staged.directory.clear();
  FAILPOINT("layer.after_rename");
  sys::sync_directory(place.parent_path());
}

sys::Path move_aside(const sys::Paths& paths, const sys::Path& directory) {
  sys::Path aside = paths.tmp() / ("removed-" + random_id().substr(0, 16));
  if (::rename(directory.c_str(), aside.c_str()) != 0 && errno != ENOENT)
    throw Error::from_errno(errno, fmt::format("remove {}", directory.string()));
  return aside;
}

void discard_directory(const sys::Paths& paths, const sys::Path& directory) {
  const sys::Path aside = move_aside(paths, directory);
  FAILPOINT("layer.after_discard_rename");
  sys::remove_tree(aside);
}

}  // namespace gantry::storage
