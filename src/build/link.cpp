#include "build/link.hpp"

#include <cerrno>
#include <cstring>
#include <deque>
#include <map>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include "async/shield.hpp"
#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "json/codec.hpp"
#include "protocol/build_link.hpp"

namespace asio = boost::asio;

namespace gantry::build {
namespace {

using protocol::LinkFrame;

constexpr std::size_t kMaxCalls = 256;
constexpr std::size_t kMaxWaitingProgress = 64;

std::string encode_frame(const LinkFrame& frame) {
  const std::string text = json::render(json::encode(frame));
  const std::uint32_t size = htonl(static_cast<std::uint32_t>(text.size()));
  std::string out(reinterpret_cast<const char*>(&size), sizeof size);
  return out + text;
}

/// Sends what fits, the descriptor with the first byte. The number of bytes; 0 if the socket is full.
std::size_t send_some(int socket, std::string_view bytes, int fd) {
  iovec data{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (errno == EAGAIN || errno == EINTR) return 0;
  throw Error::from_errno(errno, "write to the builder");
}

/// One worker's requests.
class Server : public std::enable_shared_from_this<Server> {
 public:
  Server(asio::any_io_executor loop, sys::Fd socket, LinkHandler handler)
      : loop_(loop),
        socket_(loop, asio::local::stream_protocol(), socket.release()),
        handler_(std::move(handler)),
        tasks_(loop),
        writer_(loop) {}

  Task<void> run() {
    writer_.spawn("answers to the builder", write_frames());
    try {
      for (;;) accept(co_await read_frame());
    } catch (const Error& e) {
      log::debug("the builder's requests end: {}", e.message());
    } catch (const boost::system::system_error& e) {
      log::debug("the builder's requests end: {}", e.what());
    }
    closed_ = true;
    const auto calls = calls_;  // they leave when they have ended
    for (const auto& [id, call] : calls) call->cancel();
  }
  Task<void> join() {
    writer_.cancel();
    co_await writer_.join();
    co_await tasks_.join();
  }

 private:
  struct Call final : LinkCall {
    Call(Server& owner, std::uint64_t number) : server(owner), id(number), group(owner.loop_) {}
    void progress(std::string json) override {
      if (server.queue_.size() >= kMaxWaitingProgress) return;
      LinkFrame frame;
      frame.Id = id;
      frame.Progress = std::move(json);
      server.push(frame, {});
    }
    void cancel() {
      *given_up_ = true;
      group.cancel();
    }
    Server& server;
    const std::uint64_t id;
    async::TaskGroup group;
  };

  Task<LinkFrame> read_frame() {
    std::uint32_t size = 0;
    co_await asio::async_read(socket_, asio::buffer(&size, sizeof size), asio::use_awaitable);
    size = ntohl(size);
    if (size == 0 || size > protocol::kMaxLinkFrame) throw Error(Errc::invalid_argument, "a frame has a wrong size");
    std::string text(size, '\0');
    co_await asio::async_read(socket_, asio::buffer(text), asio::use_awaitable);
    co_return json::decode<LinkFrame>(json::parse(text));
  }

  void accept(LinkFrame frame) {
    const auto known = frame.Id != 0 ? calls_.find(frame.Id) : calls_.end();
    if (frame.Cancel) {
      if (known != calls_.end()) known->second->cancel();
      return;
    }
    if (known != calls_.end()) throw Error(Errc::invalid_argument, "a request's number is in use");
    if (calls_.size() >= kMaxCalls) throw Error(Errc::unavailable, "too many requests");
    auto call = std::make_shared<Call>(*this, frame.Id != 0 ? frame.Id : ++last_notice_);
    calls_[call->id] = call;
    // In this order: both begin at once, and who watches must find something to wait for.
    call->group.spawn("answer the builder", answer(call, std::move(frame)));
    tasks_.spawn("a request of the builder", watch(call));
  }

  /// Keeps a call until its coroutine has ended; that one cannot destroy its own group.
  Task<void> watch(std::shared_ptr<Call> call) {
    co_await call->group.join();
    calls_.erase(call->id);
  }

  Task<void> answer(std::shared_ptr<Call> call, LinkFrame frame) {
    LinkFrame reply;
    LinkReply result;
    reply.Id = frame.Id;
    reply.Done = true;
    try {
      result = co_await handler_(std::move(frame.Method), std::move(frame.Params), call);
      reply.Result = std::move(result.json);
      reply.HasFd = static_cast<bool>(result.fd);
    } catch (const Error& e) {
      reply.Error = e.message();
      reply.Code = static_cast<int>(e.code());
    } catch (const boost::system::system_error& e) {
      reply.Error = *call->given_up() ? "context canceled" : e.what();
      reply.Code = static_cast<int>(*call->given_up() ? Errc::cancelled : Errc::internal);
    }
    if (reply.Id != 0) push(reply, std::move(result.fd));
  }

  void push(const LinkFrame& frame, sys::Fd fd) {
    if (closed_) return;
    queue_.push_back({encode_frame(frame), std::move(fd)});
    changed_.notify();
  }

  Task<void> write_frames() {
    for (;;) {
      while (queue_.empty()) co_await changed_.wait();
      const auto [bytes, fd] = std::move(queue_.front());
      queue_.pop_front();
      int passed = fd.get();
      for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t sent = send_some(socket_.native_handle(), std::string_view(bytes).substr(at), passed);
        if (sent > 0) passed = -1;
        else co_await socket_.async_wait(asio::socket_base::wait_write, asio::use_awaitable);
        at += sent;
      }
    }
  }

  struct Outgoing {
    std::string bytes;
    sys::Fd fd;
  };
  asio::any_io_executor loop_;
  asio::local::stream_protocol::socket socket_;
  LinkHandler handler_;
  std::map<std::uint64_t, std::shared_ptr<Call>> calls_;
  std::uint64_t last_notice_ = std::uint64_t{1} << 63;  // numbers for what has none
  std::deque<Outgoing> queue_;
  async::Signal changed_;
  bool closed_ = false;
  async::TaskGroup tasks_;
  async::TaskGroup writer_;
};

Task<void> serve(std::shared_ptr<Server> server) {
  co_await server->run();
  co_await server->join();
}

}  // namespace

Task<void> serve_link(asio::any_io_executor loop, sys::Fd socket, LinkHandler handler) {
  // Its coroutines refer to it until they have ended, so a cancellation does not reach it: the worker's end does.
  co_await async::shielded(serve(std::make_shared<Server>(loop, std::move(socket), std::move(handler))));
}

bool send_handover(int socket, const std::string& text, int fd) {
  iovec data{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return true;
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) return false;
  if (errno == EAGAIN) throw Error(Errc::unavailable, "the builder takes no more connections at the moment");
  throw Error::from_errno(errno, "hand a connection to the builder");
}

}  // namespace gantry::build
