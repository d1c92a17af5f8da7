#include "api/stats_json.hpp"

#include "api/json_writer.hpp"

namespace gantry::api {
namespace {

using engine::StatsSample;

void write_cpu(JsonWriter& json, const StatsSample& sample) {
  const sys::CgroupStats& from = sample.cgroup;
  json.begin_object().key("cpu_usage").begin_object();
  json.field("total_usage", from.cpu_total);
  if (!from.cpu_per_cpu.empty()) {
    json.key("percpu_usage").begin_array();
    for (const std::uint64_t usage : from.cpu_per_cpu) json.value(usage);
    json.end_array();
  }
  json.field("usage_in_kernelmode", from.cpu_kernel).field("usage_in_usermode", from.cpu_user).end_object();
  if (sample.system_cpu_ns != 0) json.field("system_cpu_usage", sample.system_cpu_ns);
  if (sample.online_cpus != 0) json.field("online_cpus", sample.online_cpus);
  json.key("throttling_data").begin_object().field("periods", from.throttling_periods);
  json.field("throttled_periods", from.throttled_periods).field("throttled_time", from.throttled_time);
  json.end_object().end_object();
}

void write_memory(JsonWriter& json, const StatsSubject& subject, const StatsSample& sample) {
  const sys::CgroupStats& from = sample.cgroup;
  json.begin_object();
  if (sample.running) {
    json.field("usage", from.memory_usage);
    if (!subject.cgroup_v2) json.field("max_usage", from.memory_max_usage);
    json.key("stats").begin_object();
    for (const auto& [name, value] : from.memory_stat) json.field(name, value);
    json.end_object();
    if (!subject.cgroup_v2) json.field("failcnt", from.memory_failcnt);
    json.field("limit", from.memory_limit == 0 ? subject.machine_memory : from.memory_limit);
  }
  json.end_object();
}

/// Of what a v1 controller counts there is a list, also an empty one.
void write_entries(JsonWriter& json, const std::vector<sys::BlkioEntry>& entries, bool counted) {
  if (entries.empty() && !counted) {
    json.null();
    return;
  }
  json.begin_array();
  for (const sys::BlkioEntry& entry : entries)
    json.begin_object()
        .field("major", entry.major)
        .field("minor", entry.minor)
        .field("op", entry.op)
        .field("value", entry.value)
        .end_object();
  json.end_array();
}

void write_blkio(JsonWriter& json, const StatsSubject& subject, const StatsSample& sample) {
  const bool v1 = sample.running && !subject.cgroup_v2;
  json.begin_object().key("io_service_bytes_recursive");
  write_entries(json, sample.cgroup.io_service_bytes, v1);
  json.key("io_serviced_recursive");
  write_entries(json, sample.cgroup.io_serviced, v1);
  for (const char* unused : {"io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive",
                             "io_merged_recursive", "io_time_recursive", "sectors_recursive"}) {
    json.key(unused);
    write_entries(json, {}, v1);
  }
  json.end_object();
}

void write_networks(JsonWriter& json, const StatsSample& sample) {
  json.begin_object();
  for (const auto& [name, c] : sample.interfaces) {
    json.key(name).begin_object();
    json.field("rx_bytes", c.rx_bytes).field("rx_packets", c.rx_packets).field("rx_errors", c.rx_errors);
    json.field("rx_dropped", c.rx_dropped).field("tx_bytes", c.tx_bytes).field("tx_packets", c.tx_packets);
    json.field("tx_errors", c.tx_errors).field("tx_dropped", c.tx_dropped).end_object();
  }
  json.end_object();
}

}  // namespace

std::string render_stats(const StatsSubject& subject, const StatsSample& sample, const StatsSample& previous) {
  std::string text;
  JsonWriter json(text);
  json.begin_object();
  json.field("id", subject.id).field("name", "/" + subject.name).field("os_type", "linux");
  json.field("read", render_rfc3339_nano(sample.running ? sample.read : Timestamp{}));
  json.key("cpu_stats");
  write_cpu(json, sample);
  json.key("memory_stats");
  write_memory(json, subject, sample);
  json.key("blkio_stats");
  write_blkio(json, subject, sample);
  json.key("pids_stats").begin_object();
  if (sample.running) json.field("current", sample.cgroup.pids_current);
  if (sample.cgroup.pids_limit != 0) json.field("limit", sample.cgroup.pids_limit);
  json.end_object();
  json.key("storage_stats").begin_object().end_object().field("num_procs", 0);
  if (!sample.interfaces.empty()) {
    json.key("networks");
    write_networks(json, sample);
  }
  json.field("preread", render_rfc3339_nano(previous.running ? previous.read : Timestamp{}));
  json.key("precpu_stats");
  write_cpu(json, previous);
  json.end_object();
  return text;
}

}  // namespace gantry::api
