#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sys/netlink.hpp"

/// nftables by raw nfnetlink batches: one batch is one transaction, it takes effect as a whole or not at all.
/// Adding a map element this way costs 5 µs whatever the map's size; libnftables 160 µs, running `nft` 3 ms
/// (network.md §9). Source: linux/netfilter/nf_tables.h and what `nft --debug=mnl,netlink` prints.
namespace gantry::sys {

/// Which packets a table sees.
enum class NftFamily : std::uint8_t { inet = 1, ip = 2, ip6 = 10 };

/// Registers of the rule machine. `r1`…`r4` hold 16 bytes each; `w0`…`w15` are their 4-byte parts (w0 = start of r1).
namespace nft {
inline constexpr std::uint32_t kVerdict = 0;
inline constexpr std::uint32_t r1 = 1, r2 = 2, r3 = 3, r4 = 4;
constexpr std::uint32_t word(unsigned n) { return 8 + n; }

/// Type numbers of the `nft` tool; the kernel only stores them, and listings need them.
inline constexpr std::uint32_t kTypeIpv4 = 7, kTypeIpv6 = 8, kTypeProto = 12, kTypeService = 13, kTypeIfname = 41;
constexpr std::uint32_t concat(std::uint32_t a, std::uint32_t b) { return a << 6 | b; }
constexpr std::uint32_t concat(std::uint32_t a, std::uint32_t b, std::uint32_t c) { return concat(concat(a, b), c); }
inline constexpr std::uint32_t kTypeVerdict = 0xffffff00;
}  // namespace nft

/// The expressions of one rule, evaluated left to right; one that does not match ends the rule.
class NftRule {
 public:
  enum class Base : std::uint32_t { network = 1, transport = 2 };
  enum class Compare : std::uint32_t { eq = 0, neq = 1 };

  NftRule& payload(Base base, std::uint32_t offset, std::uint32_t length, std::uint32_t to = nft::r1);
  /// Writes register `from` over a part of the UDP or TCP header, whose checksum is at `checksum_offset`, and corrects
  /// it.
  NftRule& set_transport(std::uint32_t offset, std::uint32_t length, std::uint32_t checksum_offset,
                         std::uint32_t from = nft::r1);
  NftRule& load(std::string_view value, std::uint32_t to = nft::r1);
  NftRule& meta(std::uint32_t key, std::uint32_t to = nft::r1);  // NFT_META_*
  NftRule& set_mark(std::uint32_t from = nft::r1);
  NftRule& ct(std::uint32_t key, std::uint32_t to = nft::r1);  // NFT_CT_*
  /// The type of the destination address (RTN_LOCAL …).
  NftRule& fib_daddr_type(std::uint32_t to = nft::r1);
  NftRule& compare(Compare op, std::string_view value, std::uint32_t in = nft::r1);
  NftRule& compare(Compare op, std::uint32_t value, std::uint32_t in = nft::r1);  // host byte order
  /// in = (in & mask) ^ flip, on four or sixteen bytes.
  NftRule& bitwise(std::string_view mask, std::string_view flip, std::uint32_t in = nft::r1);
  NftRule& bitwise(std::uint32_t mask, std::uint32_t flip, std::uint32_t in = nft::r1);
  /// Matches if the set has the key that starts in register `in`.
  NftRule& in_set(const std::string& set, std::uint32_t in = nft::r1);
  /// As in_set, and loads the map's value: into `to`, or as the verdict.
  NftRule& map_to(const std::string& map, std::uint32_t to, std::uint32_t in = nft::r1);
  NftRule& verdict_map(const std::string& map) { return map_to(map, nft::kVerdict); }
  NftRule& counter();
  NftRule& accept();
  NftRule& drop();
  NftRule& give_back();  // "return"
  NftRule& jump(const std::string& chain);
  NftRule& dnat(NftFamily family, std::uint32_t address, std::uint32_t port);
  NftRule& snat(NftFamily family, std::uint32_t address);
  NftRule& masquerade();

  /// The interface's name is `name`; names shorter than IFNAMSIZ are compared with their zeros.
  NftRule& not_interface(std::uint32_t key, std::string_view name);

