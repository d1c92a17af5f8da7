#include "sys/netlink.hpp"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/expect.hpp"

namespace gantry::sys {
namespace {

constexpr std::size_t align4(std::size_t n) { return (n + 3) & ~std::size_t{3}; }
constexpr std::uint16_t kTypeMask = 0x3fff;  // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

std::string explanation(const nlmsghdr& head, std::string_view payload) {
  if ((head.nlmsg_flags & NLM_F_ACK_TLVS) == 0 || payload.size() < sizeof(nlmsgerr)) return {};
  nlmsgerr error;
  std::memcpy(&error, payload.data(), sizeof error);
  std::size_t skip = sizeof(nlmsgerr);
  if ((head.nlmsg_flags & NLM_F_CAPPED) == 0 && error.msg.nlmsg_len > sizeof(nlmsghdr))
    skip += align4(error.msg.nlmsg_len) - sizeof(nlmsghdr);
  if (skip >= payload.size()) return {};
  return NetlinkAttributes(payload.substr(skip)).text(NLMSGERR_ATTR_MSG);
}

template <class Visit>
void each_message(const std::vector<char>& buffer, std::size_t size, Visit visit) {
  std::size_t at = 0;
  while (size - at >= sizeof(nlmsghdr)) {
    nlmsghdr head;
    std::memcpy(&head, buffer.data() + at, sizeof head);
    if (head.nlmsg_len < sizeof head || head.nlmsg_len > size - at) return;
    visit(head, std::string_view(buffer.data() + at + sizeof head, head.nlmsg_len - sizeof head));
    at += std::min(size - at, align4(head.nlmsg_len));
  }
}

}  // namespace

void NetlinkBatch::put(const void* bytes, std::size_t size) {
  const char* from = static_cast<const char*>(bytes);
  bytes_.insert(bytes_.end(), from, from + size);
  bytes_.resize(align4(bytes_.size()));
  nlmsghdr* head = reinterpret_cast<nlmsghdr*>(bytes_.data() + current_);
  head->nlmsg_len = static_cast<std::uint32_t>(bytes_.size() - current_);
}

void NetlinkBatch::begin(std::uint16_t type, std::uint16_t flags, std::string_view header, std::string note) {
  current_ = bytes_.size();
  nlmsghdr head{};
  head.nlmsg_type = type;
  head.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
  head.nlmsg_seq = static_cast<std::uint32_t>(count_);
  bytes_.resize(bytes_.size() + sizeof head);
  std::memcpy(bytes_.data() + current_, &head, sizeof head);
  put(header.data(), header.size());
  if (!note.empty()) notes_.emplace(static_cast<std::uint32_t>(count_), std::move(note));
  ++count_;
}

void NetlinkBatch::attr(std::uint16_t type, std::string_view bytes) {
  EXPECTS(bytes.size() <= 65531);
  const nlattr head{static_cast<std::uint16_t>(sizeof(nlattr) + bytes.size()), type};
  put(&head, sizeof head);
  if (!bytes.empty()) put(bytes.data(), bytes.size());
}

void NetlinkBatch::be16(std::uint16_t type, std::uint16_t value) { u16(type, htons(value)); }
void NetlinkBatch::be32(std::uint16_t type, std::uint32_t value) { u32(type, htonl(value)); }
void NetlinkBatch::be64(std::uint16_t type, std::uint64_t value) {
  const std::uint64_t swapped = __builtin_bswap64(value);
  raw(type, &swapped, sizeof swapped);
}
void NetlinkBatch::text(std::uint16_t type, std::string_view value) {
  std::string zero_ended(value);
  zero_ended.push_back('\0');
  attr(type, zero_ended);
}

std::size_t NetlinkBatch::nest(std::uint16_t type, std::string_view header) {
  const std::size_t at = bytes_.size();
  attr(static_cast<std::uint16_t>(type | NLA_F_NESTED), header);
  return at;
}

void NetlinkBatch::end(std::size_t nest) {
  const std::size_t length = bytes_.size() - nest;
  EXPECTS(length <= 65535);
  reinterpret_cast<nlattr*>(bytes_.data() + nest)->nla_len = static_cast<std::uint16_t>(length);
}

void NetlinkAttributes::each(std::string_view bytes,
                             const std::function<void(std::uint16_t, std::string_view)>& visit) {
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr head;
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.nla_len < sizeof head || head.nla_len > bytes.size()) return;
    visit(head.nla_type & kTypeMask, bytes.substr(sizeof head, head.nla_len - sizeof head));
    bytes.remove_prefix(std::min(bytes.size(), align4(head.nla_len)));
  }
}

NetlinkAttributes::NetlinkAttributes(std::string_view bytes) {
  each(bytes, [this](std::uint16_t type, std::string_view value) { values_[type] = value; });
}

std::string_view NetlinkAttributes::bytes(std::uint16_t type) const {
  auto it = values_.find(type);
  return it == values_.end() ? std::string_view() : it->second;
}

std::string NetlinkAttributes::text(std::uint16_t type) const {
  std::string_view value = bytes(type);
  return std::string(value.substr(0, value.find('\0')));
}

std::optional<std::uint32_t> NetlinkAttributes::u32(std::uint16_t type) const {
  std::string_view value = bytes(type);
  if (value.size() < 4) return std::nullopt;
  std::uint32_t out;
  std::memcpy(&out, value.data(), 4);
  return out;
}

std::optional<std::uint32_t> NetlinkAttributes::be32(std::uint16_t type) const {
  auto value = u32(type);
  if (value) value = ntohl(*value);
  return value;
}

