#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include <boost/json/array.hpp>

#include "api/router.hpp"
#include "async/operation.hpp"
#include "base/metrics.hpp"
#include "engine/system_source.hpp"
#include "events/bus.hpp"

namespace gantry::api {

/// One kind's part of GET /system/df. `items` have the shape of the kind's list in the version asked for, with sizes.
struct DiskUsageKind {
  std::int64_t active_count = 0;
  std::int64_t total_count = 0;
  std::int64_t reclaimable = 0;  // bytes
  std::int64_t total_size = 0;   // bytes; of images: every layer once
  boost::json::array items;
};

/// /_ping, /version, /info, /events, /system/df, /metrics, /debug/ops.
class SystemRoutes {
 public:
  using DiskUsageProvider = std::function<Task<DiskUsageKind>(ApiVersion)>;

  SystemRoutes(engine::SystemSource& source, events::Bus& bus, const async::Operations& operations)
      : source_(source), bus_(bus), operations_(operations) {}

  /// Who answers for "image", "container", "volume" or "build-cache". A kind nobody answers for is empty.
  void provide_disk_usage(std::string type, DiskUsageProvider provider);
  /// The numbers of GET /metrics; none without it.
  void set_metrics(const Metrics* metrics) { metrics_ = metrics; }
  /// The router must outlive this object.
  void add_to(Router& router);

 private:
  Task<Response> ping(Request request);
  Task<Response> version(Request request);
  Task<Response> info(Request request);
  Task<Response> events(Request request);
  Task<Response> disk_usage(Request request);
  Task<Response> list_operations(Request request);
  Task<Response> render_metrics(Request request);
  Task<DiskUsageKind> usage_of(std::string type, ApiVersion version);

  engine::SystemSource& source_;
  events::Bus& bus_;
  const async::Operations& operations_;
  const Metrics* metrics_ = nullptr;
  const Router* router_ = nullptr;
  std::map<std::string, DiskUsageProvider> disk_usage_;
};

}  // namespace gantry::api
