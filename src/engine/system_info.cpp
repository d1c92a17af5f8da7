#include "engine/system_info.hpp"

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "base/text.hpp"
#include "db/container_rows.hpp"
#include "engine/system_warnings.hpp"
#include "logs/options.hpp"
#include "runtime/cdi.hpp"
#include "sys/file.hpp"

namespace gantry::engine {
namespace {

constexpr std::string_view kStorageDriver = "overlay2";

std::string yes_no(bool flag) { return flag ? "true" : "false"; }

/// The proxy that image pulls use: the daemon's own setting, else the environment's.
std::string proxy(const std::string& configured, const char* variable) {
  if (!configured.empty()) return mask_credentials(configured);
  for (const std::string& name : {to_upper(variable), to_lower(variable)})
    if (const char* value = std::getenv(name.c_str())) return mask_credentials(value);
  return {};
}

/// 16 random bytes as the daemon's id is written.
std::string make_uuid() {
  std::string hex = random_id().substr(0, 32);
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) % 4];
  for (const std::size_t at : {8, 13, 18, 23}) hex.insert(at, "-");
  return hex;
}

std::int64_t count_descriptors() {
  std::error_code ec;
  std::int64_t count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", ec), end; !ec && it != end; it.increment(ec)) ++count;
  return count;
}

InfoIndex docker_hub(const config::Config& config) {
  InfoIndex index;
  index.Name = "docker.io";
  index.Official = true;
  for (const std::string& mirror : config.registry_mirrors) index.Mirrors.push_back(mirror + "/");
  return index;
}

}  // namespace

Task<void> SystemInfoSource::load_identity(db::Db& db) {
  db::Db* rows = &db;
  id_ = co_await services_.lanes.db.run([rows] {
    std::string id = db::get_meta(*rows, "daemon-id");
    if (id.empty()) {
      id = make_uuid();
      db::set_meta(*rows, "daemon-id", id);
    }
    return id;
  });
}

Task<SystemInfo> SystemInfoSource::info() {
  SystemInfo info;
  info.ID = id_;
  info.SystemTime = render_rfc3339_nano(now());
  info.ServerVersion = kEngineVersion;
  put_counts(info);
  put_host(info);
  put_limits(info);
  put_storage(info);
  put_registries(info);
  put_runtimes(info);
  put_network(info);
  info.SecurityOptions = security_options(services_.config, services_.host);
  runtime::HostFacts host = services_.host;
  host.ipv4_forwarding = info.IPv4Forwarding;
  info.Warnings = daemon_warnings(services_.config, host);
  if (const std::int64_t damaged = services_.images.damaged(); damaged > 0)
    info.Warnings->push_back(fmt::format("WARNING: {} image{} damaged: run gantryd repair", damaged,
                                         damaged == 1 ? " is" : "s are"));
  for (std::string& warning : services_.networks.warnings()) info.Warnings->push_back(std::move(warning));
  const runtime::CdiInventory devices = co_await services_.lanes.quick.run(
      [directories = info.CDISpecDirs] { return runtime::list_cdi_devices_blocking(directories); });
  if (!devices.devices.empty()) info.DiscoveredDevices.emplace();
  for (const std::string& id : devices.devices) info.DiscoveredDevices->push_back({"cdi", id});
  info.Warnings->insert(info.Warnings->end(), devices.warnings.begin(), devices.warnings.end());
  co_return info;
}

void SystemInfoSource::put_counts(SystemInfo& info) const {
  for (const ContainerPtr& container : store_.list()) {
    ++info.Containers;
    const Status status = container->status();
    if (status == Status::paused) ++info.ContainersPaused;
    else if (container->state.running) ++info.ContainersRunning;
    else ++info.ContainersStopped;
  }
  info.Images = services_.images.usage().images;
  info.NEventsListener = static_cast<std::int64_t>(services_.events.readers());
  info.NGoroutines = static_cast<std::int64_t>(services_.operations.list().size());
  info.Debug = services_.config.debug;
  if (info.Debug) info.NFd = count_descriptors();
}

void SystemInfoSource::put_host(SystemInfo& info) const {
  const runtime::HostFacts& host = services_.host;
  const config::Config& config = services_.config;
  info.KernelVersion = host.kernel_version;
  info.OperatingSystem = host.operating_system;
  info.OSVersion = host.os_version;
  info.Architecture = host.architecture;
  info.NCPU = host.cpus;
  info.MemTotal = host.memory_bytes;
  info.Name = host.hostname;
  info.DockerRootDir = config.data_root;
  info.Labels = config.labels;
  info.ExperimentalBuild = config.experimental;
  info.LoggingDriver = config.log_driver;
  for (const std::string_view driver : logs::driver_names()) info.Plugins.Log.emplace_back(driver);
  info.LiveRestoreEnabled = config.live_restore;
  info.CDISpecDirs = config.cdi_spec_dirs.empty() ? runtime::kDefaultCdiDirectories : config.cdi_spec_dirs;
}

void SystemInfoSource::put_limits(SystemInfo& info) const {
  const runtime::HostFacts& host = services_.host;
  info.MemoryLimit = host.memory_limit;
  info.SwapLimit = host.swap_limit;
  info.CpuCfsPeriod = host.cpu_cfs;
  info.CpuCfsQuota = host.cpu_cfs;
  info.CPUShares = host.cpu_shares;
  info.CPUSet = host.cpuset;
  info.PidsLimit = host.pids_limit;
  info.OomKillDisable = host.oom_kill_disable;
  // The network module may have switched it on since the machine was looked at. Reading it never waits.
  info.IPv4Forwarding = sys::try_read_small("/proc/sys/net/ipv4/ip_forward").value_or("0").starts_with('1');
  const bool cgroups = host.cgroup.mode != sys::CgroupMode::none;
  info.CgroupDriver = !cgroups ? "none" : services_.config.systemd_cgroups() ? "systemd" : "cgroupfs";
  info.CgroupVersion = host.cgroup.is_v2() ? "2" : "1";
}

