#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <boost/asio/any_io_executor.hpp>
#include <boost/system/error_code.hpp>

#include "async/task.hpp"
#include "sys/fd.hpp"

namespace gantry::api {

/// What a TLS listener needs; shared by its connections.
class TlsContext;

/// A connected stream socket, plain or TLS. Loop thread only; one read and one write at a time.
class Transport {
 public:
  using Done = std::function<void(boost::system::error_code, std::size_t)>;
  using Buffers = std::array<std::string_view, 3>;

  virtual ~Transport() = default;
  /// Nothing to do for a plain socket. Throws Error(cancelled) if the other side does not speak TLS as asked.
  virtual Task<void> handshake() = 0;
  /// Reads something into `into`, which stays valid until `done` has run. An end of the stream is asio::error::eof.
  virtual void read_some(char* into, std::size_t size, Done done) = 0;
  /// Writes everything. Throws Error(cancelled) when the connection is broken or the caller was cancelled.
  virtual Task<void> write(Buffers buffers) = 0;
  /// Tells the other side that nothing more comes.
  virtual Task<void> close_write() = 0;
  /// Calls `done` when the kernel reports a hang-up or an error on the socket.
  virtual void wait_hangup(Done done) = 0;
  /// Has the peer closed both directions, or is the connection broken?
  virtual bool is_hung_up() = 0;
  /// Can an end of stream mean that the peer only closed its own direction? On TCP nobody can tell.
  virtual bool eof_may_be_half_close() const = 0;
  /// Has the peer taken everything that was written? On a unix socket: read it. On TCP: its kernel has acknowledged it,
  /// and nobody can tell more.
  virtual bool is_taken() const = 0;
  virtual void cancel() = 0;
  virtual void close() noexcept = 0;
  /// Gives the descriptor away; only for plain sockets.
  virtual sys::Fd release() = 0;
  virtual bool is_tls() const = 0;
  /// The subject of the verified client certificate.
  virtual std::string peer_subject() const { return {}; }
};

/// How many bytes of `socket` the peer has not taken (Transport::is_taken); unix(7), tcp(7): SIOCOUTQ.
int bytes_not_taken(int socket);

std::unique_ptr<Transport> make_plain_transport(const boost::asio::any_io_executor& loop, sys::Fd fd, int family);
std::unique_ptr<Transport> make_tls_transport(const boost::asio::any_io_executor& loop, sys::Fd fd, int family,
                                              std::shared_ptr<TlsContext> context);

/// Reads the files. TLS 1.2 at least, forward-secret AEAD ciphers, no renegotiation, compression or tickets; with
/// `verify_client` a certificate for clients signed by `ca`, and never the system's authorities.
/// Throws invalid_argument naming the file. Blocks  on the disk.
std::shared_ptr<TlsContext> load_tls_context(const std::string& certificate, const std::string& key,
                                             const std::string& ca, bool verify_client);

}  // namespace gantry::api
