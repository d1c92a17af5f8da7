#include "network/address.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include <arpa/inet.h>
#include <sys/random.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::network {

IpAddress IpAddress::from_bytes(std::string_view bytes) {
  IpAddress out;
  if (bytes.size() != 4 && bytes.size() != 16) return out;
  out.size_ = static_cast<std::uint8_t>(bytes.size());
  std::memcpy(out.bytes_.data(), bytes.data(), bytes.size());
  return out;
}

IpAddress IpAddress::v4(std::uint32_t host_order) { return from_number(Family::v4, host_order); }

IpAddress IpAddress::from_number(Family family, Wide number) {
  IpAddress out;
  out.size_ = family == Family::v6 ? 16 : 4;
  for (int i = out.size_ - 1; i >= 0; --i, number >>= 8)
    out.bytes_[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(number & 0xff);
  return out;
}

IpAddress IpAddress::any(Family family) { return from_number(family, 0); }

std::optional<IpAddress> IpAddress::find(std::string_view text) {
  if (text.empty() || text.size() > INET6_ADDRSTRLEN) return std::nullopt;
  const std::string zero_ended(text);
  char raw[16];
  if (::inet_pton(AF_INET, zero_ended.c_str(), raw) == 1) return from_bytes({raw, 4});
  if (::inet_pton(AF_INET6, zero_ended.c_str(), raw) != 1) return std::nullopt;
  static constexpr char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\xff', '\xff'};
  if (std::memcmp(raw, kMapped, sizeof kMapped) == 0) return from_bytes({raw + 12, 4});
  return from_bytes({raw, 16});
}

IpAddress IpAddress::parse(std::string_view text, std::string_view what) {
  if (auto found = find(text)) return *found;
  throw Error(Errc::invalid_argument, fmt::format("invalid {}: {}", what, text));
}

Wide IpAddress::number() const noexcept {
  Wide out = 0;
  for (std::size_t i = 0; i < size_; ++i) out = out << 8 | bytes_[i];
  return out;
}

bool IpAddress::is_loopback() const noexcept { return is_v6() ? number() == 1 : size_ == 4 && bytes_[0] == 127; }

bool IpAddress::is_link_local() const noexcept {
  if (is_v6()) return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
  return size_ == 4 && bytes_[0] == 169 && bytes_[1] == 254;
}

std::string IpAddress::str() const {
  if (empty()) return {};
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(is_v6() ? AF_INET6 : AF_INET, bytes_.data(), text, sizeof text);
  return text;
}

std::string IpAddress::with_port(std::uint16_t port) const {
  return is_v6() ? fmt::format("[{}]:{}", str(), port) : fmt::format("{}:{}", str(), port);
}

std::optional<Cidr> Cidr::find(std::string_view text) {
  auto [address, length] = split_once(text, '/');
  auto ip = IpAddress::find(address);
  auto bits = parse_int(length);
  if (!ip || !bits || *bits < 0) return std::nullopt;
  Cidr out{*ip, static_cast<unsigned>(*bits)};
  if (*bits > static_cast<std::int64_t>(out.width())) return std::nullopt;
  return out;
}

Cidr Cidr::parse(std::string_view text, std::string_view what) {
  if (auto found = find(text)) return *found;
  throw Error(Errc::invalid_argument, fmt::format("invalid {}: {}", what, text));
}

namespace {

Wide host_mask(unsigned width, unsigned length) {
  const unsigned bits = width - length;
  return bits >= 128 ? ~Wide{0} : (Wide{1} << bits) - 1;
}

}  // namespace

Cidr Cidr::masked() const {
  return {IpAddress::from_number(address.family(), address.number() & ~host_mask(width(), length)), length};
}

IpAddress Cidr::last() const {
  return IpAddress::from_number(address.family(), address.number() | host_mask(width(), length));
}

Wide Cidr::size() const noexcept {
  const unsigned bits = width() - length;
  return Wide{1} << std::min(bits, 127u);
}

bool Cidr::contains(const IpAddress& ip) const {
  if (empty() || ip.empty() || ip.family() != address.family()) return false;
  const Wide mask = ~host_mask(width(), length);
  return (ip.number() & mask) == (address.number() & mask);
}

bool Cidr::overlaps(const Cidr& other) const { return contains(other.address) || other.contains(address); }

std::string Cidr::str() const { return empty() ? "" : fmt::format("{}/{}", address.str(), length); }

std::optional<MacAddress> MacAddress::find(std::string_view text) {
  MacAddress out;
  const auto parts = split(text, text.find('-') == std::string_view::npos ? ':' : '-');
  if (parts.size() != out.bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].size() != 2 || !is_lower_hex(to_lower(parts[i]))) return std::nullopt;
    out.bytes[i] = static_cast<std::uint8_t>(std::stoul(parts[i], nullptr, 16));
  }
  return out;
}

MacAddress MacAddress::from_raw(std::string_view raw) {
  MacAddress out;
  std::copy_n(raw.begin(), std::min(raw.size(), out.bytes.size()), reinterpret_cast<char*>(out.bytes.data()));
  return out;
}

MacAddress MacAddress::random() {
  MacAddress out;
  // Never short for six bytes once the kernel's generator is seeded, which it is before any service starts.
  while (::getrandom(out.bytes.data(), out.bytes.size(), 0) != static_cast<ssize_t>(out.bytes.size())) {
  }
  out.bytes[0] = static_cast<std::uint8_t>((out.bytes[0] & 0xfc) | 0x02);
  return out;
}

std::string MacAddress::str() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

}  // namespace gantry::network
