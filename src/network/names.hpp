#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sys/file.hpp"

/// What the shims' name servers read: a table per network and a file per container below <exec-root>/names
/// (docs/shim-protocol.md has the format). Each is replaced as a whole, so a reader sees the old one or the new one.
namespace gantry::network {

/// One network's names: who is found where.
struct NameTable {
  std::string network_id;
  std::string network_name;
  struct Entry {
    std::string container;               // its name: what an address is called in return
    std::vector<std::string> addresses;  // of both families
    std::vector<std::string> names;
  };
  std::vector<Entry> entries;
};

/// What one container's name server needs beside the tables.
struct ContainerNames {
  struct Network {
    std::string id;
    std::vector<std::string> links;  // "container:alias"
    friend bool operator==(const Network&, const Network&) = default;
  };
  std::vector<Network> networks;     // in the order in which they are searched
  std::vector<std::string> servers;  // asked from the container's namespace; empty: the host's, from the host's
  std::string host_resolv_conf;      // where the host's stand
  bool external = false;             // the host's may be asked: the container has a way out
  bool host_options = false;         // not written: the host's file may choose ndots
  bool ndots = false;                // somebody chose an "ndots" option, so single labels stay with the client
  friend bool operator==(const ContainerNames&, const ContainerNames&) = default;
};

/// Names that DNS cannot carry are left out.
std::string render_name_table(const NameTable& table);
std::string render_container_names(const ContainerNames& names);
/// What render_container_names gave; unknown lines are skipped.
ContainerNames parse_container_names(std::string_view text);

/// The directory. All of it blocks, shortly: net lane.
class NameFiles {
 public:
  explicit NameFiles(sys::Path directory) : directory_(std::move(directory)) {}

  sys::Path container_file(const std::string& container_id) const { return directory_ / "containers" / container_id; }
  sys::Path network_file(const std::string& network_id) const { return directory_ / "networks" / network_id; }
  /// Writes what is different from what is there.
  void write_network(const NameTable& table) const;
  void write_container(const std::string& container_id, const ContainerNames& names) const;
  std::string read_container(const std::string& container_id) const;
  void remove_network(const std::string& network_id) const;
  void remove_container(const std::string& container_id) const;
  std::vector<std::string> networks() const;
  std::vector<std::string> containers() const;

 private:
  sys::Path directory_;
};

}  // namespace gantry::network
