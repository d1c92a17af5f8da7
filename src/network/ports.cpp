#include "network/ports.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::network {
namespace {

constexpr int kAnyPortRetries = 10;  // others on the host may hold what our books call free

std::pair<std::uint16_t, std::uint16_t> parse_range(std::string_view text, const char* what) {
  auto [first_text, last_text] = split_once(text, '-');
  const bool is_range = text.find('-') != std::string_view::npos;
  auto first = parse_int(first_text);
  auto last = is_range ? parse_int(last_text) : first;
  if (!first || !last || *first < 0 || *last > 65535 || *first > *last)
    throw Error(Errc::invalid_argument, fmt::format("invalid {}: {}", what, text));
  return {static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

sockaddr_storage socket_address(const IpAddress& ip, std::uint16_t port, socklen_t& length) {
  sockaddr_storage out{};
  if (ip.is_v6()) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&out);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    std::memcpy(&v6->sin6_addr, ip.bytes().data(), 16);
    length = sizeof *v6;
  } else {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&out);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    std::memcpy(&v4->sin_addr, ip.bytes().data(), 4);
    length = sizeof *v4;
  }
  return out;
}

}  // namespace

PortSpec PortSpec::parse(std::string_view text) {
  auto [range, proto] = split_once(text, '/');
  PortSpec out;
  out.proto = to_lower(proto.empty() ? std::string_view("tcp") : proto);
  if (out.proto != "tcp" && out.proto != "udp" && out.proto != "sctp")
    throw Error(Errc::invalid_argument, fmt::format("invalid proto: {}", proto));
  std::tie(out.port, out.range_end) = parse_range(range, "port");
  if (out.port == 0) throw Error(Errc::invalid_argument, fmt::format("invalid port: {}", text));
  return out;
}

std::string PortSpec::str() const {
  return port == range_end ? fmt::format("{}/{}", port, proto) : fmt::format("{}-{}/{}", port, range_end, proto);
}

std::vector<PortRequest> plan_ports(const PortMap& bindings, const std::vector<std::string>& exposed, bool publish_all,
                                    const std::string& default_bind_ip, bool both_families) {
  PortMap wanted = bindings;
  if (publish_all) {
    for (const auto& port : exposed) {
      auto& list = wanted[port];
      if (list.empty()) list.emplace_back();
    }
  }
  std::multimap<int, PortRequest> by_choice;  // keeps the order of those that have the same choice
  for (const auto& [key, list] : wanted) {
    const PortSpec spec = PortSpec::parse(key);
    // A named port without bindings is published on any port.
    const std::vector<PortBinding> some = list.empty() ? std::vector<PortBinding>(1) : list;
    for (unsigned port = spec.port; port <= spec.range_end; ++port) {
      for (const PortBinding& binding : some) {
        PortRequest request;
        request.proto = spec.proto;
        request.container_port = static_cast<std::uint16_t>(port);
        if (!binding.host_port.empty())
          std::tie(request.first, request.last) = parse_range(binding.host_port, "port specification");
        const std::string& ip = binding.host_ip.empty() ? default_bind_ip : binding.host_ip;
        // Docker's default address, 0.0.0.0, stands for both families unless the binding itself names it.
        if (ip.empty() || (binding.host_ip.empty() && ip == "0.0.0.0")) {
          request.host_ips.push_back(IpAddress::any(Family::v4));
          if (both_families) request.host_ips.push_back(IpAddress::any(Family::v6));
        } else {
          request.host_ips.push_back(IpAddress::parse(ip, "host IP address"));
        }
        const int choice = request.first == 0 ? 65536 : request.last - request.first;
        by_choice.emplace(choice, std::move(request));
      }
    }
  }
  std::vector<PortRequest> out;
  for (auto& [choice, request] : by_choice) out.push_back(std::move(request));
  return out;
}

PortAllocator::Range PortAllocator::host_range() {
  Range out;
  if (auto text = sys::try_read_small("/proc/sys/net/ipv4/ip_local_port_range")) {
    auto [first, last] = split_once(trim(*text), '\t');
    auto low = parse_int(trim(first));
    auto high = parse_int(trim(last));
    if (low && high && *low > 0 && *high <= 65535 && *low <= *high) {
      out.first = static_cast<std::uint16_t>(*low);
      out.last = static_cast<std::uint16_t>(*high);
    }
  }
  if (auto text = sys::try_read_small("/proc/sys/net/ipv4/ip_local_reserved_ports")) {
    for (const auto& part : split(trim(*text), ',')) {
      if (part.empty()) continue;
      auto [first, last] = parse_range(part, "reserved port");
      for (unsigned port = first; port <= last; ++port) out.reserved.insert(static_cast<std::uint16_t>(port));
    }
  }
  return out;
}

