#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/task.hpp"

namespace gantry::image {

/// Runs `task` to its end whatever happens to the caller, who stays cancellable: it gets the result and notices its
/// cancellation at its next `co_await`. The task runs as a coroutine of its own without a cancellation slot, because
/// asio's reset_cancellation_state() changes the state of the caller's whole coroutine stack, and for good.
template <class T>
Task<T> uninterrupted(Task<T> task) {
  namespace asio = boost::asio;
  const auto loop = co_await asio::this_coro::executor;
  co_return co_await asio::co_spawn(loop, std::move(task),
                                    asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable));
}

}  // namespace gantry::image
