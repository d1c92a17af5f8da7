#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "protocol/build_link.hpp"
#include "sys/fd.hpp"
#include "sys/file.hpp"

/// The worker's end of its link to gantryd (protocol/build_link.hpp).
namespace gantry::buildlink {

using Settings = protocol::BuildSettings;

/// A layer as the daemon has unpacked it.
struct ImageLayer {
  std::string chain_id;
  std::string diff_id;
  sys::Path directory;
  std::int64_t size = 0;
  Timestamp created;
  // The compressed tar that it came from, for exporters. Empty if it is not kept.
  std::string blob_digest;
  std::int64_t blob_size = 0;
  sys::Path blob_path;
  std::string blob_media_type;
};

struct Image {
  std::string id;                  // what `docker inspect` calls it
  std::string digest;              // of the manifest for the platform
  std::string name;                // in full: "docker.io/library/alpine:3.20"
  std::string config_json;         // the config blob, byte for byte
  std::vector<ImageLayer> layers;  // lowest first; only if they were asked for
  std::shared_ptr<void> lease;     // the daemon keeps the layers while this lives
};

enum class ResolveMode {
  local,         // what is here; throws not_found
  pull,          // the registry is asked
  prefer_local,  // what is here, else as pull
};

/// For the registry of the reference. `identity_token` is a refresh token; with it and `username` empty.
struct RegistryAuth {
  std::string username;
  std::string password;
  std::string identity_token;
  std::string registry_token;
};

struct ImageRequest {
  std::string reference;  // a name as users write it, or a digest or id of an image that is here
  std::string platform;   // "linux/amd64"; empty: what fits this machine
  ResolveMode mode = ResolveMode::prefer_local;
  RegistryAuth auth;
  bool layers = true;  // false: only id, digest and config
};

using PullProgress = protocol::PullFigure;

struct NewImage {
  std::string config_json;             // becomes the config blob, byte for byte
  std::vector<std::string> chain_ids;  // lowest first; they must agree with the config's rootfs.diff_ids
  std::vector<std::string> names;      // tags to move to it; may be empty
};
struct CreatedImage {
  std::string id;  // digest of the manifest: what `docker inspect` calls it
  std::string config_digest;
  std::string manifest;            // its bytes
  std::vector<std::string> names;  // in full: "docker.io/library/app:latest"
};

struct NetworkRequest {
  std::string id;                        // unique while it is attached: [a-z0-9]{1,32}
  std::string mode = "bridge";           // "bridge", "none", "host", or the name of a network
  std::string hostname;                  // for the hosts file
  std::vector<std::string> extra_hosts;  // "name:address" or "name:host-gateway"
};
struct Network {
  sys::Path netns;          // /proc/<pid>/fd/<n>: for the OCI spec; empty with "host"
  std::string resolv_conf;  // texts of the files
  std::string hosts;
  std::shared_ptr<void> lease;  // taken apart when this goes
};

/// What the daemon does for builds. Every call blocks until the daemon has answered, may be made from any thread, and
/// throws Error with the daemon's code and text; cancelled when `stop` is requested (what was begun is undone) and
/// unavailable when the daemon is gone.
class Engine {
 public:
  virtual ~Engine() = default;

  /// Finds or pulls an image. With `layers` they are unpacked and kept while the lease lives. `progress` is called from
  /// another thread.
  virtual Image resolve_image(const ImageRequest& request, const std::function<void(const PullProgress&)>& progress,
                              std::stop_token stop) = 0;

  /// The directory of an overlay's upper layer, below <data-root>/buildkit, becomes a layer of the daemon on top of
  /// `parent_chain` (empty: none): packed, hashed, moved to the daemon's place. It is kept until release_layer().
  /// If the daemon has the layer already, that is returned (`directory` tells) and the given one stays where it is.
  /// Durable  on return.
  virtual ImageLayer commit_layer(const std::string& parent_chain, const sys::Path& directory,
                                  std::stop_token stop) = 0;
  /// Idempotent.
  virtual void release_layer(const std::string& chain_id) = 0;
  /// Every layer that commit_layer() promised to keep, for putting right what a crash left.
  virtual std::vector<std::string> leased_layers() = 0;
  /// Keeps a layer and all below it while the result lives; nullptr if it is not there.
  virtual std::shared_ptr<void> hold_layer(const std::string& chain_id) = 0;
  /// Which of these layers belong to images.
  virtual std::set<std::string> layers_of_images(const std::vector<std::string>& chain_ids) = 0;

  /// Makes an image known, moves the names to it, and publishes the events. The chains must be held or leased.
  virtual CreatedImage create_image(const NewImage& image, std::stop_token stop) = 0;
  /// The bytes that `docker save` would write.
  virtual sys::Fd save_image(const std::vector<std::string>& names) = 0;

  virtual Network attach_network(const NetworkRequest& request, std::stop_token stop) = 0;

  /// As they are now: a reload changes them.
  virtual Settings settings() = 0;
  /// May the worker end, having got so many connections? After `true` no more come.
  virtual bool may_leave(std::uint64_t received) = 0;
  /// For reads of the daemon that do not wait for a worker.
  virtual void tell_usage(const protocol::UsageReport& report) = 0;
  /// The event of a prune that a client asked for.
  virtual void tell_pruned(std::int64_t reclaimed) = 0;
};

}  // namespace gantry::buildlink
