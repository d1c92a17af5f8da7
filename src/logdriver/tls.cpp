#include "logdriver/tls.hpp"

#include <cerrno>
#include <cstring>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::logdriver {
namespace {

std::string last_error() {
  char text[256] = "unknown error";
  const unsigned long code = ::ERR_get_error();
  if (code != 0) ::ERR_error_string_n(code, text, sizeof text);
  ::ERR_clear_error();
  return text;
}

/// OpenSSL's own directory is where its distributor keeps it; others are tried, too.
bool load_system_roots(SSL_CTX* context) {
  if (::SSL_CTX_set_default_verify_paths(context) != 1) return false;
  for (const char* file :
       {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"})
    if (::access(file, R_OK) == 0) return ::SSL_CTX_load_verify_file(context, file) == 1;
  return true;
}

}  // namespace

struct Tls::State {
  SSL_CTX* context = nullptr;
  SSL* session = nullptr;
  ~State() {
    ::SSL_free(session);
    ::SSL_CTX_free(context);
  }
};

Tls::Tls(const TlsOptions& options) : state_(std::make_unique<State>()) {
  (void)::OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  state_->context = ::SSL_CTX_new(::TLS_client_method());
  SSL_CTX* const context = state_->context;
  if (context == nullptr) throw Error(Errc::internal, "TLS: " + last_error());
  ::SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  ::SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  if (!options.skip_verify) {
    ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    const bool good = options.ca_file.empty() ? load_system_roots(context)
                                              : ::SSL_CTX_load_verify_file(context, options.ca_file.c_str()) == 1;
    if (!good)
      throw Error(Errc::invalid_argument, "could not read CA certificate \"" + options.ca_file + "\": " + last_error());
  }
  if (options.cert_file.empty() && options.key_file.empty()) return;
  if (::SSL_CTX_use_certificate_chain_file(context, options.cert_file.c_str()) != 1 ||
      ::SSL_CTX_use_PrivateKey_file(context, options.key_file.c_str(), SSL_FILETYPE_PEM) != 1)
    throw Error(Errc::invalid_argument, "Could not load X509 key pair: " + last_error());
}

Tls::~Tls() = default;

void Tls::begin(int socket, const std::string& host) {
  end();
  state_->session = ::SSL_new(state_->context);
  SSL* const session = state_->session;
  if (session == nullptr || ::SSL_set_fd(session, socket) != 1) throw Error(Errc::internal, "TLS: " + last_error());
  if (::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(session), host.c_str()) != 1) {
    (void)::SSL_set_tlsext_host_name(session, host.c_str());
    (void)::SSL_set1_host(session, host.c_str());
  }
  ::ERR_clear_error();
  wanted_ = POLLOUT;
}

void Tls::end() noexcept {
  ::SSL_free(state_->session);
  state_->session = nullptr;
}

bool Tls::handshake() {
  ::ERR_clear_error();
  const int result = ::SSL_connect(state_->session);
  if (result == 1) return true;
  const int error = ::SSL_get_error(state_->session, result);
  wanted_ = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return false;
  const long verdict = ::SSL_get_verify_result(state_->session);
  if (verdict != X509_V_OK)
    throw Error(Errc::unavailable, std::string("x509: ") + ::X509_verify_cert_error_string(verdict));
  throw Error(Errc::unavailable, error == SSL_ERROR_SSL ? "tls: " + last_error() : "EOF");
}

std::size_t Tls::send(std::string_view bytes) {
  ::ERR_clear_error();
  std::size_t sent = 0;
  if (::SSL_write_ex(state_->session, bytes.data(), bytes.size(), &sent) == 1) return sent;
  const int error = ::SSL_get_error(state_->session, 0);
  wanted_ = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  throw Error(Errc::unavailable, "write: connection closed");
}

void Tls::receive(std::string& into) {
  char buffer[4096];
  for (;;) {
    ::ERR_clear_error();
    std::size_t got = 0;
    if (::SSL_read_ex(state_->session, buffer, sizeof buffer, &got) == 1) {
      into.append(buffer, got);
      if (into.size() > (64 << 10)) into.clear();
      continue;
    }
    const int error = ::SSL_get_error(state_->session, 0);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
    throw Error(Errc::unavailable, "read: connection closed");
  }
}

}  // namespace gantry::logdriver
