#include "network/firewall.hpp"

#include <algorithm>
#include <cerrno>

#include <linux/netfilter.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace gantry::network {
namespace {

using sys::NftBatch;
using sys::NftElement;
using sys::NftFamily;

constexpr NftFamily kFamilies[] = {NftFamily::ip, NftFamily::ip6};
const char* prefix(NftFamily family) { return family == NftFamily::ip ? "ip " : "ip6 "; }

NftFamily family_of(const std::string& set) { return set[2] == ' ' ? NftFamily::ip : NftFamily::ip6; }
std::string set_name(const std::string& set) { return set.substr(set.find(' ') + 1); }

void merge(Firewall::Elements& into, const Firewall::Elements& from) {
  for (const auto& [set, elements] : from) {
    auto& list = into[set];
    list.insert(list.end(), elements.begin(), elements.end());
  }
}

/// In an interval set, where one subnet ends the next may begin: the end must come first, or the kernel sees an
/// overlap.
std::vector<NftElement> normalised(std::vector<NftElement> elements) {
  std::sort(elements.begin(), elements.end(), [](const NftElement& a, const NftElement& b) {
    if (a.key != b.key) return a.key < b.key;
    return a.interval_end != b.interval_end ? a.interval_end : a < b;
  });
  elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
  return elements;
}

}  // namespace

Firewall::Firewall(Settings settings) : settings_(std::move(settings)) {}

Firewall::Elements Firewall::wanted() const {
  Elements all;
  for (const auto& [name, rules] : bridges_) merge(all, bridge_elements(rules));
  for (const auto& [id, rules] : published_) merge(all, publish_elements(rules));
  return all;
}

void Firewall::plan_publish(const std::string& endpoint_id, std::vector<PublishRule> rules) {
  if (rules.empty()) published_.erase(endpoint_id);
  else published_[endpoint_id] = std::move(rules);
}

void Firewall::add_tables(NftBatch& batch, sys::NftTableFlags flags) {
  const Elements elements = wanted();
  for (NftFamily family : kFamilies) {
    if (socket_.find_table(family, settings_.table)) batch.remove_table(family, settings_.table);
    if (!has(family)) continue;
    batch.add_table(family, settings_.table, flags);
    add_ruleset(batch, family, settings_);
  }
  add_all(batch, elements);
}

void Firewall::add_all(NftBatch& batch, const Elements& elements) const {
  for (const auto& [set, list] : elements)
    if (has(family_of(set))) batch.add_elements(family_of(set), settings_.table, set_name(set), normalised(list));
}

void Firewall::remove_all(NftBatch& batch, const Elements& elements) const {
  for (const auto& [set, list] : elements)
    if (has(family_of(set))) batch.remove_elements(family_of(set), settings_.table, set_name(set), list);
}

void Firewall::rebuild() {
  // Newest first: kernels refuse flags that they do not know.
  constexpr sys::NftTableFlags kChoices[] = {{true, true}, {false, false}};
  for (const auto& flags : kChoices) {
    NftBatch batch;
    add_tables(batch, flags);
    try {
      socket_.commit(std::move(batch));
      flags_ = flags;
      break;
    } catch (const Error& e) {
      if (e.sys_errno() == EPERM)
        throw Error(Errc::conflict,
                    fmt::format("the firewall table {} belongs to another running engine", settings_.table));
      const bool unknown_flags = e.sys_errno() == EOPNOTSUPP || e.sys_errno() == EINVAL;
      if (!unknown_flags || !flags.owner) throw;
    }
  }
  ensure_user_tables();
  seen_generation_ = socket_.generation();
}

void Firewall::ensure_user_tables() {
  const std::string name = settings_.table + "-user";
  for (NftFamily family : kFamilies) {
    if (!has(family) || socket_.find_table(family, name)) continue;
    NftBatch batch;
    batch.add_table(family, name);
    batch.add_chain(family, name, {"forward", "filter", NF_INET_FORWARD, -10});
    batch.add_chain(family, name, {"input", "filter", NF_INET_LOCAL_IN, -10});
    batch.add_chain(family, name, {"prerouting_raw", "filter", NF_INET_PRE_ROUTING, -310});
    socket_.commit(std::move(batch));
  }
}

bool Firewall::matches_kernel(std::string& difference) {
  const Elements elements = wanted();
  for (NftFamily family : kFamilies) {
    if (!has(family)) continue;
    auto table = socket_.find_table(family, settings_.table);
    if (!table) {
      difference = fmt::format("table {}{} was removed", prefix(family), settings_.table);
      return false;
    }
    // Nobody but the owner can have changed an owned table.
    if (table->flags.owner && table->owner == socket_.port_id()) continue;
    if (socket_.list_rules(family, settings_.table) != expected_rules(family, settings_)) {
      difference = fmt::format("rules of table {}{} were changed", prefix(family), settings_.table);
      return false;
    }
    for (const auto& set : firewall_sets(family)) {
      auto it = elements.find(prefix(family) + set.name);
      auto there = socket_.list_elements(family, settings_.table, set.name);
      if (normalised(std::move(there)) == normalised(it == elements.end() ? std::vector<NftElement>() : it->second))
        continue;
      difference = fmt::format("set {} of table {}{} was changed", set.name, prefix(family), settings_.table);
      return false;
    }
  }
  return true;
}

std::string Firewall::repair() {
  const std::uint32_t generation = socket_.generation();
  if (generation == seen_generation_) return {};
  std::string difference;
  const bool intact = matches_kernel(difference);
  seen_generation_ = generation;
  if (intact) {
    ensure_user_tables();
    seen_generation_ = socket_.generation();
    return {};
  }
  rebuild();
  return difference;
}

void Firewall::commit_or_rebuild(NftBatch batch) {
  try {
    socket_.commit(std::move(batch));
  } catch (const Error& e) {
    // Something of ours is gone, which only happens where the kernel cannot keep others out. The books are right.
    if (e.sys_errno() != ENOENT) throw;
    rebuild();
  }
}

void Firewall::add_bridge(const BridgeRules& rules) {
  remove_bridge(rules.bridge);
  NftBatch batch;
  add_all(batch, bridge_elements(rules));
  socket_.commit(std::move(batch));
  bridges_[rules.bridge] = rules;
}

void Firewall::remove_bridge(const std::string& bridge) {
  auto it = bridges_.find(bridge);
  if (it == bridges_.end()) return;
  NftBatch batch;
  remove_all(batch, bridge_elements(it->second));
  bridges_.erase(it);
  commit_or_rebuild(std::move(batch));
}

void Firewall::publish(const std::string& endpoint_id, std::vector<PublishRule> rules) {
  auto it = published_.find(endpoint_id);
  NftBatch batch;
  if (it != published_.end()) remove_all(batch, publish_elements(it->second));
  add_all(batch, publish_elements(rules));
  const auto before = it == published_.end() ? std::vector<PublishRule>() : it->second;
  plan_publish(endpoint_id, std::move(rules));
  try {
    commit_or_rebuild(std::move(batch));
  } catch (const Error&) {
    plan_publish(endpoint_id, before);
    throw;
  }
}

}  // namespace gantry::network
