#include "builder/usage_reporter.hpp"

#include <chrono>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/time.hpp"
#include "json/codec.hpp"
#include "sys/file.hpp"

namespace gantry::builder {
namespace {

/// Builds that end one after the other are told of together.
constexpr std::chrono::milliseconds kGather{200};

protocol::UsageReport make_report(buildcache::Cache& cache) {
  protocol::UsageReport report;
  for (const buildcache::UsageRecord& record : cache.usage()) {
    if (report.Records.size() == protocol::kMaxUsageRecords) break;
    protocol::UsageEntry entry;
    entry.ID = record.id;
    entry.Parents = record.parents;
    entry.Type = buildcache::record_type_name(record.type);
    entry.Description = record.description;
    entry.InUse = record.in_use;
    entry.Shared = record.shared;
    entry.Size = record.size;
    entry.CreatedAt = render_rfc3339_nano(record.created);
    if (record.last_used != Timestamp{}) entry.LastUsedAt = render_rfc3339_nano(record.last_used);
    entry.UsageCount = record.uses;
    report.Records.push_back(std::move(entry));
  }
  return report;
}

}  // namespace

UsageReporter::UsageReporter(buildcache::Cache& cache, buildlink::Engine& engine)
    : cache_(cache), engine_(engine), thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

void UsageReporter::poke() {
  const std::lock_guard lock(mutex_);
  poked_ = true;
  changed_.notify_all();
}

void UsageReporter::report() {
  try {
    const protocol::UsageReport report = make_report(cache_);
    sys::write_atomically(cache_.root() / "usage.json", json::render(json::encode(report)), 0600, false);
    engine_.tell_usage(report);
  } catch (const Error& e) {
    log::debug("usage of the build cache: {}", e.message());
  }
}

void UsageReporter::run(std::stop_token stop) {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return poked_; })) return;
      (void)changed_.wait_for(lock, stop, kGather, [] { return false; });
      poked_ = false;
    }
    report();
  }
}

}  // namespace gantry::builder
