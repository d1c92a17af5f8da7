#pragma once

#include <chrono>
#include <exception>
#include <string>
#include <tuple>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/task.hpp"
#include "base/error.hpp"

namespace gantry::async {

/// Cancels `task` and throws timed_out, naming `what`, when it takes longer than `limit`. What the task throws goes on
/// unchanged. Waits for the cancelled task to end.
template <class T>
Task<T> with_timeout(Task<T> task, std::chrono::milliseconds limit, std::string what) {
  namespace asio = boost::asio;
  const auto loop = co_await asio::this_coro::executor;
  asio::steady_timer timer(loop, limit);
  // Not awaitable_operators' `||`: that one waits for the first success, so a task that fails would be reported as
  // late after the whole limit.
  auto both = asio::experimental::make_parallel_group(asio::co_spawn(loop, std::move(task), asio::deferred),
                                                      timer.async_wait(asio::deferred));
  auto result = co_await both.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  const std::exception_ptr& failure = std::get<1>(result);
  if (std::get<0>(result)[0] == 1 && (failure || std::is_void_v<T>) &&
      !std::get<std::tuple_size_v<decltype(result)> - 1>(result))
    throw Error(Errc::timed_out, what + ": no answer within " + std::to_string(limit.count()) + " ms");
  if (failure) std::rethrow_exception(failure);
  if constexpr (!std::is_void_v<T>) co_return std::move(std::get<2>(result));
}

}  // namespace gantry::async
