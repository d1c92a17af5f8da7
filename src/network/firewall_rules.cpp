#include <algorithm>
#include <map>

#include <netinet/in.h>  // must precede the kernel's headers, which define the same otherwise

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>

#include <fmt/format.h>

#include "network/firewall.hpp"

// The ruleset is written and explained in network.md §8.1; this is its encoding. What a packet passes:
//
//   raw_pre     127.0.0.0/8 never comes from outside, even if somebody sets route_localnet
//   nat_pre     to an address of the host: do_dnat      nat_out: the same for the host's own packets, except loopback
//   forward_    replies pass; to a bridge: its in_ chain; from a bridge: its out_ verdict
//   nat_post    hairpins and outgoing packets get the host's address
//
// Masks: 0x04000000 marks our bridges' packets before other tables' forward chains, so that one foreign rule can accept
// them; 0x02000000 is the administrator's accept (set in <name>-user).
namespace gantry::network {
namespace {

using sys::NftBatch;
using sys::NftChain;
using sys::NftFamily;
using sys::NftRule;
using sys::NftSet;
namespace nft = sys::nft;
using Base = NftRule::Base;
using Compare = NftRule::Compare;

constexpr std::uint32_t kOurMark = 0x04000000;
constexpr std::uint32_t kAcceptMark = 0x02000000;
constexpr std::uint32_t kInterfaceName = 16;

// Where the parts of "destination address . protocol . destination port" go: concatenations fill registers in order,
// and an IPv6 address takes four words.
struct Layout {
  NftFamily family;
  std::uint32_t source_offset;
  std::uint32_t destination_offset;
  std::uint32_t length;
  std::uint32_t proto_register;
  std::uint32_t port_register;
  std::uint32_t mapped_port_register;
};
constexpr Layout kIp{NftFamily::ip, 12, 16, 4, nft::word(1), nft::word(2), nft::word(1)};
constexpr Layout kIp6{NftFamily::ip6, 8, 24, 16, nft::word(4), nft::word(5), nft::word(4)};

const Layout& layout(NftFamily family) { return family == NftFamily::ip ? kIp : kIp6; }

NftRule interfaces_in(const std::string& set) {
  NftRule rule;
  rule.meta(NFT_META_IIFNAME, nft::r1).meta(NFT_META_OIFNAME, nft::r2).in_set(set);
  return rule;
}

NftRule interface_in(std::uint32_t key, const std::string& set) {
  NftRule rule;
  rule.meta(key).in_set(set);
  return rule;
}

NftRule& load_target(NftRule& rule, const Layout& at) {
  return rule.payload(Base::network, at.destination_offset, at.length, nft::r1)
      .meta(NFT_META_L4PROTO, at.proto_register)
      .payload(Base::transport, 2, 2, at.port_register);
}

NftRule& only_translated(NftRule& rule) {
  return rule.ct(NFT_CT_STATUS).bitwise(IPS_DST_NAT, 0).compare(Compare::neq, 0u);
}

using Rules = std::vector<std::pair<std::string, NftRule>>;

void add_translation_rules(Rules& rules, const Layout& at) {
  if (at.family == NftFamily::ip6) {
    // fe80::/10: the container's answer could not find the way back through the right link.
    NftRule link_local;
    const std::string mask("\xff\xc0", 2);
    link_local.payload(Base::network, at.source_offset, 2)
        .bitwise(mask, std::string(2, '\0'))
        .compare(Compare::eq, std::string_view("\xfe\x80", 2))
        .give_back();
    rules.emplace_back("do_dnat", link_local);
  }
  NftRule relayed;
  relayed.meta(NFT_META_IIFNAME, nft::r1).meta(NFT_META_L4PROTO, nft::word(4));
  relayed.payload(Base::transport, 2, 2, nft::word(5)).in_set("relayed").give_back();
  rules.emplace_back("do_dnat", relayed);
  NftRule by_address;
  load_target(by_address, at).map_to("pub_ip", nft::r1).dnat(at.family, nft::r1, at.mapped_port_register);
  rules.emplace_back("do_dnat", by_address);
  NftRule any_address;
  any_address.meta(NFT_META_L4PROTO, nft::r1).payload(Base::transport, 2, 2, nft::word(1)).map_to("pub_any", nft::r1);
  any_address.dnat(at.family, nft::r1, at.mapped_port_register);
  rules.emplace_back("do_dnat", any_address);

  NftRule incoming;
  incoming.fib_daddr_type().compare(Compare::eq, static_cast<std::uint32_t>(RTN_LOCAL)).jump("do_dnat");
  rules.emplace_back("nat_pre", incoming);
  NftRule own;
  if (at.family == NftFamily::ip) {
    own.payload(Base::network, at.destination_offset, 1).compare(Compare::neq, std::string_view("\x7f", 1));
  } else {
    std::string loopback(16, '\0');
    loopback[15] = 1;
    own.payload(Base::network, at.destination_offset, 16).compare(Compare::neq, loopback);
  }
  own.fib_daddr_type().compare(Compare::eq, static_cast<std::uint32_t>(RTN_LOCAL)).jump("do_dnat");
  rules.emplace_back("nat_out", own);

  NftRule hairpin;
  only_translated(hairpin)
      .meta(NFT_META_IIFNAME, nft::r1)
      .meta(NFT_META_OIFNAME, nft::r2)
      .in_set("hairpin")
      .masquerade();
  rules.emplace_back("nat_post", hairpin);
  // Where bridged packets pass the IP hooks (br_netfilter), one that comes back to its own container was never routed:
  // it has no incoming interface here, and without this its sender would be its receiver.
  NftRule own_port;
  only_translated(own_port).payload(Base::network, at.source_offset, at.length, nft::r1);
  own_port.payload(Base::network, at.destination_offset, at.length, at.proto_register).in_set("self").masquerade();
  rules.emplace_back("nat_post", own_port);
  NftRule between;
  between.meta(NFT_META_IIFNAME)
      .in_set("ourbr")
      .payload(Base::network, at.destination_offset, at.length)
      .in_set("ournets")
      .accept();
  rules.emplace_back("nat_post", between);
  rules.emplace_back("nat_post", NftRule().meta(NFT_META_IIFNAME).map_to("snatbr", nft::r1).snat(at.family, nft::r1));
  rules.emplace_back("nat_post", interface_in(NFT_META_IIFNAME, "masqbr").masquerade());
}

/// The chains that in_br leads to: what may enter a bridge, by its mode.
void add_mode_rules(Rules& rules, const Layout& at) {
  const NftRule same = interfaces_in("same").accept();
  NftRule opened;
  load_target(opened, at).in_set("open").accept();
  NftRule translated_and_opened;
  load_target(only_translated(translated_and_opened), at).in_set("open").accept();
  NftRule trusted = interfaces_in("trusted");
  load_target(trusted, at).in_set("open").accept();
  NftRule linked;
  const unsigned words = at.length / 4;
  linked.payload(Base::network, at.source_offset, at.length, nft::r1)
      .payload(Base::network, at.destination_offset, at.length, nft::word(words))
      .meta(NFT_META_L4PROTO, nft::word(2 * words))
      .payload(Base::transport, 2, 2, nft::word(2 * words + 1))
      .in_set("links")
      .accept();
  const NftRule drop = NftRule().counter().drop();
  const char icmp_byte = at.family == NftFamily::ip ? char{IPPROTO_ICMP} : char{IPPROTO_ICMPV6};
  const NftRule ping = NftRule().meta(NFT_META_L4PROTO).compare(Compare::eq, std::string_view(&icmp_byte, 1)).accept();

  for (const NftRule& rule : {same, trusted, translated_and_opened, linked, drop}) rules.emplace_back("in_nat", rule);
  for (const NftRule& rule : {same, opened, linked, drop}) rules.emplace_back("in_direct", rule);
  for (const NftRule& rule : {ping, same, opened, drop}) rules.emplace_back("in_routed", rule);
  rules.emplace_back("in_unprot", NftRule().accept());
  for (const NftRule& rule : {same, drop}) rules.emplace_back("in_internal", rule);
  for (const NftRule& rule : {same, drop}) rules.emplace_back("out_internal", rule);
}

void add_forward_rules(Rules& rules, const Firewall::Settings& settings) {
  for (std::uint32_t key : {NFT_META_OIFNAME, NFT_META_IIFNAME}) {
    NftRule mark = interface_in(key, "ourbr");
    mark.meta(NFT_META_MARK).bitwise(~kOurMark, kOurMark).set_mark();
    rules.emplace_back("mark_compat", mark);
  }
  // NF_CT_STATE_BIT of established and related, as linux/netfilter/nf_conntrack_common.h counts them.
  constexpr std::uint32_t kReplies = 1u << (IP_CT_ESTABLISHED + 1) | 1u << (IP_CT_RELATED + 1);
  rules.emplace_back("forward_", NftRule().ct(NFT_CT_STATE).bitwise(kReplies, 0).compare(Compare::neq, 0u).accept());
  rules.emplace_back("forward_",
                     NftRule().meta(NFT_META_MARK).bitwise(kAcceptMark, 0).compare(Compare::neq, 0u).accept());
  if (settings.accept_mask != 0)
    rules.emplace_back("forward_", NftRule()
                                       .meta(NFT_META_MARK)
                                       .bitwise(settings.accept_mask, 0)
                                       .compare(Compare::eq, settings.accept_mark)
                                       .accept());
  rules.emplace_back("forward_", NftRule().meta(NFT_META_OIFNAME).verdict_map("in_br"));
  rules.emplace_back("forward_", NftRule().meta(NFT_META_IIFNAME).verdict_map("out_br"));
  if (settings.drop_foreign_forward) {
    // We switched forwarding on for our bridges; the host is not to become a router between its other interfaces.
    // Other engines' and virtual machines' bridges are theirs to decide about.
    std::string bridge("bridge");
    bridge.resize(kInterfaceName);
    for (std::uint32_t key : {NFT_META_IIFKIND, NFT_META_OIFKIND})
      rules.emplace_back("forward_", NftRule().meta(key).compare(Compare::eq, bridge).accept());
    rules.emplace_back("forward_", NftRule().counter().drop());
  }
}

Rules all_rules(NftFamily family, const Firewall::Settings& settings) {
  Rules rules;
  const Layout& at = layout(family);
  add_translation_rules(rules, at);
  if (family == NftFamily::ip) {
    for (std::uint32_t offset : {at.destination_offset, at.source_offset}) {
      NftRule rule;
      rule.not_interface(NFT_META_IIFNAME, "lo")
          .payload(Base::network, offset, 1)
          .compare(Compare::eq, std::string_view("\x7f", 1))
          .counter()
          .drop();
      rules.emplace_back("raw_pre", rule);
    }
  }
  add_forward_rules(rules, settings);
  add_mode_rules(rules, at);
  return rules;
}

std::vector<NftChain> all_chains(NftFamily family) {
  std::vector<NftChain> chains{
      {"do_dnat", "", 0, 0},
      {"in_nat", "", 0, 0},
      {"in_direct", "", 0, 0},
      {"in_routed", "", 0, 0},
      {"in_unprot", "", 0, 0},
      {"in_internal", "", 0, 0},
      {"out_internal", "", 0, 0},
      {"nat_pre", "nat", NF_INET_PRE_ROUTING, -100},
      {"nat_out", "nat", NF_INET_LOCAL_OUT, -100},
      {"nat_post", "nat", NF_INET_POST_ROUTING, 100},
      {"mark_compat", "filter", NF_INET_FORWARD, -1},
      {"forward_", "filter", NF_INET_FORWARD, 0},
  };
  if (family == NftFamily::ip) chains.push_back({"raw_pre", "filter", NF_INET_PRE_ROUTING, -300});
  return chains;
}

std::vector<NftSet> make_sets(NftFamily family) {
  const bool v4 = family == NftFamily::ip;
  const std::uint32_t address = v4 ? nft::kTypeIpv4 : nft::kTypeIpv6;
  const std::uint32_t size = v4 ? 4 : 16;
  const std::uint32_t target = nft::concat(address, nft::kTypeService);
  const std::uint32_t triple = nft::concat(address, nft::kTypeProto, nft::kTypeService);
  const std::uint32_t pair = nft::concat(nft::kTypeIfname, nft::kTypeIfname);
  return {
      {"pub_any", nft::concat(nft::kTypeProto, nft::kTypeService), 8, false, target, size + 4},
      {"pub_ip", triple, size + 8, false, target, size + 4},
      {"open", triple, size + 8},
      {"self", nft::concat(address, address), 2 * size},
      {"in_br", nft::kTypeIfname, kInterfaceName, false, nft::kTypeVerdict, 0},
      {"out_br", nft::kTypeIfname, kInterfaceName, false, nft::kTypeVerdict, 0},
      {"same", pair, 2 * kInterfaceName},
      {"hairpin", pair, 2 * kInterfaceName},
      {"relayed", nft::concat(nft::kTypeIfname, nft::kTypeProto, nft::kTypeService), kInterfaceName + 8},
      {"links", nft::concat(nft::concat(address, address, nft::kTypeProto), nft::kTypeService), 2 * size + 8},
      {"trusted", pair, 2 * kInterfaceName},
      {"ournets", address, size, true},
      {"masqbr", nft::kTypeIfname, kInterfaceName},
      {"snatbr", nft::kTypeIfname, kInterfaceName, false, address, size},
      {"ourbr", nft::kTypeIfname, kInterfaceName},
  };
}

std::string name_key(std::string name) {
  name.resize(kInterfaceName);
  return name;
}

std::string port_bytes(std::uint16_t port) {
  return {static_cast<char>(port >> 8), static_cast<char>(port & 0xff), '\0', '\0'};
}

std::string proto_bytes(std::uint8_t proto) { return {static_cast<char>(proto), '\0', '\0', '\0'}; }

}  // namespace

const std::vector<NftSet>& firewall_sets(NftFamily family) {
  static const std::vector<NftSet> v4 = make_sets(NftFamily::ip);
  static const std::vector<NftSet> v6 = make_sets(NftFamily::ip6);
  return family == NftFamily::ip ? v4 : v6;
}

void add_ruleset(NftBatch& batch, NftFamily family, const Firewall::Settings& settings) {
  const std::string& table = settings.table;
  for (const NftSet& set : firewall_sets(family)) batch.add_set(family, table, set);
  for (const NftChain& chain : all_chains(family)) batch.add_chain(family, table, chain);
  for (const auto& [chain, rule] : all_rules(family, settings)) batch.add_rule(family, table, chain, rule);
}

std::vector<std::string> expected_rules(NftFamily family, const Firewall::Settings& settings) {
  std::map<std::string, unsigned> counts;
  for (const auto& [chain, rule] : all_rules(family, settings)) ++counts[chain];
  std::vector<std::string> out;
  for (const auto& [chain, count] : counts) out.push_back(fmt::format("{}:{}", chain, count));
  return out;
}

Firewall::Elements bridge_elements(const BridgeRules& rules) {
  Firewall::Elements out;
  const std::string key = name_key(rules.bridge);
  for (const char* family : {"ip ", "ip6 "}) {
    const auto& side = family[2] == ' ' ? rules.ip : rules.ip6;
    if (!side) continue;
    const bool internal = side->mode == BridgeRules::Mode::internal;
    auto add = [&](const char* set, sys::NftElement element) { out[family + std::string(set)].push_back(element); };
    const char* in_chain = side->direct ? "in_direct" : "in_nat";
    if (internal) in_chain = "in_internal";
    if (side->mode == BridgeRules::Mode::routed) in_chain = "in_routed";
    if (side->mode == BridgeRules::Mode::nat_unprotected) in_chain = "in_unprot";
    add("ourbr", {.key = key});
    if (rules.icc) add("same", {.key = key + key});
    add("hairpin", {.key = key + key});
    add("in_br", {.key = key, .jump = in_chain});
    add("out_br", {.key = key, .jump = internal ? "out_internal" : "accept"});
    for (const auto& name : rules.trusted_interfaces) add("trusted", {.key = name_key(name) + key});
    const Cidr& net = side->subnet;
    add("ournets", {.key = std::string(net.first().bytes())});
    if (net.last().number() != Cidr{IpAddress::any(net.address.family()), 0}.last().number())
      add("ournets", {.key = std::string(IpAddress::from_number(net.address.family(), net.last().number() + 1).bytes()),
                      .interval_end = true});
    if (internal || side->mode == BridgeRules::Mode::routed || !side->masquerade) continue;
    if (side->snat.empty()) add("masqbr", {.key = key});
    else add("snatbr", {.key = key, .data = std::string(side->snat.bytes())});
  }
  return out;
}

Firewall::Elements publish_elements(const std::vector<PublishRule>& rules) {
  Firewall::Elements out;
  for (const PublishRule& rule : rules) {
    if (rule.client.empty() && rule.host_ip.is_loopback()) continue;
    const std::string family = rule.container_ip.is_v6() ? "ip6 " : "ip ";
    const std::string address(rule.container_ip.bytes());
    auto add = [&](const char* set, sys::NftElement element) {
      auto& list = out[family + set];
      // Several host ports may lead to one container port.
      if (std::find(list.begin(), list.end(), element) == list.end()) list.push_back(std::move(element));
    };
    if (!rule.client.empty()) {
      add("links", {.key = std::string(rule.client.bytes()) + address + proto_bytes(rule.proto) +
                           port_bytes(rule.container_port)});
      continue;
    }
    add("open", {.key = address + proto_bytes(rule.proto) + port_bytes(rule.container_port)});
    if (!rule.translate || rule.host_ip.family() != rule.container_ip.family()) continue;
    if (!rule.relayed_for.empty())
      add("relayed", {.key = name_key(rule.relayed_for) + proto_bytes(rule.proto) + port_bytes(rule.host_port)});
    add("self", {.key = address + address});
    const std::string service = proto_bytes(rule.proto) + port_bytes(rule.host_port);
    const std::string target = address + port_bytes(rule.container_port);
    if (rule.host_ip.is_any()) add("pub_any", {.key = service, .data = target});
    else add("pub_ip", {.key = std::string(rule.host_ip.bytes()) + service, .data = target});
  }
  return out;
}

}  // namespace gantry::network
