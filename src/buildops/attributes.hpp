#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <sys/types.h>

#include "buildops/mode_change.hpp"
#include "buildops/owner.hpp"
#include "sys/fd.hpp"
#include "sys/xattr.hpp"

namespace gantry::buildops {

/// What a step lays down over the attributes that a file would have by itself.
struct Looks {
  std::optional<Owner> owner;
  ModeChange mode;
  std::optional<std::int64_t> timestamp;  // nanoseconds since 1970
};

/// The attributes of something that is copied.
struct Attributes {
  struct stat st{};
  std::vector<sys::Xattr> xattrs;
};

/// Gives `name` in `directory` (never followed) the attributes of its model, under the looks. Extended attributes that
/// the file system or the kind of file cannot hold, and those that must not be copied, are left out.
/// `path` is for messages.
void set_attributes(int directory, const std::string& name, const Attributes& model, const Looks& looks,
                    const std::string& path);

/// Makes `path`, which is clean and without links, and its parents below `root` as far as they are missing: mode 0755
/// or the looks' fixed bits, the looks' owner, and their time. What exists is left alone. Returns true if it made
/// `path` itself. Throws conflict if something else than a directory is in the way.
bool make_directories(int root, const std::string& path, const Looks& looks, mode_t mode = 0755);

/// The owner, mode bits and time of something new.
void set_new_looks(int directory, const std::string& name, const Looks& looks, std::optional<mode_t> mode);

}  // namespace gantry::buildops
