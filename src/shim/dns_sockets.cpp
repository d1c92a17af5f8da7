#include "shim/dns_sockets.hpp"

#include <cerrno>
#include <cstdlib>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "sys/nftables.hpp"

namespace gantry::shim::dns {
namespace {

constexpr const char* kTable = "gantry-dns";
constexpr std::int32_t kBeforeTracking = -300;  // NF_IP_PRI_RAW
constexpr std::int32_t kAfterTracking = 300;
constexpr int kBacklog = 64;
constexpr int kReceiveBuffer = 1 << 20;

std::string be16(std::uint16_t value) { return {static_cast<char>(value >> 8), static_cast<char>(value & 0xff)}; }

/// Packets from or to our address, of one protocol and port, get another port. The offsets are those of the IPv4 and of
/// the UDP and TCP headers.
sys::NftRule rewrite(bool request, std::uint8_t protocol, std::uint16_t from, std::uint16_t to) {
  using Rule = sys::NftRule;
  in_addr address{};
  ::inet_pton(AF_INET, kServerAddress, &address);
  const std::string bytes(reinterpret_cast<const char*>(&address), sizeof address);
  const std::uint32_t port_offset = request ? 2 : 0;
  Rule rule;
  rule.payload(Rule::Base::network, request ? 16 : 12, 4).compare(Rule::Compare::eq, std::string_view(bytes));
  rule.meta(NFT_META_L4PROTO).compare(Rule::Compare::eq, std::string_view(reinterpret_cast<char*>(&protocol), 1));
  rule.payload(Rule::Base::transport, port_offset, 2).compare(Rule::Compare::eq, std::string_view(be16(from)));
  rule.load(be16(to)).set_transport(port_offset, 2, protocol == IPPROTO_UDP ? 6 : 16);
  return rule;
}

sys::Fd bound_socket(int type, std::uint16_t& port) {
  sys::Fd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, kServerAddress, &address.sin_addr);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!fd || ::bind(fd.get(), generic, length) != 0 || ::getsockname(fd.get(), generic, &length) != 0)
    throw Error::from_errno(errno, "name server: binding a socket");
  port = ntohs(address.sin_port);
  return fd;
}

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

/// "10.0.0.2", "fe80::1%eth0". Length 0 if it is none. The interface is one of the current namespace.
Address parse_address(const std::string& text, std::uint16_t port) {
  Address out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  const auto [ip, interface] = split_once(text, '%');
  if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out.length = sizeof *v4;
  } else if (::inet_pton(AF_INET6, std::string(ip).c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    if (!interface.empty()) v6->sin6_scope_id = ::if_nametoindex(std::string(interface).c_str());
    out.length = sizeof *v6;
  }
  return out;
}

sys::Fd connect_here(const std::string& server, bool tcp) {
  const Address address = parse_address(server, kServerPort);
  if (address.length == 0) return {};
  sys::Fd fd(::socket(address.storage.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return {};
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0 &&
      errno != EINPROGRESS)
    return {};
  return fd;
}

}  // namespace

ContainerNetwork::ContainerNetwork(const sys::Path& netns)
    : own_(sys::open_file("/proc/thread-self/ns/net", O_RDONLY)), container_(sys::open_file(netns, O_RDONLY)) {}

ContainerNetwork::Visit::Visit(const ContainerNetwork& network) : network_(network) {
  if (::setns(network_.container_.get(), CLONE_NEWNET) != 0)
    throw Error::from_errno(errno, "entering the container's network namespace");
}

ContainerNetwork::Visit::~Visit() {
  if (::setns(network_.own_.get(), CLONE_NEWNET) == 0) return;
  // Nothing that this process does from here on would be in the right place.
  log::error("leaving the container's network namespace: errno {}", errno);
  std::abort();
}

Listeners listen_in(const ContainerNetwork& network) {
  const ContainerNetwork::Visit visit(network);
  Listeners out;
  std::uint16_t udp_port = 0, tcp_port = 0;
  out.udp = bound_socket(SOCK_DGRAM, udp_port);
  out.tcp = bound_socket(SOCK_STREAM, tcp_port);
  // Programs ask many things at once when they start. Best effort: it needs CAP_NET_ADMIN.
  (void)::setsockopt(out.udp.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer);
  if (::listen(out.tcp.get(), kBacklog) != 0) throw Error::from_errno(errno, "name server: listening");
  constexpr sys::NftFamily kIp = sys::NftFamily::ip;
  sys::NftBatch batch;
  batch.add_table(kIp, kTable);
  batch.add_chain(kIp, kTable, {"requests", "filter", NF_INET_POST_ROUTING, kAfterTracking});
  batch.add_chain(kIp, kTable, {"answers", "filter", NF_INET_LOCAL_OUT, kBeforeTracking});
  batch.add_rule(kIp, kTable, "requests", rewrite(true, IPPROTO_UDP, kServerPort, udp_port));
  batch.add_rule(kIp, kTable, "requests", rewrite(true, IPPROTO_TCP, kServerPort, tcp_port));
  batch.add_rule(kIp, kTable, "answers", rewrite(false, IPPROTO_UDP, udp_port, kServerPort));
  batch.add_rule(kIp, kTable, "answers", rewrite(false, IPPROTO_TCP, tcp_port, kServerPort));
  sys::NftSocket().commit(std::move(batch));
  return out;
}

sys::Fd connect_to(const ContainerNetwork& network, const Upstream& server, bool tcp) {
  if (server.in_host) return connect_here(server.address, tcp);
  const ContainerNetwork::Visit visit(network);
  return connect_here(server.address, tcp);
}

}  // namespace gantry::shim::dns
