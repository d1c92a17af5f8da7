#include "sys/nftables.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <net/if.h>

#include <fmt/format.h>

namespace gantry::sys {
namespace {

constexpr std::uint32_t kPersist = 0x4;  // NFT_TABLE_F_PERSIST: newer than Debian 12's headers

std::string_view bytes_of(const std::uint32_t& value) { return {reinterpret_cast<const char*>(&value), 4}; }

std::uint16_t nft_type(std::uint16_t message) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message);
}

nfgenmsg header_for(std::uint8_t family) { return {family, NFNETLINK_V0, 0}; }

void put_value(NetlinkBatch& batch, std::uint16_t type, std::string_view value) {
  const auto nest = batch.nest(type);
  batch.attr(NFTA_DATA_VALUE, value);
  batch.end(nest);
}

void put_verdict(NetlinkBatch& batch, std::uint16_t type, std::int32_t code, const std::string& chain) {
  const auto data = batch.nest(type);
  const auto verdict = batch.nest(NFTA_DATA_VERDICT);
  batch.be32(NFTA_VERDICT_CODE, static_cast<std::uint32_t>(code));
  if (!chain.empty()) batch.text(NFTA_VERDICT_CHAIN, chain);
  batch.end(verdict);
  batch.end(data);
}

/// As the `nft` tool stores a rule's comment: a type (0), a length, the text with its zero.
std::string comment_data(const std::string& comment) {
  return std::string{'\0', static_cast<char>(comment.size() + 1)} + comment + '\0';
}

}  // namespace

NftRule& NftRule::add(std::string kind, const std::function<void(NetlinkBatch&)>& fill) {
  NetlinkBatch scratch;
  scratch.begin(0, 0, {});
  const std::size_t from = scratch.size();
  if (fill) fill(scratch);
  expressions_.emplace_back(std::move(kind), scratch.encoded(from));
  return *this;
}

NftRule& NftRule::payload(Base base, std::uint32_t offset, std::uint32_t length, std::uint32_t to) {
  return add("payload", [=](NetlinkBatch& b) {
    b.be32(NFTA_PAYLOAD_DREG, to);
    b.be32(NFTA_PAYLOAD_BASE, static_cast<std::uint32_t>(base));
    b.be32(NFTA_PAYLOAD_OFFSET, offset);
    b.be32(NFTA_PAYLOAD_LEN, length);
  });
}

