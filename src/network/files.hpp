#pragma once

#include <string>
#include <vector>

#include "network/types.hpp"

/// The three files that a container gets from its network: /etc/hosts, /etc/hostname and /etc/resolv.conf.
/// The render functions are pure; network.md §5 has the rules.
namespace gantry::network {

struct HostsLine {
  std::string address;
  std::vector<std::string> names;
};

struct ResolvSettings {
  std::string host_text;  // what the host's file says
  std::string host_path;
  std::vector<std::string> servers;  // in place of the host's
  std::vector<std::string> search;   // {"."}: none
  std::vector<std::string> options;
  bool drop_loopback = true;  // a server at 127.0.0.1 means another thing inside a namespace of its own
  bool ipv6 = false;          // the container has IPv6: its servers are of use
  bool internal = false;      // the embedded name server at 127.0.0.11 comes instead of all
};

std::string render_hosts(const std::vector<HostsLine>& lines, bool ipv6_loopback);
std::string render_resolv_conf(const ResolvSettings& settings);

/// The lines for --add-host; "host-gateway" stands for each of `gateways`. Throws invalid_argument.
std::vector<HostsLine> parse_extra_hosts(const std::vector<std::string>& extra_hosts,
                                         const std::vector<std::string>& gateways);
/// "fqdn short": the names a container has for itself.
std::vector<std::string> own_names(const std::string& hostname, const std::string& domainname);

struct Files {
  sys::Path directory;  // empty: none are wanted
  std::string hostname;
  std::string hosts;  // ready; empty: a copy of `host_hosts`
  sys::Path host_hosts;
  ResolvSettings resolv;  // without host_text, which is read when it is written
  bool copy_resolv = false;
};
/// Writes all three. Blocks  on the disk. Not durable: they are made anew at every start.
void write_files(Files files);

/// Writes resolv.conf again for a container that runs, unless somebody has changed what we wrote. Blocks likewise.
void change_resolv_conf(const Files& files);
/// True if the options of a resolv.conf say how many dots a name must have.
bool chooses_ndots(const std::string& resolv_conf);

/// Writes a file that may be bind-mounted into a container: in place if it exists, so that the mount sees it.
void write_in_place(const sys::Path& path, const std::string& text);

}  // namespace gantry::network
