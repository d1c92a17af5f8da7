#pragma once

#include <boost/asio/cancellation_state.hpp>
#include <boost/asio/this_coro.hpp>

#include "async/task.hpp"

namespace gantry::async {

/// Runs `task` so that cancelling the caller does not reach it: for verbs that must end once they have begun, and for
/// cleaning up. The caller notices its cancellation at its next `co_await`.
template <class T>
Task<T> shielded(Task<T> task) {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  co_return co_await std::move(task);
}

}  // namespace gantry::async
