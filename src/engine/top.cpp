#include "engine/top.hpp"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/messages.hpp"
#include "sys/process.hpp"

namespace gantry::engine {
namespace {

constexpr int kSeconds = 10;
constexpr std::size_t kOutputLimit = 8 << 20;

std::vector<std::string> words(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\v\f\r";
  std::vector<std::string> found;
  for (std::size_t begin = text.find_first_not_of(kBlank); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlank, begin), text.size());
    found.emplace_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kBlank, end);
  }
  return found;
}

sys::Output run_ps(std::vector<std::string> argv) {
  sys::SpawnOptions options;
  options.argv = std::move(argv);
  const char* path = std::getenv("PATH");
  options.env = {fmt::format("PATH={}", path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin")};
  return sys::run(std::move(options), kSeconds, kOutputLimit);
}

/// Asks only for the container's processes where ps can do that; otherwise for all that the arguments select.
std::string ask_ps(const std::vector<std::string>& args, const std::set<pid_t>& pids) {
  std::vector<std::string> argv{"ps"};
  argv.insert(argv.end(), args.begin(), args.end());
  std::vector<std::string> narrowed = argv;
  std::vector<std::string> list;
  for (const pid_t pid : pids) list.push_back(std::to_string(pid));
  narrowed.push_back("-q" + join(list, ","));
  sys::Output output = run_ps(std::move(narrowed));
  if (output.exit_code != 0) output = run_ps(std::move(argv));
  if (output.exit_code != 0)
    throw Error(Errc::invalid_argument, "ps: " + std::string(trim(output.stderr_text.substr(0, 1024))));
  return std::move(output.stdout_text);
}

}  // namespace

void validate_ps_args(const std::vector<std::string>& args) {
  for (const std::string& arg : args) {
    for (std::size_t at = arg.find('='); at != std::string::npos; at = arg.find('=', at + 1)) {
      const std::string_view title = std::string_view(arg).substr(at + 1);
      if (!title.starts_with("PID")) continue;
      const std::size_t begin = arg.find_last_of(" ,=-", at == 0 ? 0 : at - 1);
      const std::string column = arg.substr(begin == std::string::npos ? 0 : begin + 1, at - begin - 1);
      if (column != "pid" && column != "opid")
        throw Error(Errc::invalid_argument, fmt::format("specifying \"{}={}\" is not allowed", column, title));
    }
  }
}

ProcessList parse_ps(std::string_view output, const std::set<pid_t>& pids) {
  ProcessList list;
  const std::vector<std::string> lines = split(output, '\n');
  list.titles = words(lines.empty() ? std::string() : lines.front());
  const auto pid_title = std::find(list.titles.begin(), list.titles.end(), "PID");
  if (pid_title == list.titles.end()) throw Error(Errc::internal, "Couldn't find PID field in ps output");
  const auto pid_column = static_cast<std::size_t>(pid_title - list.titles.begin());
  for (std::size_t i = 1; i < lines.size(); ++i) {
    std::vector<std::string> fields = words(lines[i]);
    if (fields.size() <= pid_column) continue;
    const auto pid = parse_int(fields[pid_column]);
    if (!pid || !pids.contains(static_cast<pid_t>(*pid))) continue;
    // The last column is a command with its arguments.
    const std::size_t columns = list.titles.size();
    if (fields.size() > columns) {
      const std::vector<std::string> rest(fields.begin() + static_cast<std::ptrdiff_t>(columns) - 1, fields.end());
      fields.resize(columns);
      fields.back() = join(rest, " ");
    }
    list.processes.push_back(std::move(fields));
  }
  return list;
}

Task<ProcessList> list_processes(Services& services, ContainerStore& store, Lifecycle& lifecycle, std::string reference,
                                 std::string ps_args) {
  ContainerPtr container = store.get(reference);
  std::vector<std::string> args = words(ps_args);
  validate_ps_args(args);
  const std::string id = container->id.str();
  if (!container->state.running) throw container_not_running(id);
  if (container->state.restarting || !container->shim) throw container_is_restarting(id);
  runtime::ShimClient shim = container->live_shim();
  const std::vector<pid_t> found = co_await shim.pids();
  const std::set<pid_t> pids(found.begin(), found.end());
  const std::string output = co_await services.lanes.bulk.run_within(
      std::chrono::seconds(2 * kSeconds + 5), [args = std::move(args), pids] { return ask_ps(args, pids); });
  lifecycle.publish(*container, "top");
  co_return parse_ps(output, pids);
}

}  // namespace gantry::engine
