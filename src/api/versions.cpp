#include "api/versions.hpp"

#include <algorithm>
#include <charconv>

namespace gantry::api {
namespace {

constexpr std::string_view kComposeInPython = "docker-compose/1.";
constexpr ApiVersion kNewestForComposeInPython{1, 44};

/// Digits only and small. nullopt otherwise.
std::optional<int> parse_number(std::string_view text) {
  int out = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (ec != std::errc{} || end != text.data() + text.size() || text.front() < '0' || out > 1'000'000)
    return std::nullopt;
  return out;
}

}  // namespace

std::optional<ApiVersion> parse_api_version(std::string_view text) {
  const std::size_t dot = text.find('.');
  const auto major = parse_number(text.substr(0, dot));
  if (!major) return std::nullopt;
  if (dot == std::string_view::npos) return ApiVersion{*major, 0};
  std::string_view rest = text.substr(dot + 1);
  rest = rest.substr(0, rest.find('.'));
  const auto minor = parse_number(rest);
  if (!minor) return std::nullopt;
  return ApiVersion{*major, *minor};
}

std::string render_api_version(ApiVersion version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor);
}

ApiVersion understood_version(ApiVersion asked, std::string_view user_agent) {
  return user_agent.starts_with(kComposeInPython) ? std::min(asked, kNewestForComposeInPython) : asked;
}

}  // namespace gantry::api
