#include "buildcache/cache.hpp"

#include <algorithm>
#include <condition_variable>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include <sys/statvfs.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "buildcache/store.hpp"
#include "sys/file.hpp"

namespace gantry::buildcache {
namespace {

constexpr std::chrono::minutes kGcInterval{1};

std::int64_t free_space(const sys::Path& path) {
  struct statvfs st{};
  if (::statvfs(path.c_str(), &st) != 0) throw Error::from_errno(errno, "statvfs");
  return static_cast<std::int64_t>(st.f_bavail) * static_cast<std::int64_t>(st.f_frsize);
}

/// To how many bytes the cache is to shrink; nullopt if sizes do not matter.
std::optional<std::int64_t> bytes_to_keep(const PruneOptions& options, std::int64_t used, std::int64_t free) {
  if (options.max_used_space == 0 && options.reserved_space == 0 && options.min_free_space == 0) return std::nullopt;
  std::int64_t keep = options.max_used_space == 0 ? used : options.max_used_space;
  if (options.max_used_space == 0 && options.min_free_space == 0) keep = 0;
  const std::int64_t missing = options.min_free_space - free;
  if (missing > 0) keep = std::min(keep, used - missing);
  return std::max(keep, options.reserved_space);
}

/// 0 for a directory that somebody removes just now.
std::int64_t count_size(const sys::Path& directory) {
  try {
    return static_cast<std::int64_t>(sys::tree_size(directory));
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
    return 0;
  }
}

/// Who was not used for the longest time goes first, then who was used less.
bool goes_before(const UsageRecord& a, const UsageRecord& b) {
  const Timestamp a_used = std::max(a.last_used, a.created), b_used = std::max(b.last_used, b.created);
  if (a_used != b_used) return a_used < b_used;
  return a.uses != b.uses ? a.uses < b.uses : a.id < b.id;
}

}  // namespace

struct Cache::Parts {
  Parts(sys::Path root, LayerHooks hooks) : store(std::move(root), std::move(hooks)) {}

  void collect(Cache& cache, const std::stop_token& stop) {
    for (const sys::Path& directory : store.take_garbage()) sys::remove_tree(directory);
    cache.settle();
    std::vector<PruneOptions> policies;
    {
      const std::lock_guard lock(mutex);
      policies = gc;
    }
    for (const PruneOptions& policy : policies) cache.prune(policy, [](const UsageRecord&) {}, stop);
  }

  void run(Cache& cache, const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      {
        std::unique_lock lock(mutex);
        wake.wait_for(lock, stop, kGcInterval, [&] { return wanted; });
        if (stop.stop_requested()) return;
        const bool asked = std::exchange(wanted, false);
        const std::lock_guard store_lock(store.mutex);
        if (!asked && !store.made_something) continue;
        store.made_something = false;
      }
      try {
        collect(cache, stop);
      } catch (const Error& e) {
        if (e.code() != Errc::cancelled) log::warning("build cache: collecting: {}", e.what());
      }
    }
  }

  Store store;
  Snapshots snapshots{store};
  Mutables mutables{store};
  CacheIndex index{store};
  std::mutex prune_order;  // one at a time
  std::mutex mutex;        // of what follows
  std::condition_variable_any wake;
  bool wanted = true;  // garbage of the last worker
  std::vector<PruneOptions> gc;
  std::jthread collector;  // last: ends first
};

Cache::Cache(sys::Path root, LayerHooks hooks) : parts_(std::make_unique<Parts>(std::move(root), std::move(hooks))) {
  parts_->collector = std::jthread([this](const std::stop_token& stop) { parts_->run(*this, stop); });
}

Cache::~Cache() {
  parts_->collector.request_stop();
  parts_->collector.join();
  try {
    settle();
  } catch (const Error& e) {
    log::warning("build cache: {}", e.what());
  }
}

Snapshots& Cache::snapshots() noexcept { return parts_->snapshots; }
Mutables& Cache::mutables() noexcept { return parts_->mutables; }
CacheIndex& Cache::index() noexcept { return parts_->index; }
const sys::Path& Cache::root() const noexcept { return parts_->store.root(); }
void Cache::settle() { parts_->store.settle(); }
std::vector<std::string> Cache::check(bool repair) { return parts_->store.check(repair); }

