#include "base/error.hpp"
#include "doctor/checks.hpp"
#include "network/foreign_rules.hpp"
#include "sys/nftables.hpp"

namespace gantry::doctor {

std::vector<Finding> check_network_blocking(const config::Config& config) {
  constexpr const char* kSubject = "other packet filters";
  std::vector<Finding> out;
  try {
    sys::NftSocket socket;
    const std::string remedy = config.firewall_compat == "insert"
                                   ? "start gantryd, or see what its log says of the chain"
                               : config.firewall_compat == "none" ? ""
                                                                  : "set firewall-compat to insert";
    for (const std::string& chain : network::chains_that_stop_bridges(socket))
      out.push_back({config.firewall_compat == "insert" ? Finding::Level::problem : Finding::Level::note, kSubject,
                     chain + " drops what containers' bridges forward", remedy});
    if (out.empty()) out.push_back({Finding::Level::ok, kSubject, "none stops what containers' bridges forward", ""});
  } catch (const Error& e) {
    out.push_back({Finding::Level::note, kSubject, e.message(), ""});
  }
  return out;
}

}  // namespace gantry::doctor