std::optional<std::uint8_t> NetlinkAttributes::u8(std::uint16_t type) const {
  std::string_view value = bytes(type);
  if (value.empty()) return std::nullopt;
  return static_cast<std::uint8_t>(value[0]);
}

NetlinkSocket::NetlinkSocket(int protocol, const std::vector<int>& groups)
    : fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)), buffer_(64 << 10) {
  if (!fd_) throw Error::from_errno(errno, "opening a netlink socket");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw Error::from_errno(errno, "binding a netlink socket");
  socklen_t length = sizeof address;
  ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  port_id_ = address.nl_pid;
  const int one = 1;
  // Both only improve error texts and sizes: kernels without them still work.
  ::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
  ::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  const int size = 16 << 20;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  for (int group : groups) {
    if (::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
      throw Error::from_errno(errno, fmt::format("joining netlink group {}", group));
  }
}

void NetlinkSocket::send_bytes(const std::vector<char>& bytes) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  for (;;) {
    const ssize_t n =
        ::sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
    if (n >= 0) return;
    if (errno != EINTR) throw Error::from_errno(errno, "sending to netlink");
  }
}

std::size_t NetlinkSocket::receive() {
  for (;;) {
    // MSG_TRUNC makes the result the datagram's real size, so that a too small buffer is noticed.
    const ssize_t peek = ::recv(fd_.get(), buffer_.data(), 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    if (peek > static_cast<ssize_t>(buffer_.size())) buffer_.resize(static_cast<std::size_t>(peek));
    const ssize_t n = peek < 0 ? peek : ::recv(fd_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return 0;
    throw Error::from_errno(errno, "receiving from netlink");
  }
}

std::vector<NetlinkSocket::Failure> NetlinkSocket::send(NetlinkBatch batch) {
  std::vector<Failure> failures;
  if (batch.empty()) return failures;
  // The builder numbers messages from 0; on the wire the numbers continue from this socket's last ones.
  const std::uint32_t base = sequence_;
  sequence_ += static_cast<std::uint32_t>(batch.count_);
  for (std::size_t at = 0; at < batch.bytes_.size();) {
    nlmsghdr* head = reinterpret_cast<nlmsghdr*>(batch.bytes_.data() + at);
    head->nlmsg_seq += base;
    at += align4(head->nlmsg_len);
  }
  send_bytes(batch.bytes_);
  while (std::size_t size = receive()) {
    each_message(buffer_, size, [&](const nlmsghdr& head, std::string_view payload) {
      if (head.nlmsg_type != NLMSG_ERROR || payload.size() < sizeof(int)) return;
      int code;
      std::memcpy(&code, payload.data(), sizeof code);
      if (code == 0 || head.nlmsg_seq - base >= batch.count_) return;
      auto note = batch.notes_.find(head.nlmsg_seq - base);
      failures.push_back({-code, explanation(head, payload), note == batch.notes_.end() ? "netlink" : note->second});
    });
  }
  return failures;
}

Error NetlinkSocket::to_error(const Failure& failure) {
  return Error::from_errno(failure.error,
                           failure.text.empty() ? failure.note : fmt::format("{}: {}", failure.note, failure.text));
}

void NetlinkSocket::transact(NetlinkBatch batch) {
  auto failures = send(std::move(batch));
  if (!failures.empty()) throw to_error(failures.front());
}

void NetlinkSocket::dump(const NetlinkBatch& request, const std::function<void(const NetlinkMessage&)>& visit,
                         const std::function<void()>& restart) {
  EXPECTS(request.count_ == 1);
  constexpr int kTries = 16;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    if (attempt > 0 && restart) restart();
    std::vector<char> bytes = request.bytes_;
    reinterpret_cast<nlmsghdr*>(bytes.data())->nlmsg_seq = sequence_;
    const std::uint32_t sequence = sequence_++;
    send_bytes(bytes);
    bool interrupted = false;
    bool done = false;
    int failure = 0;
    while (!done) {
      const std::size_t size = receive();
      if (size == 0) break;
      each_message(buffer_, size, [&](const nlmsghdr& head, std::string_view payload) {
        if (head.nlmsg_seq != sequence) return;
        if ((head.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
        if (head.nlmsg_type == NLMSG_DONE || head.nlmsg_type == NLMSG_ERROR) {
          done = true;
          if (payload.size() >= sizeof(int)) std::memcpy(&failure, payload.data(), sizeof failure);
          return;
        }
        visit({head.nlmsg_type, head.nlmsg_flags, payload});
      });
    }
    if (failure == -EINTR) interrupted = true;
    if (interrupted) continue;
    if (failure != 0)
      throw Error::from_errno(-failure, request.notes_.empty() ? "netlink dump" : request.notes_.begin()->second);
    return;
  }
  throw Error(Errc::unavailable, "the kernel's tables change too fast to be read");
}

bool NetlinkSocket::receive_events(const std::function<void(const NetlinkMessage&)>& visit) {
  bool complete = true;
  for (;;) {
    std::size_t size = 0;
    try {
      size = receive();
    } catch (const Error& e) {
      if (e.sys_errno() != ENOBUFS) throw;
      complete = false;
      continue;
    }
    if (size == 0) return complete;
    each_message(buffer_, size, [&](const nlmsghdr& head, std::string_view payload) {
      if (head.nlmsg_type >= NLMSG_MIN_TYPE) visit({head.nlmsg_type, head.nlmsg_flags, payload});
    });
  }
}

}  // namespace gantry::sys
