#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

#include "async/task.hpp"
#include "json/fields.hpp"

/// What the daemon tells about itself and the host, with the wire names of GET /info and GET /version in their newest
/// version; api/system_routes.cpp makes the older shapes out of it.
namespace gantry::engine {

struct InfoPlugins {
  std::vector<std::string> Volume{"local"};
  std::vector<std::string> Network{"bridge", "host", "ipvlan", "macvlan", "null", "overlay"};
  std::optional<std::vector<std::string>> Authorization;
  std::vector<std::string> Log;
};
BOOST_DESCRIBE_STRUCT(InfoPlugins, (), (Volume, Network, Authorization, Log))

struct InfoIndex {
  std::string Name;
  std::vector<std::string> Mirrors;
  bool Secure = true;
  bool Official = false;
};
BOOST_DESCRIBE_STRUCT(InfoIndex, (), (Name, Mirrors, Secure, Official))

struct InfoRegistryConfig {
  std::vector<std::string> InsecureRegistryCIDRs{"::1/128", "127.0.0.0/8"};
  std::map<std::string, InfoIndex> IndexConfigs;
  std::vector<std::string> Mirrors;
};
BOOST_DESCRIBE_STRUCT(InfoRegistryConfig, (), (InsecureRegistryCIDRs, IndexConfigs, Mirrors))

struct InfoRuntime {
  std::string path;
  json::Omit<std::vector<std::string>> runtimeArgs;
  json::Omit<json::StringMap> status;
};
BOOST_DESCRIBE_STRUCT(InfoRuntime, (), (path, runtimeArgs, status))

struct InfoSwarm {
  std::string NodeID;
  std::string NodeAddr;
  std::string LocalNodeState = "inactive";
  bool ControlAvailable = false;
  std::string Error;
  std::optional<std::vector<std::string>> RemoteManagers;
};
BOOST_DESCRIBE_STRUCT(InfoSwarm, (), (NodeID, NodeAddr, LocalNodeState, ControlAvailable, Error, RemoteManagers))

struct InfoCommit {
  std::string ID;
};
BOOST_DESCRIBE_STRUCT(InfoCommit, (), (ID))

struct InfoAddressPool {
  std::string Base;
  std::int64_t Size = 0;
};
BOOST_DESCRIBE_STRUCT(InfoAddressPool, (), (Base, Size))

struct InfoFirewall {
  std::string Driver = "nftables";
  json::Omit<std::vector<std::vector<std::string>>> Info;
};
BOOST_DESCRIBE_STRUCT(InfoFirewall, (), (Driver, Info))

struct InfoDevice {
  std::string Source;
  std::string ID;
};
BOOST_DESCRIBE_STRUCT(InfoDevice, (), (Source, ID))

/// The first half: BOOST_DESCRIBE_STRUCT takes at most 52 members.
struct SystemCapabilities {
  std::string ID;
  std::int64_t Containers = 0;
  std::int64_t ContainersRunning = 0;
  std::int64_t ContainersPaused = 0;
  std::int64_t ContainersStopped = 0;
  std::int64_t Images = 0;
  std::string Driver;
  std::vector<std::vector<std::string>> DriverStatus;
  InfoPlugins Plugins;
  bool MemoryLimit = false;
  bool SwapLimit = false;
  bool CpuCfsPeriod = false;
  bool CpuCfsQuota = false;
  bool CPUShares = false;
  bool CPUSet = false;
  bool PidsLimit = false;
  bool IPv4Forwarding = false;
  bool Debug = false;
  std::int64_t NFd = 0;
  bool OomKillDisable = false;
  std::int64_t NGoroutines = 0;
};
BOOST_DESCRIBE_STRUCT(SystemCapabilities, (),
                      (ID, Containers, ContainersRunning, ContainersPaused, ContainersStopped, Images, Driver,
                       DriverStatus, Plugins, MemoryLimit, SwapLimit, CpuCfsPeriod, CpuCfsQuota, CPUShares, CPUSet,
                       PidsLimit, IPv4Forwarding, Debug, NFd, OomKillDisable, NGoroutines))

struct SystemInfo : SystemCapabilities {
  std::string SystemTime;  // RFC 3339 with nanoseconds
  std::string LoggingDriver;
  std::string CgroupDriver;   // cgroupfs, systemd or none
  std::string CgroupVersion;  // "1" or "2"
  std::int64_t NEventsListener = 0;
  std::string KernelVersion;
  std::string OperatingSystem;
  std::string OSVersion;
  std::string OSType = "linux";
  std::string Architecture;  // as uname says: x86_64, aarch64
  std::string IndexServerAddress = "https://index.docker.io/v1/";
  InfoRegistryConfig RegistryConfig;
  std::int64_t NCPU = 0;
  std::int64_t MemTotal = 0;  // bytes
  std::optional<std::vector<std::string>> GenericResources;
  std::string DockerRootDir;
  std::string HttpProxy;  // without credentials
  std::string HttpsProxy;
  std::string NoProxy;
  std::string Name;
  std::vector<std::string> Labels;
  bool ExperimentalBuild = false;
  std::string ServerVersion;
  std::map<std::string, InfoRuntime> Runtimes;
  std::string DefaultRuntime;
  InfoSwarm Swarm;
  bool LiveRestoreEnabled = false;
  std::string Isolation;
  std::string InitBinary;
  InfoCommit ContainerdCommit;
  InfoCommit RuncCommit;
  InfoCommit InitCommit;
  std::vector<std::string> SecurityOptions;
  json::Omit<std::string> ProductLicense;
  json::Omit<std::vector<InfoAddressPool>> DefaultAddressPools;
  InfoFirewall FirewallBackend;
  std::vector<std::string> CDISpecDirs;
  json::Omit<std::vector<InfoDevice>> DiscoveredDevices;
  std::optional<std::vector<std::string>> Warnings;
};
BOOST_DESCRIBE_STRUCT(SystemInfo, (SystemCapabilities),
                      (SystemTime, LoggingDriver, CgroupDriver, CgroupVersion, NEventsListener, KernelVersion,
                       OperatingSystem, OSVersion, OSType, Architecture, IndexServerAddress, RegistryConfig, NCPU,
                       MemTotal, GenericResources, DockerRootDir, HttpProxy, HttpsProxy, NoProxy, Name, Labels,
                       ExperimentalBuild, ServerVersion, Runtimes, DefaultRuntime, Swarm, LiveRestoreEnabled, Isolation,
                       InitBinary, ContainerdCommit, RuncCommit, InitCommit, SecurityOptions, ProductLicense,
                       DefaultAddressPools, FirewallBackend, CDISpecDirs, DiscoveredDevices, Warnings))

struct VersionPlatform {
  std::string Name;
};
BOOST_DESCRIBE_STRUCT(VersionPlatform, (), (Name))

struct VersionComponent {
  std::string Name;
  std::string Version;
  json::StringMap Details;
};
BOOST_DESCRIBE_STRUCT(VersionComponent, (), (Name, Version, Details))

/// ApiVersion and MinAPIVersion are filled in by the route, there and in the details of the component "Engine".
struct SystemVersion {
  VersionPlatform Platform;
  std::string Version;  // clients compare it: "28.0.0"
  std::string ApiVersion;
  std::string MinAPIVersion;
  std::string Os = "linux";
  std::string Arch;  // as Go says: amd64, arm64
  std::vector<VersionComponent> Components;
  std::string GitCommit;
  std::string GoVersion;
  std::string KernelVersion;
  json::Omit<bool> Experimental;
  std::string BuildTime;  // "2026-01-02T15:04:05.000000000+00:00"
};
BOOST_DESCRIBE_STRUCT(SystemVersion, (),
                      (Platform, Version, ApiVersion, MinAPIVersion, Os, Arch, Components, GitCommit, GoVersion,
                       KernelVersion, Experimental, BuildTime))

/// Answers from memory, at once, and never fails: docker runs `info` in the middle of other commands.
class SystemSource {
 public:
  virtual ~SystemSource() = default;
  virtual Task<SystemInfo> info() = 0;
  virtual SystemVersion version() = 0;
};

}  // namespace gantry::engine
