#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <boost/describe.hpp>

/// What gantryd and gantry-build say to each other: docs/build-link.md. The two programs are of the same version, so
/// nothing here is negotiated. Each message is a JSON object of one of these structs (json/codec.hpp); names of members
/// are those of the wire.
namespace gantry::protocol {

/// The worker's descriptors. kConnections is a SOCK_SEQPACKET socket on which the daemon hands connections over: one
/// Handover with one descriptor each. kRequests is a stream of frames both ways: a big-endian u32 length and a
/// LinkFrame; a frame's descriptor, if it has one, comes with its first byte.
inline constexpr int kConnectionsFd = 3;
inline constexpr int kRequestsFd = 4;
inline constexpr std::size_t kMaxHandover = 192 << 10;
inline constexpr std::size_t kMaxLinkFrame = 16 << 20;
/// Names of builds' network sandboxes among those of containers, whose ids cannot begin like this.
inline constexpr const char* kSandboxPrefix = "build-";

struct LinkHeader {
  std::string Name;
  std::string Value;
};
BOOST_DESCRIBE_STRUCT(LinkHeader, (), (Name, Value))

/// A connection for the worker, or a request whose body and reply go through the descriptor:
///   "grpc", "session"   the descriptor is HTTP/2 without TLS, after the reply to the upgrade
///   "build", "prune"    the descriptor gives the request's body until its end, and takes an ExchangeHead, a newline
///   and
///                       the reply's body until its end
///   "cancel", "usage"   the same, without a body
struct Handover {
  std::string Kind;
  std::string ApiVersion;  // "1.41"
  std::string Query;       // of the URL, as it came
  std::vector<LinkHeader> Headers;
};
BOOST_DESCRIBE_STRUCT(Handover, (), (Kind, ApiVersion, Query, Headers))

/// How the worker's reply to an exchange begins.
struct ExchangeHead {
  int Status = 200;
  std::string ContentType = "application/json";
};
BOOST_DESCRIBE_STRUCT(ExchangeHead, (), (Status, ContentType))

/// The worker asks: Method and Params (a struct below as JSON text). The daemon answers with the same Id: any number of
/// Progress, then Result or Error (Code names an Errc). Cancel ends a request early; it is answered all the same.
/// The worker's Id 0 is a notice without an answer.
struct LinkFrame {
  std::uint64_t Id = 0;
  std::string Method;
  std::string Params;
  bool Cancel = false;
  std::string Progress;
  std::string Result;
  std::string Error;
  int Code = 0;
  bool Done = false;
  bool HasFd = false;
};
BOOST_DESCRIBE_STRUCT(LinkFrame, (), (Id, Method, Params, Cancel, Progress, Result, Error, Code, Done, HasFd))

struct LinkLayer {
  std::string ChainId;
  std::string DiffId;
  std::string Directory;
  std::int64_t Size = 0;
  std::int64_t Created = 0;  // nanoseconds since 1970
  std::string BlobDigest;    // of the compressed tar, if it is kept …
  std::int64_t BlobSize = 0;
  std::string BlobPath;  // … in this file
  std::string BlobMediaType;
};
BOOST_DESCRIBE_STRUCT(LinkLayer, (),
                      (ChainId, DiffId, Directory, Size, Created, BlobDigest, BlobSize, BlobPath, BlobMediaType))

struct LinkCredentials {
  std::string Username;
  std::string Password;
  std::string IdentityToken;
  std::string RegistryToken;
};
BOOST_DESCRIBE_STRUCT(LinkCredentials, (), (Username, Password, IdentityToken, RegistryToken))

/// "image.resolve"
struct ResolveImageParams {
  std::string Reference;
  std::string Platform;  // "linux/amd64"; empty: what fits this machine
  std::string Mode;      // "local", "pull", "prefer-local"
  bool Layers = true;    // unpacked and held until "lease.drop"
  LinkCredentials Auth;
};
BOOST_DESCRIBE_STRUCT(ResolveImageParams, (), (Reference, Platform, Mode, Layers, Auth))
struct ResolveImageResult {
  std::string Id;      // Image::id of the daemon
  std::string Digest;  // of the manifest for the platform
  std::string Name;    // "docker.io/library/alpine:3.20"
  std::string Config;  // the config blob, as it is
  std::vector<LinkLayer> Layers;
  std::uint64_t Lease = 0;
};
BOOST_DESCRIBE_STRUCT(ResolveImageResult, (), (Id, Digest, Name, Config, Layers, Lease))
/// A figure of a pull.
struct PullFigure {
  std::string Id;      // of a layer; empty: of the whole
  std::string Status;  // "Downloading"
  std::int64_t Current = 0;
  std::int64_t Total = 0;
};
BOOST_DESCRIBE_STRUCT(PullFigure, (), (Id, Status, Current, Total))

/// "layer.commit": the answer is a LinkLayer. "layer.release", "layer.hold" (the answer is a LeaseId) and
/// "layer.of_images" take Chains; "layer.leased" answers with Chains.
struct CommitLayerParams {
  std::string Parent;     // chain id; empty: none
  std::string Directory;  // below <data-root>/buildkit
  std::int64_t Created = 0;
};
BOOST_DESCRIBE_STRUCT(CommitLayerParams, (), (Parent, Directory, Created))
struct Chains {
  std::vector<std::string> ChainIds;
};
BOOST_DESCRIBE_STRUCT(Chains, (), (ChainIds))
/// "lease.drop" takes one.
struct LeaseId {
  std::uint64_t Lease = 0;  // 0: there is no such layer
};
BOOST_DESCRIBE_STRUCT(LeaseId, (), (Lease))

/// "image.create"
struct CreateImageParams {
  std::string Config;                 // the config blob
  std::vector<std::string> ChainIds;  // lowest first
  std::vector<std::string> Names;
};
BOOST_DESCRIBE_STRUCT(CreateImageParams, (), (Config, ChainIds, Names))
struct CreateImageResult {
  std::string Id;
  std::string ConfigDigest;
  std::string Manifest;            // the manifest's bytes
  std::vector<std::string> Names;  // in full
};
BOOST_DESCRIBE_STRUCT(CreateImageResult, (), (Id, ConfigDigest, Manifest, Names))

/// "image.save": the answer comes with a descriptor that gives a tar as `docker save` writes it.
struct SaveImageParams {
  std::vector<std::string> Names;
};
BOOST_DESCRIBE_STRUCT(SaveImageParams, (), (Names))

/// "network.attach": the answer comes with the namespace as a descriptor, unless the mode is host.
/// "network.detach" takes the Id.
struct AttachNetworkParams {
  std::string Id;    // chosen by the worker, [a-z0-9]{1,32}
  std::string Mode;  // "bridge", "none", "host", or a network's name
  std::string Hostname;
  std::vector<std::string> ExtraHosts;  // "name:address" or "name:host-gateway"
};
BOOST_DESCRIBE_STRUCT(AttachNetworkParams, (), (Id, Mode, Hostname, ExtraHosts))
struct AttachNetworkResult {
  std::string ResolvConf;  // texts of the files
  std::string Hosts;
};
BOOST_DESCRIBE_STRUCT(AttachNetworkResult, (), (ResolvConf, Hosts))

/// "worker.leave": the worker has nothing to do. It may end if the daemon has handed over no more than it knows of;
/// from then on the daemon hands over nothing until it has ended.
struct LeaveParams {
  std::uint64_t Received = 0;  // handovers since the start
};
BOOST_DESCRIBE_STRUCT(LeaveParams, (), (Received))
struct LeaveResult {
  bool Go = false;
};
BOOST_DESCRIBE_STRUCT(LeaveResult, (), (Go))

/// The notice "usage": what the build cache holds, for reads that do not wait. The same is kept in
/// <data-root>/buildkit/usage.json. Members are those of GET /system/df.
struct UsageEntry {
  std::string ID;
  std::vector<std::string> Parents;
  std::string Type;
  std::string Description;
  bool InUse = false;
  bool Shared = false;
  std::int64_t Size = 0;
  std::string CreatedAt;
  std::string LastUsedAt;  // empty: never
  std::int64_t UsageCount = 0;
};
BOOST_DESCRIBE_STRUCT(UsageEntry, (),
                      (ID, Parents, Type, Description, InUse, Shared, Size, CreatedAt, LastUsedAt, UsageCount))
struct UsageReport {
  std::vector<UsageEntry> Records;
};
BOOST_DESCRIBE_STRUCT(UsageReport, (), (Records))
/// The notice "pruned".
struct PrunedNotice {
  std::int64_t Reclaimed = 0;
};
BOOST_DESCRIBE_STRUCT(PrunedNotice, (), (Reclaimed))
inline constexpr std::size_t kMaxUsageRecords = 10'000;

/// "settings"
struct GcRule {
  std::vector<std::string> Filters;
  bool All = false;
  std::int64_t KeepDuration = 0;  // nanoseconds
  std::int64_t ReservedSpace = 0;
  std::int64_t MaxUsedSpace = 0;
  std::int64_t MinFreeSpace = 0;
};
BOOST_DESCRIBE_STRUCT(GcRule, (), (Filters, All, KeepDuration, ReservedSpace, MaxUsedSpace, MinFreeSpace))
struct LinkUlimit {
  std::string Name;
  std::int64_t Soft = 0;
  std::int64_t Hard = 0;
};
BOOST_DESCRIBE_STRUCT(LinkUlimit, (), (Name, Soft, Hard))
struct BuildSettings {
  std::string EngineId;
  std::string DataRoot;      // <data-root>/buildkit
  std::string RunDirectory;  // <exec-root>/build
  std::string ExecRoot;
  bool Debug = false;
  bool Experimental = false;
  bool AllowNetworkHost = true;
  bool AllowInsecure = false;
  bool AllowDevice = true;
  bool GcEnabled = true;
  std::int64_t GcReservedSpace = 0;
  std::int64_t GcMaxUsedSpace = 0;
  std::int64_t GcMinFreeSpace = 0;
  std::vector<GcRule> GcRules;
  std::int64_t HistoryEntries = 50;
  std::int64_t HistoryMaxAge = 0;  // nanoseconds
  std::int64_t IdleSeconds = 30;
  int Parallelism = 0;       // 0: chosen by the solver
  std::string CgroupParent;  // where a build's processes go: "/docker/buildkit-…/run"
  std::string RuntimePath;
  std::vector<std::string> RuntimeArgs;
  std::string SeccompProfile;  // a file; empty: the built-in one
  bool Unconfined = false;     // no seccomp profile
  std::vector<LinkUlimit> DefaultUlimits;
  std::int64_t DefaultShmSize = 64 << 20;
  std::vector<std::string> HostGatewayIps;
  std::vector<std::string> Dns;
  std::string HttpProxy;
  std::string HttpsProxy;
  std::string NoProxy;
  std::string Platform;  // of this machine
};
BOOST_DESCRIBE_STRUCT(BuildSettings, (),
                      (EngineId, DataRoot, RunDirectory, ExecRoot, Debug, Experimental, AllowNetworkHost, AllowInsecure,
                       AllowDevice, GcEnabled, GcReservedSpace, GcMaxUsedSpace, GcMinFreeSpace, GcRules, HistoryEntries,
                       HistoryMaxAge, IdleSeconds, Parallelism, CgroupParent, RuntimePath, RuntimeArgs, SeccompProfile,
                       Unconfined, DefaultUlimits, DefaultShmSize, HostGatewayIps, Dns, HttpProxy, HttpsProxy, NoProxy,
                       Platform))

}  // namespace gantry::protocol
