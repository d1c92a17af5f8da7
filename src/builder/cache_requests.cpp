#include "builder/cache_requests.hpp"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "image/prune_filter.hpp"
#include "json/json.hpp"
#include "model/query.hpp"

namespace gantry::builder {
namespace {

constexpr const char* kFields[] = {"id",     "parent",  "type",    "description", "inuse",
                                   "shared", "private", "mutable", "immutable"};

/// The `filters` parameter as an expression of the cache; its conditions hold together.
std::vector<std::string> read_filters(const Filters& filters) {
  filters.require_known(
      {"until", "id", "parent", "type", "description", "inuse", "shared", "private", "mutable", "immutable"});
  std::vector<std::string> conditions;
  for (const std::string field : kFields) {
    if (!filters.has(field)) continue;
    const auto& values = filters.values(field);
    if (values.size() > 1) throw Error(Errc::invalid_argument, "filters expect only one value");
    const std::string name = field == "parent" ? "parents" : field;
    if (values.empty() || values.begin()->empty()) conditions.push_back(name);
    else conditions.push_back(name + (field == "id" ? "~=" : "==") + *values.begin());
  }
  return conditions.empty() ? std::vector<std::string>{} : std::vector{join(conditions, ",")};
}

buildcache::PruneOptions read_options(const model::Query& query) {
  buildcache::PruneOptions out;
  Filters filters = query.filters();
  // A flag such as {"shared":{"true":true}} is the flag.
  out.filters = read_filters(filters);
  out.all = query.flag("all");
  out.reserved_space = query.integer("reserved-space").value_or(query.integer("keep-storage").value_or(0));
  out.max_used_space = query.integer("max-used-space").value_or(0);
  out.min_free_space = query.integer("min-free-space").value_or(0);
  if (const auto until = image::read_until(filters))
    out.keep_duration =
        std::max(std::chrono::nanoseconds(0), std::chrono::duration_cast<std::chrono::nanoseconds>(now() - *until));
  return out;
}

}  // namespace

void serve_prune(buildcache::Cache& cache, buildlink::Engine& engine, const buildlink::Incoming& incoming,
                 buildlink::Exchange& exchange) {
  const buildcache::PruneOptions options = read_options(model::Query::parse(incoming.request.Query));
  json::Array deleted;
  std::int64_t reclaimed = 0;
  cache.prune(
      options,
      [&](const buildcache::UsageRecord& record) {
        deleted.emplace_back(record.id);
        if (!record.shared) reclaimed += record.size;
      },
      exchange.client_gone());
  engine.tell_pruned(reclaimed);
  json::Object reply;
  reply["CachesDeleted"] = deleted.empty() ? json::Value(nullptr) : json::Value(std::move(deleted));
  reply["SpaceReclaimed"] = reclaimed;
  exchange.write(json::render(reply) + "\n");
  exchange.finish();
}

std::vector<buildcache::PruneOptions> gc_policies_of(const buildlink::Settings& settings, std::int64_t disk_size) {
  buildcache::GcSettings gc;
  gc.enabled = settings.GcEnabled;
  gc.reserved_space = settings.GcReservedSpace;
  gc.max_used_space = settings.GcMaxUsedSpace;
  gc.min_free_space = settings.GcMinFreeSpace;
  for (const protocol::GcRule& rule : settings.GcRules) {
    buildcache::PruneOptions policy;
    policy.filters = rule.Filters;
    policy.all = rule.All;
    policy.keep_duration = std::chrono::nanoseconds(rule.KeepDuration);
    policy.reserved_space = rule.ReservedSpace;
    policy.max_used_space = rule.MaxUsedSpace;
    policy.min_free_space = rule.MinFreeSpace;
    gc.policies.push_back(std::move(policy));
  }
  return buildcache::gc_policies(gc, disk_size);
}

}  // namespace gantry::builder