NftRule& NftRule::set_transport(std::uint32_t offset, std::uint32_t length, std::uint32_t checksum_offset,
                                std::uint32_t from) {
  return add("payload", [=](NetlinkBatch& b) {
    b.be32(NFTA_PAYLOAD_SREG, from);
    b.be32(NFTA_PAYLOAD_BASE, static_cast<std::uint32_t>(Base::transport));
    b.be32(NFTA_PAYLOAD_OFFSET, offset);
    b.be32(NFTA_PAYLOAD_LEN, length);
    b.be32(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
    b.be32(NFTA_PAYLOAD_CSUM_OFFSET, checksum_offset);
  });
}

NftRule& NftRule::load(std::string_view value, std::uint32_t to) {
  return add("immediate", [=](NetlinkBatch& b) {
    b.be32(NFTA_IMMEDIATE_DREG, to);
    put_value(b, NFTA_IMMEDIATE_DATA, value);
  });
}

NftRule& NftRule::meta(std::uint32_t key, std::uint32_t to) {
  return add("meta", [=](NetlinkBatch& b) {
    b.be32(NFTA_META_KEY, key);
    b.be32(NFTA_META_DREG, to);
  });
}

NftRule& NftRule::set_mark(std::uint32_t from) {
  return add("meta", [=](NetlinkBatch& b) {
    b.be32(NFTA_META_KEY, NFT_META_MARK);
    b.be32(NFTA_META_SREG, from);
  });
}

NftRule& NftRule::ct(std::uint32_t key, std::uint32_t to) {
  return add("ct", [=](NetlinkBatch& b) {
    b.be32(NFTA_CT_KEY, key);
    b.be32(NFTA_CT_DREG, to);
  });
}

NftRule& NftRule::fib_daddr_type(std::uint32_t to) {
  return add("fib", [=](NetlinkBatch& b) {
    b.be32(NFTA_FIB_DREG, to);
    b.be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    b.be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
  });
}

NftRule& NftRule::compare(Compare op, std::string_view value, std::uint32_t in) {
  return add("cmp", [=](NetlinkBatch& b) {
    b.be32(NFTA_CMP_SREG, in);
    b.be32(NFTA_CMP_OP, static_cast<std::uint32_t>(op));
    put_value(b, NFTA_CMP_DATA, value);
  });
}

NftRule& NftRule::compare(Compare op, std::uint32_t value, std::uint32_t in) {
  return compare(op, bytes_of(value), in);
}

NftRule& NftRule::bitwise(std::string_view mask, std::string_view flip, std::uint32_t in) {
  return add("bitwise", [=](NetlinkBatch& b) {
    b.be32(NFTA_BITWISE_SREG, in);
    b.be32(NFTA_BITWISE_DREG, in);
    b.be32(NFTA_BITWISE_LEN, static_cast<std::uint32_t>(mask.size()));
    put_value(b, NFTA_BITWISE_MASK, mask);
    put_value(b, NFTA_BITWISE_XOR, flip);
  });
}

NftRule& NftRule::bitwise(std::uint32_t mask, std::uint32_t flip, std::uint32_t in) {
  return bitwise(bytes_of(mask), bytes_of(flip), in);
}

NftRule& NftRule::in_set(const std::string& set, std::uint32_t in) {
  return add("lookup", [&](NetlinkBatch& b) {
    b.text(NFTA_LOOKUP_SET, set);
    b.be32(NFTA_LOOKUP_SREG, in);
  });
}

NftRule& NftRule::map_to(const std::string& map, std::uint32_t to, std::uint32_t in) {
  return add("lookup", [&](NetlinkBatch& b) {
    b.text(NFTA_LOOKUP_SET, map);
    b.be32(NFTA_LOOKUP_SREG, in);
    b.be32(NFTA_LOOKUP_DREG, to);
  });
}

NftRule& NftRule::counter() { return add("counter", {}); }

NftRule& NftRule::verdict(std::int32_t code, const std::string& chain) {
  return add("immediate", [&](NetlinkBatch& b) {
    b.be32(NFTA_IMMEDIATE_DREG, nft::kVerdict);
    put_verdict(b, NFTA_IMMEDIATE_DATA, code, chain);
  });
}

NftRule& NftRule::accept() { return verdict(NF_ACCEPT, {}); }
NftRule& NftRule::drop() { return verdict(NF_DROP, {}); }
NftRule& NftRule::give_back() { return verdict(NFT_RETURN, {}); }
NftRule& NftRule::jump(const std::string& chain) { return verdict(NFT_JUMP, chain); }

NftRule& NftRule::dnat(NftFamily family, std::uint32_t address, std::uint32_t port) {
  return add("nat", [=](NetlinkBatch& b) {
    b.be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
    b.be32(NFTA_NAT_FAMILY, static_cast<std::uint32_t>(family));
    b.be32(NFTA_NAT_REG_ADDR_MIN, address);
    b.be32(NFTA_NAT_REG_PROTO_MIN, port);
    b.be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED);
  });
}

NftRule& NftRule::snat(NftFamily family, std::uint32_t address) {
  return add("nat", [=](NetlinkBatch& b) {
    b.be32(NFTA_NAT_TYPE, NFT_NAT_SNAT);
    b.be32(NFTA_NAT_FAMILY, static_cast<std::uint32_t>(family));
    b.be32(NFTA_NAT_REG_ADDR_MIN, address);
  });
}

NftRule& NftRule::masquerade() { return add("masq", {}); }

NftRule& NftRule::not_interface(std::uint32_t key, std::string_view name) {
  std::string padded(name);
  padded.resize(IFNAMSIZ);
  return meta(key).compare(Compare::neq, padded);
}

NftBatch::NftBatch() {
  nfgenmsg header = header_for(AF_UNSPEC);
  header.res_id = htons(NFNL_SUBSYS_NFTABLES);
  batch_.begin_with(NFNL_MSG_BATCH_BEGIN, 0, header, "beginning an nftables transaction");
}

void NftBatch::begin(std::uint16_t type, std::uint16_t flags, NftFamily family, std::string note) {
  ++changes_;
  batch_.begin_with(nft_type(type), flags, header_for(static_cast<std::uint8_t>(family)), std::move(note));
}

void NftBatch::add_table(NftFamily family, const std::string& table, NftTableFlags flags) {
  begin(NFT_MSG_NEWTABLE, NLM_F_CREATE, family, "creating firewall table " + table);
  batch_.text(NFTA_TABLE_NAME, table);
  batch_.be32(NFTA_TABLE_FLAGS, (flags.owner ? NFT_TABLE_F_OWNER : 0) | (flags.persist ? kPersist : 0));
}

