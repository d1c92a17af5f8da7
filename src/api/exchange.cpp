#include "api/exchange.hpp"

#include <ctime>

#include <fmt/format.h>

#include <boost/beast/http/status.hpp>

#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/expect.hpp"
#include "base/text.hpp"
#include "base/time.hpp"

namespace http = boost::beast::http;
namespace asio = boost::asio;

namespace gantry::api {
namespace {

constexpr std::size_t kBodyPiece = 65536;
// The length of a chunk's first line, extensions included.
constexpr std::size_t kMaxChunkLine = 4096;
constexpr std::chrono::milliseconds kHeaderPatience{100};
constexpr std::chrono::milliseconds kRemoteHeaderPatience{3};  // a reader that waits for it has it by then

const std::string& date_header() {
  static std::int64_t last = 0;
  static std::string line;
  const std::int64_t seconds = std::chrono::duration_cast<std::chrono::seconds>(now().time_since_epoch()).count();
  if (seconds != last) {
    line = "Date: " + render_http_date(seconds) + "\r\n";
    last = seconds;
  }
  return line;
}

std::string_view reason_of(int status) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  return {reason.data(), reason.size()};
}

}  // namespace

std::string render_http_date(std::int64_t unix_seconds) {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto seconds = static_cast<std::time_t>(unix_seconds);
  std::tm t{};
  ::gmtime_r(&seconds, &t);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[t.tm_wday], t.tm_mday, kMonths[t.tm_mon],
                     t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

Exchange::Exchange(std::shared_ptr<Wire> wire, std::shared_ptr<ServerContext> context, const Peer& who)
    : peer(who), wire_(std::move(wire)), context_(std::move(context)) {
  parser.header_limit(static_cast<std::uint32_t>(context_->options.header_limit));
  parser.body_limit(boost::none);
}

Wire& Exchange::wire() const {
  if (retired_) throw Error(Errc::cancelled, "the request has ended");
  return *wire_;
}

std::optional<std::string> Exchange::header(std::string_view name) const {
  const auto& fields = parser.get();
  const auto it = fields.find(boost::beast::string_view(name.data(), name.size()));
  if (it == fields.end()) return std::nullopt;
  return std::string(it->value());
}

Task<void> Exchange::continue_if_expected() {
  if (continue_sent_ || reply_ != Reply::none) co_return;
  continue_sent_ = true;
  const auto expected = header("Expect");
  if (!expected || !equals_ignoring_case(*expected, "100-continue")) co_return;
  const Transport::Buffers buffers{"HTTP/1.1 100 Continue\r\n\r\n"};
  co_await wire().write(buffers);
}

Task<std::string> Exchange::read_body_some(std::size_t limit) {
  EXPECTS(limit > 0);
  std::string out;
  while (!parser.is_done()) {
    if (wire().buffered().empty()) {
      co_await continue_if_expected();
      wire().reserve(kBodyPiece);
      if (!co_await wire().fill()) throw Error(Errc::cancelled, "unexpected EOF in the request body");
    }
    const std::string_view bytes = wire().buffered();
    if (out.size() < std::min(limit, bytes.size())) out.resize(std::min(limit, bytes.size()));
    auto& body = parser.get().body();
    body.data = out.data();
    body.size = out.size();
    boost::system::error_code ec;
    const std::size_t used = parser.put(asio::const_buffer(bytes.data(), bytes.size()), ec);
    const std::size_t got = out.size() - parser.get().body().size;
    wire().consume(used);
    body_begun_ = body_begun_ || used > 0;
    if (ec && ec != http::error::need_buffer && ec != http::error::need_more)
      throw Error(Errc::invalid_argument, "malformed request body: " + ec.message());
    if (parser.is_done() && on_body_complete) on_body_complete();
    if (got > 0) {
      out.resize(got);
      co_return out;
    }
    if (ec == http::error::need_more && used == 0) {
      if (bytes.size() > kMaxChunkLine) throw Error(Errc::invalid_argument, "malformed request body: chunk too long");
      if (!co_await wire().fill()) throw Error(Errc::cancelled, "unexpected EOF in the request body");
    }
  }
  co_return std::string();
}

void Exchange::require_no_reply() const {
  if (reply_ != Reply::none) throw Error(Errc::internal, "the request has already been answered");
}

bool Exchange::has_no_body(int status) const {
  return method == Method::head || status == 204 || status == 304 || status < 200;
}

/// Everything up to the header that ends it.
std::string Exchange::head(int status, std::string_view content_type, const Headers& headers,
                           DaemonHeaders which) const {
  std::string out;
  out.reserve(512);
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\n", status, reason_of(status));
  if (which == DaemonHeaders::all) out += context_->daemon_headers;
  if (which == DaemonHeaders::without_experimental) out += context_->daemon_headers_without_experimental;
  if (!content_type.empty() && status != 204 && status != 304)
    fmt::format_to(std::back_inserter(out), "Content-Type: {}\r\n", content_type);
  for (const auto& [name, value] : headers) {
    // A value may quote what a client sent; it must not be able to add a header.
    std::string safe = value;
    for (char& c : safe)
      if (c == '\r' || c == '\n' || c == '\0') c = ' ';
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, safe);
  }
  out += date_header();
  if (!keep_alive_) out += "Connection: close\r\n";
  else if (parser.get().version() == 10) out += "Connection: keep-alive\r\n";
  return out;
}

