#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Reads every way in which a container's mounts can be asked for (`-v`, `--mount`, `--tmpfs`, `--volumes-from`, the
/// image's VOLUME) into one validated list. Texts of errors are Docker's. Nothing here touches a disk, except
/// `check_bind_sources_blocking`.
namespace gantry::volume {

enum class MountType { bind, volume, tmpfs, image };

std::string_view mount_type_name(MountType type) noexcept;  // "bind" …: Docker's word

// What a request says: the Engine API's Mount, field for field.
struct BindRequest {
  std::string propagation;
  bool non_recursive = false;
  bool create_mountpoint = false;
  bool read_only_non_recursive = false;
  bool read_only_force_recursive = false;

  bool operator==(const BindRequest&) const = default;
};
struct VolumeRequest {
  bool no_copy = false;
  std::map<std::string, std::string> labels;
  std::string driver_name;
  std::map<std::string, std::string> driver_options;
  std::string subpath;

  bool operator==(const VolumeRequest&) const = default;
};
struct TmpfsRequest {
  std::int64_t size_bytes = 0;
  std::uint32_t mode = 0;
  std::vector<std::vector<std::string>> options;  // [["exec"], ["uid", "1000"]]

  bool operator==(const TmpfsRequest&) const = default;
};
struct ImageRequest {
  std::string subpath;

  bool operator==(const ImageRequest&) const = default;
};
struct MountRequest {
  std::string type;
  std::string source;
  std::string target;
  bool read_only = false;
  std::string consistency;
  std::optional<BindRequest> bind;
  std::optional<VolumeRequest> volume;
  std::optional<TmpfsRequest> tmpfs;
  std::optional<ImageRequest> image;

  bool operator==(const MountRequest&) const = default;
};

/// One mount of a container, as it is stored and inspected.
struct MountPoint {
  enum class Origin { binds, mounts, tmpfs_map, image_volume, volumes_from };

  MountType type = MountType::volume;
  Origin origin = Origin::binds;
  std::string name;         // volume: its name; empty until an anonymous one is made. image: as it was asked for
  std::string source;       // bind: the host's path. volume: set when it is made. image: where it is mounted
  std::string destination;  // absolute and clean
  std::string driver;       // volume: "local"; empty: not chosen yet
  std::string mode;         // the options of a `-v` as written ("ro,z"); "z" for a volume without any
  bool rw = true;
  std::string propagation;               // bind: "rprivate" …; empty for the others
  bool copy_data = false;                // volume: fill it from the image on first use
  bool create_source = false;            // bind: make a missing source when the container starts (`-v`)
  bool non_recursive = false;            // bind
  bool read_only_non_recursive = false;  // bind
  bool read_only_force_recursive = false;
  std::string subpath;                                // volume or image: below its root; resolved inside it
  std::map<std::string, std::string> labels;          // volume: for its creation
  std::map<std::string, std::string> driver_options;  // volume: for its creation
  std::vector<std::string> tmpfs_options;             // tmpfs: as mount(8) spells them, without Docker's defaults

  std::string image_id;  // image: found when the container is made
  std::string chain_id;  // image: its layers

  /// An anonymous volume: removed together with its container on `rm -v`.
  bool anonymous = false;

  bool operator==(const MountPoint&) const = default;
};

/// A `--volumes-from` entry, taken apart. The engine looks up the donor and hands over its mounts.
struct VolumesFrom {
  std::string container;
  std::string mode;  // "" or "ro", "rw", "z" …
};
VolumesFrom parse_volumes_from(std::string_view text);

struct MountInputs {
  std::vector<std::string> binds;
  std::vector<MountRequest> mounts;
  std::map<std::string, std::string> tmpfs;  // destination → options
  std::vector<std::string> volumes;          // Config.Volumes, the image's included
  struct Donor {
    VolumesFrom spec;
    std::vector<MountPoint> mounts;
  };
  std::vector<Donor> volumes_from;
  std::string volume_driver;
};

/// The container's mounts, parents before children (by depth, then by name). Throws invalid_argument.
std::vector<MountPoint> resolve_mounts(const MountInputs& inputs);

MountPoint parse_bind(std::string_view text, std::string_view volume_driver = {});
MountPoint parse_mount(const MountRequest& request);
/// "size=64m,exec" → its parts, each known to tmpfs(5) or mount(8).
std::vector<std::string> parse_tmpfs_options(std::string_view text);

/// The sources of `--mount type=bind` exist, unless they may be made. Blocks on the file systems that they name: an
/// unreachable one blocks as long as the kernel does. Throws invalid_argument with Docker's text.
void check_bind_sources_blocking(const std::vector<MountPoint>& mounts);
/// Makes the missing source directories of `-v` (0755, root). Throws; blocks likewise.
void create_bind_sources_blocking(const std::vector<MountPoint>& mounts);

/// path.Clean of Go: "/a//b/./../c" → "/a/c"; "" → ".".
std::string clean_path(std::string_view path);

}  // namespace gantry::volume
