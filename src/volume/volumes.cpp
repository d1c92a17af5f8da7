#include "volume/volumes.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "async/shield.hpp"
#include "base/error.hpp"
#include "base/failpoint.hpp"
#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "sys/mount.hpp"
#include "volume/local_mount.hpp"
#include "volume/messages.hpp"
#include "volume/volumes_state.hpp"

namespace gantry::volume {
namespace {

constexpr std::string_view kAnonymousLabel = "com.docker.volume.anonymous";
constexpr std::size_t kMaxName = 255;  // a directory's name
/// How long a volume's server may take to let us mount it.
constexpr std::chrono::seconds kMountLimit{60};

db::VolumeRow row_of(const Volume& volume) {
  db::VolumeRow row;
  row.name = volume.name;
  row.driver = volume.driver;
  row.created_ns = volume.created.time_since_epoch().count();
  row.labels = volume.labels;
  row.options = volume.options;
  row.anonymous = volume.anonymous;
  row.populated = volume.populated;
  return row;
}

void unmount_blocking(const sys::Path& target) {
  // Lazily: what still uses it keeps its own reference, and a server that is gone cannot hold us up.
  while (sys::unmount(target, sys::Unmount::lazy)) {
  }
}

/// Reads mountinfo rather than the path itself: a stat of a dead server's mount would block.
bool is_mounted_blocking(const sys::Path& target) {
  const auto mounts = sys::list_mounts(target);
  return std::ranges::find(mounts, target, &sys::MountInfo::mount_point) != mounts.end();
}

}  // namespace

bool make_volume_directory_blocking(const sys::Path& volumes, const std::string& name, DirectoryOwner owner) {
  struct stat st{};
  const sys::Path data = volumes / name / "_data";
  if (::lstat(data.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) return false;
  sys::make_directories(volumes, 0701);
  sys::make_directories(volumes / name, 0701);
  sys::make_directories(data, 0755);
  if ((owner.uid != 0 || owner.gid != 0) && ::lchown(data.c_str(), owner.uid, owner.gid) != 0)
    throw Error::from_errno(errno, "chown " + data.string());
  return true;
}

void validate_volume_name(std::string_view name) {
  const auto alphanumeric = [](unsigned char c) { return c < 0x80 && std::isalnum(c) != 0; };
  const auto good = [&](char c) {
    return alphanumeric(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  if (name.size() == 1) throw volume_name_too_short(name);
  if (name.empty() || name.size() > kMaxName || !alphanumeric(static_cast<unsigned char>(name[0])) ||
      !std::ranges::all_of(name, good))
    throw invalid_volume_name(name);
}

Task<Volumes::State::NameLock> Volumes::State::lock(std::string name, std::string verb) {
  std::erase_if(locks, [](const auto& item) { return item.second.expired(); });
  std::shared_ptr<async::Mutex> mutex = locks[name].lock();
  if (!mutex) {
    mutex = std::make_shared<async::Mutex>();
    locks[name] = mutex;
  }
  NameLock held;
  held.guard = co_await mutex->lock(verb + " of volume " + name);
  held.mutex = std::move(mutex);
  co_return held;
}

Volumes::State::Entry& Volumes::State::get(std::string_view name) {
  const auto found = entries.find(name);
  if (found == entries.end()) throw no_such_volume(name);
  return found->second;
}

Volume Volumes::State::volume_of(const db::VolumeRow& row) const {
  Volume volume;
  volume.name = row.name;
  volume.driver = row.driver;
  volume.mountpoint = data_directory(row.name);
  volume.created = Timestamp(std::chrono::nanoseconds(row.created_ns));
  volume.labels = row.labels;
  volume.options = row.options;
  volume.anonymous = row.anonymous;
  volume.populated = row.populated;
  return volume;
}

void Volumes::State::publish(VolumeEvent event) const {
  if (notify) notify(event);
}

Volumes::Volumes(sys::Paths paths, db::Db& db, async::Lanes& lanes, Notify notify)
    : state_(std::make_unique<State>(std::move(paths), db, lanes, std::move(notify))) {}
Volumes::~Volumes() = default;

void Volumes::set_owner(std::uint32_t uid, std::uint32_t gid) { state_->owner = {uid, gid}; }

Task<Volume> Volumes::create(CreateVolume request) {
  std::string name = request.name.empty() ? random_id() : request.name;
  if (!request.driver.empty() && request.driver != "local") throw no_such_driver(name, request.driver);
  if (request.name.empty()) {
    request.labels.emplace(kAnonymousLabel, "");
  } else {
    validate_volume_name(name);
  }
  validate_local_options(name, request.options);
  auto held = co_await state_->lock(name, "creation");
  co_return co_await async::shielded(state_->create_locked(name, std::move(request)));
}

Task<Volume> Volumes::State::create_locked(std::string name, CreateVolume request) {
  if (const auto found = entries.find(name); found != entries.end()) co_return found->second.volume;
  if (const auto damaged = quarantined.find(name); damaged != quarantined.end())
    throw Error(Errc::corrupted, fmt::format("create {}: a volume of this name has a damaged record ({}): remove it "
                                             "first",
                                             name, damaged->second));
  Entry entry;
  entry.volume.name = name;
  entry.volume.mountpoint = data_directory(name);
  entry.volume.created = now();
  entry.volume.anonymous = request.labels.contains(std::string(kAnonymousLabel));
  entry.volume.labels = std::move(request.labels);
  entry.volume.options = std::move(request.options);
  const db::VolumeRow row = row_of(entry.volume);
  co_await lanes.db.run([&database = db, row] { db::insert_volume(database, row); });
  std::exception_ptr failure;
  try {
    FAILPOINT("volume.create.after_row");
    co_await lanes.quick.run([volumes = paths.volumes(), name, made_for = owner] {
      make_volume_directory_blocking(volumes, name, made_for);
    });
    FAILPOINT("volume.create.after_directory");
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await lanes.db.run([&database = db, name] { db::remove_volume(database, name); });
    std::rethrow_exception(failure);
  }
  const Volume volume = entry.volume;
  entries.emplace(name, std::move(entry));
  publish({.action = "create", .name = name, .driver = volume.driver, .container = {}});
  co_return volume;
}

Volume Volumes::get(std::string_view name) const { return state_->get(name).volume; }

std::optional<Volume> Volumes::find(std::string_view name) const {
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) return std::nullopt;
  return found->second.volume;
}

std::vector<Volume> Volumes::list() const {
  std::vector<Volume> volumes;
  volumes.reserve(state_->entries.size());
  for (const auto& [name, entry] : state_->entries) volumes.push_back(entry.volume);
  return volumes;
}

std::vector<std::string> Volumes::users(std::string_view name) const {
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) return {};
  return {found->second.users.begin(), found->second.users.end()};
}

Task<std::uint64_t> Volumes::State::destroy(std::string name) {
  co_await lanes.db.run([&database = db, name] { db::set_volume_removing(database, name, true); });
  const sys::Path trash = paths.tmp() / ("volume-" + random_id());
  std::exception_ptr failure;
  try {
    FAILPOINT("volume.remove.after_mark");
    // One rename takes the volume away as a whole: it is never seen half deleted.
    co_await lanes.quick.run([from = directory(name), data = data_directory(name), trash] {
      unmount_blocking(data);
      sys::make_directories(trash.parent_path(), 0700);
      if (::rename(from.c_str(), trash.c_str()) != 0 && errno != ENOENT)
        throw Error::from_errno(errno, "remove " + from.string());
    });
  } catch (const Error&) {
    failure = std::current_exception();
  }
  if (failure) {
    co_await lanes.db.run([&database = db, name] { db::set_volume_removing(database, name, false); });
    std::rethrow_exception(failure);
  }
  FAILPOINT("volume.remove.after_rename");
  co_await lanes.db.run([&database = db, name] { db::remove_volume(database, name); });
  entries.erase(name);
  quarantined.erase(name);
  FAILPOINT("volume.remove.after_row");
  try {
    co_return co_await lanes.bulk.run([trash] { return sys::remove_tree(trash); });
  } catch (const Error& e) {
    log::debug("volume {}: {}", name, e.log_detail());  // it is in tmp, which the next start empties
  }
  co_return 0;
}

Task<void> Volumes::remove(std::string name, bool force) {
  auto held = co_await state_->lock(name, "removal");
  if (state_->quarantined.contains(name)) {
    co_await async::shielded(state_->destroy(name));
    co_return;
  }
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) {
    if (force) co_return;
    throw no_such_volume(name);
  }
  const auto& users = found->second.users;
  if (!users.empty()) throw volume_in_use(name, join({users.begin(), users.end()}, ", "));
  const Volume volume = found->second.volume;
  co_await async::shielded(state_->destroy(name));
  state_->publish({.action = "destroy", .name = name, .driver = volume.driver, .container = {}});
}

Task<PruneReport> Volumes::prune(PruneFilter filter) {
  if (state_->pruning) throw Error(Errc::conflict, "a prune operation is already running");
  state_->pruning = true;
  struct Reset {
    bool& flag;
    ~Reset() { flag = false; }
  } reset{state_->pruning};
  std::vector<std::string> candidates;
  for (const auto& [name, entry] : state_->entries) {
    const Volume& volume = entry.volume;
    // Options may name something shared with other machines; Docker never prunes those.
    if (!entry.users.empty() || !volume.options.empty() || (!filter.all && !volume.anonymous)) continue;
    if (!filter.matches || filter.matches(volume)) candidates.push_back(name);
  }
  PruneReport report;
  for (const std::string& name : candidates) {
    auto held = co_await state_->lock(name, "removal");
    const auto found = state_->entries.find(name);
    if (found == state_->entries.end() || !found->second.users.empty()) continue;
    const Volume volume = found->second.volume;
    report.reclaimed_bytes += co_await async::shielded(state_->destroy(name));
    state_->publish({.action = "destroy", .name = name, .driver = volume.driver, .container = {}});
    report.removed.push_back(name);
  }
  VolumeEvent event{.action = "prune", .name = {}, .driver = {}, .container = {}};
  event.reclaimed = report.reclaimed_bytes;
  state_->publish(std::move(event));
  co_return report;
}

Task<std::uint64_t> Volumes::measure(std::string name) {
  const Volume volume = state_->get(name).volume;
  if (volume.has_backing_mount()) co_return 0;
  co_return co_await state_->lanes.bulk.run([path = sys::Path(volume.mountpoint)] { return sys::tree_size(path); });
}

Task<void> Volumes::acquire(std::string container, std::string name) {
  auto held = co_await state_->lock(name, "use");
  if (state_->get(name).users.contains(container)) co_return;
  const db::VolumeReference reference{name, container};
  co_await state_->lanes.db.run(
      [&database = state_->db, reference] { db::insert_volume_reference(database, reference); });
  state_->get(name).users.insert(container);
}

Task<void> Volumes::release(std::string container, std::string name) {
  auto held = co_await state_->lock(name, "release");
  const db::VolumeReference reference{name, container};
  co_await state_->lanes.db.run(
      [&database = state_->db, reference] { db::remove_volume_reference(database, reference); });
  if (const auto found = state_->entries.find(name); found != state_->entries.end())
    found->second.users.erase(container);
}

Task<void> Volumes::release_all(std::string container) {
  co_await state_->lanes.db.run(
      [&database = state_->db, container] { db::remove_volume_references_of(database, container); });
  for (auto& [name, entry] : state_->entries) entry.users.erase(container);
}

Task<sys::Path> Volumes::mount(std::string container, std::string name, VolumeUse use) {
  auto held = co_await state_->lock(name, "mount");
  const Volume volume = state_->get(name).volume;
  const sys::Path target = volume.mountpoint;
  co_await state_->lanes.quick.run([volumes = state_->paths.volumes(), name, owner = state_->owner] {
    // Somebody may have deleted it behind our back; an empty volume is better than no container.
    make_volume_directory_blocking(volumes, name, owner);
  });
  if (volume.has_backing_mount()) {
    const LocalMount wanted = parse_local_options(volume.options);
    const auto work = [wanted, target] {
      if (!is_mounted_blocking(target)) mount_local_blocking(wanted, target);
    };
    try {
      co_await state_->lanes.bulk.run_within(kMountLimit, work);
    } catch (Error& e) {
      e.add_context(fmt::format("error while mounting volume '{}'", target.string()));
      throw;
    }
  }
  ++state_->get(name).mounted[container];
  if (use.announce)
    state_->publish(
        {.action = "mount", .name = name, .driver = volume.driver, .container = container, .use = std::move(use)});
  co_return target;
}

Task<void> Volumes::unmount(std::string container, std::string name, bool announce) {
  auto held = co_await state_->lock(name, "unmount");
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) co_return;
  const auto uses = found->second.mounted.find(container);
  if (uses == found->second.mounted.end()) co_return;
  if (--uses->second == 0) found->second.mounted.erase(uses);
  const Volume volume = found->second.volume;
  if (found->second.mounted.empty() && volume.has_backing_mount())
    co_await async::shielded(
        state_->lanes.quick.run([target = sys::Path(volume.mountpoint)] { unmount_blocking(target); }));
  if (announce) state_->publish({.action = "unmount", .name = name, .driver = volume.driver, .container = container});
}

Task<void> Volumes::unmount_all(std::string container) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_->entries)
    if (const auto uses = entry.mounted.find(container); uses != entry.mounted.end())
      names.insert(names.end(), uses->second, name);
  for (const std::string& name : names) co_await unmount(container, name);
}

Task<void> Volumes::set_populated(std::string name) {
  auto held = co_await state_->lock(name, "change");
  if (state_->get(name).volume.populated) co_return;
  co_await state_->lanes.db.run([&database = state_->db, name] { db::set_volume_populated(database, name); });
  state_->get(name).volume.populated = true;
}

}  // namespace gantry::volume
