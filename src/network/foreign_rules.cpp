#include "network/foreign_rules.hpp"

#include <cstring>

#include <netinet/in.h>  // must precede the kernel's headers, which define the same otherwise
#include <sys/socket.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"
#include "sys/process.hpp"

namespace gantry::network {
namespace {

constexpr const char* kComment = "gantry: what its bridges forward";

const char* family_name(sys::NftFamily family) {
  if (family == sys::NftFamily::inet) return "inet";
  return family == sys::NftFamily::ip ? "ip" : "ip6";
}

sys::NftRule accept_marked() {
  sys::NftRule rule;
  rule.meta(NFT_META_MARK)
      .bitwise(kForwardedMark, 0)
      .compare(sys::NftRule::Compare::eq, kForwardedMark)
      .counter()
      .accept();
  return rule;
}

// The verdict of the entry at `offset` of a table, where its FORWARD chain ends. The layouts are the kernel's
// (linux/netfilter_ipv4/ip_tables.h); IPv6's differ only in the entry's head.
template <class Entry>
bool policy_drops(const std::string& table, std::uint32_t offset) {
  Entry entry;
  xt_standard_target target;
  if (offset + sizeof entry > table.size()) return false;
  std::memcpy(&entry, table.data() + offset, sizeof entry);
  if (offset + entry.target_offset + sizeof target > table.size()) return false;
  std::memcpy(&target, table.data() + offset + entry.target_offset, sizeof target);
  return target.verdict == -NF_DROP - 1;
}

template <class Info, class Entries, class Entry>
bool drops(int family, int level, int info_option, int entries_option) {
  sys::Fd fd(::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (!fd) return false;
  Info info{};
  std::strcpy(info.name, "filter");
  socklen_t length = sizeof info;
  if (::getsockopt(fd.get(), level, info_option, &info, &length) != 0) return false;
  std::string buffer(sizeof(Entries) + info.size, '\0');
  Entries request{};
  std::strcpy(request.name, "filter");
  request.size = info.size;
  std::memcpy(buffer.data(), &request, sizeof request);
  length = static_cast<socklen_t>(buffer.size());
  if (::getsockopt(fd.get(), level, entries_option, buffer.data(), &length) != 0) return false;
  return policy_drops<Entry>(buffer.substr(sizeof(Entries)), info.underflow[NF_INET_FORWARD]);
}

sys::Output legacy(bool ipv6, const char* action) {
  const std::string mark = fmt::format("{0:#x}/{0:#x}", kForwardedMark);
  sys::SpawnOptions options;
  options.argv = {ipv6 ? "ip6tables-legacy" : "iptables-legacy",
                  "-w",
                  "5",
                  action,
                  "FORWARD",
                  "-m",
                  "mark",
                  "--mark",
                  mark,
                  "-m",
                  "comment",
                  "--comment",
                  kComment,
                  "-j",
                  "ACCEPT"};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  return sys::run(options, 10);
}

}  // namespace

bool legacy_forward_drops(bool ipv6) {
  // Asking for a table loads it; one that is listed is loaded.
  const auto tables = sys::try_read_small(ipv6 ? "/proc/net/ip6_tables_names" : "/proc/net/ip_tables_names");
  if (!tables || tables->find("filter") == std::string::npos) return false;
  return ipv6 ? drops<ip6t_getinfo, ip6t_get_entries, ip6t_entry>(AF_INET6, SOL_IPV6, IP6T_SO_GET_INFO,
                                                                  IP6T_SO_GET_ENTRIES)
              : drops<ipt_getinfo, ipt_get_entries, ipt_entry>(AF_INET, SOL_IP, IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES);
}

namespace {

// firewalld ends its own chain by rejecting everything; what comes before that is zones' and policies' business, which
// our bridges have no part in.
bool stops_bridges(const sys::NftHookedChain& chain) { return chain.drops || chain.table == "firewalld"; }

bool is_foreign(const sys::NftHookedChain& chain) {
  return chain.hook == NF_INET_FORWARD && !chain.table.starts_with("gantry");
}

std::string name_of(const sys::NftHookedChain& chain) {
  return fmt::format("chain {} of table {} {}", chain.name, family_name(chain.family), chain.table);
}

std::string name_of_legacy(bool ipv6) {
  return fmt::format("the FORWARD chain of {}", ipv6 ? "ip6tables-legacy" : "iptables-legacy");
}

bool has_legacy_rule(bool ipv6) {
  try {
    return legacy(ipv6, "-C").exit_code == 0;
  } catch (const Error&) {
    return false;  // there is no such program
  }
}

}  // namespace

std::vector<std::string> chains_that_stop_bridges(sys::NftSocket& socket) {
  std::vector<std::string> out;
  for (const auto& chain : socket.list_hooked_chains()) {
    if (is_foreign(chain) && stops_bridges(chain) && !socket.find_rule(chain.family, chain.table, chain.name, kComment))
      out.push_back(name_of(chain));
  }
  for (const bool ipv6 : {false, true})
    if (legacy_forward_drops(ipv6) && !has_legacy_rule(ipv6)) out.push_back(name_of_legacy(ipv6));
  return out;
}

void ForeignRules::warn(const std::string& where) {
  warnings_.push_back(fmt::format(
      "WARNING: {} drops what containers' bridges forward.\n         Set firewall-compat to insert, or accept packets "
      "with the mark {:#x}/{:#x} there.",
      where, kForwardedMark, kForwardedMark));
}

void ForeignRules::look_at_chain(sys::NftSocket& socket, const sys::NftHookedChain& chain,
                                 std::vector<std::string>& added) {
  const bool firewalld = chain.table == "firewalld";
  const auto rule = socket.find_rule(chain.family, chain.table, chain.name, kComment);
  const std::string where = name_of(chain);
  const bool wanted = mode_ == Mode::insert && stops_bridges(chain);
  if (wanted == rule.has_value()) {
    if (!wanted && mode_ == Mode::detect && stops_bridges(chain)) warn(where);
    return;
  }
  sys::NftBatch batch;
  // After the others' rules, so that what they drop stays dropped.
  if (wanted) batch.add_rule(chain.family, chain.table, chain.name, accept_marked(), kComment, firewalld);
  else batch.remove_rule(chain.family, chain.table, chain.name, *rule);
  try {
    socket.commit(std::move(batch));
    if (wanted) added.push_back(where + " lets pass what our bridges forward");
    else if (stops_bridges(chain)) warn(where);
  } catch (const Error&) {
    warn(where);  // the table has an owner, or was changed in between
  }
}

void ForeignRules::look_at_legacy(bool ipv6, std::vector<std::string>& added) {
  if (!legacy_forward_drops(ipv6)) return;
  legacy_ = true;
  const std::string where = name_of_legacy(ipv6);
  if (mode_ == Mode::detect) return warn(where);
  try {
    if (legacy(ipv6, "-C").exit_code == 0) return;
    if (legacy(ipv6, "-A").exit_code == 0) added.push_back(where + " lets pass what our bridges forward");
    else warn(where);
  } catch (const Error&) {
    warn(where);  // there is no such program
  }
}

std::vector<std::string> ForeignRules::look(sys::NftSocket& socket) {
  warnings_.clear();
  legacy_ = false;
  std::vector<std::string> added;
  for (const auto& chain : socket.list_hooked_chains()) {
    if (!is_foreign(chain) || chain.table == own_table_ || chain.table == own_table_ + "-user") continue;
    look_at_chain(socket, chain, added);
  }
  if (mode_ == Mode::none) return added;
  for (bool ipv6 : {false, true}) look_at_legacy(ipv6, added);
  return added;
}

}  // namespace gantry::network
