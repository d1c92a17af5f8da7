#include "engine/stats.hpp"

#include <sstream>

#include <unistd.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "runtime/limits.hpp"
#include "sys/file.hpp"

namespace gantry::engine {
namespace {

/// A reading is good for this long.
constexpr std::chrono::seconds kFresh{1};
constexpr std::chrono::seconds kPatience{10};

struct Target {
  std::string group;
  std::int64_t pid = 0;
  bool own_network = false;  // not the host's
};

StatsSample read_sample(const sys::CgroupLayout& layout, const Target& target) {
  StatsSample sample;
  try {
    sample.cgroup = sys::read_cgroup_stats(layout, target.group);
  } catch (const Error& e) {
    if (e.code() != Errc::not_found) throw;
    return sample;  // the container has ended
  }
  sample.running = true;
  sample.system_cpu_ns = parse_system_cpu(sys::try_read_small("/proc/stat").value_or(""));
  if (target.own_network) {
    const std::string path = "/proc/" + std::to_string(target.pid) + "/net/dev";
    sample.interfaces = parse_net_dev(sys::try_read_small(path).value_or(""));
  }
  return sample;
}

}  // namespace

std::map<std::string, InterfaceCounters> parse_net_dev(std::string_view text) {
  std::map<std::string, InterfaceCounters> interfaces;
  for (const std::string& line : split(text, '\n')) {
    const auto [name_text, numbers] = split_once(line, ':');
    const std::string name(trim(name_text));
    if (numbers.empty() || name == "lo" || name.find('|') != std::string::npos) continue;
    std::istringstream in{std::string(numbers)};
    InterfaceCounters c;
    std::uint64_t skip = 0;
    // Then fifo, frame, compressed and multicast.
    in >> c.rx_bytes >> c.rx_packets >> c.rx_errors >> c.rx_dropped >> skip >> skip >> skip >> skip;
    in >> c.tx_bytes >> c.tx_packets >> c.tx_errors >> c.tx_dropped;
    if (in) interfaces.emplace(name, c);
  }
  return interfaces;
}

std::uint64_t parse_system_cpu(std::string_view text) {
  std::istringstream in{std::string(text.substr(0, text.find('\n')))};
  std::string cpu;
  in >> cpu;
  std::uint64_t ticks = 0;
  // user nice system idle iowait irq softirq; what follows is counted in these already or not ours
  for (int field = 0; field < 7; ++field) {
    std::uint64_t value = 0;
    if (!(in >> value)) break;
    ticks += value;
  }
  return ticks * (1'000'000'000ULL / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)));
}

Task<StatsSample> StatsReader::read_now(ContainerPtr container) const {
  StatsSample sample;
  if (container->state.running && container->shim) {
    Target target;
    const config::Config& config = services_.config;
    target.group = runtime::cgroup_directory(container->cgroup_parent(config.cgroup_parent), container->id.str(),
                                             config.systemd_cgroups());
    target.pid = container->state.pid;
    const network::Attachment* attachment = services_.networks.find_attachment(container->id.str());
    target.own_network = attachment != nullptr && attachment->kind != network::SandboxKind::host;
    const sys::CgroupLayout* layout = &services_.host.cgroup;
    sample =
        co_await services_.lanes.quick.run_within(kPatience, [layout, target] { return read_sample(*layout, target); });
    sample.online_cpus = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  }
  sample.read = now();
  co_return sample;
}

Task<StatsSample> StatsReader::read(ContainerPtr container, Timestamp after) {
  using Clock = std::chrono::steady_clock;
  std::erase_if(entries_, [](const auto& item) {
    return item.second.use_count() == 1 && Clock::now() - item.second->at > kFresh;
  });
  std::shared_ptr<Entry>& slot = entries_[container->id.str()];
  if (!slot) slot = std::make_shared<Entry>();
  const std::shared_ptr<Entry> entry = slot;
  for (;;) {
    const bool known = entry->at != Clock::time_point{} && Clock::now() - entry->at < kFresh;
    if (known && entry->latest.read > after && entry->latest.running == container->state.running)
      co_return entry->latest;
    if (!entry->reading) break;
    co_await entry->done.wait();
  }
  struct Reading {
    Entry& entry;
    explicit Reading(Entry& e) : entry(e) { entry.reading = true; }
    ~Reading() {
      entry.reading = false;
      entry.done.notify();
    }
  } reading{*entry};
  entry->latest = co_await read_now(container);
  entry->at = Clock::now();
  co_return entry->latest;
}

}  // namespace gantry::engine
