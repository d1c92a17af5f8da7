#include "api/websocket.hpp"

#include <array>

#include <openssl/sha.h>

#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

constexpr std::size_t kMaxMessage = 1 << 20;
constexpr std::size_t kMaxPending = 256 << 10;
constexpr ApiVersion kBinaryFrames{1, 28};

enum Opcode : unsigned char { continuation = 0, text = 1, binary = 2, closing = 8, ping = 9, pong = 10 };

struct Frame {
  bool last = true;
  unsigned char opcode = 0;
  std::string payload;
};

std::string render_frame(unsigned char opcode, std::string_view payload) {
  std::string out(1, static_cast<char>(0x80 | opcode));
  if (payload.size() < 126) {
    out += static_cast<char>(payload.size());
  } else if (payload.size() <= 0xffff) {
    out += static_cast<char>(126);
    for (const int shift : {8, 0}) out += static_cast<char>(payload.size() >> shift & 0xff);
  } else {
    out += static_cast<char>(127);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(payload.size() >> shift & 0xff);
  }
  return out.append(payload);
}

std::string accept_key(const std::string& key) {
  const std::string joined = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  ::SHA1(reinterpret_cast<const unsigned char*>(joined.data()), joined.size(), digest.data());
  return base64_encode({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

[[noreturn]] void protocol_error(const char* what) { throw Error(Errc::cancelled, std::string("WebSocket: ") + what); }

}  // namespace

struct WebSocket::State {
  State(HijackedStream s, unsigned char op) : stream(std::move(s)), message_opcode(op) {}
  HijackedStream stream;
  const unsigned char message_opcode;
  std::string input;
  std::string pending;  // frames of ours that wait until the write in hand has ended
  bool writing = false;
  bool closed = false;
  async::Signal written;

  static Task<void> need(std::shared_ptr<State> self, std::size_t size);
  static Task<Frame> read_frame(std::shared_ptr<State> self);
  static Task<void> send(std::shared_ptr<State> self, std::string frame);
};

Task<void> WebSocket::State::need(std::shared_ptr<State> self, std::size_t size) {
  while (self->input.size() < size) {
    const std::string more = co_await self->stream.read();
    if (more.empty()) protocol_error("the client closed the connection without a closing frame");
    self->input += more;
  }
}

Task<Frame> WebSocket::State::read_frame(std::shared_ptr<State> self) {
  co_await need(self, 2);
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(self->input[i]); };
  Frame frame;
  frame.last = (byte(0) & 0x80) != 0;
  frame.opcode = byte(0) & 0x0f;
  if ((byte(0) & 0x70) != 0) protocol_error("reserved bits are set");
  if ((byte(1) & 0x80) == 0) protocol_error("a frame from the client is not masked");
  std::uint64_t size = byte(1) & 0x7f;
  if (frame.opcode >= closing && (size > 125 || !frame.last)) protocol_error("malformed control frame");
  std::size_t header = 2;
  const std::size_t length_bytes = size == 126 ? 2 : size == 127 ? 8 : 0;
  if (length_bytes > 0) {
    co_await need(self, header + length_bytes);
    size = 0;
    for (std::size_t i = 0; i < length_bytes; ++i) size = size << 8 | byte(header + i);
    header += length_bytes;
  }
  if (size > kMaxMessage) protocol_error("message too large");
  co_await need(self, header + 4 + size);
  frame.payload = self->input.substr(header + 4, size);
  for (std::size_t i = 0; i < frame.payload.size(); ++i)
    frame.payload[i] = static_cast<char>(frame.payload[i] ^ self->input[header + i % 4]);
  self->input.erase(0, header + 4 + size);
  co_return frame;
}

/// Frames must not mix. Whoever finds a write under way leaves its frame to that one.
Task<void> WebSocket::State::send(std::shared_ptr<State> self, std::string frame) {
  self->pending += frame;
  if (self->writing) co_return;
  struct Writing {
    bool& flag;
    explicit Writing(bool& f) : flag(f) { flag = true; }
    ~Writing() { flag = false; }
  } writing(self->writing);
  // Whoever waits for room looks again when this write has ended, also if it failed.
  struct Tell {
    async::Signal& signal;
    ~Tell() { signal.notify(); }
  } tell{self->written};
  while (!self->pending.empty()) co_await self->stream.write(std::exchange(self->pending, {}));
}

Task<WebSocket> WebSocket::accept(Request request) {
  const auto key = request.header("Sec-WebSocket-Key");
  const std::string version = request.header("Sec-WebSocket-Version").value_or("");
  if (!key || !equals_ignoring_case(request.header("Upgrade").value_or(""), "websocket") || version != "13")
    throw Error(Errc::invalid_argument, "not a WebSocket handshake");
  std::string header =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
      accept_key(*key) + "\r\n";
  // Browsers insist on one of the protocols that they offered.
  if (const auto protocols = request.header("Sec-WebSocket-Protocol"))
    header += "Sec-WebSocket-Protocol: " + std::string(trim(split_once(*protocols, ',').first)) + "\r\n";
  HijackedStream stream = co_await request.hijack_raw(header + "\r\n");
  const unsigned char opcode = request.version() < kBinaryFrames ? text : binary;
  co_return WebSocket(std::make_shared<State>(std::move(stream), opcode));
}

Task<std::string> WebSocket::read() {
  auto state = state_;
  std::string message;
  for (;;) {
    Frame frame = co_await State::read_frame(state);
    switch (frame.opcode) {
      case ping:
        // A client that pings and does not read gets no answer rather than our memory.
        if (state->pending.size() < kMaxPending) co_await State::send(state, render_frame(pong, frame.payload));
        continue;
      case pong: continue;
      case closing: co_return std::string();
      case continuation:
      case text:
      case binary: break;
      default: protocol_error("unknown frame");
    }
    message += frame.payload;
    if (message.size() > kMaxMessage) protocol_error("message too large");
    if (frame.last && !message.empty()) co_return message;
  }
}

Task<void> WebSocket::write(std::string bytes) {
  auto state = state_;
  if (state->closed) throw Error(Errc::cancelled, "WebSocket: closed");
  while (state->writing && state->pending.size() >= kMaxPending) co_await state->written.wait();
  co_await State::send(state, render_frame(state->message_opcode, bytes));
}

Task<void> WebSocket::close() {
  auto state = state_;
  if (std::exchange(state->closed, true)) co_return;
  const std::string normal("\x03\xe8", 2);
  co_await State::send(state, render_frame(closing, normal));
}

}  // namespace gantry::api
