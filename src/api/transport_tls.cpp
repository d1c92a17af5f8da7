#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "api/transport.hpp"
#include "base/error.hpp"

namespace asio = boost::asio;

/// TLS straight on the socket rather than with asio::ssl: that one cannot close one direction only, which is how the
/// docker client says that standard input has ended.
namespace gantry::api {

class TlsContext {
 public:
  TlsContext() : ctx(::SSL_CTX_new(::TLS_server_method())) {}
  ~TlsContext() { ::SSL_CTX_free(ctx); }
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  SSL_CTX* const ctx;
};

namespace {

using Socket = asio::generic::stream_protocol::socket;
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr int kMaxChainDepth = 4;

std::string openssl_reason() {
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ::ERR_reason_error_string(code);
  return reason == nullptr ? "unknown reason" : reason;
}

// OpenSSL's own socket BIO calls write(2), which raises SIGPIPE when the client has gone.
int bio_write(BIO* bio, const char* data, int size) {
  const int fd = static_cast<int>(reinterpret_cast<std::intptr_t>(::BIO_get_data(bio)));
  ::BIO_clear_retry_flags(bio);
  const ssize_t n = ::send(fd, data, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) ::BIO_set_retry_write(bio);
  return static_cast<int>(n);
}
int bio_read(BIO* bio, char* into, int size) {
  const int fd = static_cast<int>(reinterpret_cast<std::intptr_t>(::BIO_get_data(bio)));
  ::BIO_clear_retry_flags(bio);
  const ssize_t n = ::recv(fd, into, static_cast<std::size_t>(size), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) ::BIO_set_retry_read(bio);
  return static_cast<int>(n);
}
long bio_control(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* make_bio(int fd) {
  static BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gantry socket");
    ::BIO_meth_set_write(method, bio_write);
    ::BIO_meth_set_read(method, bio_read);
    ::BIO_meth_set_ctrl(method, bio_control);
    return method;
  }();
  BIO* bio = ::BIO_new(kMethod);
  ::BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
  ::BIO_set_init(bio, 1);
  return bio;
}

class TlsTransport final : public Transport {
 public:
  TlsTransport(const asio::any_io_executor& loop, sys::Fd fd, int family, std::shared_ptr<TlsContext> context)
      : loop_(loop),
        context_(std::move(context)),
        socket_(loop, asio::generic::stream_protocol(family, 0), fd.release()),
        ssl_(::SSL_new(context_->ctx)) {
    BIO* bio = make_bio(socket_.native_handle());
    ::SSL_set_bio(ssl_, bio, bio);
    ::SSL_set_accept_state(ssl_);
  }
  ~TlsTransport() override { ::SSL_free(ssl_); }

  Task<void> handshake() override {
    for (;;) {
      ::ERR_clear_error();
      const int result = ::SSL_do_handshake(ssl_);
      if (result == 1) co_return;
      co_await wait_for(::SSL_get_error(ssl_, result), "TLS handshake");
    }
  }

  void read_some(char* into, std::size_t size, Done done) override {
    if (!socket_.is_open()) return finish(std::move(done), asio::error::operation_aborted, 0);
    std::size_t n = 0;
    ::ERR_clear_error();
    const int result = ::SSL_read_ex(ssl_, into, size, &n);
    if (result == 1) return finish(std::move(done), {}, n);
    Socket::wait_type wait = Socket::wait_read;
    switch (::SSL_get_error(ssl_, result)) {
      case SSL_ERROR_WANT_READ: break;
      case SSL_ERROR_WANT_WRITE: wait = Socket::wait_write; break;
      case SSL_ERROR_ZERO_RETURN: return finish(std::move(done), asio::error::eof, 0);
      default:
        // An end without close_notify is an end like any other: HTTP frames its bodies itself.
        ::ERR_clear_error();
        return finish(std::move(done), asio::error::eof, 0);
    }
    socket_.async_wait(wait, [this, into, size, done = std::move(done)](boost::system::error_code ec) mutable {
      if (ec) done(ec, 0);
      else read_some(into, size, std::move(done));
    });
  }

  Task<void> write(Buffers buffers) override {
    // Joined, so that one reply is one record.
    std::string joined;
    std::string_view bytes = buffers[0];
    if (!buffers[1].empty() || !buffers[2].empty()) {
      for (const std::string_view& b : buffers) joined += b;
      bytes = joined;
    }
    while (!bytes.empty()) {
      if (!socket_.is_open()) throw Error(Errc::cancelled, "client connection: closed");
      std::size_t n = 0;
      ::ERR_clear_error();
      const int result = ::SSL_write_ex(ssl_, bytes.data(), bytes.size(), &n);
      if (result == 1) bytes.remove_prefix(n);
      else co_await wait_for(::SSL_get_error(ssl_, result), "client connection");
    }
  }

