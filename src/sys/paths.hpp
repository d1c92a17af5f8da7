#pragma once

#include <string>

#include "sys/file.hpp"

namespace gantry::sys {

/// Every directory of the daemon, spelled in this file only.
///
///   <data-root>/                        survives a reboot
///     state.db                          rows: the only truth
///     content/blobs/sha256/<digest>     compressed layers, configs, manifests, exactly as they came
///     content/partial/<digest>          blobs whose download a daemon's end interrupted
///     quarantine/                       what was found damaged
///     layers/<chain-id>/diff            an unpacked layer: a cache of a blob
///     containers/<id>/                  upper, work, hosts, hostname, resolv.conf, <id>-json.log
///     volumes/<name>/_data
///     buildkit/                         the build cache: gantry-build's alone
///     tmp/                              unfinished things; emptied at start
///   <exec-root>/                        gone after a reboot
///     shims/<id>/                       socket, bundle, exit status, shim's own log
///     containers/<id>/rootfs            the merged mount
///     netns/<id>                        bind-mounted network namespaces
///     userns/<id>                       bind-mounted user namespaces of containers that are being started
///     build/                            what builds use while they run
///     names/{networks,containers}/<id>  what the shims' name servers answer from
struct Paths {
  Path data_root = "/var/lib/gantry";
  Path exec_root = "/run/gantry";

  Path database() const { return data_root / "state.db"; }
  Path blobs() const { return data_root / "content/blobs/sha256"; }
  Path partial_blobs() const { return data_root / "content/partial"; }
  Path quarantine() const { return data_root / "quarantine"; }
  Path layers() const { return data_root / "layers"; }
  Path layer(const std::string& chain_hex) const { return layers() / chain_hex; }
  Path containers() const { return data_root / "containers"; }
  Path container(const std::string& id) const { return containers() / id; }
  Path container_log(const std::string& id) const { return container(id) / (id + "-json.log"); }
  Path volumes() const { return data_root / "volumes"; }
  Path builder() const { return data_root / "buildkit"; }
  Path tmp() const { return data_root / "tmp"; }

  Path shims() const { return exec_root / "shims"; }
  Path shim(const std::string& id) const { return shims() / id; }
  Path container_mounts() const { return exec_root / "containers"; }
  Path rootfs(const std::string& id) const { return container_mounts() / id / "rootfs"; }
  Path netns() const { return exec_root / "netns"; }
  Path userns() const { return exec_root / "userns"; }
  Path names() const { return exec_root / "names"; }
  Path build() const { return exec_root / "build"; }
};

}  // namespace gantry::sys
