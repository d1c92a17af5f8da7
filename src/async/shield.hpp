#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/task.hpp"

namespace gantry::async {

/// Runs `task` so that cancelling the caller does not reach it: for verbs that must end once they have begun, and for
/// cleaning up. The caller waits for its end, and notices its own cancellation at the next `co_await`. A caller that
/// is cancelled already gets no further than here: nothing has begun.
///
/// The task runs as a coroutine of its own. Switching cancellation off in the caller's would leave it off afterwards.
template <class T>
Task<T> shielded(Task<T> task) {
  namespace asio = boost::asio;
  const auto loop = co_await asio::this_coro::executor;
  co_return co_await asio::co_spawn(loop, std::move(task),
                                    asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable));
}

}  // namespace gantry::async