 private:
  friend class NftBatch;
  NftRule& add(std::string kind, const std::function<void(NetlinkBatch&)>& fill);
  NftRule& verdict(std::int32_t code, const std::string& chain);
  std::vector<std::pair<std::string, std::string>> expressions_;  // kind, encoded attributes
};

struct NftSet {
  std::string name;
  std::uint32_t key_type = 0;
  std::uint32_t key_length = 0;
  bool interval = false;
  std::uint32_t data_type = 0;  // 0: a set, else a map; nft::kTypeVerdict for verdict maps
  std::uint32_t data_length = 0;
};

struct NftChain {
  std::string name;
  std::string type;  // "filter", "nat"; empty: a chain to jump to
  std::uint32_t hook = 0;
  std::int32_t priority = 0;
};

/// `key` and `data` are encoded as the registers hold them: concatenations pad each part to four bytes.
struct NftElement {
  std::string key = {};
  std::string data = {};
  std::string jump = {};  // verdict maps: the chain; "accept" stands for the verdict
  bool interval_end = false;
  auto operator<=>(const NftElement&) const = default;
};

/// NFT_TABLE_F_OWNER: only the socket that made the table can change it. NFT_TABLE_F_PERSIST (Linux 6.9): it outlives
/// that socket, and the next one to ask becomes its owner.
struct NftTableFlags {
  bool owner = false;
  bool persist = false;
};

class NftBatch {
 public:
  NftBatch();
  void add_table(NftFamily family, const std::string& table, NftTableFlags flags = {});
  void remove_table(NftFamily family, const std::string& table);
  void add_set(NftFamily family, const std::string& table, const NftSet& set);
  void add_chain(NftFamily family, const std::string& table, const NftChain& chain);
  void add_rule(NftFamily family, const std::string& table, const std::string& chain, const NftRule& rule);
  /// A rule with a comment, by which find_rule() finds it; `first`: before the chain's others instead of after them.
  void add_rule(NftFamily family, const std::string& table, const std::string& chain, const NftRule& rule,
                const std::string& comment, bool first);
  void remove_rule(NftFamily family, const std::string& table, const std::string& chain, std::uint64_t handle);
  /// Adding what is there already is fine (maps: if the value is the same).
  void add_elements(NftFamily family, const std::string& table, const std::string& set,
                    const std::vector<NftElement>& elements);
  /// Removing what is not there fails the batch.
  void remove_elements(NftFamily family, const std::string& table, const std::string& set,
                       const std::vector<NftElement>& elements);
  bool empty() const noexcept { return changes_ == 0; }

 private:
  friend class NftSocket;
  void begin(std::uint16_t type, std::uint16_t flags, NftFamily family, std::string note);
  void expressions(const NftRule& rule);
  void elements(std::uint16_t type, std::uint16_t flags, NftFamily family, const std::string& table,
                const std::string& set, const std::vector<NftElement>& elements);
  NetlinkBatch batch_;
  std::size_t changes_ = 0;
  std::uint32_t next_set_id_ = 1;
};

struct NftTableInfo {
  NftTableFlags flags;
  std::uint32_t owner = 0;  // the owning socket's port id, or 0
};

/// A chain that the kernel sends packets to by itself.
struct NftHookedChain {
  NftFamily family = NftFamily::ip;
  std::string table;
  std::string name;
  std::uint32_t hook = 0;
  bool drops = false;  // its policy
};

/// One socket for a table's whole life: it is the table's owner.
class NftSocket {
 public:
  NftSocket();
  /// Commits the batch or throws, naming the change that the kernel refused; then nothing was changed.
  void commit(NftBatch batch);
  std::optional<NftTableInfo> find_table(NftFamily family, const std::string& table);
  std::vector<std::string> list_tables(NftFamily family);
  std::vector<NftElement> list_elements(NftFamily family, const std::string& table, const std::string& set);
  /// How many rules each chain has, in the form "chain:rules", sorted.
  std::vector<std::string> list_rules(NftFamily family, const std::string& table);
  /// Of every table of the families ip, ip6 and inet.
  std::vector<NftHookedChain> list_hooked_chains();
  /// The handle of the chain's rule with this comment.
  std::optional<std::uint64_t> find_rule(NftFamily family, const std::string& table, const std::string& chain,
                                         const std::string& comment);
  /// Changes with every committed transaction of anybody in this network namespace.
  std::uint32_t generation();
  std::uint32_t port_id() const noexcept { return socket_.port_id(); }

 private:
  NetlinkSocket socket_;
};

}  // namespace gantry::sys
