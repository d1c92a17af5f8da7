#include "api/transport.hpp"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "base/error.hpp"

namespace asio = boost::asio;

namespace gantry::api {
namespace {

using Socket = asio::generic::stream_protocol::socket;
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

[[noreturn]] void connection_broken(const boost::system::error_code& ec) {
  throw Error(Errc::cancelled, "client connection: " + ec.message());
}

std::array<asio::const_buffer, 3> as_asio(const Transport::Buffers& buffers) {
  return {asio::const_buffer(buffers[0].data(), buffers[0].size()),
          asio::const_buffer(buffers[1].data(), buffers[1].size()),
          asio::const_buffer(buffers[2].data(), buffers[2].size())};
}

bool hung_up(Socket& socket) {
  if (!socket.is_open()) return true;
  pollfd p{.fd = socket.native_handle(), .events = 0, .revents = 0};
  return ::poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

void close_socket(Socket& socket) noexcept {
  boost::system::error_code ignored;
  (void)socket.close(ignored);
}

/// Sends what the kernel takes at once. Returns what is left; most replies are small and leave nothing, which saves a
/// turn of the loop.
Transport::Buffers send_now(int fd, Transport::Buffers buffers) {
  std::array<iovec, 3> parts{};
  std::size_t count = 0;
  for (const std::string_view& b : buffers)
    if (!b.empty()) parts[count++] = {const_cast<char*>(b.data()), b.size()};
  if (count == 0) return buffers;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR)
    connection_broken(boost::system::error_code(errno, boost::system::system_category()));
  std::size_t left = sent < 0 ? 0 : static_cast<std::size_t>(sent);
  for (std::string_view& b : buffers) {
    const std::size_t taken = std::min(left, b.size());
    b.remove_prefix(taken);
    left -= taken;
  }
  return buffers;
}

class PlainTransport final : public Transport {
 public:
  PlainTransport(const asio::any_io_executor& loop, sys::Fd fd, int family)
      : socket_(loop, asio::generic::stream_protocol(family, 0), fd.release()), family_(family) {}

  Task<void> handshake() override { co_return; }
  void read_some(char* into, std::size_t size, Done done) override {
    socket_.async_read_some(asio::buffer(into, size), std::move(done));
  }
  Task<void> write(Buffers buffers) override {
    if (!socket_.is_open()) throw Error(Errc::cancelled, "client connection: closed");
    const Buffers left = send_now(socket_.native_handle(), buffers);
    if (left[0].empty() && left[1].empty() && left[2].empty()) co_return;
    const auto [ec, n] = co_await asio::async_write(socket_, as_asio(left), kAwait);
    if (ec) connection_broken(ec);
  }
  Task<void> close_write() override {
    boost::system::error_code ignored;
    (void)socket_.shutdown(Socket::shutdown_send, ignored);
    co_return;
  }
  void wait_hangup(Done done) override {
    socket_.async_wait(Socket::wait_error, [done = std::move(done)](boost::system::error_code ec) { done(ec, 0); });
  }
  bool is_hung_up() override { return hung_up(socket_); }
  bool eof_may_be_half_close() const override { return family_ == AF_UNIX; }
  bool is_taken() const override { return bytes_not_taken(const_cast<Socket&>(socket_).native_handle()) == 0; }
  void cancel() override {
    boost::system::error_code ignored;
    (void)socket_.cancel(ignored);
  }
  void close() noexcept override { close_socket(socket_); }
  sys::Fd release() override { return sys::Fd(socket_.release()); }
  bool is_tls() const override { return false; }

 private:
  Socket socket_;
  int family_;
};

}  // namespace

int bytes_not_taken(int socket) {
  int bytes = 0;
  return ::ioctl(socket, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

std::unique_ptr<Transport> make_plain_transport(const asio::any_io_executor& loop, sys::Fd fd, int family) {
  return std::make_unique<PlainTransport>(loop, std::move(fd), family);
}

}  // namespace gantry::api
