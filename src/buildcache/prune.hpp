#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "buildcache/snapshots.hpp"

namespace gantry::buildcache {

/// One line of `docker buildx du`.
struct UsageRecord {
  std::string id;
  RecordType type = RecordType::regular;
  std::string description;
  std::int64_t size = 0;
  Timestamp created;
  Timestamp last_used;  // Timestamp{}: never
  std::int64_t uses = 0;
  std::vector<std::string> parents;
  bool is_mutable = false;
  bool in_use = false;
  bool shared = false;  // an image has it, too
};

/// containerd's filter expressions over records: alternatives, each of conditions with commas between them:
/// `type==regular`, `id~=^ab`, `description!="x"`, `inuse`, `mutable`, `immutable`, `shared`, `private`, `parents`.
class UsageFilter {
 public:
  /// Matches everything.
  UsageFilter() = default;
  /// An empty expression matches everything, and so does no expression. Throws invalid_argument.
  explicit UsageFilter(const std::vector<std::string>& expressions);
  bool matches(const UsageRecord& record) const;

 private:
  struct Condition {
    std::string field;
    enum class Test { present, equal, differs, regex } test = Test::present;
    std::string value;
  };
  static std::vector<Condition> parse(std::string_view expression);
  static bool holds(const Condition& condition, const UsageRecord& record);
  std::vector<std::vector<Condition>> alternatives_;
};

/// What to remove, as PruneRequest and GCPolicy say it. Sizes are of records that no image shares.
struct PruneOptions {
  std::vector<std::string> filters{};
  /// Internal records, and those that images share, too.
  bool all = false;
  /// Only what was not used for so long.
  std::chrono::nanoseconds keep_duration{0};
  /// All three 0: everything that fits. Else the least recently used ones, until at most max_used_space are used and
  /// min_free_space are free on the disk, but never below reserved_space.
  std::int64_t reserved_space = 0;
  std::int64_t max_used_space = 0;
  std::int64_t min_free_space = 0;
};

/// `builder.gc` of daemon.json. Sizes of 0: not given.
struct GcSettings {
  bool enabled = true;
  std::int64_t reserved_space = 0;  // defaultReservedSpace, formerly defaultKeepStorage
  std::int64_t max_used_space = 0;  // defaultMaxUsedSpace
  std::int64_t min_free_space = 0;  // defaultMinFreeSpace
  std::vector<PruneOptions> policies{};
};

/// What collection does, in order: the given policies, or Docker's four default ones for a disk of this size. None if
/// it is not enabled.
std::vector<PruneOptions> gc_policies(const GcSettings& settings, std::int64_t disk_size);

}  // namespace gantry::buildcache
