#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/response.hpp"
#include "api/versions.hpp"
#include "async/task.hpp"
#include "model/query.hpp"
#include "sys/fd.hpp"

namespace gantry::api {

using model::percent_decode;
using model::Query;

class Exchange;  // one request and its reply; internal to the connection

enum class Method { get, head, post, put, delete_, options, other };
std::string_view method_name(Method method) noexcept;

/// Who is at the other end.
struct Peer {
  int pid = -1;  // of a unix socket's peer when it connected (SO_PEERCRED); -1 otherwise
  int uid = -1;
  int gid = -1;
  std::string tls_subject;  // the verified client certificate's subject; empty without one
  std::string address;      // "@" for unix sockets, "ip:port" for TCP
};

/// A reply whose body is written piece by piece. A copyable handle; one write at a time.
class Streamer {
 public:
  explicit Streamer(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  /// Sends one chunk at once; waits while the client does not read (so the producer must not hold a lock). An empty
  /// text sends nothing. Throws cancelled when the client has gone.
  Task<void> write(std::string bytes);
  /// False once the client has gone.
  bool is_open() const;

 private:
  std::shared_ptr<Exchange> exchange_;
};

/// What HijackedStream::detach gives.
struct DetachedSocket {
  sys::Fd fd;
  std::string buffered;
};

/// The connection itself, after the reply's header: bytes both ways. A copyable handle. One coroutine may read while
/// another writes. Bytes that the client sent behind its request come first.
class HijackedStream {
 public:
  explicit HijackedStream(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  /// At least one byte and at most `limit`; empty when the client has half-closed (or gone). Throws cancelled when
  /// the connection broke.
  Task<std::string> read(std::size_t limit = 32768);
  /// Throws cancelled when the client has gone.
  Task<void> write(std::string bytes);
  /// Tells the client that nothing more comes (shutdown(SHUT_WR), TLS close_notify).
  Task<void> close_write();
  /// Resumes when the client has closed both directions. On TCP a client that half-closes and one that goes away look
  /// the same until something is written; there it resumes on a reset only.
  Task<void> wait_hangup();
  /// Breaks the connection off: pending reads and writes throw cancelled.
  void close();

  /// Can the socket itself be given away? Not with TLS.
  bool can_detach() const;
  /// Takes the socket (non-blocking) out of the daemon's hands, to pass it to another process, with the bytes that the
  /// client had already sent. Afterwards every other call throws. Requires can_detach(), and no pending read or write.
  Task<DetachedSocket> detach();

 private:
  std::shared_ptr<Exchange> exchange_;
};

/// How Request::hijack answers.
struct HijackReply {
  /// The Content-Type when the client asked to upgrade; without an Upgrade header it is always raw-stream.
  std::string upgraded_content_type = "application/vnd.docker.raw-stream";
  /// Adds Api-Version, Docker-Experimental, Ostype and Server, as exec start does and attach does not.
  bool with_daemon_headers = false;
};

/// One request. A cheap handle that handlers take by value; it stays valid while a copy exists, but body and reply are
/// usable only until the handler has returned.
class Request {
 public:
  explicit Request(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}

  Method method() const;
  /// The version in the path, or kMaxApiVersion.
  ApiVersion version() const;
  /// Decoded, without the version prefix and the query.
  const std::string& path() const;
  /// What the route's `{name}` stands for, decoded. Requires that the route has it.
  const std::string& param(std::string_view name) const;
  const Query& query() const;
  /// The first header of this name (any case), or nullopt.
  std::optional<std::string> header(std::string_view name) const;
  /// Every header, in the order given; a name may repeat.
  Headers headers() const;
  /// What is behind the "?" of the request, not decoded.
  std::string raw_query() const;
  const Peer& peer() const;

  /// False if the request certainly has no body.
  bool has_body() const;
  /// The next piece of the body, at most `limit` bytes; empty at its end. Not bounded in total, but nothing is read
  /// ahead of the caller. Throws cancelled if the client goes away in the middle, invalid_argument if it is malformed.
  Task<std::string> read_body_some(std::size_t limit = 65536);
  /// The whole body. Throws invalid_argument if it is larger than `limit`.
  Task<std::string> read_body(std::size_t limit = 8 << 20);
  /// The whole body of a JSON request, not yet parsed; empty if there is none. Throws invalid_argument with Docker's
  /// texts for a Content-Type that is not application/json. api/json_body.hpp reads structs.
  Task<std::string> read_json_text(std::size_t limit = 8 << 20);

  /// Sends the header now and lets the handler write the body. Afterwards the handler returns Response::sent(); if it
  /// throws instead, the body is cut off so that the client notices. 204, 304 and HEAD send no body.
  Task<Streamer> start_stream(int status, std::string content_type, Headers headers = {});
  /// Takes the connection over: `101 UPGRADED` if the client sent an Upgrade header, else `200 OK`, in a write of its
  /// own (docker-py loses what arrives together with the header). Afterwards the handler returns Response::sent(), and
  /// the connection is closed when it does. Source: engine-api.md §3.1.
  Task<HijackedStream> hijack(HijackReply reply = {});
  /// As hijack(), with a header written by the caller, byte for byte (it ends in an empty line).
  Task<HijackedStream> hijack_raw(std::string header);
  /// Has the client asked to upgrade the connection?
  bool wants_upgrade() const { return header("Upgrade").has_value(); }

 private:
  std::shared_ptr<Exchange> exchange_;
};

}  // namespace gantry::api
