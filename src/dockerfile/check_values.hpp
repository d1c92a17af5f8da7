#pragma once

#include <optional>
#include <string>
#include <string_view>

/// Judgements of names that only the build checks need.
namespace gantry::dockerfile {

/// Could it be a reference to an image (`[host/]path[:tag][@digest]`)?
bool is_image_reference(std::string_view text);

/// Does a variable's name say that it holds a secret: a word of it is key, token, password … and none is public, file
/// or version?
bool names_secret(std::string_view name);

struct OsAndArchitecture {
  std::string os;
  std::string architecture;
};
/// `linux/amd64/v2`, `linux`, `arm64`, …; nullopt if it is none.
std::optional<OsAndArchitecture> read_platform(std::string_view text, std::string_view default_architecture);

}  // namespace gantry::dockerfile
