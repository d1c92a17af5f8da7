#include "network/conntrack.hpp"

#include <cerrno>

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>

#include "base/text.hpp"
#include "sys/file.hpp"
#include "sys/netlink.hpp"

namespace gantry::network {
namespace {

// Which parts of a tuple a filter looks at. Source: net/netfilter/nf_internals.h of the kernel; not in its user API.
constexpr std::uint32_t kFilterSource = 1 << 0;
constexpr std::uint32_t kFilterProto = 1 << 3;
constexpr std::uint32_t kFilterDestinationPort = 1 << 5;

enum class Direction { original, reply };

std::size_t begin_delete(sys::NetlinkBatch& batch, Family family, Direction direction, std::uint32_t flags) {
  const nfgenmsg header{static_cast<std::uint8_t>(family == Family::v6 ? AF_INET6 : AF_INET), NFNETLINK_V0, 0};
  batch.begin_with(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_ACK, header, "forgetting connections");
  const auto filter = batch.nest(CTA_FILTER);
  batch.u32(CTA_FILTER_ORIG_FLAGS, direction == Direction::original ? flags : 0);
  batch.u32(CTA_FILTER_REPLY_FLAGS, direction == Direction::reply ? flags : 0);
  batch.end(filter);
  return batch.nest(direction == Direction::original ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY);
}

void run(sys::NetlinkBatch batch) {
  if (batch.empty()) return;
  // No entries, no walk. The file is missing where connection tracking is not loaded.
  const auto count = sys::try_read_small("/proc/sys/net/netfilter/nf_conntrack_count");
  if (!count || trim(*count) == "0") return;
  sys::NetlinkSocket socket(NETLINK_NETFILTER);
  for (const auto& failure : socket.send(std::move(batch))) {
    if (failure.error != ENOENT && failure.error != EOPNOTSUPP && failure.error != EINVAL)
      throw sys::NetlinkSocket::to_error(failure);
  }
}

}  // namespace

void forget_flows(const std::vector<IpAddress>& addresses) {
  sys::NetlinkBatch batch;
  for (const IpAddress& address : addresses) {
    if (address.empty()) continue;
    // Flows to the container, translated or not, have it as the source of their replies.
    for (Direction direction : {Direction::original, Direction::reply}) {
      const auto tuple = begin_delete(batch, address.family(), direction, kFilterSource);
      const auto ip = batch.nest(CTA_TUPLE_IP);
      batch.attr(address.is_v6() ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, address.bytes());
      batch.end(ip);
      batch.end(tuple);
    }
  }
  run(std::move(batch));
}

void forget_udp_flows(const std::vector<std::uint16_t>& host_ports) {
  sys::NetlinkBatch batch;
  for (std::uint16_t port : host_ports) {
    for (Family family : {Family::v4, Family::v6}) {
      const auto tuple = begin_delete(batch, family, Direction::original, kFilterProto | kFilterDestinationPort);
      const auto proto = batch.nest(CTA_TUPLE_PROTO);
      batch.u8(CTA_PROTO_NUM, IPPROTO_UDP);
      batch.be16(CTA_PROTO_DST_PORT, port);
      batch.end(proto);
      batch.end(tuple);
    }
  }
  run(std::move(batch));
}

}  // namespace gantry::network
