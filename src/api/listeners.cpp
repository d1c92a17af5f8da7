#include "api/listeners.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"

namespace gantry::api {
namespace {

constexpr int kBacklog = 4096;

sys::Fd listen_at(const addrinfo& address, const std::string& host) {
  sys::Fd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw Error::from_errno(errno, "listen on " + host);
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6) (void)::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || ::listen(fd.get(), kBacklog) != 0)
    throw Error::from_errno(errno, "listen on " + host);
  return fd;
}

/// "host:port", "[v6]:port", ":port" or "host".
std::pair<std::string, std::string> split_address(std::string_view text, bool tls) {
  std::string port = tls ? "2376" : "2375";
  const std::size_t colon = text.rfind(':');
  std::string host(text);
  if (colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, port};
}

void open_tcp(const std::string& name, std::string_view address, bool tls, std::vector<Listener>& out) {
  const auto [host, port] = split_address(address, tls);
  const auto number = parse_int(port);
  if (!number || *number < 0 || *number > 65535)
    throw Error(Errc::invalid_argument, "invalid port in host " + quote(name));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* raw = nullptr;
  const int failed = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &raw);
  if (failed != 0) throw Error(Errc::invalid_argument, "host " + quote(name) + ": " + ::gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(raw, ::freeaddrinfo);
  const std::size_t before = out.size();
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    try {
      out.emplace_back(name, listen_at(*a, name), a->ai_family, tls);
    } catch (const Error& e) {
      // A host without IPv6 still resolves names to it.
      const bool no_such_family = e.sys_errno() == EAFNOSUPPORT || e.sys_errno() == EADDRNOTAVAIL;
      if (!no_such_family || (a->ai_next == nullptr && out.size() == before)) throw;
    }
    if (*number == 0) break;  // two families would get two ports
  }
}

void open_unix(const std::string& name, const std::string& path, const ServerOptions& options,
               std::vector<Listener>& out) {
  sys::UnixListenOptions how;
  how.group = options.socket_group;
  how.group_required = options.socket_group_required;
  sys::UnixListener socket = sys::listen_unix(path, how);
  if (!socket.warning.empty()) log::warning("{}: {}", name, socket.warning);
  out.emplace_back(name, std::move(socket));
}

void open_activated(const std::string& name, std::string_view which, bool tls,
                    std::vector<sys::ActivatedSocket>& sockets, std::vector<Listener>& out) {
  if (sockets.empty()) throw Error(Errc::invalid_argument, "host " + quote(name) + ": no sockets were passed to us");
  const bool all = which.empty() || which == "*";
  const auto number = all ? std::optional<std::int64_t>(0) : parse_int(which);
  bool found = false;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    sys::ActivatedSocket& socket = sockets[i];
    const bool meant = all || (number && *number == static_cast<std::int64_t>(i) + 3) || socket.name == which;
    if (!meant || !socket.fd) continue;
    found = true;
    out.emplace_back(name, std::move(socket.fd), socket.family, tls && socket.family != AF_UNIX);
  }
  if (!found) throw Error(Errc::invalid_argument, "host " + quote(name) + ": no such socket was passed to us");
}

}  // namespace

Listener::Listener(std::string name, sys::UnixListener socket)
    : name_(std::move(name)), socket_(std::move(socket)), family_(AF_UNIX), tls_(false), owns_file_(true) {}

Listener::Listener(std::string name, sys::Fd socket, int family, bool tls)
    : name_(std::move(name)), family_(family), tls_(tls), owns_file_(false) {
  socket_.fd = std::move(socket);
}

std::uint16_t Listener::port() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  return 0;
}

void Listener::close() noexcept {
  if (!socket_.fd) return;
  if (owns_file_) socket_.unlink_if_ours();
  socket_.fd.reset();
}

std::vector<Listener> open_listeners(const ServerOptions& options) {
  std::vector<Listener> out;
  std::vector<sys::ActivatedSocket> activated;
  bool taken = false;
  try {
    for (const std::string& host : options.hosts) {
      const std::string_view text = host;
      if (text.starts_with("unix://")) {
        open_unix(host, host.substr(7), options, out);
      } else if (text.starts_with("tcp://")) {
        open_tcp(host, text.substr(6), options.tls, out);
      } else if (text.starts_with("fd://")) {
        if (!taken) activated = sys::take_activated_sockets();
        taken = true;
        open_activated(host, text.substr(5), options.tls, activated, out);
      } else {
        throw Error(Errc::invalid_argument,
                    "host " + quote(host) + " is none of unix:///path, tcp://address:port and fd://");
      }
    }
  } catch (const Error&) {
    for (Listener& listener : out) listener.close();
    throw;
  }
  return out;
}

}  // namespace gantry::api