  /// Sends close_notify and does not wait for the peer's.
  Task<void> close_write() override {
    while (socket_.is_open()) {
      ::ERR_clear_error();
      const int result = ::SSL_shutdown(ssl_);
      if (result >= 0) co_return;
      co_await wait_for(::SSL_get_error(ssl_, result), "client connection");
    }
  }

  void wait_hangup(Done done) override {
    socket_.async_wait(Socket::wait_error, [done = std::move(done)](boost::system::error_code ec) { done(ec, 0); });
  }
  bool is_hung_up() override {
    if (!socket_.is_open()) return true;
    pollfd p{.fd = socket_.native_handle(), .events = 0, .revents = 0};
    return ::poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
  }
  bool eof_may_be_half_close() const override { return false; }
  bool is_taken() const override { return bytes_not_taken(const_cast<Socket&>(socket_).native_handle()) == 0; }
  void cancel() override {
    boost::system::error_code ignored;
    (void)socket_.cancel(ignored);
  }
  void close() noexcept override {
    boost::system::error_code ignored;
    (void)socket_.close(ignored);
  }
  sys::Fd release() override { throw Error(Errc::internal, "a TLS connection cannot be given away"); }
  bool is_tls() const override { return true; }

  std::string peer_subject() const override {
    X509* certificate = ::SSL_get1_peer_certificate(ssl_);
    if (certificate == nullptr) return {};
    char* line = ::X509_NAME_oneline(::X509_get_subject_name(certificate), nullptr, 0);
    std::string out = line == nullptr ? "" : line;
    ::OPENSSL_free(line);
    ::X509_free(certificate);
    return out;
  }

 private:
  void finish(Done done, boost::system::error_code ec, std::size_t n) {
    asio::post(loop_, [done = std::move(done), ec, n] { done(ec, n); });
  }

  /// Waits for what OpenSSL wants before the same call is made again. Throws if it failed for good.
  Task<void> wait_for(int ssl_error, const char* what) {
    if (ssl_error != SSL_ERROR_WANT_READ && ssl_error != SSL_ERROR_WANT_WRITE)
      throw Error(Errc::cancelled, std::string(what) + ": " + openssl_reason());
    const auto wait = ssl_error == SSL_ERROR_WANT_READ ? Socket::wait_read : Socket::wait_write;
    const auto [ec] = co_await socket_.async_wait(wait, kAwait);
    if (ec) throw Error(Errc::cancelled, std::string(what) + ": " + ec.message());
  }

  asio::any_io_executor loop_;
  std::shared_ptr<TlsContext> context_;
  Socket socket_;
  SSL* ssl_;
};

void require(bool ok, const std::string& what) {
  if (!ok) throw Error(Errc::invalid_argument, what + ": " + openssl_reason());
}

/// Only HTTP/1.1 is offered; a client that wants something else gets no protocol and falls back to it.
int choose_protocol(SSL* /*ssl*/, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                    unsigned int in_size, void* /*arg*/) {
  static constexpr unsigned char kOurs[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  const int result = ::SSL_select_next_proto(&chosen, out_size, kOurs, sizeof kOurs - 1, in, in_size);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

std::shared_ptr<TlsContext> load_tls_context(const std::string& certificate, const std::string& key,
                                             const std::string& ca, bool verify_client) {
  auto out = std::make_shared<TlsContext>();
  SSL_CTX* ctx = out->ctx;
  ::SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  ::SSL_CTX_set_options(
      ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
  ::SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  ::SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  require(::SSL_CTX_set_cipher_list(ctx,
                                    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305") == 1,
          "TLS ciphers");
  ::SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, nullptr);
  require(::SSL_CTX_use_certificate_chain_file(ctx, certificate.c_str()) == 1,
          "could not load the TLS certificate " + certificate);
  require(::SSL_CTX_use_PrivateKey_file(ctx, key.c_str(), SSL_FILETYPE_PEM) == 1, "could not load the TLS key " + key);
  require(::SSL_CTX_check_private_key(ctx) == 1, "the TLS key " + key + " does not belong to " + certificate);
  if (!verify_client) return out;
  require(::SSL_CTX_load_verify_file(ctx, ca.c_str()) == 1, "could not load the TLS authority " + ca);
  ::SSL_CTX_set_client_CA_list(ctx, ::SSL_load_client_CA_file(ca.c_str()));
  ::SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  ::SSL_CTX_set_verify_depth(ctx, kMaxChainDepth);
  ::SSL_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT);
  return out;
}

std::unique_ptr<Transport> make_tls_transport(const asio::any_io_executor& loop, sys::Fd fd, int family,
                                              std::shared_ptr<TlsContext> context) {
  return std::make_unique<TlsTransport>(loop, std::move(fd), family, std::move(context));
}

}  // namespace gantry::api