void NftBatch::remove_table(NftFamily family, const std::string& table) {
  begin(NFT_MSG_DELTABLE, 0, family, "removing firewall table " + table);
  batch_.text(NFTA_TABLE_NAME, table);
}

void NftBatch::add_set(NftFamily family, const std::string& table, const NftSet& set) {
  begin(NFT_MSG_NEWSET, NLM_F_CREATE, family, "creating firewall set " + set.name);
  batch_.text(NFTA_SET_TABLE, table);
  batch_.text(NFTA_SET_NAME, set.name);
  std::uint32_t flags = set.interval ? NFT_SET_INTERVAL : 0;
  if (set.data_type != 0) flags |= NFT_SET_MAP;
  batch_.be32(NFTA_SET_FLAGS, flags);
  batch_.be32(NFTA_SET_KEY_TYPE, set.key_type);
  batch_.be32(NFTA_SET_KEY_LEN, set.key_length);
  if (set.data_type != 0) {
    batch_.be32(NFTA_SET_DATA_TYPE, set.data_type);
    // A verdict's length is the kernel's own business.
    batch_.be32(NFTA_SET_DATA_LEN, set.data_type == nft::kTypeVerdict ? 0 : set.data_length);
  }
  batch_.be32(NFTA_SET_ID, next_set_id_++);
  // For listings by `nft`: a tag, its length, and the key's byte order (none for concatenations, 1 host, 2 network).
  char order = 0;
  if (set.key_type == nft::kTypeIfname) order = 1;
  if (set.key_type == nft::kTypeIpv4 || set.key_type == nft::kTypeIpv6) order = 2;
  batch_.attr(NFTA_SET_USERDATA, std::string{0, 4, order, 0, 0, 0});
}

void NftBatch::add_chain(NftFamily family, const std::string& table, const NftChain& chain) {
  begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, "creating firewall chain " + chain.name);
  batch_.text(NFTA_CHAIN_TABLE, table);
  batch_.text(NFTA_CHAIN_NAME, chain.name);
  if (chain.type.empty()) return;
  const auto hook = batch_.nest(NFTA_CHAIN_HOOK);
  batch_.be32(NFTA_HOOK_HOOKNUM, chain.hook);
  batch_.be32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(chain.priority));
  batch_.end(hook);
  batch_.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
  batch_.text(NFTA_CHAIN_TYPE, chain.type);
}

void NftBatch::add_rule(NftFamily family, const std::string& table, const std::string& chain, const NftRule& rule) {
  begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, "adding a firewall rule to " + chain);
  batch_.text(NFTA_RULE_TABLE, table);
  batch_.text(NFTA_RULE_CHAIN, chain);
  expressions(rule);
}

void NftBatch::add_rule(NftFamily family, const std::string& table, const std::string& chain, const NftRule& rule,
                        const std::string& comment, bool first) {
  const std::uint16_t place = first ? 0 : NLM_F_APPEND;
  begin(NFT_MSG_NEWRULE, NLM_F_CREATE | place, family, "adding a firewall rule to " + chain);
  batch_.text(NFTA_RULE_TABLE, table);
  batch_.text(NFTA_RULE_CHAIN, chain);
  expressions(rule);
  batch_.attr(NFTA_RULE_USERDATA, comment_data(comment));
}

void NftBatch::remove_rule(NftFamily family, const std::string& table, const std::string& chain, std::uint64_t handle) {
  begin(NFT_MSG_DELRULE, 0, family, "removing a firewall rule from " + chain);
  batch_.text(NFTA_RULE_TABLE, table);
  batch_.text(NFTA_RULE_CHAIN, chain);
  batch_.be64(NFTA_RULE_HANDLE, handle);
}

void NftBatch::expressions(const NftRule& rule) {
  const auto list = batch_.nest(NFTA_RULE_EXPRESSIONS);
  for (const auto& [kind, attributes] : rule.expressions_) {
    const auto element = batch_.nest(NFTA_LIST_ELEM);
    batch_.text(NFTA_EXPR_NAME, kind);
    batch_.attr(NFTA_EXPR_DATA | NLA_F_NESTED, attributes);
    batch_.end(element);
  }
  batch_.end(list);
}

