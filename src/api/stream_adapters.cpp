#include "api/stream_adapters.hpp"

#include "base/error.hpp"

namespace gantry::api {
namespace {

constexpr std::size_t kMostEarly = 1 << 20;

}  // namespace

Task<std::string> WebSocketClient::read() {
  if (!early_.empty()) {
    std::string message = std::move(early_.front());
    early_.pop_front();
    early_bytes_ -= message.size();
    co_return message;
  }
  if (ended_) co_return std::string();
  std::string message = co_await socket_.read();
  ended_ = message.empty();
  co_return message;
}

Task<void> WebSocketClient::wait_hangup() {
  while (!ended_) {
    if (early_bytes_ >= kMostEarly) {
      co_await never_.wait();  // until cancelled; the client's own buffers fill up meanwhile
      continue;
    }
    try {
      std::string message = co_await socket_.read();
      ended_ = message.empty();
      early_bytes_ += message.size();
      if (!ended_) early_.push_back(std::move(message));
    } catch (const Error&) {
      ended_ = true;  // broken
    }
  }
}

}  // namespace gantry::api