bool PortAllocator::is_taken(const std::string& proto, const IpAddress& ip, std::uint16_t port) const {
  auto it = taken_.find({proto, port});
  if (it == taken_.end()) return false;
  return std::any_of(it->second.begin(), it->second.end(), [&](const IpAddress& other) {
    return other.family() == ip.family() && (other == ip || other.is_any() || ip.is_any());
  });
}

void PortAllocator::adopt(const std::string& proto, const IpAddress& host_ip, std::uint16_t port) {
  taken_[{proto, port}].insert(host_ip);
}

void PortAllocator::release(const std::string& proto, const IpAddress& host_ip, std::uint16_t port) {
  auto it = taken_.find({proto, port});
  if (it == taken_.end()) return;
  it->second.erase(host_ip);
  if (it->second.empty()) taken_.erase(it);
}

std::size_t PortAllocator::held() const noexcept {
  std::size_t out = 0;
  for (const auto& [key, addresses] : taken_) out += addresses.size();
  return out;
}

std::vector<PublishedPort> PortAllocator::try_port(const PortRequest& request, std::uint16_t port,
                                                   std::string& failure) {
  for (const IpAddress& ip : request.host_ips) {
    if (is_taken(request.proto, ip, port))
      throw Error(Errc::internal, fmt::format("Bind for {}:{} failed: port is already allocated", ip.str(), port));
  }
  std::vector<PublishedPort> out;
  for (const IpAddress& ip : request.host_ips) {
    BoundPort bound = bind_host_port(request.proto, ip, port);
    if (bound.error != 0) {
      failure = fmt::format("failed to bind host port {}/{}: {}", ip.with_port(port), request.proto,
                            to_lower(std::strerror(bound.error)));
      return {};
    }
    PublishedPort published;
    published.proto = request.proto;
    published.host_ip = ip;
    published.host_port = port;
    published.container_port = request.container_port;
    published.socket = std::move(bound.socket);
    out.push_back(std::move(published));
  }
  for (const IpAddress& ip : request.host_ips) adopt(request.proto, ip, port);
  return out;
}

std::vector<PublishedPort> PortAllocator::allocate_from(const PortRequest& request, std::uint16_t first,
                                                        std::uint16_t last, bool ephemeral) {
  const unsigned count = last - first + 1u;
  int retries = 0;
  std::string failure;
  for (unsigned i = 0; i < count && retries < kAnyPortRetries; ++i) {
    // Ephemeral ports go round, so that one that was just freed is not given to somebody else at once.
    const unsigned offset = ephemeral ? (next_ - first) % count : i;
    const auto port = static_cast<std::uint16_t>(first + offset);
    if (ephemeral) {
      next_ = port == last ? first : port + 1u;
      if (ephemeral_.reserved.count(port) != 0) continue;
    }
    const bool taken = std::any_of(request.host_ips.begin(), request.host_ips.end(),
                                   [&](const IpAddress& ip) { return is_taken(request.proto, ip, port); });
    if (taken) continue;
    auto published = try_port(request, port, failure);
    if (!published.empty()) return published;
    ++retries;
  }
  throw Error(Errc::internal, failure.empty() ? "all ports are allocated" : failure);
}

std::vector<PublishedPort> PortAllocator::allocate(const PortRequest& request) {
  if (request.first == 0) return allocate_from(request, ephemeral_.first, ephemeral_.last, true);
  if (request.first != request.last) return allocate_from(request, request.first, request.last, false);
  std::string failure;
  auto published = try_port(request, request.first, failure);
  if (published.empty()) throw Error(Errc::internal, failure);
  return published;
}

BoundPort bind_host_port(const std::string& proto, const IpAddress& host_ip, std::uint16_t port) {
  const bool is_udp = proto == "udp";
  const int type = (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  sys::Fd fd(::socket(host_ip.is_v6() ? AF_INET6 : AF_INET, type, proto == "sctp" ? IPPROTO_SCTP : 0));
  if (!fd) {
    // SCTP is translated by the firewall even where nothing can listen on it.
    if (proto == "sctp" && (errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT)) return {};
    return {sys::Fd(), errno};
  }
  const int one = 1;
  // Connections of a former owner in TIME_WAIT must not hold the port; UDP would share it with others.
  if (!is_udp) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (host_ip.is_v6()) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  // Attached before bind(2): nobody gets an answer before the container can give it.
  sock_filter drop_all[] = {{BPF_RET | BPF_K, 0, 0, 0}};
  const sock_fprog program{1, drop_all};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) return {sys::Fd(), errno};
  socklen_t length = 0;
  const sockaddr_storage address = socket_address(host_ip, port, length);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) return {sys::Fd(), errno};
  if (!is_udp && ::listen(fd.get(), 512) != 0) return {sys::Fd(), errno};
  return {std::move(fd), 0};
}

bool host_has_ipv6() {
  static const bool has = [] {
    sys::Fd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return static_cast<bool>(fd) &&
           sys::try_read_small("/proc/sys/net/ipv6/conf/all/disable_ipv6").value_or("1")[0] == '0';
  }();
  return has;
}

}  // namespace gantry::network
