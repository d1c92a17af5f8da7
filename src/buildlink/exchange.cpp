#include <cerrno>

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildlink/link.hpp"
#include "json/codec.hpp"

namespace gantry::buildlink {
namespace {

constexpr std::size_t kPiece = 256 << 10;

int http_status(Errc code) {
  switch (code) {
    case Errc::invalid_argument: return 400;
    case Errc::not_found: return 404;
    case Errc::conflict: return 409;
    case Errc::not_modified: return 304;
    case Errc::unauthorized: return 401;
    case Errc::forbidden: return 403;
    case Errc::unavailable: return 503;
    case Errc::not_implemented: return 501;
    case Errc::cancelled:
    case Errc::timed_out:
    case Errc::corrupted:
    case Errc::internal: return 500;
  }
  return 500;
}

/// JSON is UTF-8, whatever bytes a message quotes.
std::string readable(std::string text) {
  if (!is_valid_utf8(text))
    for (char& c : text)
      if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  return text;
}

void send_all(int socket, std::string_view bytes, int flags) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | flags);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) throw Error(Errc::cancelled, "the client has gone");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

}  // namespace

Exchange::Exchange(sys::Fd fd) : fd_(std::move(fd)), wake_(::eventfd(0, EFD_CLOEXEC)) {
  if (!wake_) throw Error::from_errno(errno, "eventfd");
  watcher_ = std::thread([this] { watch(); });
}

Exchange::~Exchange() {
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  watcher_.join();
}

/// A client that has sent all of its body has only closed that direction: no POLLHUP yet. Source: poll(2), unix(7).
void Exchange::watch() {
  pollfd entries[2] = {{fd_.get(), 0, 0}, {wake_.get(), POLLIN, 0}};
  for (;;) {
    if (::poll(entries, 2, -1) < 0 && errno != EINTR) return;
    if (entries[1].revents != 0) return;
    if ((entries[0].revents & (POLLHUP | POLLERR)) == 0) continue;
    gone_.request_stop();
    return;
  }
}

std::size_t Exchange::read(char* to, std::size_t size) {
  for (;;) {
    const ssize_t got = ::read(fd_.get(), to, size);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(Errc::cancelled, "the client has gone");
    if (gone_.stop_requested()) throw Error(Errc::cancelled, "the client has gone");
    return 0;
  }
}

void Exchange::send_frame(std::string_view bytes) {
  const std::uint32_t size = htonl(static_cast<std::uint32_t>(bytes.size()));
  send_all(fd_.get(), {reinterpret_cast<const char*>(&size), sizeof size}, bytes.empty() ? 0 : MSG_MORE);
  send_all(fd_.get(), bytes, 0);
}

void Exchange::start(int status, std::string_view content_type) {
  if (std::exchange(started_, true)) throw Error(Errc::internal, "the request has already been answered");
  protocol::ExchangeHead head;
  head.Status = status;
  head.ContentType = content_type;
  send_frame(json::render(json::encode(head)));
}

void Exchange::write(std::string_view bytes) {
  if (!started_) start(200);
  for (; !bytes.empty(); bytes.remove_prefix(std::min(kPiece, bytes.size()))) send_frame(bytes.substr(0, kPiece));
}

void Exchange::fail(const Error& error) {
  if (started_) return;
  start(http_status(error.code()));
  json::Object body;
  body["message"] = readable(error.message());
  write(json::render(body));
  finish();
}

void Exchange::finish() {
  if (!started_) start(200);
  if (!std::exchange(finished_, true)) send_frame({});
}

}  // namespace gantry::buildlink