void SystemInfoSource::put_storage(SystemInfo& info) const {
  info.Driver = kStorageDriver;
  info.DriverStatus = {{"Backing Filesystem", storage_.backing_filesystem},
                       {"Supports d_type", yes_no(storage_.supports_d_type)},
                       {"Using metacopy", yes_no(storage_.metacopy)},
                       {"Native Overlay Diff", yes_no(storage_.native_overlay_diff)},
                       {"userxattr", yes_no(storage_.userxattr)}};
  if (const std::int64_t keep = services_.config.image_keep_free; keep > 0)
    info.DriverStatus.push_back({"Keep Free", render_human_size(keep) + ", by removing unused images"});
}

void SystemInfoSource::put_registries(SystemInfo& info) const {
  const config::Config& config = services_.config;
  InfoRegistryConfig& registries = info.RegistryConfig;
  const InfoIndex hub = docker_hub(config);
  registries.Mirrors = hub.Mirrors;
  registries.IndexConfigs["docker.io"] = hub;
  for (const std::string& insecure : config.insecure_registries) {
    if (insecure.find('/') != std::string::npos) {
      registries.InsecureRegistryCIDRs.push_back(insecure);
      continue;
    }
    InfoIndex& index = registries.IndexConfigs[insecure];
    index.Name = insecure;
    index.Secure = false;
  }
  info.HttpProxy = proxy(config.http_proxy, "http_proxy");
  info.HttpsProxy = proxy(config.https_proxy, "https_proxy");
  info.NoProxy = proxy(config.no_proxy, "no_proxy");
}

void SystemInfoSource::put_runtimes(SystemInfo& info) const {
  const config::Config& config = services_.config;
  const runtime::HostFacts& host = services_.host;
  info.Runtimes["runc"].path = "runc";
  info.Runtimes["io.containerd.runc.v2"].path = "runc";
  for (const auto& [name, runtime] : config.runtimes) {
    InfoRuntime& shown = info.Runtimes[name];
    shown.path = runtime.path.empty() ? runtime.type : runtime.path;
    if (!runtime.args.empty()) shown.runtimeArgs = runtime.args;
  }
  info.DefaultRuntime = config.default_runtime;
  info.InitBinary = config.init_path.empty() ? config.default_init : config.init_path;
  info.RuncCommit.ID = host.runc.commit.empty() ? host.runc.version : host.runc.commit;
  info.InitCommit.ID = host.init.commit.empty() ? host.init.version : host.init.commit;
}

void SystemInfoSource::put_network(SystemInfo& info) const {
  info.Plugins.Network = {"bridge", "host", "null"};
  std::vector<std::vector<std::string>> details;
  for (const auto& [name, value] : services_.networks.firewall_details()) {
    if (name == "Driver") info.FirewallBackend.Driver = value;
    else details.push_back({name, value});
  }
  if (!details.empty()) info.FirewallBackend.Info = std::move(details);
  if (services_.config.default_address_pools.empty()) return;
  info.DefaultAddressPools.emplace();
  for (const config::AddressPool& pool : services_.config.default_address_pools)
    info.DefaultAddressPools->push_back(InfoAddressPool{pool.base, pool.size});
}

SystemVersion SystemInfoSource::version() {
  const runtime::HostFacts& host = services_.host;
  SystemVersion version;
  version.Platform.Name = "Gantry Engine";
  version.Version = kEngineVersion;
  version.Arch = host.goarch;
  version.GitCommit = "gantry-" GANTRY_VERSION;
  version.GoVersion = "none";
  version.KernelVersion = host.kernel_version;
  if (services_.config.experimental) version.Experimental.emplace(true);
  VersionComponent engine;
  engine.Name = "Engine";
  engine.Version = version.Version;
  engine.Details = {{"Arch", version.Arch},
                    {"BuildTime", version.BuildTime},
                    {"Experimental", yes_no(services_.config.experimental)},
                    {"GitCommit", version.GitCommit},
                    {"GoVersion", version.GoVersion},
                    {"KernelVersion", version.KernelVersion},
                    {"Os", version.Os}};
  version.Components.push_back(std::move(engine));
  const auto add_program = [&version](std::string name, const runtime::ProgramVersion& program) {
    if (program.path.empty()) return;
    VersionComponent component;
    component.Name = std::move(name);
    component.Version = program.version;
    component.Details["GitCommit"] = program.commit;
    version.Components.push_back(std::move(component));
  };
  add_program("runc", host.runc);
  add_program("docker-init", host.init);
  return version;
}

std::map<std::string, std::string> SystemInfoSource::reload_attributes() const {
  const config::Config& config = services_.config;
  return {{"name", services_.host.hostname},
          {"debug", yes_no(config.debug)},
          {"labels", "[" + join(config.labels, ",") + "]"},
          {"live-restore", yes_no(config.live_restore)},
          {"default-runtime", config.default_runtime},
          {"default-shm-size", std::to_string(config.default_shm_size)},
          {"default-ipc-mode", config.default_ipc_mode},
          {"insecure-registries", "[" + join(config.insecure_registries, ",") + "]"},
          {"registry-mirrors", "[" + join(config.registry_mirrors, ",") + "]"},
          {"max-concurrent-downloads", std::to_string(config.max_concurrent_downloads)},
          {"max-concurrent-uploads", std::to_string(config.max_concurrent_uploads)},
          {"max-download-attempts", std::to_string(config.max_download_attempts)}};
}

}  // namespace gantry::engine
