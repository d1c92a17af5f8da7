#include "api/build_relay.hpp"

#include <memory>
#include <optional>

#include <arpa/inet.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/json.hpp>

#include "api/http_error.hpp"
#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "json/codec.hpp"
#include "protocol/build_link.hpp"

namespace asio = boost::asio;

namespace gantry::api {
namespace {

using namespace boost::asio::experimental::awaitable_operators;

constexpr std::size_t kPiece = 64 << 10;
/// Longest piece of a reply's body that the builder sends.
constexpr std::uint32_t kMaxFrame = 1 << 20;
constexpr const char* kBuilderEnded = "the builder ended unexpectedly; see the daemon's log";

using Socket = asio::local::stream_protocol::socket;
using SocketPtr = std::shared_ptr<Socket>;

Task<SocketPtr> adopt(sys::Fd fd) {
  const auto loop = co_await asio::this_coro::executor;
  auto socket = std::make_shared<Socket>(loop);
  socket->assign(asio::local::stream_protocol(), fd.release());
  co_return socket;
}

/// Something; empty at the end, or when it broke.
Task<std::string> read_some(SocketPtr from) {
  std::string piece(kPiece, '\0');
  boost::system::error_code ec;
  const std::size_t got =
      co_await from->async_read_some(asio::buffer(piece), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw Error(Errc::cancelled, "the relay was given up");
  piece.resize(ec ? 0 : got);
  co_return piece;
}

/// False if the other end does not take it.
Task<bool> write_all(SocketPtr to, std::string bytes) {
  boost::system::error_code ec;
  co_await asio::async_write(*to, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw Error(Errc::cancelled, "the relay was given up");
  co_return !ec;
}

void end_writing(const SocketPtr& socket) {
  boost::system::error_code ec;
  socket->shutdown(Socket::shutdown_send, ec);
}

/// The request's body, to its end however much of it the builder wants; then it waits to be cancelled, because the
/// reply's end is the end.
Task<void> send_body(Request request, SocketPtr builder) {
  bool wanted = true;
  for (;;) {
    std::string piece = co_await request.read_body_some(kPiece);
    if (piece.empty()) break;
    if (wanted) wanted = co_await write_all(builder, std::move(piece));
  }
  end_writing(builder);
  async::Signal never;
  for (;;) co_await never.wait();
}

/// One frame of the reply; nullopt if the builder's end is closed.
Task<std::optional<std::string>> read_frame(SocketPtr builder) {
  std::uint32_t size = 0;
  boost::system::error_code ec;
  co_await asio::async_read(*builder, asio::buffer(&size, sizeof size), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw Error(Errc::cancelled, "the relay was given up");
  size = ntohl(size);
  if (ec || size > kMaxFrame) co_return std::nullopt;
  std::string bytes(size, '\0');
  co_await asio::async_read(*builder, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw Error(Errc::cancelled, "the relay was given up");
  if (ec) co_return std::nullopt;
  co_return bytes;
}

std::string error_line(const std::string& text) {
  json::Object line{{"errorDetail", json::Object{{"message", text}}}, {"error", text}};
  return json::render(line) + "\r\n";
}

struct Reply {
  std::optional<Response> whole;  // instead of a stream
};

Task<void> send_reply(Request request, SocketPtr builder, RelayEnd end, std::shared_ptr<Reply> reply) {
  const auto first = co_await read_frame(builder);
  if (!first) throw Error(Errc::internal, kBuilderEnded);
  const auto head = json::decode<protocol::ExchangeHead>(json::parse(*first));
  if (head.Status != 200) {
    std::string body;
    while (auto piece = co_await read_frame(builder)) {
      if (piece->empty() || body.size() > kMaxFrame) break;
      body += *piece;
    }
    reply->whole = Response::json(head.Status, std::move(body));
    co_return;
  }
  Streamer out = co_await request.start_stream(200, head.ContentType);
  for (;;) {
    auto piece = co_await read_frame(builder);
    if (piece && piece->empty()) co_return;
    if (!piece && end == RelayEnd::cut_off) throw Error(Errc::internal, kBuilderEnded);
    const bool over = !piece;
    co_await out.write(over ? error_line(kBuilderEnded) : std::move(*piece));
    if (over) co_return;
  }
}

Task<void> carry_up(HijackedStream client, std::string first, SocketPtr builder) {
  while (!first.empty() && co_await write_all(builder, std::move(first))) first = co_await client.read(kPiece);
  end_writing(builder);
}

Task<void> carry_down(HijackedStream client, SocketPtr builder) {
  for (;;) {
    std::string piece = co_await read_some(builder);
    if (piece.empty()) break;
    co_await client.write(std::move(piece));
  }
  co_await client.close_write();
}

Task<void> carry(SocketPtr from, SocketPtr to, std::string first) {
  if (!first.empty()) (void)co_await write_all(to, std::move(first));
  for (;;) {
    std::string piece = co_await read_some(from);
    if (piece.empty() || !co_await write_all(to, std::move(piece))) break;
  }
  end_writing(to);
}

}  // namespace

Task<Response> relay_exchange(Request request, sys::Fd builder, RelayEnd end) {
  SocketPtr socket = co_await adopt(std::move(builder));
  auto reply = std::make_shared<Reply>();
  co_await (send_body(request, socket) || send_reply(request, socket, end, reply));
  if (reply->whole) co_return std::move(*reply->whole);
  co_return Response::sent();
}

Task<void> relay_sockets(sys::Fd client, std::string first, sys::Fd builder) {
  SocketPtr outside = co_await adopt(std::move(client));
  SocketPtr inside = co_await adopt(std::move(builder));
  co_await (carry(outside, inside, std::move(first)) && carry(inside, outside, ""));
}

Task<void> relay_stream(HijackedStream client, std::string first, sys::Fd builder) {
  SocketPtr inside = co_await adopt(std::move(builder));
  co_await (carry_up(client, std::move(first), inside) && carry_down(client, inside));
}

}  // namespace gantry::api