std::set<std::string> Cache::daemon_layers() {
  std::set<std::string> out;
  const std::lock_guard lock(parts_->store.mutex);
  for (Row& row : parts_->store.rows())
    if (!row.chain_id.empty()) out.insert(std::move(row.chain_id));
  return out;
}

void Cache::set_gc(std::vector<PruneOptions> policies) {
  const std::lock_guard lock(parts_->mutex);
  parts_->gc = std::move(policies);
}

void Cache::collect_soon() {
  const std::lock_guard lock(parts_->mutex);
  parts_->wanted = true;
  parts_->wake.notify_all();
}

std::vector<UsageRecord> Cache::usage(const std::vector<std::string>& filters) {
  const UsageFilter filter(filters);
  Store& store = parts_->store;
  std::vector<UsageRecord> out;
  std::vector<std::string> chains;
  std::unordered_map<std::string, std::string> chain_of;
  {
    const std::lock_guard lock(store.mutex);
    for (const Row& row : store.rows()) {
      UsageRecord record;
      record.id = row.id;
      record.type = row.type;
      record.description = row.description;
      record.size = row.size;
      record.created = row.created;
      record.last_used = row.uses == 0 ? Timestamp{} : row.last_used;
      record.uses = row.uses;
      if (!row.parent.empty() && !row.parent.starts_with("layer-")) record.parents.push_back(row.parent);
      record.is_mutable = !row.mutable_key.empty();
      record.in_use = store.in_use(row.id);
      if (!row.chain_id.empty()) {
        chains.push_back(row.chain_id);
        chain_of[row.id] = row.chain_id;
      }
      out.push_back(std::move(record));
    }
  }
  if (!chains.empty() && store.hooks().used_by_images) {
    const std::set<std::string> shared = store.hooks().used_by_images(chains);
    for (UsageRecord& record : out)
      if (const auto it = chain_of.find(record.id); it != chain_of.end()) record.shared = shared.contains(it->second);
  }
  for (UsageRecord& record : out) {
    if (record.size >= 0) continue;
    record.size = count_size(store.diff(record.id));
    const std::lock_guard lock(store.mutex);
    if (store.held.contains(record.id)) continue;  // it is not the last word
    db::Stmt set(store.db(), "UPDATE records SET size = ? WHERE id = ?");
    set.bind(1, record.size).bind(2, record.id).run();
  }
  std::erase_if(out, [&](const UsageRecord& record) { return !filter.matches(record); });
  return out;
}

void Cache::prune(const PruneOptions& options, const std::function<void(const UsageRecord&)>& removed,
                  std::stop_token stop) {
  const UsageFilter filter(options.filters);
  const std::lock_guard order(parts_->prune_order);
  std::vector<UsageRecord> records = usage();
  std::int64_t used = 0;
  for (const UsageRecord& record : records)
    if (!record.shared) used += record.size;
  const auto keep = bytes_to_keep(options, used, free_space(root()));
  const auto reached = [&] { return keep && used <= *keep; };
  if (reached()) return;

  const Timestamp limit = now() - options.keep_duration;
  const auto may_go = [&](const UsageRecord& record) {
    if (record.in_use || !filter.matches(record)) return false;
    if (options.keep_duration.count() != 0 && std::max(record.last_used, record.created) > limit) return false;
    const bool internal = record.type == RecordType::internal || record.type == RecordType::frontend;
    return options.all || (!internal && !record.shared);
  };
  std::unordered_map<std::string, int> users;
  for (const UsageRecord& record : records)
    for (const std::string& parent : record.parents) ++users[parent];
  std::erase_if(records, [&](const UsageRecord& record) { return !may_go(record); });
  std::sort(records.begin(), records.end(), goes_before);

  // What others stand on becomes free when they are gone, so the list is gone through until nothing moves.
  for (bool progress = true; progress && !records.empty();) {
    progress = false;
    for (auto it = records.begin(); it != records.end();) {
      if (reached()) return;
      if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
      const bool gone = users[it->id] == 0 && parts_->store.remove_record(it->id);
      if (!gone) {
        ++it;
        continue;
      }
      progress = true;
      if (!it->shared) used -= it->size;
      for (const std::string& parent : it->parents) --users[parent];
      removed(*it);
      it = records.erase(it);
    }
  }
}

}  // namespace gantry::buildcache
