#include "engine/splice.hpp"

#include <algorithm>
#include <chrono>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include "async/timeout.hpp"
#include "base/error.hpp"
#include "engine/detach_keys.hpp"

namespace gantry::engine {
namespace {

using StreamPtr = std::shared_ptr<runtime::AttachStream>;
using ClientPtr = std::shared_ptr<StreamClient>;

constexpr std::size_t kPiece = 32 << 10;

/// A sleeping session holds no buffer: there is one only between "readable" and "written".
Task<std::string> read_piece(StreamPtr stream) {
  co_await stream->socket().async_wait(boost::asio::local::stream_protocol::socket::wait_read,
                                       boost::asio::use_awaitable);
  std::string piece(kPiece, '\0');
  piece.resize(co_await stream->read(piece.data(), piece.size()));
  co_return piece;
}

Task<SpliceEnd> pump_output(StreamPtr stream, ClientPtr client, bool strip_frames, bool add_frames) {
  FrameStripper stripper;
  for (;;) {
    std::string piece = co_await read_piece(stream);
    if (piece.empty()) co_return SpliceEnd::output_ended;
    if (strip_frames) piece = stripper.feed(piece);
    if (piece.empty()) continue;
    if (add_frames) piece = frame_text(piece, true);
    try {
      co_await client->write(std::move(piece));
    } catch (const Error&) {
      co_return SpliceEnd::client_left;
    }
  }
}

Task<SpliceEnd> wait_until_gone(ClientPtr client) {
  co_await client->wait_hangup();
  co_return SpliceEnd::client_left;
}

Task<SpliceEnd> pump_input(StreamPtr stream, ClientPtr client, SpliceOptions options) {
  if (!options.use_stdin) co_return co_await wait_until_gone(client);
  DetachScanner scanner(options.detach_keys);
  for (;;) {
    std::string typed;
    try {
      typed = co_await client->read();
    } catch (const Error&) {
      co_return SpliceEnd::client_left;
    }
    if (typed.empty()) break;
    DetachScanner::Result found = scanner.feed(typed);
    bool refused = false;
    try {
      if (!found.forward.empty()) co_await stream->write(std::move(found.forward));
    } catch (const Error&) {
      refused = true;  // the process has closed its input; its output goes on
    }
    if (refused) co_return co_await wait_until_gone(client);
    if (found.detached) co_return SpliceEnd::detached;
  }
  if (!options.close_stdin) co_return SpliceEnd::client_left;
  stream->close_write();
  co_return co_await wait_until_gone(client);
}

Task<void> swallow_input(ClientPtr client) {
  constexpr std::size_t kMost = 64 << 20;
  for (std::size_t taken = 0; taken < kMost;) {
    const std::string bytes = co_await client->read();
    if (bytes.empty()) co_return;
    taken += bytes.size();
  }
}

}  // namespace

Task<SpliceEnd> splice(StreamPtr stream, ClientPtr client, SpliceOptions options) {
  using namespace boost::asio::experimental::awaitable_operators;
  const auto ended = co_await (pump_output(stream, client, options.strip_frames, options.add_frames) ||
                               pump_input(stream, client, options));
  co_return std::visit([](SpliceEnd end) { return end; }, ended);
}

Task<void> finish_client(ClientPtr client) {
  try {
    co_await client->close_write();
    co_await async::with_timeout(swallow_input(client), std::chrono::seconds(2), "end of the client's input");
  } catch (const Error&) {
    // The client has gone, or goes on sending: either way there is nobody left to be polite to.
  }
  client->close();
}

std::string frame_text(std::string_view text, bool framed) {
  if (!framed) return std::string(text);
  unsigned char header[protocol::kStreamHeaderSize];
  protocol::encode_stream_header(header, 1, static_cast<std::uint32_t>(text.size()));
  return std::string(reinterpret_cast<const char*>(header), sizeof header).append(text);
}

std::string FrameStripper::feed(std::string_view bytes) {
  std::string plain;
  while (!bytes.empty()) {
    if (payload_ > 0) {
      const std::size_t take = std::min(payload_, bytes.size());
      plain.append(bytes.substr(0, take));
      bytes.remove_prefix(take);
      payload_ -= take;
      continue;
    }
    const std::size_t take = std::min(protocol::kStreamHeaderSize - header_.size(), bytes.size());
    header_.append(bytes.substr(0, take));
    bytes.remove_prefix(take);
    if (header_.size() < protocol::kStreamHeaderSize) break;
    for (std::size_t i = 4; i < protocol::kStreamHeaderSize; ++i)
      payload_ = payload_ << 8 | static_cast<unsigned char>(header_[i]);
    header_.clear();
  }
  return plain;
}

}  // namespace gantry::engine
