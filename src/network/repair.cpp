#include "network/repair.hpp"

#include <map>

#include <fmt/format.h>

#include "base/error.hpp"
#include "network/vlan.hpp"

namespace gantry::network {
namespace {

template <class Action>
void attempt(const RepairJob& job, const std::string& object, RepairReport& report, Action action) {
  if (job.paused.count(object) != 0) return;
  try {
    action();
  } catch (const Error& e) {
    report.problems.push_back({object, fmt::format("{}: {}", object, e.message())});
  }
}

void repair_port(sys::NetlinkSocket& socket, const RepairJob::Port& port, int bridge, RepairReport& report) {
  const std::string object = "interface " + port.interface;
  bool changed = false;
  if (!ensure_port(socket, port.interface, bridge, port.isolated, changed))
    report.problems.push_back({object, fmt::format("{} of bridge {} is gone", object, port.bridge)});
  if (!changed) return;
  sys::wait_for_carrier(socket, port.interface, 20);
  sys::wait_for_carrier(socket, port.bridge, 20);
  report.repaired.push_back({object, fmt::format("connected {} to bridge {} again", port.interface, port.bridge)});
}

}  // namespace

void repair_links(sys::NetlinkSocket& socket, const RepairJob& job, RepairReport& report) {
  std::map<std::string, int> indices;
  for (const auto& spec : job.bridges) {
    const std::string object = "bridge " + spec.name;
    attempt(job, object, report, [&] {
      std::vector<std::string> changes;
      indices[spec.name] = ensure_bridge(socket, spec, changes);
      for (auto& change : changes) report.repaired.push_back({object, std::move(change)});
    });
  }
  for (const auto& port : job.ports) {
    auto index = indices.find(port.bridge);
    if (index == indices.end()) continue;
    attempt(job, "interface " + port.interface, report, [&] { repair_port(socket, port, index->second, report); });
  }
  for (const auto& parent : job.parents) {
    const std::string object = "interface " + parent;
    attempt(job, object, report, [&] {
      if (ensure_parent(socket, parent)) report.repaired.push_back({object, "made interface " + parent});
    });
  }
}

void repair_forwarding(const RepairJob& job, RepairReport& report) {
  auto switch_on = [&](Family family, const std::string& object) {
    attempt(job, object, report, [&] {
      if (enable_forwarding(family)) report.repaired.push_back({object, "switched " + object + " on again"});
    });
  };
  if (job.forward4) switch_on(Family::v4, "IPv4 forwarding");
  if (job.forward6) switch_on(Family::v6, "IPv6 forwarding");
}

void repair_firewall(Firewall& firewall, const RepairJob& job, RepairReport& report) {
  attempt(job, "firewall", report, [&] {
    if (auto wrong = firewall.repair(); !wrong.empty()) report.repaired.push_back({"firewall", "firewall: " + wrong});
  });
}

}  // namespace gantry::network
