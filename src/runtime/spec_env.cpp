#include <algorithm>

#include "runtime/spec.hpp"

namespace gantry::runtime {
namespace {

std::string_view name_of(std::string_view entry) { return entry.substr(0, entry.find('=')); }

}  // namespace

std::vector<std::string> merge_env(std::vector<std::string> base, const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    const auto name = name_of(change);
    const auto at = std::ranges::find_if(base, [&](const std::string& entry) { return name_of(entry) == name; });
    if (change.find('=') == std::string::npos) {
      if (at != base.end()) base.erase(at);
    } else if (at != base.end()) {
      *at = change;
    } else {
      base.push_back(change);
    }
  }
  return base;
}

std::vector<std::string> render_env(const std::string& hostname, bool terminal,
                                    const std::vector<std::string>& link_env, const std::vector<std::string>& env) {
  std::vector<std::string> base{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                "HOSTNAME=" + hostname};
  if (terminal) base.emplace_back("TERM=xterm");
  base.insert(base.end(), link_env.begin(), link_env.end());
  return merge_env(std::move(base), env);
}

}  // namespace gantry::runtime
