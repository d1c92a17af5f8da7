#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include <boost/asio/any_io_executor.hpp>

#include "async/task.hpp"
#include "sys/fd.hpp"

namespace gantry::build {

/// A request of the worker that is being answered. Loop thread, except given_up().
class LinkCall {
 public:
  virtual ~LinkCall() = default;
  /// A figure on the way; dropped while the worker does not read.
  virtual void progress(std::string json) = 0;
  /// Becomes true when the worker no longer wants the answer; the coroutine that answers is cancelled, too.
  std::shared_ptr<const std::atomic<bool>> given_up() const { return given_up_; }

 protected:
  std::shared_ptr<std::atomic<bool>> given_up_ = std::make_shared<std::atomic<bool>>(false);
};
using LinkCallPtr = std::shared_ptr<LinkCall>;

struct LinkReply {
  std::string json;
  sys::Fd fd = {};  // passed along
};

/// Answers one request. What it throws is the worker's answer.
using LinkHandler = std::function<Task<LinkReply>(std::string method, std::string params, LinkCallPtr call)>;

/// Reads requests from the worker (protocol/build_link.hpp: kRequests) and answers them, several at a time, until it
/// closes its end or sends what is no request. Calls in flight are then cancelled, and have ended on return.
Task<void> serve_link(boost::asio::any_io_executor loop, sys::Fd socket, LinkHandler handler);

/// A SOCK_SEQPACKET message with a descriptor, without waiting. False if the other end has stopped receiving. Throws
/// unavailable when its queue is full.
bool send_handover(int socket, const std::string& message, int fd);

}  // namespace gantry::build
