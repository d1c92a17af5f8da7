#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/task.hpp"
#include "base/time.hpp"
#include "sys/paths.hpp"

namespace gantry::db {
class Db;
}

namespace gantry::volume {

/// A directory that outlives containers.
struct Volume {
  std::string name;
  std::string driver = "local";
  std::string mountpoint;  // <data-root>/volumes/<name>/_data
  Timestamp created{};
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> options;  // of the driver: type, o, device, size
  bool anonymous = false;                      // its name was made by us, or it carries Docker's label
  bool populated = false;                      // it was filled from an image once, or a container has used it

  /// It is not a plain directory: something is mounted on it while it is used.
  bool has_backing_mount() const { return options.contains("device") || options.contains("type"); }
};

struct CreateVolume {
  std::string name;    // empty: 64 hexadecimal digits, and the label com.docker.volume.anonymous
  std::string driver;  // empty: local
  std::map<std::string, std::string> options;
  std::map<std::string, std::string> labels;
};

struct PruneFilter {
  bool all = false;  // named ones too
  /// Whether the volume's labels pass the request's filters. Empty: all do.
  std::function<bool(const Volume&)> matches;
};

struct PruneReport {
  std::vector<std::string> removed;
  std::uint64_t reclaimed_bytes = 0;
};

/// What `recover` put right or set aside, for the log and the doctor.
struct RecoverReport {
  std::vector<std::string> messages;
  std::vector<std::string> quarantined;  // volumes whose record cannot be read
};

/// How a container uses a volume, for the event. `announce` false: no event, because nobody asked for this use.
struct VolumeUse {
  bool read_write = true;
  std::string destination{};
  std::string propagation{};
  bool announce = true;
};

/// Told of each change, on the loop. `action`: create, mount, unmount, destroy, prune. `container` is the user of a
/// mount or unmount; `reclaimed` counts for prune only, which has no name.
struct VolumeEvent {
  std::string action;
  std::string name;
  std::string driver;
  std::string container;
  VolumeUse use{};
  std::uint64_t reclaimed = 0;
};

/// All volumes of this engine.
///
/// A volume is a row first and a directory second. Which containers refer to it are rows too, so that "in use" is
/// true for stopped containers and after a restart. Reads answer from memory. Loop thread only.
class Volumes {
 public:
  using Notify = std::function<void(const VolumeEvent&)>;
  /// `notify` may be empty.
  Volumes(sys::Paths paths, db::Db& db, async::Lanes& lanes, Notify notify);
  ~Volumes();
  Volumes(const Volumes&) = delete;
  Volumes& operator=(const Volumes&) = delete;

  /// Who the directories of new volumes belong to: root of the containers, where that is not the host's.
  void set_owner(std::uint32_t uid, std::uint32_t gid);
  /// Reads the rows, makes missing directories, sweeps what a crash left. Never prevents the start: what cannot be
  /// read is quarantined and reported. Idempotent.
  Task<RecoverReport> recover();
  /// Drops the references of containers that are not in `containers` (all there are), and unmounts what nobody uses.
  Task<void> forget_other_containers(std::set<std::string> containers);

  /// The volume of that name, made now or before: an existing one is returned unchanged if its driver is the same.
  /// Durable on return. Throws invalid_argument, conflict, not_found (driver).
  Task<Volume> create(CreateVolume request);
  /// Throws not_found: "get <name>: no such volume".
  Volume get(std::string_view name) const;
  std::optional<Volume> find(std::string_view name) const;
  std::vector<Volume> list() const;  // by name
  /// Containers that refer to the volume.
  std::vector<std::string> users(std::string_view name) const;

  /// Throws not_found (not with `force`), conflict when a container refers to it.
  Task<void> remove(std::string name, bool force);
  /// Removes what no container refers to: anonymous ones, or all. Throws conflict while another prune runs.
  Task<PruneReport> prune(PruneFilter filter);
  /// Bytes that the volume's files take; walks the tree in the bulk lane. Throws not_found.
  Task<std::uint64_t> measure(std::string name);

  /// Records that `container` refers to the volume: from now on it cannot be removed. Idempotent, durable.
  Task<void> acquire(std::string container, std::string name);
  /// Takes the reference back. What is not there is fine.
  Task<void> release(std::string container, std::string name);
  Task<void> release_all(std::string container);

  /// Makes the volume usable by a running container, mounting what its options name, and returns its directory.
  /// A container may use it at several places: each mount() takes one unmount(). Throws not_found; internal with
  /// mount(2)'s reason.
  Task<sys::Path> mount(std::string container, std::string name, VolumeUse use = {});
  /// Takes one use back; the last user's leaving unmounts. What is not there is fine.
  Task<void> unmount(std::string container, std::string name, bool announce = true);
  /// Takes all uses back.
  Task<void> unmount_all(std::string container);

  /// The volume will not be filled from an image any more.
  Task<void> set_populated(std::string name);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::volume
