#include "image/platform.hpp"

#include <algorithm>

#include <sys/utsname.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::image {
namespace {

/// "v7" to 7; 0 if it is not of that form.
int variant_level(std::string_view variant) {
  if (variant.starts_with('v')) variant.remove_prefix(1);
  if (const auto dot = variant.find('.'); dot != std::string_view::npos) variant = variant.substr(0, dot);
  const auto number = parse_int(variant);
  return number && *number > 0 && *number < 100 ? static_cast<int>(*number) : 0;
}

std::string level_variant(int level) { return fmt::format("v{}", level); }

/// The level of the x86-64 psABI that this processor reaches.
int amd64_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return 4;
  if (__builtin_cpu_supports("x86-64-v3")) return 3;
  if (__builtin_cpu_supports("x86-64-v2")) return 2;
#endif
  return 1;
}

void append_arm(std::vector<Platform>& order, const std::string& os, int from) {
  for (int level = from; level >= 5; --level) order.push_back({os, "arm", level_variant(level), ""});
}

std::vector<Platform> fallbacks(const Platform& wanted, int amd64_from) {
  std::vector<Platform> order;
  const std::string& os = wanted.os;
  if (wanted.architecture == "amd64") {
    for (int level = amd64_from; level > 1; --level) order.push_back({os, "amd64", level_variant(level), ""});
    order.push_back({os, "amd64", "", ""});
    order.push_back({os, "386", "", ""});
  } else if (wanted.architecture == "arm64") {
    const int level = std::max(8, variant_level(wanted.variant));
    for (int v = level; v > 8; --v) order.push_back({os, "arm64", level_variant(v), ""});
    order.push_back({os, "arm64", "", ""});
    append_arm(order, os, 8);
  } else if (wanted.architecture == "arm" && variant_level(wanted.variant) >= 5) {
    append_arm(order, os, variant_level(wanted.variant));
  } else {
    order.push_back(wanted);
  }
  return order;
}

const std::vector<std::string>& known_systems() {
  static const std::vector<std::string> known = {"aix",     "android", "darwin",  "dragonfly", "freebsd",
                                                 "illumos", "ios",     "js",      "linux",     "netbsd",
                                                 "openbsd", "plan9",   "solaris", "wasip1",    "windows"};
  return known;
}

bool is_known_system(const std::string& os) {
  return std::find(known_systems().begin(), known_systems().end(), os) != known_systems().end();
}

}  // namespace

std::string render_platform(const Platform& platform) {
  std::vector<std::string> parts;
  for (const auto* part : {&platform.os, &platform.architecture, &platform.variant})
    if (!part->empty()) parts.push_back(*part);
  return join(parts, "/");
}

Platform normalize(Platform p) {
  p.os = to_lower(p.os);
  p.architecture = to_lower(p.architecture);
  p.variant = to_lower(p.variant);
  if (p.os == "macos") p.os = "darwin";
  std::string& arch = p.architecture;
  if (arch == "x86_64" || arch == "x86-64") arch = "amd64";
  if (arch == "i386") arch = "386", p.variant.clear();
  if (arch == "aarch64") arch = "arm64";
  if (arch == "armhf") arch = "arm", p.variant = "v7";
  if (arch == "armel") arch = "arm", p.variant = "v6";
  if (!p.variant.empty() && p.variant.find_first_not_of("0123456789") == std::string::npos) p.variant = "v" + p.variant;
  if (arch == "amd64" && p.variant == "v1") p.variant.clear();
  if (arch == "arm64" && (p.variant == "v8" || p.variant == "v8.0")) p.variant.clear();
  if (arch == "arm" && p.variant.empty()) p.variant = "v7";
  return p;
}

Platform host_platform() {
  utsname name{};
  ::uname(&name);
  const std::string_view machine = name.machine;
  Platform p{"linux", std::string(machine), "", ""};
  if (machine.starts_with("armv")) p = {"linux", "arm", fmt::format("v{}", machine.substr(4, 1)), ""};
  if (machine == "i486" || machine == "i586" || machine == "i686") p.architecture = "386";
  if (machine == "loongarch64") p.architecture = "loong64";
  if (machine == "ppc64le" || machine == "riscv64" || machine == "s390x") p.architecture = machine;
  return normalize(p);
}

Platform parse_platform(std::string_view text) {
  if (text.empty() || text.size() > 256)
    throw Error(Errc::invalid_argument, fmt::format("{}: invalid platform", quote(text.substr(0, 64))));
  const auto parts = split(text, '/');
  for (const auto& part : parts) {
    const bool ok = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             std::string_view("_.-()").find(c) != std::string_view::npos;
    });
    if (!ok)
      throw Error(Errc::invalid_argument,
                  fmt::format("{} is an invalid component of {}: platform specifier component must match "
                              "\"^[A-Za-z0-9_.-]+(?:\\([A-Za-z0-9_.-]+\\))?$\"",
                              quote(part), quote(text)));
  }
  const Platform host = host_platform();
  if (parts.size() == 1) {
    const std::string lower = to_lower(parts[0]);
    if (is_known_system(lower)) return normalize({lower, host.architecture, host.variant, ""});
    const Platform p = normalize({host.os, parts[0], "", ""});
    static const std::vector<std::string> known = {"386",     "amd64",   "arm",      "arm64",  "loong64",
                                                   "mips",    "mips64",  "mips64le", "mipsle", "ppc64",
                                                   "ppc64le", "riscv64", "s390x",    "wasm"};
    if (std::find(known.begin(), known.end(), p.architecture) == known.end())
      throw Error(Errc::invalid_argument, fmt::format("{}: unknown operating system or architecture", quote(text)));
    return p;
  }
  if (parts.size() > 3)
    throw Error(Errc::invalid_argument, fmt::format("{}: cannot parse platform specifier", quote(text)));
  return normalize({parts[0], parts[1], parts.size() == 3 ? parts[2] : "", ""});
}

PlatformMatcher PlatformMatcher::host() {
  const Platform p = host_platform();
  std::string text = render_platform(p);
  if (p.architecture == "arm64" && p.variant.empty()) text += "/v8";
  return {std::move(text), fallbacks(p, amd64_level())};
}

PlatformMatcher PlatformMatcher::only(Platform wanted) {
  const std::string text = render_platform(wanted);
  const Platform p = normalize(std::move(wanted));
  return {text, fallbacks(p, std::max(1, variant_level(p.variant)))};
}

std::optional<int> PlatformMatcher::rank(const Platform& candidate) const {
  const Platform p = normalize(candidate);
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const Platform& o = order_[i];
    if (o.os == p.os && o.architecture == p.architecture && o.variant == p.variant) return static_cast<int>(i);
  }
  return std::nullopt;
}

}  // namespace gantry::image
