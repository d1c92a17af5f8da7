#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gantry::network {

enum class Family : std::uint8_t { v4 = 4, v6 = 6 };

/// An unsigned 128-bit number: an IPv6 address, or the distance between two addresses.
__extension__ using Wide = unsigned __int128;

/// An IPv4 or IPv6 address in network byte order. A default-constructed one is "no address".
class IpAddress {
 public:
  IpAddress() = default;
  static IpAddress v4(std::uint32_t host_order);
  static IpAddress from_bytes(std::string_view bytes);  // 4 or 16 bytes; anything else gives "no address"
  static IpAddress from_number(Family family, Wide number);
  static IpAddress any(Family family);
  /// nullopt unless `text` is exactly an address in the usual notation (no port, brackets or zone). A v4-mapped IPv6
  /// address becomes the IPv4 one.
  static std::optional<IpAddress> find(std::string_view text);
  /// Throws invalid_argument: "invalid <what>: <text>".
  static IpAddress parse(std::string_view text, std::string_view what = "IP address");

  bool empty() const noexcept { return size_ == 0; }
  Family family() const noexcept { return size_ == 16 ? Family::v6 : Family::v4; }
  bool is_v6() const noexcept { return size_ == 16; }
  std::string_view bytes() const noexcept { return {reinterpret_cast<const char*>(bytes_.data()), size_}; }
  Wide number() const noexcept;
  bool is_any() const noexcept { return !empty() && number() == 0; }
  bool is_loopback() const noexcept;
  bool is_link_local() const noexcept;
  std::string str() const;
  /// "1.2.3.4:80" or "[::1]:80".
  std::string with_port(std::uint16_t port) const;
  auto operator<=>(const IpAddress&) const = default;

 private:
  std::uint8_t size_ = 0;
  std::array<std::uint8_t, 16> bytes_{};
};

/// An address with a prefix length: a subnet, or an interface's address in its subnet.
struct Cidr {
  IpAddress address;
  unsigned length = 0;

  static std::optional<Cidr> find(std::string_view text);
  static Cidr parse(std::string_view text, std::string_view what = "subnet");

  bool empty() const noexcept { return address.empty(); }
  unsigned width() const noexcept { return address.is_v6() ? 128 : 32; }
  Cidr masked() const;
  IpAddress first() const { return masked().address; }
  IpAddress last() const;
  /// How many addresses; saturates at 2^127 for ::/0.
  Wide size() const noexcept;
  bool contains(const IpAddress& ip) const;
  bool contains(const Cidr& other) const { return other.length >= length && contains(other.address); }
  bool overlaps(const Cidr& other) const;
  std::string str() const;
  auto operator<=>(const Cidr&) const = default;
};

/// Six bytes as "02:42:ac:11:00:02".
struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  static std::optional<MacAddress> find(std::string_view text);
  /// Random, unicast, locally administered.
  static MacAddress random();
  /// Six bytes.
  static MacAddress from_raw(std::string_view raw);
  std::string_view raw() const noexcept { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  std::string str() const;
  auto operator<=>(const MacAddress&) const = default;
};

}  // namespace gantry::network
