#include "runtime/limits.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::runtime {
namespace {

constexpr std::int64_t kMinimumMemory = 6 << 20;
constexpr unsigned kMaxCpu = 8191;
constexpr std::string_view kSlice = ".slice";
constexpr std::string_view kRootSlice = "-.slice";
constexpr std::string_view kDefaultSlice = "system.slice";
constexpr std::string_view kNotMounted = "or the cgroup is not mounted.";

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(Errc::invalid_argument, fmt::format(text, std::forward<Args>(args)...));
}

using Warnings = std::vector<std::string>;

void check_memory(Resources& r, const HostFacts& facts, LimitsPurpose purpose, Warnings& warnings) {
  if (r.memory != 0 && r.memory < kMinimumMemory) reject("Minimum memory limit allowed is 6MB");
  if (r.memory > 0 && !facts.memory_limit) {
    warnings.push_back(
        fmt::format("Your kernel does not support memory limit capabilities {} Limitation discarded.", kNotMounted));
    r.memory = 0;
    r.memory_swap = -1;
  }
  if (r.memory > 0 && r.memory_swap != -1 && !facts.swap_limit) {
    warnings.push_back(fmt::format(
        "Your kernel does not support swap limit capabilities {} Memory limited without swap.", kNotMounted));
    r.memory_swap = -1;
  }
  if (r.memory_swap < -1) reject("invalid MemorySwap {}: use -1 for no limit", r.memory_swap);
  if (r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory)
    reject("Minimum memoryswap limit should be larger than memory limit, see usage");
  if (r.memory == 0 && r.memory_swap > 0 && !purpose.update)
    reject("You should always set the Memory limit when using Memoryswap limit, see usage");
  if (r.memory_reservation < 0 || (r.memory_reservation > 0 && r.memory_reservation < kMinimumMemory))
    reject("Minimum memory reservation allowed is 6MB");
  if (r.memory > 0 && r.memory_reservation > r.memory)
    reject("Minimum memory limit can not be less than memory reservation limit, see usage");
  if (r.memory_reservation > 0 && !facts.memory_reservation) {
    warnings.push_back(fmt::format(
        "Your kernel does not support memory soft limit capabilities {} Limitation discarded.", kNotMounted));
    r.memory_reservation = 0;
  }
}

