#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "sys/fd.hpp"

/// Netlink messages (netlink(7)): a builder, a socket that sends several in one datagram, and a bounds-checked reader.
/// Used for links, addresses and routes (rtnetlink), nftables (sys/nftables.hpp) and connection tracking.
/// Nothing here waits unless it says so: the kernel answers a request before sendto(2) returns.
namespace gantry::sys {

/// Several messages for one datagram. Offsets that nest() returns are to be closed by end(), innermost first.
class NetlinkBatch {
 public:
  /// Starts a message. `header` is the family's own header (ifinfomsg, nfgenmsg …). `note` goes into error texts.
  void begin(std::uint16_t type, std::uint16_t flags, std::string_view header, std::string note = {});
  template <class Header>
  void begin_with(std::uint16_t type, std::uint16_t flags, const Header& header, std::string note = {}) {
    begin(type, flags, {reinterpret_cast<const char*>(&header), sizeof header}, std::move(note));
  }
  void attr(std::uint16_t type, std::string_view bytes);
  void u8(std::uint16_t type, std::uint8_t value) { raw(type, &value, sizeof value); }
  void u16(std::uint16_t type, std::uint16_t value) { raw(type, &value, sizeof value); }
  void u32(std::uint16_t type, std::uint32_t value) { raw(type, &value, sizeof value); }
  void be16(std::uint16_t type, std::uint16_t value);
  void be32(std::uint16_t type, std::uint32_t value);
  void be64(std::uint16_t type, std::uint64_t value);
  /// With its terminating zero.
  void text(std::uint16_t type, std::string_view value);
  std::size_t nest(std::uint16_t type, std::string_view header = {});
  void end(std::size_t nest);

  bool empty() const noexcept { return count_ == 0; }
  std::size_t count() const noexcept { return count_; }
  std::size_t size() const noexcept { return bytes_.size(); }
  /// What was added since `from` (a former size()), encoded.
  std::string encoded(std::size_t from) const {
    return {bytes_.begin() + static_cast<std::ptrdiff_t>(from), bytes_.end()};
  }

 private:
  friend class NetlinkSocket;
  void put(const void* bytes, std::size_t size);
  void raw(std::uint16_t type, const void* value, std::size_t size) {
    attr(type, {static_cast<const char*>(value), size});
  }
  std::vector<char> bytes_;
  std::size_t current_ = 0;
  std::size_t count_ = 0;
  std::map<std::uint32_t, std::string> notes_;  // by sequence number within the batch
};

/// The attributes of one received message or nest. A later duplicate wins; truncated ones end the list.
class NetlinkAttributes {
 public:
  NetlinkAttributes() = default;
  explicit NetlinkAttributes(std::string_view bytes);
  bool has(std::uint16_t type) const { return values_.count(type) != 0; }
  std::string_view bytes(std::uint16_t type) const;
  std::string text(std::uint16_t type) const;  // without the terminating zero
  std::optional<std::uint32_t> u32(std::uint16_t type) const;
  std::optional<std::uint32_t> be32(std::uint16_t type) const;
  std::optional<std::uint8_t> u8(std::uint16_t type) const;
  NetlinkAttributes nested(std::uint16_t type) const { return NetlinkAttributes(bytes(type)); }
  /// Every attribute in order, for lists whose members share one type.
  static void each(std::string_view bytes, const std::function<void(std::uint16_t, std::string_view)>& visit);

 private:
  std::map<std::uint16_t, std::string_view> values_;
};

struct NetlinkMessage {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::string_view payload;  // after nlmsghdr

  template <class Header>
  std::optional<Header> header() const {
    if (payload.size() < sizeof(Header)) return std::nullopt;
    Header out;
    __builtin_memcpy(&out, payload.data(), sizeof out);
    return out;
  }
  template <class Header>
  NetlinkAttributes attributes() const {
    constexpr std::size_t kSize = (sizeof(Header) + 3) & ~std::size_t{3};
    return payload.size() <= kSize ? NetlinkAttributes() : NetlinkAttributes(payload.substr(kSize));
  }
};

/// A netlink socket of the network namespace that the calling thread is in when it is made. Not shared by threads.
class NetlinkSocket {
 public:
  /// `groups`: multicast groups to join, by number.
  explicit NetlinkSocket(int protocol, const std::vector<int>& groups = {});

  struct Failure {
    int error = 0;     // errno value
    std::string text;  // the kernel's explanation, or empty
    std::string note;  // which message
  };
  /// Sends all messages; every one that failed is returned. Later ones are tried even if earlier ones fail
  /// (rtnetlink), or all fail together (nftables batches).
  std::vector<Failure> send(NetlinkBatch batch);
  /// As send(), but throws for the first failure: "<note>: <explanation>: <strerror>".
  void transact(NetlinkBatch batch);
  static Error to_error(const Failure& failure);

  /// Sends one dump (or get) request and hands every answer to `visit`. Starts again when the kernel says that the
  /// answer was interrupted by a change (NLM_F_DUMP_INTR), after calling `restart`.
  void dump(const NetlinkBatch& request, const std::function<void(const NetlinkMessage&)>& visit,
            const std::function<void()>& restart = {});
  /// Hands over what arrived on multicast groups, without waiting. False: some were lost (ENOBUFS).
  bool receive_events(const std::function<void(const NetlinkMessage&)>& visit);

