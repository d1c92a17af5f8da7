#include "api/request.hpp"

#include "api/exchange.hpp"
#include "base/error.hpp"
#include "base/expect.hpp"
#include "base/text.hpp"

namespace gantry::api {

std::string_view method_name(Method method) noexcept {
  switch (method) {
    case Method::get: return "GET";
    case Method::head: return "HEAD";
    case Method::post: return "POST";
    case Method::put: return "PUT";
    case Method::delete_: return "DELETE";
    case Method::options: return "OPTIONS";
    case Method::other: return "OTHER";
  }
  return "OTHER";
}

Method Request::method() const { return exchange_->method; }
ApiVersion Request::version() const { return exchange_->match.version; }
const std::string& Request::path() const { return exchange_->match.path; }

const std::string& Request::param(std::string_view name) const {
  for (const auto& [key, value] : exchange_->match.params)
    if (key == name) return value;
  EXPECTS(!"the route has this parameter");
  return exchange_->match.path;
}

const Query& Request::query() const { return exchange_->query; }
std::optional<std::string> Request::header(std::string_view name) const { return exchange_->header(name); }
Headers Request::headers() const {
  Headers out;
  for (const auto& field : exchange_->parser.get()) out.emplace_back(field.name_string(), field.value());
  return out;
}
std::string Request::raw_query() const {
  const std::string_view target(exchange_->parser.get().target());
  const std::size_t question = target.find('?');
  return question == std::string_view::npos ? std::string() : std::string(target.substr(question + 1));
}
const Peer& Request::peer() const { return exchange_->peer; }
bool Request::has_body() const { return !exchange_->body_is_complete(); }

Task<std::string> Request::read_body_some(std::size_t limit) { return exchange_->read_body_some(limit); }

Task<std::string> Request::read_body(std::size_t limit) {
  auto exchange = exchange_;
  const std::string too_large = "request body too large: the limit is " + std::to_string(limit) + " bytes";
  // Many clients read the answer only after they have sent everything, so what is too much is read and forgotten.
  constexpr std::size_t kMostForgotten = 64 << 20;
  std::string out;
  std::size_t total = 0;
  for (;;) {
    const std::string piece = co_await exchange->read_body_some(65536);
    total += piece.size();
    const bool over = total > limit;
    if (over) out = std::string();
    if ((piece.empty() && over) || total > limit + kMostForgotten) throw Error(Errc::invalid_argument, too_large);
    if (piece.empty()) co_return out;
    if (!over) out += piece;
  }
}

Task<std::string> Request::read_json_text(std::size_t limit) {
  auto exchange = exchange_;
  std::string text = co_await Request(exchange).read_body(limit);
  if (text.empty()) co_return text;
  const std::string type = exchange->header("Content-Type").value_or("");
  if (trim(type).empty())
    throw Error(Errc::invalid_argument, "malformed Content-Type header (" + type + "): mime: no media type");
  if (!equals_ignoring_case(trim(split_once(type, ';').first), "application/json"))
    throw Error(Errc::invalid_argument, "unsupported Content-Type header (" + type + "): must be 'application/json'");
  co_return text;
}

Task<Streamer> Request::start_stream(int status, std::string content_type, Headers headers) {
  auto exchange = exchange_;
  co_await exchange->start_stream(status, std::move(content_type), std::move(headers));
  co_return Streamer(exchange);
}

Task<HijackedStream> Request::hijack(HijackReply reply) {
  auto exchange = exchange_;
  co_await exchange->hijack(exchange->hijack_header(reply));
  co_return HijackedStream(exchange);
}

Task<HijackedStream> Request::hijack_raw(std::string header) {
  auto exchange = exchange_;
  co_await exchange->hijack(std::move(header));
  co_return HijackedStream(exchange);
}

Task<void> Streamer::write(std::string bytes) { return exchange_->write_chunk(std::move(bytes)); }

bool Streamer::is_open() const {
  return exchange_->reply() == Exchange::Reply::streaming && !exchange_->wire_ptr()->is_gone() &&
         !exchange_->wire_ptr()->is_closed();
}

Task<std::string> HijackedStream::read(std::size_t limit) {
  auto exchange = exchange_;
  EXPECTS(limit > 0);
  Wire& wire = exchange->wire();
  wire.reserve(std::min<std::size_t>(limit, 65536));
  if (wire.buffered().empty() && !co_await wire.fill()) co_return std::string();
  std::string out(wire.buffered().substr(0, limit));
  wire.consume(out.size());
  co_return out;
}

Task<void> HijackedStream::write(std::string bytes) {
  auto exchange = exchange_;
  if (bytes.empty()) co_return;
  const Transport::Buffers buffers{bytes};
  co_await exchange->wire().write(buffers);
}

Task<void> HijackedStream::close_write() {
  auto exchange = exchange_;
  co_await exchange->wire().transport().close_write();
}

Task<void> HijackedStream::wait_hangup() {
  auto exchange = exchange_;
  co_await exchange->wire().wait_hangup();
}

void HijackedStream::close() { exchange_->wire_ptr()->close(); }
bool HijackedStream::can_detach() const { return !exchange_->wire_ptr()->transport().is_tls(); }

Task<DetachedSocket> HijackedStream::detach() {
  auto exchange = exchange_;
  DetachedSocket out;
  out.fd = co_await exchange->wire().release();
  out.buffered = std::string(exchange->wire_ptr()->buffered());
  exchange->wire_ptr()->consume(out.buffered.size());
  co_return out;
}

}  // namespace gantry::api