void NftBatch::elements(std::uint16_t type, std::uint16_t flags, NftFamily family, const std::string& table,
                        const std::string& set, const std::vector<NftElement>& elements) {
  constexpr std::size_t kPerMessage = 400;  // a list is an attribute, and those end at 64 KiB
  for (std::size_t at = 0; at < elements.size(); at += kPerMessage) {
    begin(type, flags, family,
          fmt::format("{} firewall set {}", type == NFT_MSG_NEWSETELEM ? "adding to" : "removing from", set));
    batch_.text(NFTA_SET_ELEM_LIST_TABLE, table);
    batch_.text(NFTA_SET_ELEM_LIST_SET, set);
    const auto list = batch_.nest(NFTA_SET_ELEM_LIST_ELEMENTS);
    for (std::size_t i = at; i < std::min(elements.size(), at + kPerMessage); ++i) {
      const NftElement& element = elements[i];
      const auto item = batch_.nest(NFTA_LIST_ELEM);
      if (element.interval_end) batch_.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
      put_value(batch_, NFTA_SET_ELEM_KEY, element.key);
      if (type == NFT_MSG_NEWSETELEM) {
        if (!element.data.empty()) put_value(batch_, NFTA_SET_ELEM_DATA, element.data);
        if (element.jump == "accept") put_verdict(batch_, NFTA_SET_ELEM_DATA, NF_ACCEPT, {});
        else if (!element.jump.empty()) put_verdict(batch_, NFTA_SET_ELEM_DATA, NFT_JUMP, element.jump);
      }
      batch_.end(item);
    }
    batch_.end(list);
  }
}

void NftBatch::add_elements(NftFamily family, const std::string& table, const std::string& set,
                            const std::vector<NftElement>& items) {
  elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, family, table, set, items);
}

void NftBatch::remove_elements(NftFamily family, const std::string& table, const std::string& set,
                               const std::vector<NftElement>& items) {
  elements(NFT_MSG_DELSETELEM, 0, family, table, set, items);
}

NftSocket::NftSocket() : socket_(NETLINK_NETFILTER) {}

void NftSocket::commit(NftBatch batch) {
  if (batch.empty()) return;
  nfgenmsg header = header_for(AF_UNSPEC);
  header.res_id = htons(NFNL_SUBSYS_NFTABLES);
  batch.batch_.begin_with(NFNL_MSG_BATCH_END, 0, header, "committing an nftables transaction");
  // Only failures are reported: the kernel answers nothing to a batch without NLM_F_ACK that went through.
  socket_.transact(std::move(batch.batch_));
}

std::optional<NftTableInfo> NftSocket::find_table(NftFamily family, const std::string& table) {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETTABLE), 0, header_for(static_cast<std::uint8_t>(family)),
                     "looking up firewall table " + table);
  request.text(NFTA_TABLE_NAME, table);
  std::optional<NftTableInfo> found;
  try {
    socket_.dump(request, [&](const NetlinkMessage& message) {
      const auto attributes = message.attributes<nfgenmsg>();
      const std::uint32_t flags = attributes.be32(NFTA_TABLE_FLAGS).value_or(0);
      found = NftTableInfo{{(flags & NFT_TABLE_F_OWNER) != 0, (flags & kPersist) != 0},
                           attributes.be32(NFTA_TABLE_OWNER).value_or(0)};
    });
  } catch (const Error& e) {
    if (e.sys_errno() != ENOENT) throw;
  }
  return found;
}

std::vector<std::string> NftSocket::list_tables(NftFamily family) {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETTABLE), NLM_F_DUMP, header_for(static_cast<std::uint8_t>(family)),
                     "listing firewall tables");
  std::vector<std::string> out;
  socket_.dump(
      request,
      [&](const NetlinkMessage& message) { out.push_back(message.attributes<nfgenmsg>().text(NFTA_TABLE_NAME)); },
      [&] { out.clear(); });
  return out;
}