  int fd() const noexcept { return fd_.get(); }
  /// Our address on this bus: nftables shows it as the owner of a table.
  std::uint32_t port_id() const noexcept { return port_id_; }
  /// For waiting on events; reading stays with this object.
  Fd duplicate_fd() const { return fd_.duplicate(); }

 private:
  std::size_t receive();  // into buffer_; 0: nothing there
  void send_bytes(const std::vector<char>& bytes);
  Fd fd_;
  std::uint32_t port_id_ = 0;
  std::uint32_t sequence_ = 1;
  std::vector<char> buffer_;
};

// ---- rtnetlink ------------------------------------------------------------------------------------------------------

/// What is empty is left as it is, or was not told.
struct BridgePortFlags {
  std::optional<bool> hairpin = {};
  std::optional<bool> isolated = {};
  std::optional<bool> enabled = {};  // false: the port neither sends nor receives
  std::optional<bool> usual = {};    // learns, floods and is not locked
};

struct LinkInfo {
  int index = 0;
  std::string name;
  std::string kind;  // "bridge", "veth", …; empty for hardware
  int master = 0;
  bool up = false;
  bool running = false;  // and has a carrier
  std::string mac;       // six raw bytes
  std::uint32_t mtu = 0;
  std::optional<BridgePortFlags> port;  // of a bridge
};

struct AddressInfo {
  int link = 0;
  int family = 0;
  std::string address;  // 4 or 16 raw bytes
  unsigned prefix_length = 0;
  bool link_scope = false;
};

struct RouteInfo {
  int family = 0;
  std::string destination;  // raw bytes; empty with prefix length 0: the default route
  unsigned prefix_length = 0;
  int link = 0;
  std::string gateway;
};

std::optional<LinkInfo> find_link(NetlinkSocket& socket, const std::string& name);
/// Waits until the interface can send, at most `limit_ms`. A link that got its carrier only now drops what it is given
/// until the kernel's link watch has run; since Linux 6.2 asking for the link makes it run. False: it still cannot.
bool wait_for_carrier(NetlinkSocket& socket, const std::string& name, int limit_ms = 200);
std::vector<LinkInfo> list_links(NetlinkSocket& socket);
std::vector<AddressInfo> list_addresses(NetlinkSocket& socket);
/// Unicast routes of the main table.
std::vector<RouteInfo> list_routes(NetlinkSocket& socket);
LinkInfo parse_link(const NetlinkMessage& message);

struct LinkChange {
  int index = 0;          // or
  std::string name = {};  // the link's name if index is 0
  std::optional<bool> up = {};
  std::optional<int> master = {};
  std::string new_name = {};
  std::string mac = {};
  std::uint32_t mtu = 0;
};
void add_link_change(NetlinkBatch& batch, const LinkChange& change);
void add_bridge(NetlinkBatch& batch, const std::string& name, std::string_view mac, std::uint32_t mtu,
                bool multicast_snooping);
/// A veth pair whose inner end is born in the namespace `netns_fd`: moving it there later costs tens of milliseconds
/// of kernel grace periods (performance.md §1). Both ends are down.
struct VethSpec {
  std::string outer_name;
  std::string inner_name;
  int netns_fd = -1;
  int master = 0;
  std::string inner_mac;
  std::uint32_t mtu = 0;
};
void add_veth(NetlinkBatch& batch, const VethSpec& spec);
/// An interface on another one of the host's (`parent`), born in the namespace `netns_fd` and down.
struct SubInterfaceSpec {
  std::string name;
  std::string kind;  // "macvlan", "ipvlan", "vlan"
  int parent = 0;
  int netns_fd = -1;       // -1: this namespace
  std::uint32_t mode = 0;  // macvlan: MACVLAN_MODE_*; ipvlan: IPVLAN_MODE_*; vlan: the VLAN's number
  std::uint16_t flag = 0;  // ipvlan: IPVLAN_F_*
  std::string mac;         // empty: the kernel's choice
  std::uint32_t mtu = 0;
};
void add_sub_interface(NetlinkBatch& batch, const SubInterfaceSpec& spec);
/// An interface that leads nowhere.
void add_dummy(NetlinkBatch& batch, const std::string& name);
/// False: the kernel has no interfaces of this kind.
bool knows_link_kind(NetlinkSocket& socket, const std::string& kind);
/// No automatic IPv6 link-local address. Must precede "up"; cannot be part of the link's creation.
void add_no_ipv6_autoconf(NetlinkBatch& batch, const std::string& link);
void add_remove_link(NetlinkBatch& batch, const std::string& name);
void add_bridge_port_flags(NetlinkBatch& batch, int link, const BridgePortFlags& flags);
/// `address`: raw bytes.
void add_address(NetlinkBatch& batch, int link, std::string_view address, unsigned prefix_length);
void add_remove_address(NetlinkBatch& batch, int link, std::string_view address, unsigned prefix_length);
/// The default route through `gateway` (raw bytes), or straight out of `link` if it is empty.
void add_default_route(NetlinkBatch& batch, int link, int family, std::string_view gateway);
void add_remove_default_route(NetlinkBatch& batch, int family);

}  // namespace gantry::sys
