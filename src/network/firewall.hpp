#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "network/address.hpp"
#include "sys/nftables.hpp"

namespace gantry::network {

/// What the firewall does for one bridge. Per address family; see network.md §2.4 for the gateway modes.
struct BridgeRules {
  std::string bridge;
  enum class Mode { nat, nat_unprotected, routed, internal };
  struct Side {
    Cidr subnet;
    Mode mode = Mode::nat;
    bool masquerade = true;
    IpAddress snat;       // instead of masquerading
    bool direct = false;  // nat: published ports may also be reached at the containers' own addresses
  };
  std::optional<Side> ip;
  std::optional<Side> ip6;
  std::vector<std::string> trusted_interfaces;
  bool icc = true;  // false: routed packets from the bridge to itself pass only for links
};

/// One port of one container: what leads to it, and that it may be reached.
struct PublishRule {
  std::uint8_t proto = 0;  // IPPROTO_*
  IpAddress host_ip;       // any: every address of the host. Loopback needs no rule: the shim's relay serves it.
  std::uint16_t host_port = 0;
  IpAddress container_ip;
  std::uint16_t container_port = 0;
  bool translate = true;  // false: routed networks, where the port is only opened
  /// Set: what comes from this bridge is left to the shim's relay, because the bridge does not carry packets from one
  /// container to another, not even translated ones.
  std::string relayed_for = {};
  /// Set: no port of the host but a link; only this container may reach the port, past a bridge without icc.
  IpAddress client = {};
  auto operator<=>(const PublishRule&) const = default;
};

/// The engine's nftables tables, `ip <name>` and `ip6 <name>`: a constant set of rules, and sets and maps whose
/// elements say which bridges, subnets and ports there are. Publishing a port costs one element whatever their number.
///
/// The tables belong to this object's socket (owner, and persist where the kernel has it): nobody else can change or
/// flush them, and they stay when the daemon goes. It keeps what should be in them and can build them anew at any time.
/// Everything blocks for microseconds (a rebuild: milliseconds). Used from the net lane only; nothing here locks.
class Firewall {
 public:
  struct Settings {
    std::string table = "gantry";
    bool drop_foreign_forward = false;  // what is forwarded between interfaces that are no bridges is dropped
    bool ip = true;                     // false: no IPv4 table at all
    bool ip6 = true;
    std::uint32_t accept_mark = 0;  // forwarded packets with this mark pass; mask 0: there is no such mark
    std::uint32_t accept_mask = 0;
  };
  explicit Firewall(Settings settings);

  /// Replaces both tables by what should be there, in one transaction: there is no moment without rules.
  /// Makes the administrator's tables `<name>-user` if they are missing and never touches them again.
  void rebuild();
  /// Rebuilds if something is missing or was changed by others; says what was wrong, empty if nothing.
  std::string repair();

  void add_bridge(const BridgeRules& rules);
  void remove_bridge(const std::string& bridge);
  /// All of an endpoint's ports in one transaction, in place of what it had.
  void publish(const std::string& endpoint_id, std::vector<PublishRule> rules);
  void unpublish(const std::string& endpoint_id) { publish(endpoint_id, {}); }
  /// For recovery, before rebuild(): only enters it into the books.
  void plan_bridge(const BridgeRules& rules) { bridges_[rules.bridge] = rules; }
  void plan_publish(const std::string& endpoint_id, std::vector<PublishRule> rules);
  void clear_plans() {
    bridges_.clear();
    published_.clear();
  }
  void set_drop_foreign_forward(bool on) { settings_.drop_foreign_forward = on; }

  const Settings& settings() const noexcept { return settings_; }
  /// True if nobody else can change the tables.
  bool is_owner() const noexcept { return flags_.owner; }
  bool persists() const noexcept { return flags_.persist; }
  sys::NftSocket& socket() noexcept { return socket_; }

  /// Elements by set; the key is "ip pub_any" or "ip6 open".
  using Elements = std::map<std::string, std::vector<sys::NftElement>>;

 private:
  Elements wanted() const;
  bool has(sys::NftFamily family) const { return family == sys::NftFamily::ip ? settings_.ip : settings_.ip6; }
  void add_all(sys::NftBatch& batch, const Elements& elements) const;
  void remove_all(sys::NftBatch& batch, const Elements& elements) const;
  void add_tables(sys::NftBatch& batch, sys::NftTableFlags flags);
  bool matches_kernel(std::string& difference);
  void ensure_user_tables();
  void commit_or_rebuild(sys::NftBatch batch);

  Settings settings_;
  sys::NftSocket socket_;
  sys::NftTableFlags flags_;
  std::uint32_t seen_generation_ = 0;
  std::map<std::string, BridgeRules> bridges_;
  std::map<std::string, std::vector<PublishRule>> published_;
};

/// The constant part: sets, chains and rules of one family's table.
void add_ruleset(sys::NftBatch& batch, sys::NftFamily family, const Firewall::Settings& settings);
/// The sets of one family's table.
const std::vector<sys::NftSet>& firewall_sets(sys::NftFamily family);
/// How many rules each chain of add_ruleset() has, in the form of NftSocket::list_rules().
std::vector<std::string> expected_rules(sys::NftFamily family, const Firewall::Settings& settings);
Firewall::Elements bridge_elements(const BridgeRules& rules);
Firewall::Elements publish_elements(const std::vector<PublishRule>& rules);

}  // namespace gantry::network
