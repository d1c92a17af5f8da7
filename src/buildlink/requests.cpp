#include "buildlink/requests.hpp"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "json/codec.hpp"

namespace gantry::buildlink {

Requests::Requests(sys::Fd socket, std::function<void()> gone) : socket_(std::move(socket)), gone_(std::move(gone)) {
  reader_ = std::thread([this] { read_answers(); });
}

Requests::~Requests() {
  (void)::shutdown(socket_.get(), SHUT_RDWR);
  reader_.join();
}

void Requests::send(const protocol::LinkFrame& frame) {
  const std::string text = json::render(json::encode(frame));
  if (text.size() > protocol::kMaxLinkFrame)
    throw Error(Errc::invalid_argument, "a request to the daemon is too large");
  const std::uint32_t size = htonl(static_cast<std::uint32_t>(text.size()));
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += text;
  const std::lock_guard lock(sending_);
  for (std::string_view left = bytes; !left.empty();) {
    const ssize_t sent = ::send(socket_.get(), left.data(), left.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) throw Error(Errc::unavailable, "the daemon is gone");
    left.remove_prefix(static_cast<std::size_t>(sent));
  }
}

Answer Requests::call(const std::string& method, std::string params, std::stop_token stop, Figures figures) {
  auto call = std::make_shared<Call>();
  call->figures = std::move(figures);
  protocol::LinkFrame frame;
  frame.Method = method;
  frame.Params = std::move(params);
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw Error(Errc::unavailable, "the daemon is gone");
    if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
    frame.Id = ++last_;
    calls_[frame.Id] = call;
  }
  try {
    send(frame);
  } catch (const Error&) {
    const std::lock_guard lock(mutex_);
    calls_.erase(frame.Id);
    throw;
  }
  protocol::LinkFrame cancel;
  cancel.Id = frame.Id;
  cancel.Cancel = true;
  const std::stop_callback on_stop(stop, [&] {
    try {
      send(cancel);
    } catch (const Error& e) {
      log::debug("giving a request up: {}", e.message());
    }
  });
  std::unique_lock lock(mutex_);
  call->changed.wait(lock, [&] { return call->done; });
  calls_.erase(frame.Id);
  lock.unlock();
  if (!call->reply.Error.empty()) throw Error(static_cast<Errc>(call->reply.Code), call->reply.Error);
  return {std::move(call->reply.Result), std::move(call->fd)};
}

void Requests::notify(const std::string& method, std::string params) {
  protocol::LinkFrame frame;
  frame.Method = method;
  frame.Params = std::move(params);
  try {
    send(frame);
  } catch (const Error& e) {
    log::debug("telling the daemon: {}", e.message());
  }
}

/// False at the end. A descriptor comes with the first byte of a frame.
bool Requests::read_exactly(char* to, std::size_t size, sys::Fd* fd) {
  while (size > 0) {
    iovec data{to, size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(header), sizeof raw);
      *fd = sys::Fd(raw);
    }
    to += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

void Requests::take(protocol::LinkFrame frame, sys::Fd fd) {
  std::shared_ptr<Call> call;
  {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(frame.Id);
    if (found == calls_.end()) return;
    call = found->second;
    if (frame.Done) {
      call->reply = std::move(frame);
      call->fd = std::move(fd);
      call->done = true;
      call->changed.notify_all();
      return;
    }
  }
  if (call->figures && !frame.Progress.empty()) call->figures(frame.Progress);
}

void Requests::read_answers() {
  try {
    for (;;) {
      std::uint32_t size = 0;
      sys::Fd fd;
      if (!read_exactly(reinterpret_cast<char*>(&size), sizeof size, &fd)) break;
      size = ntohl(size);
      if (size > protocol::kMaxLinkFrame) break;
      std::string text(size, '\0');
      if (!read_exactly(text.data(), text.size(), &fd)) break;
      take(json::decode<protocol::LinkFrame>(json::parse(text)), std::move(fd));
    }
  } catch (const Error& e) {
    log::error("the daemon's answers: {}", e.message());
  }
  end_all();
  if (gone_) gone_();
}

void Requests::end_all() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& [id, call] : calls_) {
    if (call->done) continue;
    call->done = true;
    call->reply.Error = "the daemon is gone";
    call->reply.Code = static_cast<int>(Errc::unavailable);
    call->changed.notify_all();
  }
}

}  // namespace gantry::buildlink
