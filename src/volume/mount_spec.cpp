#include "volume/mount_spec.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "volume/mount_mode.hpp"

namespace gantry::volume {
namespace {

constexpr std::size_t kMaxPath = 4095;
constexpr std::size_t kMaxMounts = 4096;

template <class... Args>
[[noreturn]] void reject(fmt::format_string<Args...> text, Args&&... args) {
  throw Error(Errc::invalid_argument, fmt::format(text, std::forward<Args>(args)...));
}

[[noreturn]] void invalid_config(const MountRequest& request, const std::string& why) {
  reject("invalid mount config for type {}: {}", quote(request.type), why);
}

[[noreturn]] void extra_field(const MountRequest& request, const char* field) {
  invalid_config(request, fmt::format("field {} must not be specified", field));
}

[[noreturn]] void missing_field(const MountRequest& request, const char* field) {
  invalid_config(request, fmt::format("field {} must not be empty", field));
}

/// A newline or NUL would end up in mountinfo, in files of ours and in JSON of others; no path needs one.
bool has_control_bytes(std::string_view path) {
  return std::ranges::any_of(path, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

void check_path(const MountRequest& request, std::string_view path) {
  if (!path.starts_with('/'))
    invalid_config(request, fmt::format("invalid mount path: '{}' mount path must be absolute", path));
  if (path.size() > kMaxPath || has_control_bytes(path))
    invalid_config(request, fmt::format("invalid mount path: {}", quote(path)));
}

void check_target(const MountRequest& request) {
  if (request.target.empty()) missing_field(request, "Target");
  if (clean_path(request.target) == "/") invalid_config(request, "invalid specification: destination can't be '/'");
  check_path(request, request.target);
}

/// Go's filepath.IsLocal: relative, and never above where it begins.
bool is_local_path(std::string_view path) {
  if (path.empty() || path.starts_with('/') || has_control_bytes(path)) return false;
  const std::string clean = clean_path(path);
  return clean != ".." && !clean.starts_with("../");
}

void check_subpath(const MountRequest& request, const std::string& subpath, bool anonymous) {
  if (subpath.empty()) return;
  if (anonymous) invalid_config(request, "must not set Subpath when using anonymous volumes");
  if (!is_local_path(subpath)) invalid_config(request, "subpath must be a relative path within the volume");
}

void read_bind(const MountRequest& request, MountPoint& out) {
  if (request.volume) extra_field(request, "VolumeOptions");
  if (request.tmpfs) extra_field(request, "TmpfsOptions");
  if (request.image) extra_field(request, "ImageOptions");
  if (request.source.empty()) missing_field(request, "Source");
  check_path(request, request.source);
  out.type = MountType::bind;
  out.source = clean_path(request.source);
  out.propagation = "rprivate";
  if (!request.bind) return;
  const BindRequest& options = *request.bind;
  if (!options.propagation.empty()) {
    if (!is_propagation(options.propagation))
      invalid_config(request, fmt::format("invalid propagation mode: {}", options.propagation));
    out.propagation = options.propagation;
  }
  if (!request.read_only && options.read_only_non_recursive)
    invalid_config(request, "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive");
  if (!request.read_only && options.read_only_force_recursive)
    invalid_config(request, "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive");
  if (options.read_only_non_recursive && options.read_only_force_recursive)
    invalid_config(request, "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive");
  out.create_source = options.create_mountpoint;
  out.non_recursive = options.non_recursive;
  out.read_only_non_recursive = options.read_only_non_recursive;
  out.read_only_force_recursive = options.read_only_force_recursive;
}

void read_volume(const MountRequest& request, MountPoint& out) {
  if (request.bind) extra_field(request, "BindOptions");
  if (request.tmpfs) extra_field(request, "TmpfsOptions");
  if (request.image) extra_field(request, "ImageOptions");
  const bool anonymous = request.source.empty();
  if (anonymous && request.read_only)
    invalid_config(request, "must not set ReadOnly mode when using anonymous volumes");
  out.type = MountType::volume;
  out.name = request.source;
  out.anonymous = anonymous;
  out.copy_data = true;
  if (!request.volume) return;
  check_subpath(request, request.volume->subpath, anonymous);
  out.copy_data = !request.volume->no_copy;
  out.subpath = request.volume->subpath.empty() ? std::string() : clean_path(request.volume->subpath);
  out.labels = request.volume->labels;
  out.driver = request.volume->driver_name;
  out.driver_options = request.volume->driver_options;
}

void read_tmpfs(const MountRequest& request, MountPoint& out) {
  if (request.bind) extra_field(request, "BindOptions");
  if (request.volume) extra_field(request, "VolumeOptions");
  if (request.image) extra_field(request, "ImageOptions");
  if (!request.source.empty()) extra_field(request, "Source");
  out.type = MountType::tmpfs;
  if (request.read_only) out.tmpfs_options.emplace_back("ro");
  if (!request.tmpfs) return;
  const TmpfsRequest& options = *request.tmpfs;
  if (options.size_bytes < 0) invalid_config(request, fmt::format("invalid SizeBytes {}", options.size_bytes));
  if (options.mode > 07777) invalid_config(request, fmt::format("invalid Mode {:o}", options.mode));
  if (options.size_bytes > 0) out.tmpfs_options.push_back(fmt::format("size={}", options.size_bytes));
  if (options.mode != 0) out.tmpfs_options.push_back(fmt::format("mode={:o}", options.mode));
  for (const auto& words : options.options) {
    if (words.empty() || words.size() > 2) invalid_config(request, "each of TmpfsOptions.Options has one or two words");
    const std::string option = words.size() == 1 ? words[0] : words[0] + "=" + words[1];
    if (option.find(',') != std::string::npos) invalid_config(request, "invalid tmpfs option " + quote(option));
    for (std::string& part : parse_tmpfs_options(option)) out.tmpfs_options.push_back(std::move(part));
  }
}

void read_image(const MountRequest& request, MountPoint& out) {
  if (request.bind) extra_field(request, "BindOptions");
  if (request.volume) extra_field(request, "VolumeOptions");
  if (request.tmpfs) extra_field(request, "TmpfsOptions");
  if (request.source.empty()) missing_field(request, "Source");
  out.type = MountType::image;
  out.name = request.source;
  out.rw = false;  // an image is shared by everything that is made from it
  if (!request.image) return;
  check_subpath(request, request.image->subpath, false);
  out.subpath = request.image->subpath.empty() ? std::string() : clean_path(request.image->subpath);
}

std::vector<std::string> split_bind(std::string_view text) {
  auto parts = split(text, ':');
  const bool odd = parts[0].empty() || parts.size() > 3 || (parts.size() > 1 && parts[1].empty());
  if (odd) reject("invalid volume specification: '{}'", text);
  return parts;
}

/// One list without duplicates, in the order of arrival.
class MountList {
 public:
  bool contains(const std::string& destination) const { return taken_.contains(destination); }

  void add(MountPoint mount) {
    if (mounts_.size() >= kMaxMounts) reject("too many mounts: the limit is {}", kMaxMounts);
    taken_.insert(mount.destination);
    mounts_.push_back(std::move(mount));
  }

  /// As add(), but a mount of the same destination that came from another container gives way.
  void add_own(MountPoint mount) {
    const auto at = std::ranges::find(mounts_, mount.destination, &MountPoint::destination);
    if (at == mounts_.end()) return add(std::move(mount));
    if (at->origin != MountPoint::Origin::volumes_from) reject("Duplicate mount point: {}", mount.destination);
    *at = std::move(mount);
  }

  std::vector<MountPoint> take() { return std::move(mounts_); }

 private:
  std::set<std::string> taken_;
  std::vector<MountPoint> mounts_;
};

/// `--volumes-from`: the donor's binds and volumes; a later donor wins over an earlier one.
void add_donor(const MountInputs::Donor& donor, std::vector<MountPoint>& inherited) {
  const bool read_only = parse_mount_mode(donor.spec.mode).value_or(MountMode{}).read_only;
  for (const MountPoint& theirs : donor.mounts) {
    if (theirs.type != MountType::bind && theirs.type != MountType::volume) continue;
    MountPoint mount = theirs;
    mount.origin = MountPoint::Origin::volumes_from;
    mount.rw = theirs.rw && !read_only;
    mount.copy_data = false;
    mount.anonymous = false;  // the donor's to remove
    mount.create_source = false;
    std::erase_if(inherited, [&](const MountPoint& m) { return m.destination == mount.destination; });
    inherited.push_back(std::move(mount));
  }
}

MountPoint tmpfs_of(const std::string& destination, const std::string& options) {
  if (!destination.starts_with('/') || has_control_bytes(destination) || destination.size() > kMaxPath)
    reject("invalid mount path: '{}' mount path must be absolute", destination);
  MountPoint mount;
  mount.type = MountType::tmpfs;
  mount.origin = MountPoint::Origin::tmpfs_map;
  mount.destination = clean_path(destination);
  if (mount.destination == "/") reject("invalid specification: destination can't be '/'");
  mount.tmpfs_options = parse_tmpfs_options(options);
  mount.rw = std::ranges::find(mount.tmpfs_options, "ro") == mount.tmpfs_options.end();
  return mount;
}

MountPoint image_volume_of(const std::string& destination, std::string_view driver) {
  MountRequest request;
  request.type = "volume";
  request.target = destination;
  MountPoint mount = parse_mount(request);
  mount.origin = MountPoint::Origin::image_volume;
  mount.driver = driver;
  return mount;
}

}  // namespace

std::string_view mount_type_name(MountType type) noexcept {
  switch (type) {
    case MountType::bind: return "bind";
    case MountType::volume: return "volume";
    case MountType::tmpfs: return "tmpfs";
    case MountType::image: return "image";
  }
  return "";
}

std::string clean_path(std::string_view path) {
  const bool absolute = path.starts_with('/');
  std::vector<std::string> out;
  for (std::string& part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") out.push_back(std::move(part));
    else if (!out.empty() && out.back() != "..") out.pop_back();
    else if (!absolute) out.push_back(std::move(part));
  }
  std::string clean = absolute ? "/" + join(out, "/") : join(out, "/");
  return clean.empty() ? "." : clean;
}

MountPoint parse_mount(const MountRequest& request) {
  check_target(request);
  MountPoint out;
  out.origin = MountPoint::Origin::mounts;
  out.destination = clean_path(request.target);
  out.rw = !request.read_only;
  if (request.type == "bind") read_bind(request, out);
  else if (request.type == "volume") read_volume(request, out);
  else if (request.type == "tmpfs") read_tmpfs(request, out);
  else if (request.type == "image") read_image(request, out);
  else invalid_config(request, "mount type unknown");
  if (out.type == MountType::volume) out.mode = "z";
  return out;
}

MountPoint parse_bind(std::string_view text, std::string_view volume_driver) {
  const auto parts = split_bind(text);
  MountRequest request;
  std::string mode_text;
  if (parts.size() == 1) {
    request.target = parts[0];
  } else {
    // "a:ro" would be a volume mounted at "ro": surely not what was meant.
    if (parts.size() == 2 && parse_mount_mode(parts[1])) reject("invalid volume specification: '{}'", text);
    request.source = parts[0];
    request.target = parts[1];
    if (parts.size() == 3) mode_text = parts[2];
  }
  const auto mode = parse_mount_mode(mode_text);
  if (!mode) reject("invalid mode: {}", mode_text);
  const bool bind = request.source.starts_with('/');
  request.type = bind ? "bind" : "volume";
  request.read_only = mode->read_only;
  if (bind) {
    request.bind.emplace().propagation = mode->propagation;
  } else {
    request.volume.emplace().no_copy = mode->no_copy;
    request.volume->driver_name = volume_driver;
    if (!mode->propagation.empty()) reject("invalid volume specification: '{}'", text);
  }
  MountPoint out;
  try {
    out = parse_mount(request);
  } catch (Error& e) {
    e.prefix(fmt::format("invalid volume specification: '{}'", text));
    throw;
  }
  out.origin = MountPoint::Origin::binds;
  out.create_source = bind;
  out.mode = mode_text.empty() && !bind ? "z" : mode_text;
  return out;
}

VolumesFrom parse_volumes_from(std::string_view text) {
  if (text.empty()) reject("volumes-from specification cannot be an empty string");
  const auto parts = split(text, ':');
  if (parts.size() > 2 || parts[0].empty()) reject("malformed volumes-from specification: {}", text);
  VolumesFrom out{parts[0], parts.size() == 2 ? parts[1] : std::string("rw")};
  const auto mode = parse_mount_mode(out.mode);
  // Propagation and copying are the donor's choice.
  if (!mode || out.mode.empty() || !mode->propagation.empty() || mode->no_copy) reject("invalid mode: {}", out.mode);
  return out;
}

std::vector<MountPoint> resolve_mounts(const MountInputs& inputs) {
  std::vector<MountPoint> inherited;
  for (const MountInputs::Donor& donor : inputs.volumes_from) add_donor(donor, inherited);
  MountList list;
  for (MountPoint& mount : inherited) list.add(std::move(mount));
  for (const std::string& text : inputs.binds) list.add_own(parse_bind(text, inputs.volume_driver));
  for (const MountRequest& request : inputs.mounts) {
    MountPoint mount = parse_mount(request);
    if (mount.type == MountType::volume && mount.driver.empty() && mount.anonymous) mount.driver = inputs.volume_driver;
    list.add_own(std::move(mount));
  }
  for (const auto& [destination, options] : inputs.tmpfs) list.add_own(tmpfs_of(destination, options));
  for (const std::string& destination : inputs.volumes) {
    MountPoint mount = image_volume_of(destination, inputs.volume_driver);
    if (!list.contains(mount.destination)) list.add(std::move(mount));
  }
  std::vector<MountPoint> mounts = list.take();
  const auto key = [](const MountPoint& m) { return std::pair(std::ranges::count(m.destination, '/'), m.destination); };
  std::ranges::sort(mounts, {}, key);
  return mounts;
}

}  // namespace gantry::volume
