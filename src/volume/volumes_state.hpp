#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "db/volume_rows.hpp"
#include "volume/volumes.hpp"

namespace gantry::volume {

struct DirectoryOwner {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// What Volumes knows. Changed on the loop thread only; the rows say the same.
struct Volumes::State {
  struct Entry {
    Volume volume;
    std::set<std::string> users;              // containers that refer to it
    std::map<std::string, unsigned> mounted;  // containers that run with it, and at how many places
  };
  /// Orders the verbs of one name, also before the volume exists and after it is gone.
  struct NameLock {
    std::shared_ptr<async::Mutex> mutex;
    async::Mutex::Guard guard;
  };

  State(sys::Paths p, db::Db& d, async::Lanes& l, Notify n)
      : paths(std::move(p)), db(d), lanes(l), notify(std::move(n)) {}

  const sys::Paths paths;
  db::Db& db;
  async::Lanes& lanes;
  const Notify notify;

  std::map<std::string, Entry, std::less<>> entries;
  std::map<std::string, std::string, std::less<>> quarantined;  // name → why its record cannot be read
  std::map<std::string, std::weak_ptr<async::Mutex>, std::less<>> locks;
  bool pruning = false;
  DirectoryOwner owner;

  Task<NameLock> lock(std::string name, std::string verb);
  /// Throws not_found.
  Entry& get(std::string_view name);

  sys::Path directory(const std::string& name) const { return paths.volumes() / name; }
  sys::Path data_directory(const std::string& name) const { return directory(name) / "_data"; }

  Volume volume_of(const db::VolumeRow& row) const;
  void publish(VolumeEvent event) const;

  Task<Volume> create_locked(std::string name, CreateVolume request);
  /// Takes away the directory, the row and the entry of a volume without users: all or, on an error, nothing.
  /// Returns the bytes that were freed.
  Task<std::uint64_t> destroy(std::string name);
};

/// Makes `<volumes>/<name>/_data` where it is missing. Returns whether it made it. Blocks on the disk.
bool make_volume_directory_blocking(const sys::Path& volumes, const std::string& name, DirectoryOwner owner);
/// Throws invalid_argument unless the name can be one of a volume.
void validate_volume_name(std::string_view name);

}  // namespace gantry::volume
