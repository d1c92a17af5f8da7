#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "api/request.hpp"
#include "api/router.hpp"
#include "api/server.hpp"
#include "api/wire.hpp"

namespace gantry::api {

/// What all connections of a server share.
struct ServerContext {
  const Router& router;
  ServerOptions options;
  std::string daemon_headers;  // Api-Version, Docker-Experimental, Ostype, Server, each with its line end
  std::string daemon_headers_without_experimental;
  std::uint64_t requests = 0;
  bool stopping = false;
  /// Tells the sweeper of deadlines that one may lie earlier than it thinks.
  std::function<void(Wire::Clock::time_point)> deadline_set;
};

/// One request and its reply: what Request, Streamer and HijackedStream are handles of.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  using Parser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  enum class Reply { none, streaming, hijacked, complete };
  enum class DaemonHeaders { all, without_experimental, none };

  Exchange(std::shared_ptr<Wire> wire, std::shared_ptr<ServerContext> context, const Peer& peer);

  // The request.
  Parser parser;
  Method method = Method::other;
  Router::Match match;
  Query query;
  const Peer peer;
  std::optional<std::string> header(std::string_view name) const;
  bool body_is_complete() const { return parser.is_done(); }
  /// The client sends its body only after a "100 Continue", and has not got one.
  bool awaits_continue() const { return !continue_sent_ && !body_begun_ && header("Expect").has_value(); }
  /// Called when the whole body has been read, or has never been there: from then on the wire can be watched.
  std::function<void()> on_body_complete;
  Task<std::string> read_body_some(std::size_t limit);

  // The reply.
  Task<void> send(Response response, DaemonHeaders headers = DaemonHeaders::all);
  Task<void> start_stream(int status, std::string content_type, Headers headers);
  Task<void> write_chunk(std::string bytes);
  Task<void> finish_stream();
  /// Returns when the client has most likely read the header, so that nothing of the stream arrives together with it.
  Task<void> hijack(std::string header);
  /// The header of `101 UPGRADED` or `200 OK` that Request::hijack sends.
  std::string hijack_header(const HijackReply& reply) const;
  Reply reply() const noexcept { return reply_; }
  int status() const noexcept { return status_; }

  /// May the connection be used again after this reply?
  bool keep_alive() const noexcept { return keep_alive_; }
  void refuse_keep_alive() noexcept { keep_alive_ = false; }
  /// The handler has returned: handles that are still about cannot touch the connection any more.
  void retire() noexcept { retired_ = true; }
  /// Throws cancelled after retire().
  Wire& wire() const;
  const std::shared_ptr<Wire>& wire_ptr() const noexcept { return wire_; }

 private:
  Task<void> continue_if_expected();
  Task<void> let_header_be_read();
  void require_no_reply() const;
  std::string head(int status, std::string_view content_type, const Headers& headers, DaemonHeaders which) const;
  bool has_no_body(int status) const;

  std::shared_ptr<Wire> wire_;
  std::shared_ptr<ServerContext> context_;
  Reply reply_ = Reply::none;
  int status_ = 0;
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool silent_ = false;  // a stream without a body: HEAD, 204, 304
  bool continue_sent_ = false;
  bool body_begun_ = false;  // some clients send it unasked after a while
  bool retired_ = false;
};

/// "Sun, 22 Nov 2026 16:23:21 GMT".
std::string render_http_date(std::int64_t unix_seconds);

}  // namespace gantry::api
