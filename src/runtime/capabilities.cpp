#include "runtime/capabilities.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "sys/capability.hpp"

namespace gantry::runtime {
namespace {

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

const std::vector<std::string>& known_capabilities() {
  static const std::vector<std::string> known = [] {
    const auto& names = sys::capability_names();
    return std::vector<std::string>(names.begin(), names.begin() + sys::last_capability() + 1);
  }();
  return known;
}

const std::vector<std::string>& default_capabilities() {
  static const std::vector<std::string> names{
      "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER",  "CAP_FSETID",           "CAP_KILL",
      "CAP_SETGID", "CAP_SETUID",       "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",
      "CAP_MKNOD",  "CAP_SYS_CHROOT",   "CAP_SETFCAP", "CAP_AUDIT_WRITE"};
  return names;
}

std::vector<std::string> normalize_capabilities(const std::vector<std::string>& names, std::string_view field) {
  std::vector<std::string> out;
  for (const std::string& name : names) {
    std::string canonical = to_upper(trim(name));
    if (canonical != "ALL") {
      if (!canonical.starts_with("CAP_")) canonical = "CAP_" + canonical;
      const auto& all = sys::capability_names();
      if (std::ranges::find(all, canonical) == all.end())
        throw Error(Errc::invalid_argument, fmt::format("invalid {}: unknown capability: {}", field, quote(canonical)));
    }
    if (!contains(out, canonical)) out.push_back(std::move(canonical));
  }
  return out;
}

std::vector<std::string> resolve_capabilities(const CapabilityRequest& request, const std::set<std::string>& own) {
  const auto add = normalize_capabilities(request.add, "CapAdd");
  const auto drop = normalize_capabilities(request.drop, "CapDrop");
  const auto in_order = [&](auto&& wanted) {
    std::vector<std::string> out;
    for (const std::string& name : known_capabilities())
      if (own.contains(name) && wanted(name)) out.push_back(name);
    return out;
  };
  if (request.privileged) return in_order([](const std::string&) { return true; });
  if (contains(add, "ALL")) return in_order([&](const std::string& name) { return !contains(drop, name); });
  for (const std::string& name : add)
    if (!own.contains(name))
      throw Error(Errc::invalid_argument,
                  fmt::format("invalid CapAdd: capability not supported by your kernel or not available in the current "
                              "environment: {}",
                              quote(name)));
  if (contains(drop, "ALL")) return in_order([&](const std::string& name) { return contains(add, name); });
  return in_order([&](const std::string& name) {
    return contains(add, name) || (contains(default_capabilities(), name) && !contains(drop, name));
  });
}

std::set<std::string> own_capabilities() {
  const sys::CapabilitySets sets = sys::read_own_capabilities();
  const auto mask = sets.bounding & sets.permitted;
  std::set<std::string> own;
  const auto& names = known_capabilities();
  for (std::size_t bit = 0; bit < names.size(); ++bit)
    if ((mask >> bit & 1) != 0) own.insert(names[bit]);
  return own;
}

}  // namespace gantry::runtime
