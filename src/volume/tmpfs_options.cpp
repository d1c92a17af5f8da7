#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "volume/mount_spec.hpp"

namespace gantry::volume {
namespace {

[[noreturn]] void reject(std::string_view option, std::string_view why) {
  throw Error(Errc::invalid_argument, fmt::format("invalid tmpfs option {}{}", quote(option), why));
}

void check_number(std::string_view option, std::string_view value, int base) {
  const auto good = [&](char c) { return c >= '0' && c < '0' + base; };
  if (value.empty() || value.size() > 12 || !std::ranges::all_of(value, good)) reject(option, ": not a number");
}

/// tmpfs(5): bytes with k, m or g, or a percentage of the memory.
void check_size(std::string_view option, std::string_view value) {
  if (value.ends_with('%')) {
    value.remove_suffix(1);
  } else if (!value.empty() && std::string_view("kKmMgGtT").find(value.back()) != std::string_view::npos) {
    value.remove_suffix(1);
  }
  if (value.empty() || value.size() > 18 || !std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; }))
    reject(option, ": not a size");
}

}  // namespace

std::vector<std::string> parse_tmpfs_options(std::string_view text) {
  static const std::set<std::string, std::less<>> flags{
      "defaults",      "ro",          "rw",       "suid",       "nosuid",   "dev",        "nodev",
      "exec",          "noexec",      "sync",     "async",      "dirsync",  "mand",       "nomand",
      "atime",         "noatime",     "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
      "nostrictatime", "private",     "rprivate", "shared",     "rshared",  "slave",      "rslave",
      "unbindable",    "runbindable", "bind",     "rbind",      "remount"};
  // They would change what is mounted, not how: a bind instead of a tmpfs.
  static const std::set<std::string, std::less<>> refused{"bind", "rbind", "remount"};
  std::vector<std::string> options;
  for (const std::string& option : split(text, ',')) {
    if (option.empty()) continue;
    const auto [key, value] = split_once(option, '=');
    if (option.find('=') == std::string::npos) {
      if (!flags.contains(option) || refused.contains(option)) reject(option, "");
    } else if (key == "size") {
      check_size(option, value);
    } else if (key == "nr_inodes" || key == "nr_blocks") {
      check_size(option, value);
    } else if (key == "mode") {
      check_number(option, value, 8);
    } else if (key == "uid" || key == "gid") {
      check_number(option, value, 10);
    } else if (key != "mpol" || value.empty()) {
      reject(option, "");
    }
    options.push_back(option);
  }
  return options;
}

}  // namespace gantry::volume
