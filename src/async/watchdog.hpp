#pragma once

#include <chrono>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "async/operation.hpp"

namespace gantry::async {

/// Reports a loop that did not turn for `limit`, with the operations in flight: law 1 says that it never happens.
class Watchdog {
 public:
  Watchdog(boost::asio::any_io_executor loop, const Operations& operations,
           std::chrono::milliseconds limit = std::chrono::milliseconds(250));
  ~Watchdog();
  /// How often the loop was late, and the longest time, since the start.
  std::size_t stalls() const noexcept;
  std::chrono::milliseconds longest_stall() const noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace gantry::async
