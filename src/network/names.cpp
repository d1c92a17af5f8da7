#include "network/names.hpp"

#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "network/files.hpp"

namespace gantry::network {
namespace {

constexpr std::string_view kMagic = "gantry-names 1";
constexpr std::size_t kMaxName = 253;

bool is_usable(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::ranges::all_of(name, [](char c) { return static_cast<unsigned char>(c) > ' ' && c != '\x7f'; });
}

void write_if_changed(const sys::Path& path, const std::string& text) {
  if (sys::find_file(path) == text) return;
  sys::make_directories(path.parent_path(), 0700);
  // Not synced: after a power cut nobody is left to ask.
  sys::write_atomically(path, text, 0600, false);
}

void remove_file(const sys::Path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR)
    throw Error::from_errno(errno, "removing " + path.string());
}

std::vector<std::string> list(const sys::Path& directory) {
  sys::make_directories(directory, 0700);
  return sys::list_directory(directory);
}

}  // namespace

std::string render_name_table(const NameTable& table) {
  std::vector<std::string> lines;
  for (const auto& entry : table.entries) {
    for (const auto& address : entry.addresses) {
      if (is_usable(entry.container)) lines.push_back(fmt::format("p {} {}", address, entry.container));
      for (const auto& name : entry.names)
        if (is_usable(name)) lines.push_back(fmt::format("a {} {}", to_lower(name), address));
    }
  }
  // The reader searches by halves.
  std::ranges::sort(lines);
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  std::string out = fmt::format("{} {}\n", kMagic, table.network_name);
  for (const auto& line : lines) out += line + "\n";
  return out;
}

std::string render_container_names(const ContainerNames& names) {
  std::string out = std::string(kMagic) + "\n";
  for (const auto& network : names.networks) {
    out += "network " + network.id + "\n";
    for (const auto& link : network.links) {
      const auto [target, alias] = split_once(link, ':');
      if (is_usable(target) && is_usable(alias.empty() ? target : alias))
        out += fmt::format("link {} {}\n", to_lower(alias.empty() ? target : alias), to_lower(target));
    }
  }
  for (const auto& server : names.servers)
    if (is_usable(server)) out += "server " + server + "\n";
  if (names.servers.empty()) out += "host-servers " + names.host_resolv_conf + "\n";
  if (names.external) out += "external 1\n";
  if (names.ndots) out += "ndots 1\n";
  return out;
}

ContainerNames parse_container_names(std::string_view text) {
  ContainerNames out;
  for (const auto& line : split(text, '\n')) {
    const auto [keyword, value] = split_once(line, ' ');
    if (keyword == "network") {
      out.networks.push_back({std::string(value), {}});
    } else if (keyword == "link" && !out.networks.empty()) {
      const auto [alias, target] = split_once(value, ' ');
      out.networks.back().links.push_back(fmt::format("{}:{}", target, alias));
    } else if (keyword == "server") {
      out.servers.emplace_back(value);
    } else if (keyword == "host-servers") {
      out.host_resolv_conf = value;
    } else if (keyword == "external") {
      out.external = value == "1";
    } else if (keyword == "ndots") {
      out.ndots = value == "1";
    }
  }
  return out;
}

void NameFiles::write_network(const NameTable& table) const {
  write_if_changed(network_file(table.network_id), render_name_table(table));
}

void NameFiles::write_container(const std::string& container_id, const ContainerNames& names) const {
  ContainerNames whole = names;
  if (whole.host_options && !whole.ndots)
    whole.ndots = chooses_ndots(sys::find_file(whole.host_resolv_conf, 1 << 20).value_or(""));
  write_if_changed(container_file(container_id), render_container_names(whole));
}

std::string NameFiles::read_container(const std::string& container_id) const {
  return sys::find_file(container_file(container_id), 1 << 20).value_or("");
}

void NameFiles::remove_network(const std::string& network_id) const { remove_file(network_file(network_id)); }
void NameFiles::remove_container(const std::string& container_id) const { remove_file(container_file(container_id)); }
std::vector<std::string> NameFiles::networks() const { return list(directory_ / "networks"); }
std::vector<std::string> NameFiles::containers() const { return list(directory_ / "containers"); }

}  // namespace gantry::network
