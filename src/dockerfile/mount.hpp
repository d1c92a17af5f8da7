#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "dockerfile/instruction.hpp"

namespace gantry::dockerfile {

enum class MountType { bind, cache, tmpfs, secret, ssh };
enum class MountSharing { shared, private_, locked };

/// `RUN --mount=…` with its options read. What is empty was not given; the defaults of ids and targets (which depend on
/// the working directory) are applied by who runs the step.
struct Mount {
  MountType type = MountType::bind;
  std::string from;
  std::string source;
  std::string target;
  std::string id;
  std::optional<std::string> env;       // secret only
  bool read_only = true;                // false by default for cache and tmpfs
  bool required = false;                // secret and ssh only
  std::int64_t size = 0;                // bytes, tmpfs only; 0: no limit
  std::optional<MountSharing> sharing;  // cache only
  std::optional<std::uint32_t> mode;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};

using ExpandWord = std::function<std::string(std::string_view)>;

/// Reads the options; `expand` is applied to each value. Throws Error(invalid_argument) in BuildKit's words:
/// `unexpected key 'typ' in 'typ=x' (did you mean type?)`, `unsupported mount type "tmp" (did you mean tmpfs?)`, …
Mount parse_mount(std::string_view text, const ExpandWord& expand);

/// What can be known before variables are: the CSV form and `from`. Throws as parse_mount.
MountFlag scan_mount(std::string_view text);

}  // namespace gantry::dockerfile
