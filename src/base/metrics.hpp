#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gantry {

/// A number that only grows. Any thread.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// The numbers behind /metrics. A module registers its own when it is built; names follow Prometheus
/// ("gantry_requests_total", labels as `{verb="start"}`).
class Metrics {
 public:
  /// The counter lives as long as the registry. Asking again for the same name and labels gives the same one.
  Counter& counter(std::string name, std::string help, std::string labels = {});
  /// `read` is called on the loop when somebody asks for the metrics.
  void gauge(std::string name, std::string help, std::function<double()> read, std::string labels = {});
  /// Prometheus text format 0.0.4.
  std::string render() const;

 private:
  struct Entry {
    std::string name;
    std::string help;
    std::string labels;
    std::unique_ptr<Counter> counter;
    std::function<double()> gauge;
  };
  std::vector<Entry> entries_;
};

}  // namespace gantry
