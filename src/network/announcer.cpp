#include "network/announcer.hpp"

#include <array>
#include <cstddef>
#include <cstring>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip6.h>
#include <sys/socket.h>

#include "base/error.hpp"
#include "sys/namespace.hpp"

namespace gantry::network {
namespace {

// Protocol 0: it receives nothing.
sys::Fd packet_socket() { return sys::Fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); }

template <class Frame>
void send_frame(int fd, unsigned interface, const Frame& frame) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(interface);
  to.sll_halen = ETH_ALEN;
  std::memcpy(to.sll_addr, frame.ethernet.ether_dhost, ETH_ALEN);
  // A lost announcement only means that a neighbour asks again by itself, a little later.
  [[maybe_unused]] const ssize_t sent =
      ::sendto(fd, &frame, sizeof frame, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

void send_arp(int fd, unsigned interface, const AddressOwner& owner) {
  if (owner.address.empty()) return;
  struct __attribute__((packed)) {
    ether_header ethernet;
    ether_arp arp;
  } frame{};
  std::memset(frame.ethernet.ether_dhost, 0xff, ETH_ALEN);
  std::memcpy(frame.ethernet.ether_shost, owner.mac.bytes.data(), ETH_ALEN);
  frame.ethernet.ether_type = htons(ETH_P_ARP);
  frame.arp.ea_hdr.ar_hrd = htons(ARPHRD_ETHER);
  frame.arp.ea_hdr.ar_pro = htons(ETH_P_IP);
  frame.arp.ea_hdr.ar_hln = ETH_ALEN;
  frame.arp.ea_hdr.ar_pln = 4;
  frame.arp.ea_hdr.ar_op = htons(ARPOP_REQUEST);
  std::memcpy(frame.arp.arp_sha, owner.mac.bytes.data(), ETH_ALEN);
  std::memcpy(frame.arp.arp_spa, owner.address.bytes().data(), 4);
  std::memcpy(frame.arp.arp_tpa, owner.address.bytes().data(), 4);
  send_frame(fd, interface, frame);
}

// RFC 1071 over an even number of bytes.
std::uint16_t internet_checksum(const char* bytes, std::size_t size, std::uint32_t sum) {
  for (std::size_t i = 0; i < size; i += 2) {
    std::uint16_t word;
    std::memcpy(&word, bytes + i, sizeof word);
    sum += ntohs(word);
  }
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// RFC 4861 §7.2.6: an advertisement that nobody asked for, to all nodes, which overrides what they know.
void send_advertisement(int fd, unsigned interface, const AddressOwner& owner) {
  if (owner.address6.empty()) return;
  constexpr std::array<std::uint8_t, 6> kAllNodesMac{0x33, 0x33, 0, 0, 0, 1};
  struct __attribute__((packed)) {
    ether_header ethernet;
    ip6_hdr ip;
    nd_neighbor_advert advert;
    nd_opt_hdr option;
    std::array<std::uint8_t, 6> mac;
  } frame{};
  constexpr std::uint16_t kLength = sizeof frame.advert + sizeof frame.option + sizeof frame.mac;
  std::memcpy(frame.ethernet.ether_dhost, kAllNodesMac.data(), ETH_ALEN);
  std::memcpy(frame.ethernet.ether_shost, owner.mac.bytes.data(), ETH_ALEN);
  frame.ethernet.ether_type = htons(ETH_P_IPV6);
  frame.ip.ip6_flow = htonl(6U << 28);
  frame.ip.ip6_plen = htons(kLength);
  frame.ip.ip6_nxt = IPPROTO_ICMPV6;
  frame.ip.ip6_hlim = 255;
  std::memcpy(&frame.ip.ip6_src, owner.address6.bytes().data(), 16);
  frame.ip.ip6_dst.s6_addr[0] = 0xff;  // ff02::1
  frame.ip.ip6_dst.s6_addr[1] = 0x02;
  frame.ip.ip6_dst.s6_addr[15] = 1;
  frame.advert.nd_na_hdr.icmp6_type = ND_NEIGHBOR_ADVERT;
  frame.advert.nd_na_hdr.icmp6_dataun.icmp6_un_data32[0] = ND_NA_FLAG_OVERRIDE;
  std::memcpy(&frame.advert.nd_na_target, owner.address6.bytes().data(), 16);
  frame.option = {ND_OPT_TARGET_LINKADDR, 1};
  frame.mac = owner.mac.bytes;
  // Over the pseudo header: both addresses, which lie before the message, its length and its protocol.
  const char* addresses = reinterpret_cast<const char*>(&frame) + sizeof frame.ethernet + offsetof(ip6_hdr, ip6_src);
  constexpr std::uint32_t kRest = kLength + IPPROTO_ICMPV6;
  frame.advert.nd_na_hdr.icmp6_cksum = htons(internet_checksum(addresses, 32 + kLength, kRest));
  send_frame(fd, interface, frame);
}

}  // namespace

Announcer::Announcer() : fd_(packet_socket()) {}

void Announcer::announce(const std::string& bridge, const AddressOwner& owner) {
  if (const unsigned index = ::if_nametoindex(bridge.c_str()); fd_ && index != 0) send_arp(fd_.get(), index, owner);
}

void Announcer::announce_v6(const std::string& bridge, const AddressOwner& owner) {
  if (const unsigned index = ::if_nametoindex(bridge.c_str()); fd_ && index != 0)
    send_advertisement(fd_.get(), index, owner);
}

void announce_inside(const sys::Path& netns, const std::string& interface, const AddressOwner& owner) {
  if (!sys::is_netns(netns)) return;
  sys::enter_netns(netns, [&] {
    const sys::Fd fd = packet_socket();
    const unsigned index = ::if_nametoindex(interface.c_str());
    if (!fd || index == 0) return;
    send_arp(fd.get(), index, owner);
    send_advertisement(fd.get(), index, owner);
  });
}

// Only entries that exist: the kernel finds out the others when it needs them.
void tell_host(sys::NetlinkSocket& host, const std::string& bridge, const AddressOwner& owner) {
  const unsigned index = ::if_nametoindex(bridge.c_str());
  if (index == 0) return;
  sys::NetlinkBatch batch;
  for (const IpAddress* address : {&owner.address, &owner.address6}) {
    if (address->empty()) continue;
    ndmsg header{};
    header.ndm_family = address->is_v6() ? AF_INET6 : AF_INET;
    header.ndm_ifindex = static_cast<int>(index);
    header.ndm_state = NUD_STALE;
    batch.begin_with(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_REPLACE, header, "correcting a neighbour entry");
    batch.attr(NDA_DST, address->bytes());
    batch.attr(NDA_LLADDR, owner.mac.raw());
  }
  if (!batch.empty()) host.send(std::move(batch));
}

}  // namespace gantry::network
