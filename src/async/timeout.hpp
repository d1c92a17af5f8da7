#pragma once

#include <chrono>
#include <string>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/task.hpp"
#include "base/error.hpp"

namespace gantry::async {

/// Cancels `task` and throws timed_out, naming `what`, when it takes longer than `limit`.
template <class T>
Task<T> with_timeout(Task<T> task, std::chrono::milliseconds limit, std::string what) {
  using namespace boost::asio::experimental::awaitable_operators;
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, limit);
  auto first = co_await (std::move(task) || timer.async_wait(boost::asio::use_awaitable));
  if (first.index() == 1)
    throw Error(Errc::timed_out, what + ": no answer within " + std::to_string(limit.count()) + " ms");
  if constexpr (!std::is_void_v<T>) co_return std::get<0>(std::move(first));
}

}  // namespace gantry::async
