#pragma once

#include <boost/asio/awaitable.hpp>

namespace gantry {

/// A coroutine that runs on the event loop. Parameters are taken by value; it never blocks.
/// Once a Task is cancelled, every further `co_await` in it throws, undo included: see async/operation.hpp.
template <class T>
using Task = boost::asio::awaitable<T>;

}  // namespace gantry
