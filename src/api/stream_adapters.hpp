#pragma once

#include <deque>
#include <string>

#include "api/request.hpp"
#include "api/websocket.hpp"
#include "async/signal.hpp"
#include "engine/stream_client.hpp"

namespace gantry::api {

/// The body of a reply as the engine writes it.
class StreamerWriter final : public engine::ByteWriter {
 public:
  explicit StreamerWriter(Streamer streamer) : streamer_(std::move(streamer)) {}
  Task<void> write(std::string bytes) override { return streamer_.write(std::move(bytes)); }

 private:
  Streamer streamer_;
};

/// A connection that a client has taken over.
class HijackedClient final : public engine::StreamClient {
 public:
  explicit HijackedClient(HijackedStream stream) : stream_(std::move(stream)) {}
  Task<void> write(std::string bytes) override { return stream_.write(std::move(bytes)); }
  Task<std::string> read() override { return stream_.read(); }
  Task<void> close_write() override { return stream_.close_write(); }
  Task<void> wait_hangup() override { return stream_.wait_hangup(); }
  void close() override { stream_.close(); }

 private:
  HijackedStream stream_;
};

/// A WebSocket. Its end is a message among others, so waiting for the end means reading: what comes before it is kept
/// for read(), up to a limit.
class WebSocketClient final : public engine::StreamClient {
 public:
  explicit WebSocketClient(WebSocket socket) : socket_(std::move(socket)) {}
  Task<void> write(std::string bytes) override { return socket_.write(std::move(bytes)); }
  Task<std::string> read() override;
  Task<void> close_write() override { return socket_.close(); }
  Task<void> wait_hangup() override;
  /// The connection is closed when the request's handler returns.
  void close() override {}

 private:
  WebSocket socket_;
  std::deque<std::string> early_;
  std::size_t early_bytes_ = 0;
  bool ended_ = false;
  async::Signal never_;
};

}  // namespace gantry::api