Task<void> Exchange::send(Response response, DaemonHeaders headers) {
  require_no_reply();
  status_ = response.status();
  std::string header = head(status_, response.content_type(), response.headers(), headers);
  if (status_ != 204 && status_ != 304)
    fmt::format_to(std::back_inserter(header), "Content-Length: {}\r\n", response.body().size());
  header += "\r\n";
  reply_ = Reply::complete;
  const Transport::Buffers buffers{header, has_no_body(status_) ? std::string_view() : response.body()};
  co_await wire().write(buffers);
}

Task<void> Exchange::start_stream(int status, std::string content_type, Headers headers) {
  require_no_reply();
  // Once the reply has begun, the client cannot be asked for its body any more.
  if (!parser.is_done()) co_await continue_if_expected();
  status_ = status;
  silent_ = has_no_body(status);
  chunked_ = !silent_ && parser.get().version() != 10;
  if (!chunked_ && !silent_) keep_alive_ = false;
  std::string header = head(status, content_type, headers, DaemonHeaders::all);
  if (chunked_) header += "Transfer-Encoding: chunked\r\n";
  header += "\r\n";
  reply_ = Reply::streaming;
  const Transport::Buffers buffers{header};
  co_await wire().write(buffers);
}

Task<void> Exchange::write_chunk(std::string bytes) {
  if (reply_ != Reply::streaming) throw Error(Errc::cancelled, "the stream has ended");
  if (wire().is_gone()) throw Error(Errc::cancelled, "the client has gone");
  if (bytes.empty() || silent_) co_return;
  const std::string size = chunked_ ? fmt::format("{:x}\r\n", bytes.size()) : std::string();
  const Transport::Buffers buffers{size, bytes, chunked_ ? "\r\n" : ""};
  co_await wire().write(buffers);
}

Task<void> Exchange::finish_stream() {
  if (reply_ != Reply::streaming) co_return;
  reply_ = Reply::complete;
  if (!chunked_) co_return;
  const Transport::Buffers buffers{"0\r\n\r\n"};
  co_await wire().write(buffers);
}

std::string Exchange::hijack_header(const HijackReply& reply) const {
  const bool upgrade = header("Upgrade").has_value();
  std::string out = upgrade ? "HTTP/1.1 101 UPGRADED\r\n" : "HTTP/1.1 200 OK\r\n";
  out += "Content-Type: ";
  out += upgrade ? reply.upgraded_content_type : "application/vnd.docker.raw-stream";
  out += "\r\n";
  if (upgrade) out += "Connection: Upgrade\r\nUpgrade: tcp\r\n";
  if (reply.with_daemon_headers) out += context_->daemon_headers;
  return out + "\r\n";
}

Task<void> Exchange::hijack(std::string header_text) {
  require_no_reply();
  // What is left of the request's own body is not part of the stream.
  while (!parser.is_done()) (void)co_await read_body_some(kBodyPiece);
  status_ = header_text.compare(9, 3, "101") == 0 ? 101 : 200;
  keep_alive_ = false;
  reply_ = Reply::hijacked;
  on_body_complete = nullptr;
  wire().stop_reading_ahead();
  const Transport::Buffers buffers{header_text};
  co_await wire().write(buffers);
  co_await let_header_be_read();
}

/// docker-py reads the header through a buffer and the stream beside it: what arrives together with the header is lost
/// to it. An exec that takes four milliseconds would meet that often.
Task<void> Exchange::let_header_be_read() {
  const Transport& transport = wire().transport();
  std::chrono::microseconds waited{0};
  for (std::chrono::microseconds pause{100}; !transport.is_taken() && waited < kHeaderPatience; pause *= 2) {
    co_await async::sleep_for(pause);
    waited += pause;
  }
  if (!transport.eof_may_be_half_close()) co_await async::sleep_for(kRemoteHeaderPatience);
}

}  // namespace gantry::api
