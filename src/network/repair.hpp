#pragma once

#include <set>
#include <string>
#include <vector>

#include "network/bridge.hpp"
#include "network/firewall.hpp"
#include "sys/netlink.hpp"

/// Brings what is in the kernel in line with what should be there. Blocks (netlink); belongs in the net lane.
namespace gantry::network {

/// What was put right, or could not be. `object` is what it happened to ("bridge gantry0"): whoever fights with
/// somebody about one thing goes on repairing the others.
struct Repair {
  std::string object;
  std::string text;
};

struct RepairJob {
  std::vector<BridgeSpec> bridges;
  struct Port {
    std::string interface;
    std::string bridge;
    bool isolated = false;
  };
  std::vector<Port> ports;
  std::vector<std::string> parents;  // interfaces of macvlan and ipvlan networks that we made
  bool forward4 = false;             // the host's forwarding must be on
  bool forward6 = false;
  bool firewall = true;
  std::set<std::string> paused;  // objects to leave alone for now
};

struct RepairReport {
  std::vector<Repair> repaired;
  std::vector<Repair> problems;
};

void repair_links(sys::NetlinkSocket& socket, const RepairJob& job, RepairReport& report);
void repair_forwarding(const RepairJob& job, RepairReport& report);
void repair_firewall(Firewall& firewall, const RepairJob& job, RepairReport& report);

}  // namespace gantry::network
