#include <algorithm>

#include <sys/stat.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/mount.hpp"
#include "volume/volumes_state.hpp"

namespace gantry::volume {
namespace {

struct Loaded {
  std::vector<db::VolumeRow> rows;
  std::vector<db::VolumeReference> references;
};

/// Directories of volumes that no row knows: left over from a lost database. They hold a user's data, so they become
/// volumes again instead of being swept. Blocks on the disk.
std::vector<db::VolumeRow> find_unknown_blocking(const sys::Path& volumes, const std::set<std::string>& known) {
  std::vector<db::VolumeRow> found;
  struct stat st{};
  if (::lstat(volumes.c_str(), &st) != 0) return found;
  for (const std::string& name : sys::list_directory(volumes)) {
    if (known.contains(name)) continue;
    const sys::Path data = volumes / name / "_data";
    if (::lstat(data.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) continue;
    try {
      validate_volume_name(name);
    } catch (const Error&) {
      continue;
    }
    db::VolumeRow row;
    row.name = name;
    row.driver = "local";
    row.created_ns = std::int64_t{st.st_ctim.tv_sec} * 1'000'000'000 + st.st_ctim.tv_nsec;
    row.anonymous = name.size() == 64 && is_lower_hex(name);
    row.populated = true;
    found.push_back(std::move(row));
  }
  return found;
}

}  // namespace

Task<RecoverReport> Volumes::recover() {
  RecoverReport report;
  Loaded loaded;
  try {
    loaded = co_await state_->lanes.db.run(
        [&database = state_->db] { return Loaded{db::load_volumes(database), db::load_volume_references(database)}; });
  } catch (const Error& e) {
    report.messages.push_back("volumes cannot be read from the database: " + e.message());
    co_return report;
  }
  std::set<std::string> known;
  std::vector<std::string> unfinished;
  for (const db::VolumeRow& row : loaded.rows) {
    known.insert(row.name);
    if (row.removing) {
      unfinished.push_back(row.name);
    } else if (!row.damage.empty()) {
      state_->quarantined[row.name] = row.damage;
      report.quarantined.push_back(row.name);
      report.messages.push_back(fmt::format("volume {} is set aside: its record is damaged: {}", row.name, row.damage));
    } else {
      state_->entries[row.name].volume = state_->volume_of(row);
    }
  }
  for (const db::VolumeReference& reference : loaded.references)
    if (const auto found = state_->entries.find(reference.volume); found != state_->entries.end())
      found->second.users.insert(reference.container);
  for (const std::string& name : unfinished) {
    try {
      co_await state_->destroy(name);
      report.messages.push_back(fmt::format("the interrupted removal of volume {} is finished", name));
    } catch (const Error& e) {
      report.messages.push_back(fmt::format("volume {} cannot be removed: {}", name, e.message()));
    }
  }
  try {
    const auto unknown = co_await state_->lanes.quick.run(
        [volumes = state_->paths.volumes(), known] { return find_unknown_blocking(volumes, known); });
    for (const db::VolumeRow& row : unknown) {
      co_await state_->lanes.db.run([&database = state_->db, row] { db::insert_volume(database, row); });
      state_->entries[row.name].volume = state_->volume_of(row);
      report.messages.push_back(fmt::format("volume {} had no record: its directory is adopted", row.name));
    }
  } catch (const Error& e) {
    report.messages.push_back("looking for volumes without a record: " + e.message());
  }
  for (const Volume& volume : list()) {
    try {
      const bool made = co_await state_->lanes.quick.run(
          [volumes = state_->paths.volumes(), name = volume.name, owner = state_->owner] {
            return make_volume_directory_blocking(volumes, name, owner);
          });
      if (made && volume.populated)
        report.messages.push_back(fmt::format("volume {} had lost its directory: it is empty now", volume.name));
    } catch (const Error& e) {
      report.messages.push_back(fmt::format("volume {}: {}", volume.name, e.message()));
    }
  }
  co_return report;
}

Task<void> Volumes::forget_other_containers(std::set<std::string> containers) {
  std::set<std::string> gone;
  for (const auto& [name, entry] : state_->entries)
    for (const std::string& user : entry.users)
      if (!containers.contains(user)) gone.insert(user);
  for (const std::string& container : gone) co_await release_all(container);
  for (const Volume& volume : list()) {
    auto held = co_await state_->lock(volume.name, "unmount");
    const auto found = state_->entries.find(volume.name);
    if (found == state_->entries.end() || !found->second.mounted.empty() || !volume.has_backing_mount()) continue;
    co_await state_->lanes.quick.run([target = sys::Path(volume.mountpoint)] { (void)sys::unmount_all(target); });
  }
}

}  // namespace gantry::volume
