#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace gantry::logdriver {

struct TlsOptions {
  std::string ca_file;  // empty: the system's
  std::string cert_file;
  std::string key_file;
  bool skip_verify = false;
};

/// The client's end of a TLS connection over a non-blocking socket. Nothing of OpenSSL is touched before the first one.
class Tls {
 public:
  /// Reads the files. Throws invalid_argument, naming the one that is wrong.
  explicit Tls(const TlsOptions& options);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  /// Begins a connection with the server of that name (which the certificate must carry).
  void begin(int socket, const std::string& host);
  void end() noexcept;
  /// Goes on with the handshake. true when it is done; poll wanted() otherwise. Throws unavailable.
  bool handshake();
  /// Bytes taken; 0: poll wanted(). Throws unavailable when the connection is broken.
  std::size_t send(std::string_view bytes);
  /// Reads what came, to notice the end. Throws unavailable at the end.
  void receive(std::string& into);
  short wanted() const noexcept { return wanted_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  short wanted_ = 0;
};

}  // namespace gantry::logdriver