std::vector<NftElement> NftSocket::list_elements(NftFamily family, const std::string& table, const std::string& set) {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETSETELEM), NLM_F_DUMP, header_for(static_cast<std::uint8_t>(family)),
                     "listing firewall set " + set);
  request.text(NFTA_SET_ELEM_LIST_TABLE, table);
  request.text(NFTA_SET_ELEM_LIST_SET, set);
  std::vector<NftElement> out;
  socket_.dump(
      request,
      [&](const NetlinkMessage& message) {
        const auto list = message.attributes<nfgenmsg>().bytes(NFTA_SET_ELEM_LIST_ELEMENTS);
        NetlinkAttributes::each(list, [&](std::uint16_t, std::string_view item) {
          const NetlinkAttributes attributes(item);
          NftElement element;
          element.key = std::string(attributes.nested(NFTA_SET_ELEM_KEY).bytes(NFTA_DATA_VALUE));
          const auto data = attributes.nested(NFTA_SET_ELEM_DATA);
          element.data = std::string(data.bytes(NFTA_DATA_VALUE));
          if (data.has(NFTA_DATA_VERDICT)) {
            const auto verdict = data.nested(NFTA_DATA_VERDICT);
            element.jump = verdict.has(NFTA_VERDICT_CHAIN) ? verdict.text(NFTA_VERDICT_CHAIN) : "accept";
          }
          element.interval_end = (attributes.be32(NFTA_SET_ELEM_FLAGS).value_or(0) & NFT_SET_ELEM_INTERVAL_END) != 0;
          out.push_back(std::move(element));
        });
      },
      [&] { out.clear(); });
  return out;
}

std::vector<std::string> NftSocket::list_rules(NftFamily family, const std::string& table) {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETRULE), NLM_F_DUMP, header_for(static_cast<std::uint8_t>(family)),
                     "listing firewall rules of " + table);
  request.text(NFTA_RULE_TABLE, table);
  std::map<std::string, unsigned> counts;
  socket_.dump(
      request,
      [&](const NetlinkMessage& message) {
        const auto attributes = message.attributes<nfgenmsg>();
        if (attributes.text(NFTA_RULE_TABLE) == table) ++counts[attributes.text(NFTA_RULE_CHAIN)];
      },
      [&] { counts.clear(); });
  std::vector<std::string> out;
  for (const auto& [chain, count] : counts) out.push_back(fmt::format("{}:{}", chain, count));
  return out;
}

std::vector<NftHookedChain> NftSocket::list_hooked_chains() {
  std::vector<NftHookedChain> out;
  for (NftFamily family : {NftFamily::ip, NftFamily::ip6, NftFamily::inet}) {
    NetlinkBatch request;
    request.begin_with(nft_type(NFT_MSG_GETCHAIN), NLM_F_DUMP, header_for(static_cast<std::uint8_t>(family)),
                       "listing firewall chains");
    std::vector<NftHookedChain> found;
    socket_.dump(
        request,
        [&](const NetlinkMessage& message) {
          const auto attributes = message.attributes<nfgenmsg>();
          if (!attributes.has(NFTA_CHAIN_HOOK)) return;
          NftHookedChain chain;
          chain.family = family;
          chain.table = attributes.text(NFTA_CHAIN_TABLE);
          chain.name = attributes.text(NFTA_CHAIN_NAME);
          chain.hook = attributes.nested(NFTA_CHAIN_HOOK).be32(NFTA_HOOK_HOOKNUM).value_or(0);
          chain.drops = attributes.be32(NFTA_CHAIN_POLICY).value_or(NF_ACCEPT) == NF_DROP;
          found.push_back(std::move(chain));
        },
        [&] { found.clear(); });
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

std::optional<std::uint64_t> NftSocket::find_rule(NftFamily family, const std::string& table, const std::string& chain,
                                                  const std::string& comment) {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETRULE), NLM_F_DUMP, header_for(static_cast<std::uint8_t>(family)),
                     "listing firewall rules of " + chain);
  request.text(NFTA_RULE_TABLE, table);
  request.text(NFTA_RULE_CHAIN, chain);
  std::optional<std::uint64_t> found;
  socket_.dump(
      request,
      [&](const NetlinkMessage& message) {
        const auto attributes = message.attributes<nfgenmsg>();
        const auto handle = attributes.bytes(NFTA_RULE_HANDLE);
        if (attributes.bytes(NFTA_RULE_USERDATA) != comment_data(comment) || handle.size() != 8) return;
        std::uint64_t number = 0;
        for (const char byte : handle) number = number << 8 | static_cast<unsigned char>(byte);
        found = number;
      },
      [&] { found.reset(); });
  return found;
}

std::uint32_t NftSocket::generation() {
  NetlinkBatch request;
  request.begin_with(nft_type(NFT_MSG_GETGEN), 0, header_for(AF_UNSPEC), "reading the firewall's generation");
  std::uint32_t out = 0;
  socket_.dump(request, [&](const NetlinkMessage& message) {
    out = message.attributes<nfgenmsg>().be32(NFTA_GEN_ID).value_or(out);
  });
  return out;
}

}  // namespace gantry::sys
