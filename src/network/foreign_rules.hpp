#pragma once

#include <string>
#include <vector>

#include "sys/nftables.hpp"

/// Other programs' packet filters that stop what our bridges forward: a chain of theirs at the forward hook whose
/// policy is to drop (ufw, another engine, an administrator's iptables), or firewalld's. An accept of ours does not
/// help there, since every table has its say; one rule among theirs does. Blocks; belongs in the net lane.
namespace gantry::network {

/// The mark that every packet from and to our bridges has when it comes to other tables' forward chains.
inline constexpr std::uint32_t kForwardedMark = 0x04000000;

class ForeignRules {
 public:
  enum class Mode { detect, insert, none };
  /// `own_table`: our tables' name; `<own_table>-user` is the administrator's and counts as ours, too.
  ForeignRules(Mode mode, std::string own_table) : mode_(mode), own_table_(std::move(own_table)) {}

  /// Looks at everybody's chains. In mode insert, adds the rule where it is missing; in the others takes away what an
  /// earlier run added. `socket` makes the changes. Returns a sentence for each rule that was added.
  std::vector<std::string> look(sys::NftSocket& socket);
  /// What still stops packets, for `info`: one sentence each, as of the last look().
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }
  /// True if iptables' legacy tables are concerned: the kernel announces no changes of those.
  bool needs_polling() const noexcept { return legacy_; }

 private:
  void look_at_chain(sys::NftSocket& socket, const sys::NftHookedChain& chain, std::vector<std::string>& added);
  void look_at_legacy(bool ipv6, std::vector<std::string>& added);
  void warn(const std::string& where);

  Mode mode_;
  std::string own_table_;
  std::vector<std::string> warnings_;
  bool legacy_ = false;
};

/// The chains that stop what our bridges forward and do not have our rule, by name. Changes nothing.
std::vector<std::string> chains_that_stop_bridges(sys::NftSocket& socket);

/// The policy of iptables' legacy FORWARD chain is to drop. False if that table is not in use.
bool legacy_forward_drops(bool ipv6);

}  // namespace gantry::network
