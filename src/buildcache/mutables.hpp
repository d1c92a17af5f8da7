#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "buildcache/snapshots.hpp"

namespace gantry::buildcache {

/// What a second user of the same directory gets.
enum class Sharing {
  shared,        // the same directory at the same time
  private_copy,  // another directory of that key that nobody uses, or a new one
  locked,        // the same directory, when the first is through
};

struct MutableRequest {
  std::string key{};  // "cachemount:<id>", "local:<sharedkey>…", "git:<url>": any bytes, up to 4 KiB
  RecordType type = RecordType::exec_cachemount;
  std::string description{};  // `cached mount /root/.cache from exec … with id "…"`
  Sharing sharing = Sharing::shared;
  /// What a new directory starts with; another tree makes another directory of the same key.
  SnapshotPtr initial{};
};

/// A directory that outlives builds and that builds write to, held by one of its users.
class Mutable {
 public:
  virtual ~Mutable() = default;
  /// The directory. Owner and mode of a new one without initial content: root, 0755.
  virtual const sys::Path& path() const = 0;
  /// Something in it was, or may have been, written: digests that are known of its trees no longer hold. Cache mounts
  /// need not say it.
  virtual void mark_changed() = 0;
  /// The directory as a tree, for copies of build contexts: nobody else gets it while the tree or what was made of it
  /// is held. Call it once, when all is written, and let the Mutable go then.
  virtual SnapshotPtr freeze() = 0;
};

/// The directories of cache mounts, build contexts and repositories.
class Mutables {
 public:
  explicit Mutables(Store& store) : store_(store) {}

  /// Waits for a locked one; throws cancelled when `stop` ends that.
  std::unique_ptr<Mutable> acquire(MutableRequest request, std::stop_token stop);

 private:
  Store& store_;
};

}  // namespace gantry::buildcache