void check_swappiness_and_oom(Resources& r, const HostFacts& facts, Warnings& warnings) {
  if (r.memory_swappiness && *r.memory_swappiness != -1) {
    if (*r.memory_swappiness < -1 || *r.memory_swappiness > 100)
      reject("Invalid value: {}, valid memory swappiness range is 0-100", *r.memory_swappiness);
    if (!facts.memory_swappiness) {
      warnings.push_back(fmt::format(
          "Your kernel does not support memory swappiness capabilities {} Memory swappiness discarded.", kNotMounted));
      r.memory_swappiness.reset();
    }
  }
  if (r.oom_kill_disable && !facts.oom_kill_disable) {
    if (*r.oom_kill_disable)
      warnings.emplace_back("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    r.oom_kill_disable.reset();
  }
  if (r.oom_kill_disable.value_or(false) && r.memory == 0)
    warnings.emplace_back(
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
        "out of resources.");
  if (r.pids_limit && *r.pids_limit > 0 && !facts.pids_limit) {
    warnings.push_back(
        fmt::format("Your kernel does not support PIDs limit capabilities {} PIDs limit discarded.", kNotMounted));
    r.pids_limit.reset();
  }
}

void check_cpu(Resources& r, const HostFacts& facts, Warnings& warnings) {
  if (r.nano_cpus != 0) {
    if (r.cpu_period > 0) reject("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    if (r.cpu_quota > 0) reject("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    if (!facts.cpu_cfs)
      reject("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler {}",
             "or the cgroup is not mounted");
    // The kernel's shortest quota is 1 ms of a 100 ms period.
    if (r.nano_cpus < 10'000'000 || r.nano_cpus > std::int64_t{facts.cpus} * 1'000'000'000)
      reject("range of CPUs is from 0.01 to {}.00, as there are only {} CPUs available", facts.cpus, facts.cpus);
  }
  if (r.cpu_shares < 0) reject("invalid CPU shares ({}): value must be a positive integer", r.cpu_shares);
  if (r.cpu_shares > 0 && !facts.cpu_shares) {
    warnings.push_back(fmt::format("Your kernel does not support CPU shares {} Shares discarded.", kNotMounted));
    r.cpu_shares = 0;
  }
  if ((r.cpu_period != 0 || r.cpu_quota != 0) && !facts.cpu_cfs) {
    warnings.emplace_back("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.");
    r.cpu_period = r.cpu_quota = 0;
  }
  if (r.cpu_period != 0 && (r.cpu_period < 1000 || r.cpu_period > 1'000'000))
    reject("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  if (r.cpu_quota < -1 || (r.cpu_quota >= 0 && r.cpu_quota != 0 && r.cpu_quota < 1000))
    reject("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  if (r.cpu_realtime_period != 0 || r.cpu_realtime_runtime != 0) {
    if (!facts.cpu_realtime) reject("Your kernel does not support CPU real-time scheduler");
    if (r.cpu_realtime_period != 0 && r.cpu_realtime_runtime > r.cpu_realtime_period)
      reject("cpu real-time runtime cannot be higher than cpu real-time period");
  }
}

void check_cpu_list(std::string& wanted, const std::string& available, bool supported, std::string_view what,
                    std::string_view field, Warnings& warnings) {
  if (wanted.empty()) return;
  const auto list = parse_cpu_list(wanted);
  if (!list) reject("Invalid value {} for {}", wanted, field);
  if (!supported) {
    warnings.push_back(fmt::format("Your kernel does not support cpuset {} Cpuset discarded.", kNotMounted));
    wanted.clear();
    return;
  }
  const auto present = parse_cpu_list(available);
  if (!present) return;  // the kernel did not tell: the runtime will
  for (const unsigned n : *list)
    if (std::ranges::find(*present, n) == present->end())
      reject("Requested {} are not available - requested {}, available: {}", what, wanted, available);
}

void discard_unsupported(std::vector<BlockDeviceLimit>& limits, bool supported, std::string_view what,
                         std::string_view discarded, Warnings& warnings) {
  if (limits.empty() || supported) return;
  warnings.push_back(fmt::format("Your kernel does not support {} {} {} discarded.", what, kNotMounted, discarded));
  limits.clear();
}

void check_blkio(Resources& r, const HostFacts& facts, Warnings& warnings) {
  if (r.blkio_weight != 0 && !facts.blkio_weight) {
    warnings.push_back(fmt::format("Your kernel does not support Block I/O weight {} Weight discarded.", kNotMounted));
    r.blkio_weight = 0;
  }
  if (r.blkio_weight != 0 && (r.blkio_weight < 10 || r.blkio_weight > 1000))
    reject("Range of blkio weight is from 10 to 1000");
  discard_unsupported(r.blkio_weight_device, facts.blkio_weight_device, "Block I/O weight_device", "Weight-device",
                      warnings);
  for (const BlockDeviceLimit& limit : r.blkio_weight_device)
    if (limit.value < 10 || limit.value > 1000) reject("Range of blkio weight is from 10 to 1000");
  discard_unsupported(r.blkio_read_bps, facts.blkio_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit",
                      warnings);
  discard_unsupported(r.blkio_write_bps, facts.blkio_write_bps, "BPS Block I/O write limit",
                      "Block I/O BPS write limit", warnings);
  discard_unsupported(r.blkio_read_iops, facts.blkio_read_iops, "IOPS Block I/O read limit",
                      "Block I/O IOPS read limit", warnings);
  discard_unsupported(r.blkio_write_iops, facts.blkio_write_iops, "IOPS Block I/O write limit",
                      "Block I/O IOPS write limit", warnings);
}

/// "a-b.slice" is a slice inside "a.slice"; "-.slice" is the root. Source: systemd.slice(5).
bool is_slice(const std::string& name) {
  if (!name.ends_with(kSlice) || name.find('/') != std::string::npos) return false;
  if (name == kRootSlice) return true;
  const auto parts = split(name.substr(0, name.size() - kSlice.size()), '-');
  return std::ranges::find(parts, "") == parts.end();
}

}  // namespace

std::vector<std::string> validate_resources(Resources& resources, const HostFacts& facts, LimitsPurpose purpose) {
  Warnings warnings;
  check_memory(resources, facts, purpose, warnings);
  check_swappiness_and_oom(resources, facts, warnings);
  check_cpu(resources, facts, warnings);
  check_cpu_list(resources.cpuset_cpus, facts.cpus_online, facts.cpuset, "CPUs", "cpuset cpus", warnings);
  check_cpu_list(resources.cpuset_mems, facts.mems_online, facts.cpuset, "memory nodes", "cpuset mems", warnings);
  check_blkio(resources, facts, warnings);
  if (resources.memory > 0 && resources.memory_swap == 0 && !purpose.update && facts.swap_limit)
    resources.memory_swap =
        resources.memory > INT64_MAX / 2 ? std::int64_t{-1} : resources.memory * 2;  // Docker's default
  return warnings;
}

Resources apply_update(const Resources& current, const Resources& changes) {
  if (changes.nano_cpus > 0 && current.cpu_period > 0)
    reject("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set");
  if (changes.nano_cpus > 0 && current.cpu_quota > 0)
    reject("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set");
  if (changes.cpu_quota > 0 && current.nano_cpus > 0)
    reject("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
  if (changes.cpu_period > 0 && current.nano_cpus > 0)
    reject("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set");
  // dockerd also refuses where no swap limit was ever set; nothing conflicts there.
  if (changes.memory > 0 && changes.memory_swap == 0 && current.memory_swap > 0 && changes.memory > current.memory_swap)
    reject("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time");
  if (changes.memory_swap > 0 && changes.memory == 0 && current.memory > changes.memory_swap)
    reject("Minimum memoryswap limit should be larger than memory limit, see usage");
  if (changes.memory_swap > 0 && changes.memory == 0 && current.memory == 0)
    reject("You should always set the Memory limit when using Memoryswap limit, see usage");
  Resources merged = current;
  const auto take = [](auto& to, const auto& from) {
    if (from != std::remove_cvref_t<decltype(from)>{}) to = from;
  };
  take(merged.memory, changes.memory);
  take(merged.memory_swap, changes.memory_swap);
  take(merged.memory_reservation, changes.memory_reservation);
  take(merged.memory_swappiness, changes.memory_swappiness);
  take(merged.oom_kill_disable, changes.oom_kill_disable);
  take(merged.nano_cpus, changes.nano_cpus);
  take(merged.cpu_shares, changes.cpu_shares);
  take(merged.cpu_period, changes.cpu_period);
  take(merged.cpu_quota, changes.cpu_quota);
  take(merged.cpu_realtime_period, changes.cpu_realtime_period);
  take(merged.cpu_realtime_runtime, changes.cpu_realtime_runtime);
  take(merged.cpuset_cpus, changes.cpuset_cpus);
  take(merged.cpuset_mems, changes.cpuset_mems);
  take(merged.pids_limit, changes.pids_limit);
  take(merged.blkio_weight, changes.blkio_weight);
  take(merged.blkio_weight_device, changes.blkio_weight_device);
  take(merged.blkio_read_bps, changes.blkio_read_bps);
  take(merged.blkio_write_bps, changes.blkio_write_bps);
  take(merged.blkio_read_iops, changes.blkio_read_iops);
  take(merged.blkio_write_iops, changes.blkio_write_iops);
  return merged;
}

void validate_oom_score_adj(int value) {
  if (value < -1000 || value > 1000) reject("Invalid value {}, range for oom score adj is [-1000, 1000]", value);
}

void validate_shm_size(std::int64_t bytes) {
  if (bytes < 0) reject("SHM size can not be less than 0");
}

void validate_ulimits(const std::vector<Ulimit>& ulimits) {
  static const std::set<std::string, std::less<>> known{"as",      "core",     "cpu",        "data",   "fsize", "locks",
                                                        "memlock", "msgqueue", "nice",       "nofile", "nproc", "rss",
                                                        "rtprio",  "rttime",   "sigpending", "stack"};
  for (const Ulimit& limit : ulimits) {
    if (!known.contains(limit.name)) reject("invalid ulimit type: {}", limit.name);
    if (limit.soft < -1 || limit.hard < -1)
      reject("invalid ulimit {}: {}:{}: use -1 for no limit", limit.name, limit.soft, limit.hard);
    const bool soft_unlimited = limit.soft == -1;
    if (limit.hard != -1 && (soft_unlimited || limit.soft > limit.hard))
      reject("ulimit soft limit must be less than or equal to hard limit: {} > {}", limit.soft, limit.hard);
  }
}

std::vector<Ulimit> merge_ulimits(const std::vector<Ulimit>& defaults, const std::vector<Ulimit>& own) {
  std::map<std::string, Ulimit> merged;
  for (const Ulimit& limit : defaults) merged[limit.name] = limit;
  for (const Ulimit& limit : own) merged[limit.name] = limit;
  std::vector<Ulimit> out;
  for (auto& [name, limit] : merged) out.push_back(std::move(limit));
  return out;
}

void validate_sysctls(const std::map<std::string, std::string>& sysctls, const SysctlScope& scope) {
  static const std::set<std::string, std::less<>> ipc{"kernel.msgmax", "kernel.msgmnb",         "kernel.msgmni",
                                                      "kernel.sem",    "kernel.shmall",         "kernel.shmmax",
                                                      "kernel.shmmni", "kernel.shm_rmid_forced"};
  for (const auto& [name, value] : sysctls) {
    const bool well_formed =
        !name.empty() && name.size() < 256 && name.find("..") == std::string::npos &&
        std::ranges::all_of(
            name, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == '/'; });
    if (!well_formed) reject("invalid sysctl {}", quote(name));
    if (value.find('\0') != std::string::npos || value.size() > 4096) reject("invalid value of sysctl {}", quote(name));
    std::string dotted = name;
    // "net/ipv4/conf/eth0.1/forwarding" is a legal spelling; the first separator tells which one is used.
    if (const auto first = dotted.find_first_of("./"); first != std::string::npos && dotted[first] == '/')
      std::ranges::replace(dotted, '/', '.');
    if (dotted.starts_with("net.")) {
      if (!scope.private_net) reject("sysctl {} not allowed in host network namespace", quote(name));
    } else if (ipc.contains(dotted) || dotted.starts_with("fs.mqueue.")) {
      if (!scope.private_ipc) reject("sysctl {} is not allowed in the hosts ipc namespace", quote(name));
    } else if (dotted == "kernel.hostname") {
      reject("sysctl {} conflicts with Hostname: use the Hostname field", quote(name));
    } else if (dotted == "kernel.domainname") {
      if (!scope.private_uts) reject("sysctl {} is not allowed in the hosts uts namespace", quote(name));
    } else {
      reject("sysctl {} is not in a separate kernel namespace", quote(name));
    }
  }
}

void validate_cgroup_parent(const std::string& parent, bool systemd) {
  if (parent.empty()) return;
  for (const unsigned char c : parent)
    if (c < 0x21 || c == 0x7f) reject("invalid cgroup-parent: {}", quote(parent));
  for (const std::string& part : split(parent, '/'))
    if (part == ".." || part.size() > 255) reject("invalid cgroup-parent: {}", quote(parent));
  if (parent.size() > 1024 || parent.find_first_not_of('/') == std::string::npos)
    reject("invalid cgroup-parent: {}", quote(parent));
  if (systemd && !is_slice(parent))
    reject("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"");
}

std::string cgroups_path(const std::string& parent, const std::string& id, bool systemd) {
  if (systemd) return fmt::format("{}:docker:{}", parent.empty() ? kDefaultSlice : parent, id);
  std::string path;
  for (const std::string& part : split(parent.empty() ? "/docker" : parent, '/'))
    if (!part.empty() && part != ".") path += "/" + part;
  return path + "/" + id;
}

std::string cgroup_directory(const std::string& parent, const std::string& id, bool systemd) {
  const std::string slice = parent.empty() ? std::string(kDefaultSlice) : parent;
  if (!systemd || !is_slice(slice)) return cgroups_path(parent, id, false);
  std::string path, prefix;
  if (slice != kRootSlice)
    for (const std::string& part : split(slice.substr(0, slice.size() - kSlice.size()), '-')) {
      prefix += (prefix.empty() ? "" : "-") + part;
      path += fmt::format("/{}{}", prefix, kSlice);
    }
  return fmt::format("{}/docker-{}.scope", path, id);
}

std::optional<std::vector<unsigned>> parse_cpu_list(std::string_view text) {
  std::set<unsigned> numbers;
  for (const std::string& part : split(trim(text), ',')) {
    if (part.empty()) continue;
    const auto [low_text, high_text] = split_once(part, '-');
    const bool range = part.find('-') != std::string::npos;
    const auto low = parse_int(low_text), high = range ? parse_int(high_text) : low;
    if (!low || !high || *low < 0 || *high < *low || *high > kMaxCpu) return std::nullopt;
    for (auto n = *low; n <= *high; ++n) numbers.insert(static_cast<unsigned>(n));
  }
  if (numbers.empty()) return std::nullopt;
  return std::vector<unsigned>(numbers.begin(), numbers.end());
}

void validate_path_list(const std::vector<std::string>& paths, std::string_view field) {
  for (const std::string& path : paths) {
    const auto parts = split(path, '/');
    if (!path.starts_with('/') || path.size() > 4095 || path.find('\0') != std::string::npos ||
        std::ranges::find(parts, "..") != parts.end())
      reject("invalid {}: {} is not an absolute path", field, quote(path));
  }
}

}  // namespace gantry::runtime
