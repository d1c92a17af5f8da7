#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "base/text.hpp"
#include "logs/options.hpp"

namespace logs = gantry::logs;

// A driver's name and "key=value" options, one per line: what passes the check can be used.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::string> lines = gantry::split({reinterpret_cast<const char*>(data), size}, '\n');
  logs::Options options;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const auto [key, value] = gantry::split_once(lines[i], '=');
    options[std::string(key)] = value;
  }
  const std::string& driver = lines.front();
  if (!gantry::fuzz::accepts([&] { logs::validate_options(driver, options); })) return 0;
  const auto works = [](auto&& body) {
    gantry::fuzz::require(gantry::fuzz::accepts(body), "what was accepted can be used");
  };
  works([&] { (void)logs::drops_when_full(driver, options); });
  works([&] { (void)logs::buffer_size(options); });
  works([&] { (void)logs::keeps_cache(driver, options); });
  for (const char* name : {"syslog", "fluentd", "gelf"}) {
    const std::string text =
        options.contains(std::string(name) + "-address") ? options[std::string(name) + "-address"] : "";
    if (driver == name && !text.empty()) works([&] { (void)logs::parse_address(text, "tcp", "1"); });
  }
  return 0;
}
