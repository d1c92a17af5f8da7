#pragma once

#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "async/task.hpp"

namespace gantry::async {

/// Runs blocking work on a fixed number of threads and resumes the caller on the event loop.
///
/// `work` must own everything that it touches: the loop goes on meanwhile. What `work` throws, the caller gets.
/// Cancelling the caller does not stop `work`: the caller resumes when it has ended.
class Lane {
 public:
  Lane(std::string name, unsigned threads);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// Waits for as long as the work takes. Only for work that is bounded by itself.
  template <std::invocable F>
  Task<std::invoke_result_t<F>> run(F work) {
    return run_within(std::chrono::milliseconds::max(), std::move(work));
  }

  /// As run(), but throws timed_out after `limit`. The work itself goes on and its result is dropped.
  template <std::invocable F>
  Task<std::invoke_result_t<F>> run_within(std::chrono::milliseconds limit, F work) {
    using Result = std::invoke_result_t<F>;
    auto shared = std::make_shared<F>(std::move(work));
    if constexpr (std::is_void_v<Result>) {
      co_await run_job([shared] { (*shared)(); }, limit);
    } else {
      auto result = std::make_shared<std::optional<Result>>();
      co_await run_job([shared, result] { result->emplace((*shared)()); }, limit);
      co_return std::move(**result);
    }
  }

  /// Jobs that wait or run, for metrics.
  std::size_t depth() const noexcept;

 private:
  Task<void> run_job(std::function<void()> job, std::chrono::milliseconds limit);
  struct State;
  std::unique_ptr<State> state_;
};

/// The daemon's lanes. Work in one never waits for another, so a long unpack cannot delay an unmount.
struct Lanes {
  Lane db{"db", 1};        // SQLite
  Lane net{"net", 1};      // netlink and nftables, in order
  Lane quick{"quick", 4};  // mounts, stats, small files
  Lane bulk{"bulk", 6};    // unpacking, hashing, removing trees, tar streams
};

}  // namespace gantry::async
