#pragma once

#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "async/task.hpp"
#include "sys/fd.hpp"

namespace gantry::async {

/// Waits on the loop until a descriptor (a pidfd, eventfd, netlink socket, inotify …) can be read without blocking.
class Readable {
 public:
  Readable(boost::asio::any_io_executor loop, sys::Fd fd);
  ~Readable();
  Readable(Readable&&) noexcept;
  Readable& operator=(Readable&&) noexcept;

  /// Throws when cancelled or closed.
  Task<void> wait();
  int fd() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::async
