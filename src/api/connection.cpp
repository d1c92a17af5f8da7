#include "api/connection.hpp"

#include <boost/asio/this_coro.hpp>
#include <boost/json.hpp>
#include <boost/system/system_error.hpp>

#include "api/http_error.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "json/json.hpp"

namespace http = boost::beast::http;
namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace gantry::api {
namespace {

/// So much of a body that no handler wanted is read in order to keep the connection.
constexpr std::size_t kDrainLimit = 256 << 10;
/// So long we read what a client still sends before the socket is closed; closing with unread bytes resets the
/// connection, and the client may lose the end of the reply.
constexpr auto kLinger = 500ms;
/// The same for the rest of a body that was refused: many clients read the answer only after they have sent everything.
constexpr std::size_t kRefusedBodyLimit = 64 << 20;
constexpr auto kRefusedBodyLinger = 5s;

Method method_of(http::verb verb) {
  switch (verb) {
    case http::verb::get: return Method::get;
    case http::verb::head: return Method::head;
    case http::verb::post: return Method::post;
    case http::verb::put: return Method::put;
    case http::verb::delete_: return Method::delete_;
    case http::verb::options: return Method::options;
    default: return Method::other;
  }
}

// To be awaited where they stand: awaiting a coroutine that does it would already throw in a cancelled one.
/// Cancellation reaches the coroutine from here on; an earlier one is forgotten.
const auto kAllowCancellation = asio::this_coro::reset_cancellation_state(asio::enable_terminal_cancellation());
const auto kForbidCancellation = asio::this_coro::reset_cancellation_state(asio::disable_cancellation());

}  // namespace

Connection::Connection(std::shared_ptr<ServerContext> context, std::unique_ptr<Transport> transport, Peer peer)
    : context_(std::move(context)), wire_(std::make_shared<Wire>(std::move(transport))), peer_(std::move(peer)) {}

void Connection::set_deadline(std::chrono::milliseconds from_now) {
  wire_->deadline = Wire::Clock::now() + from_now;
  context_->deadline_set(wire_->deadline);
}

bool Connection::is_streaming() const noexcept {
  return exchange_ &&
         (exchange_->reply() == Exchange::Reply::streaming || exchange_->reply() == Exchange::Reply::hijacked);
}

void Connection::cancel() {
  if (!busy_ || lingering_) return wire_->close();
  if (!must_end_) cancel_.emit(asio::cancellation_type::terminal);
}

Task<void> Connection::serve() {
  try {
    set_deadline(context_->options.handshake_timeout);
    co_await wire_->transport().handshake();
    peer_.tls_subject = wire_->transport().peer_subject();
    while (co_await serve_one()) {
    }
  } catch (const Error& e) {
    log::debug("connection from {}: {}", peer_.address, e.message());
  } catch (const boost::system::system_error& e) {
    log::debug("connection from {}: {}", peer_.address, e.what());
  }
  if (exchange_) exchange_->retire();
  wire_->stop_watching();
  wire_->close();
}

/// False when the connection is to be closed.
Task<bool> Connection::serve_one() {
  co_await kAllowCancellation;
  exchange_ = std::make_shared<Exchange>(wire_, context_, peer_);
  const Header header = co_await read_header();
  if (header == Header::closed) co_return false;
  const auto start = Wire::Clock::now();
  busy_ = true;
  ++context_->requests;
  wire_->deadline = Wire::Clock::time_point::max();
  if (header == Header::complete) co_await answer();
  wire_->stop_watching();
  const bool again = co_await finish();
  lingering_ = false;
  exchange_->retire();
  if (log::level() <= log::Level::debug) log_request(start);
  exchange_.reset();
  busy_ = false;
  must_end_ = false;
  co_return again;
}

Task<Connection::Header> Connection::read_header() {
  auto& parser = exchange_->parser;
  wire_->shrink();
  bool begun = false;
  set_deadline(context_->options.idle_timeout);
  for (;;) {
    const std::string_view bytes = wire_->buffered();
    if (!bytes.empty()) {
      boost::system::error_code ec;
      const std::size_t used = parser.put(asio::const_buffer(bytes.data(), bytes.size()), ec);
      wire_->consume(used);
      if (ec == http::error::header_limit) {
        co_await refuse(431, "request header too large");
        co_return Header::refused;
      }
      if (ec && ec != http::error::need_more) {
        co_await refuse(ec == http::error::bad_version ? 505 : 400, "malformed HTTP request: " + ec.message());
        co_return Header::refused;
      }
      if (parser.is_header_done()) co_return Header::complete;
      if (!begun) set_deadline(context_->options.header_timeout);
      begun = true;
    }
    if (context_->stopping && !begun) co_return Header::closed;
    if (!co_await wire_->fill()) co_return Header::closed;
  }
}

Task<void> Connection::refuse(int status, std::string message) {
  exchange_->refuse_keep_alive();
  co_await exchange_->send(error_response(status, message), Exchange::DaemonHeaders::none);
}

/// Decides what the request means and replies to it.
Task<void> Connection::answer() {
  const auto& fields = exchange_->parser.get();
  exchange_->method = method_of(fields.method());
  if (!exchange_->parser.keep_alive() || context_->stopping) exchange_->refuse_keep_alive();
  if (fields.version() == 11 && fields.find(http::field::host) == fields.end())
    co_return co_await refuse(400, "missing required Host header");
  // Browsers say so when a page of another site made the request; a daemon's API is no business of such a page.
  if (exchange_->header("Sec-Fetch-Site").value_or("") == "cross-site")
    co_return co_await refuse(403, "cross-site requests are refused");

  const std::string_view target(fields.target().data(), fields.target().size());
  Router::Decision decision = context_->router.decide(exchange_->method, target);
  if (!decision.match) {
    const auto headers = !decision.daemon_headers       ? Exchange::DaemonHeaders::none
                         : decision.experimental_header ? Exchange::DaemonHeaders::all
                                                        : Exchange::DaemonHeaders::without_experimental;
    co_return co_await exchange_->send(std::move(decision.reply), headers);
  }
  exchange_->match = std::move(*decision.match);
  exchange_->match.version = understood_version(exchange_->match.version, exchange_->header("User-Agent").value_or(""));
  std::exception_ptr failure;
  try {
    const std::size_t question = target.find('?');
    if (question != std::string_view::npos) exchange_->query = Query::parse(target.substr(question + 1));
    co_await run_handler();
  } catch (...) {
    failure = std::current_exception();
  }
  co_await kForbidCancellation;
  if (failure) co_await reply_to_failure(failure);
}

void Connection::start_watching() {
  auto gone = [this] { cancel(); };
  if (exchange_->body_is_complete()) wire_->watch(gone);
  else exchange_->on_body_complete = [this, gone] { wire_->watch(gone); };
}

Task<void> Connection::run_handler() {
  must_end_ = exchange_->match.options.cancel == Cancel::never;
  if (must_end_) co_await kForbidCancellation;
  else start_watching();
  Response response = co_await (*exchange_->match.handler)(Request(exchange_));
  // From here on the connection is in charge again.
  co_await kForbidCancellation;
  set_deadline(context_->options.write_timeout);
  if (exchange_->reply() == Exchange::Reply::streaming) co_return co_await exchange_->finish_stream();
  if (exchange_->reply() == Exchange::Reply::hijacked) co_return;
  if (response.is_sent()) throw Error(Errc::internal, "the handler sent no reply");
  co_await exchange_->send(std::move(response));
}

Task<void> Connection::reply_to_failure(std::exception_ptr failure) {
  Response reply = context_->stopping ? error_response(503, "the daemon is shutting down", exchange_->match.version)
                                      : error_response(failure, exchange_->match.version);
  const bool gone = wire_->is_gone() || wire_->is_closed();
  try {
    std::rethrow_exception(failure);
  } catch (const Error& e) {
    if (http_status(e.code()) < 500)
      log::info("{} {}: {}", method_name(exchange_->method), exchange_->match.path, e.message());
    else if (!gone && e.code() != Errc::cancelled)
      log::error("{} {}: {}", method_name(exchange_->method), exchange_->match.path, e.log_detail());
  } catch (const std::exception& e) {
    if (!gone) log::error("{} {}: {}", method_name(exchange_->method), exchange_->match.path, e.what());
  }
  // A reply that has begun can only be cut off, which clients notice.
  if (gone || exchange_->reply() != Exchange::Reply::none) {
    exchange_->refuse_keep_alive();
    if (exchange_->reply() == Exchange::Reply::streaming) wire_->close();
    co_return;
  }
  set_deadline(context_->options.write_timeout);
  co_await exchange_->send(std::move(reply));
}

/// Tells the client that nothing more comes, then reads and drops what it sends, until it stops, `limit` bytes came or
/// `linger` passed.
Task<void> Connection::discard_input(std::size_t limit, std::chrono::milliseconds linger) {
  co_await wire_->transport().close_write();
  set_deadline(linger);
  std::size_t dropped = 0;
  do {
    dropped += wire_->buffered().size();
    wire_->consume(wire_->buffered().size());
  } while (dropped < limit && co_await wire_->fill());
}

/// Brings the connection to where the next request begins, or to its end; false for the latter.
Task<bool> Connection::finish() {
  if (wire_->is_gone() || wire_->is_closed()) co_return false;
  lingering_ = true;
  // One that waits for "100 Continue" will not get it, and sends nothing.
  const bool body_comes = exchange_->reply() != Exchange::Reply::hijacked && !exchange_->body_is_complete() &&
                          !(exchange_->awaits_continue() && wire_->buffered().empty());
  if (exchange_->reply() == Exchange::Reply::hijacked || !exchange_->keep_alive()) {
    if (body_comes) co_await discard_input(kRefusedBodyLimit, kRefusedBodyLinger);
    else co_await discard_input(kDrainLimit, kLinger);
    co_return false;
  }
  if (exchange_->body_is_complete()) co_return true;
  if (!body_comes) co_return false;
  const auto length = exchange_->parser.content_length_remaining();
  set_deadline(kRefusedBodyLinger);
  std::size_t dropped = 0;
  while (!exchange_->body_is_complete()) {
    dropped += (co_await exchange_->read_body_some(65536)).size();
    if (dropped > kDrainLimit || (length && *length > kDrainLimit)) {
      co_await discard_input(kRefusedBodyLimit, kRefusedBodyLinger);
      co_return false;
    }
  }
  co_return true;
}

void Connection::log_request(Wire::Clock::time_point start) const {
  json::Object line;
  const auto& fields = exchange_->parser.get();
  line["method"] = std::string(fields.method_string());
  line["target"] = std::string(fields.target());
  line["status"] = exchange_->status();
  line["microseconds"] = std::chrono::duration_cast<std::chrono::microseconds>(Wire::Clock::now() - start).count();
  line["peer"] = peer_.address;
  if (peer_.uid >= 0) line["uid"] = peer_.uid;
  log::debug("request {}", json::render(line));
}

}  // namespace gantry::api
