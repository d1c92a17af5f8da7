#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace gantry::api {

/// A version of the Engine API, compared number by number: 1.9 is older than 1.24.
struct ApiVersion {
  int major = 0;
  int minor = 0;
  auto operator<=>(const ApiVersion&) const = default;
};

/// The newest version whose shapes we render; also what a request without a version prefix gets.
inline constexpr ApiVersion kMaxApiVersion{1, 56};
/// The oldest that is served. docker-java and old testcontainers send 1.30 and 1.32.
inline constexpr ApiVersion kMinApiVersion{1, 24};

/// "1.41", digits and dots only. A missing second number is 0. nullopt if it is not a version.
std::optional<ApiVersion> parse_api_version(std::string_view text);
std::string render_api_version(ApiVersion version);

/// The version whose shapes a client is sent that asked for `asked`. docker-compose 1.x asks for the newest that a daemon
/// has, unseen, and then reads what 1.45 and 1.52 took away: an image's ContainerConfig, an event's "status" and "id".
ApiVersion understood_version(ApiVersion asked, std::string_view user_agent);

}  // namespace gantry::api
