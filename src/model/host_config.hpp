#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

#include "json/fields.hpp"
#include "model/network.hpp"

namespace gantry::model {

using json::Omit;
using json::StringMap;

struct WeightDevice {
  std::string Path;
  std::uint16_t Weight = 0;
};
BOOST_DESCRIBE_STRUCT(WeightDevice, (), (Path, Weight))

struct ThrottleDevice {
  std::string Path;
  std::uint64_t Rate = 0;  // bytes or operations per second
};
BOOST_DESCRIBE_STRUCT(ThrottleDevice, (), (Path, Rate))

struct DeviceMapping {
  std::string PathOnHost;
  std::string PathInContainer;
  std::string CgroupPermissions;
};
BOOST_DESCRIBE_STRUCT(DeviceMapping, (), (PathOnHost, PathInContainer, CgroupPermissions))

struct DeviceRequest {
  std::string Driver;
  std::int64_t Count = 0;
  std::optional<std::vector<std::string>> DeviceIDs;
  std::optional<std::vector<std::vector<std::string>>> Capabilities;
  std::optional<StringMap> Options;
};
BOOST_DESCRIBE_STRUCT(DeviceRequest, (), (Driver, Count, DeviceIDs, Capabilities, Options))

struct Ulimit {
  std::string Name;
  std::int64_t Hard = 0;  // -1: unlimited
  std::int64_t Soft = 0;
};
BOOST_DESCRIBE_STRUCT(Ulimit, (), (Name, Hard, Soft))

struct LogConfig {
  std::string Type;
  std::optional<StringMap> Config;
};
BOOST_DESCRIBE_STRUCT(LogConfig, (), (Type, Config))

struct RestartPolicy {
  std::string Name;
  std::int64_t MaximumRetryCount = 0;
};
BOOST_DESCRIBE_STRUCT(RestartPolicy, (), (Name, MaximumRetryCount))

struct BindOptions {
  Omit<std::string> Propagation;
  Omit<bool> NonRecursive;
  Omit<bool> CreateMountpoint;
  Omit<bool> ReadOnlyNonRecursive;
  Omit<bool> ReadOnlyForceRecursive;
};
BOOST_DESCRIBE_STRUCT(BindOptions, (),
                      (Propagation, NonRecursive, CreateMountpoint, ReadOnlyNonRecursive, ReadOnlyForceRecursive))

struct VolumeDriverConfig {
  Omit<std::string> Name;
  Omit<StringMap> Options;
};
BOOST_DESCRIBE_STRUCT(VolumeDriverConfig, (), (Name, Options))

struct VolumeOptions {
  Omit<bool> NoCopy;
  Omit<StringMap> Labels;
  Omit<std::string> Subpath;
  Omit<VolumeDriverConfig> DriverConfig;
};
BOOST_DESCRIBE_STRUCT(VolumeOptions, (), (NoCopy, Labels, Subpath, DriverConfig))

struct ImageOptions {
  Omit<std::string> Subpath;
};
BOOST_DESCRIBE_STRUCT(ImageOptions, (), (Subpath))

struct TmpfsOptions {
  Omit<std::int64_t> SizeBytes;
  Omit<std::uint32_t> Mode;
  Omit<std::vector<std::vector<std::string>>> Options;
};
BOOST_DESCRIBE_STRUCT(TmpfsOptions, (), (SizeBytes, Mode, Options))

struct Mount {
  std::string Type;
  Omit<std::string> Source;
  std::string Target;
  Omit<bool> ReadOnly;
  Omit<std::string> Consistency;
  Omit<model::BindOptions> BindOptions;
  Omit<model::VolumeOptions> VolumeOptions;
  Omit<model::ImageOptions> ImageOptions;
  Omit<model::TmpfsOptions> TmpfsOptions;
};
BOOST_DESCRIBE_STRUCT(Mount, (),
                      (Type, Source, Target, ReadOnly, Consistency, BindOptions, VolumeOptions, ImageOptions,
                       TmpfsOptions))

/// Limits, which POST /containers/{id}/update can also change.
struct Resources {
  std::int64_t CpuShares = 0;
  std::int64_t Memory = 0;    // bytes
  std::int64_t NanoCpus = 0;  // 10^-9 CPUs
  std::string CgroupParent;
  std::uint16_t BlkioWeight = 0;
  std::optional<std::vector<WeightDevice>> BlkioWeightDevice;
  std::optional<std::vector<ThrottleDevice>> BlkioDeviceReadBps;
  std::optional<std::vector<ThrottleDevice>> BlkioDeviceWriteBps;
  std::optional<std::vector<ThrottleDevice>> BlkioDeviceReadIOps;
  std::optional<std::vector<ThrottleDevice>> BlkioDeviceWriteIOps;
  std::int64_t CpuPeriod = 0;  // microseconds
  std::int64_t CpuQuota = 0;
  std::int64_t CpuRealtimePeriod = 0;
  std::int64_t CpuRealtimeRuntime = 0;
  std::string CpusetCpus;
  std::string CpusetMems;
  std::optional<std::vector<DeviceMapping>> Devices;
  std::optional<std::vector<std::string>> DeviceCgroupRules;
  std::optional<std::vector<DeviceRequest>> DeviceRequests;
  std::int64_t MemoryReservation = 0;
  std::int64_t MemorySwap = 0;  // memory and swap together; -1: unlimited
  std::optional<std::int64_t> MemorySwappiness;
  std::optional<bool> OomKillDisable;
  std::optional<std::int64_t> PidsLimit;
  std::optional<std::vector<Ulimit>> Ulimits;
  std::int64_t CpuCount = 0;    // Windows
  std::int64_t CpuPercent = 0;  // Windows
  std::uint64_t IOMaximumIOps = 0;
  std::uint64_t IOMaximumBandwidth = 0;
};
BOOST_DESCRIBE_STRUCT(Resources, (),
                      (CpuShares, Memory, NanoCpus, CgroupParent, BlkioWeight, BlkioWeightDevice, BlkioDeviceReadBps,
                       BlkioDeviceWriteBps, BlkioDeviceReadIOps, BlkioDeviceWriteIOps, CpuPeriod, CpuQuota,
                       CpuRealtimePeriod, CpuRealtimeRuntime, CpusetCpus, CpusetMems, Devices, DeviceCgroupRules,
                       DeviceRequests, MemoryReservation, MemorySwap, MemorySwappiness, OomKillDisable, PidsLimit,
                       Ulimits, CpuCount, CpuPercent, IOMaximumIOps, IOMaximumBandwidth))

struct HostConfig : Resources {
  std::optional<std::vector<std::string>> Binds;
  std::string ContainerIDFile;
  model::LogConfig LogConfig;
  std::string NetworkMode;
  std::optional<PortMap> PortBindings;
  model::RestartPolicy RestartPolicy;
  bool AutoRemove = false;
  std::string VolumeDriver;
  std::optional<std::vector<std::string>> VolumesFrom;
  std::vector<std::int64_t> ConsoleSize{0, 0};  // height, width
  Omit<StringMap> Annotations;
  std::optional<std::vector<std::string>> CapAdd;
  std::optional<std::vector<std::string>> CapDrop;
  std::string CgroupnsMode;
  std::optional<std::vector<std::string>> Dns;
  std::optional<std::vector<std::string>> DnsOptions;
  std::optional<std::vector<std::string>> DnsSearch;
  std::optional<std::vector<std::string>> ExtraHosts;
  std::optional<std::vector<std::string>> GroupAdd;
  std::string IpcMode;
  std::string Cgroup;
  std::optional<std::vector<std::string>> Links;
  std::int64_t OomScoreAdj = 0;
  std::string PidMode;
  bool Privileged = false;
  bool PublishAllPorts = false;
  bool ReadonlyRootfs = false;
  std::optional<std::vector<std::string>> SecurityOpt;
  Omit<StringMap> StorageOpt;
  Omit<StringMap> Tmpfs;
  std::string UTSMode;
  std::string UsernsMode;
  std::int64_t ShmSize = 0;
  Omit<StringMap> Sysctls;
  Omit<std::string> Runtime;
  std::string Isolation;
  Omit<std::vector<Mount>> Mounts;
  std::optional<std::vector<std::string>> MaskedPaths;
  std::optional<std::vector<std::string>> ReadonlyPaths;
  Omit<bool> Init;
};
BOOST_DESCRIBE_STRUCT(HostConfig, (Resources),
                      (Binds, ContainerIDFile, LogConfig, NetworkMode, PortBindings, RestartPolicy, AutoRemove,
                       VolumeDriver, VolumesFrom, ConsoleSize, Annotations, CapAdd, CapDrop, CgroupnsMode, Dns,
                       DnsOptions, DnsSearch, ExtraHosts, GroupAdd, IpcMode, Cgroup, Links, OomScoreAdj, PidMode,
                       Privileged, PublishAllPorts, ReadonlyRootfs, SecurityOpt, StorageOpt, Tmpfs, UTSMode, UsernsMode,
                       ShmSize, Sysctls, Runtime, Isolation, Mounts, MaskedPaths, ReadonlyPaths, Init))

}  // namespace gantry::model
