#include "base/error.hpp"
#include "base/text.hpp"
#include "config/load.hpp"
#include "config/options.hpp"

namespace gantry::config {

ReloadResult reload(const ParsedCommandLine& command_line, const HostFacts& host, const Config& running) {
  LoadResult loaded = load(command_line, host);
  if (!loaded.problems.empty()) {
    std::vector<std::string> lines;
    lines.reserve(loaded.problems.size());
    for (const Problem& problem : loaded.problems) lines.push_back(render_problem(problem));
    throw Error(Errc::invalid_argument, join(lines, "\n"));
  }
  ReloadResult result;
  result.config = running;
  for (const Option& option : options()) {
    if (same_value(running, loaded.config, option)) continue;
    if (option.reload == Reload::no) {
      result.needs_restart.emplace_back(option.key);
      continue;
    }
    copy_value(loaded.config, result.config, option);
    result.changed.emplace_back(option.key);
  }
  return result;
}

}  // namespace gantry::config
