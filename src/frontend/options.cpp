#include "frontend/options.hpp"

#include <array>
#include <utility>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/values.hpp"

namespace gantry::frontend {
namespace {

constexpr std::array<std::string_view, 4> kCapabilities = {
    "moby.buildkit.frontend.inputs", "moby.buildkit.frontend.subrequests", "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring"};

std::string text(const OptionMap& options, const std::string& key, std::string fallback = {}) {
  auto it = options.find(key);
  return it == options.end() ? std::move(fallback) : it->second;
}

/// What follows `prefix` in the keys that have it, with their values.
std::map<std::string, std::string> group(const OptionMap& options, std::string_view prefix) {
  std::map<std::string, std::string> out;
  for (auto it = options.lower_bound(std::string(prefix)); it != options.end() && it->first.starts_with(prefix); ++it)
    out.emplace(it->first.substr(prefix.size()), it->second);
  return out;
}

void require_capabilities(const std::string& list) {
  for (const auto& one : split(list, ',')) {
    const auto [name, flags] = split_once(trim(one), '+');
    if (name.empty() || flags == "forward") continue;
    bool known = false;
    for (auto capability : kCapabilities) known = known || capability == name;
    if (!known)
      throw Error(Errc::not_implemented,
                  "requested experimental feature " + std::string(name) + " by frontend is not supported");
  }
}

std::vector<ExtraHost> parse_hosts(const std::string& value) {
  std::vector<ExtraHost> out;
  if (value.empty()) return out;
  for (const auto& field : dockerfile::parse_csv_record(value)) {
    const auto [name, address] = split_once(field, '=');
    if (name.empty() || address.empty()) throw Error(Errc::invalid_argument, "invalid key-value pair " + field);
    out.push_back({std::string(name), std::string(address)});
  }
  return out;
}

std::vector<UlimitOption> parse_ulimits(const std::string& value) {
  std::vector<UlimitOption> out;
  if (value.empty()) return out;
  for (const auto& field : dockerfile::parse_csv_record(value)) {
    const auto [name, limits] = split_once(field, '=');
    const auto [soft, hard] = split_once(limits, ':');
    const auto low = parse_int(soft);
    const auto high = hard.empty() ? low : parse_int(hard);
    if (name.empty() || !low || !high) throw Error(Errc::invalid_argument, "invalid ulimit argument: " + field);
    out.push_back({std::string(name), *low, *high});
  }
  return out;
}

std::optional<dockerfile::RunNetwork> parse_network(const std::string& value) {
  if (value.empty()) return std::nullopt;
  if (value == "host") return dockerfile::RunNetwork::host;
  if (value == "none") return dockerfile::RunNetwork::none;
  if (value == "sandbox") return dockerfile::RunNetwork::standard;
  throw Error(Errc::invalid_argument, "invalid netmode " + value);
}

ResolveMode parse_mode(const std::string& value) {
  if (value.empty() || value == "default") return ResolveMode::standard;
  if (value == "pull") return ResolveMode::pull;
  if (value == "local") return ResolveMode::local;
  throw Error(Errc::invalid_argument, "invalid image-resolve-mode: " + value);
}

void read_switches(BuildOptions& out) {
  const auto find = [&](const char* name) -> const std::string* {
    auto it = out.build_args.find(name);
    return it == out.build_args.end() ? nullptr : &it->second;
  };
  if (const auto* value = find("BUILDKIT_CACHE_MOUNT_NS")) out.cache_mount_namespace = *value;
  if (const auto* value = find("BUILDKIT_SANDBOX_HOSTNAME")) out.hostname = *value;
  if (const auto* value = find("BUILDKIT_DOCKERFILE_CHECK")) out.check = *value;
  if (const auto* value = find("BUILDKIT_BUILD_NAME")) out.build_name = *value;
  if (const auto* value = find("BUILDKIT_CONTEXT_KEEP_GIT_DIR"))
    out.keep_git_directory = dockerfile::parse_bool(*value).value_or(false);
  if (const auto* value = find("BUILDKIT_MULTI_PLATFORM"))
    out.multi_platform = dockerfile::parse_bool(*value).value_or(out.multi_platform);
  if (const auto* value = find("SOURCE_DATE_EPOCH"); value != nullptr && !value->empty()) {
    const auto seconds = parse_int(*value);
    if (!seconds) throw Error(Errc::invalid_argument, "invalid SOURCE_DATE_EPOCH: " + *value);
    out.source_date_epoch = Timestamp(std::chrono::seconds(*seconds));
  }
  if (out.syntax.empty())
    if (const auto* value = find("BUILDKIT_SYNTAX")) out.syntax = *value;
}

}  // namespace

BuildOptions parse_options(const OptionMap& options) {
  BuildOptions out;
  require_capabilities(text(options, "frontend.caps"));
  if (auto name = text(options, "filename"); !name.empty()) out.filename = name;
  out.target = text(options, "target");
  if (auto list = text(options, "platform"); !list.empty())
    for (const auto& one : split(list, ','))
      if (!trim(one).empty()) out.platforms.push_back(image::parse_platform(trim(one)));
  out.build_args = group(options, "build-arg:");
  out.labels = group(options, "label:");
  if (auto it = options.find("no-cache"); it != options.end()) {
    out.no_cache = it->second.empty();
    for (const auto& stage : split(it->second, ','))
      if (!stage.empty()) out.no_cache_stages.insert(to_lower(stage));
  }
  out.resolve_mode = parse_mode(text(options, "image-resolve-mode"));
  out.context = text(options, "context");
  out.context_subdirectory = text(options, "contextsubdir");
  out.context_name = text(options, "contextkey", "context");
  out.dockerfile_is_local = options.count("dockerfilekey") != 0;
  out.dockerfile_name = text(options, "dockerfilekey", "dockerfile");
  out.named_contexts = group(options, "context:");
  out.input_metadata = group(options, "input-metadata:");
  out.local_sessions = group(options, "local-sessionid:");
  out.shared_keys = group(options, "sharedkey:localdir:");
  out.network = parse_network(text(options, "force-network-mode"));
  out.extra_hosts = parse_hosts(text(options, "add-hosts"));
  if (auto size = text(options, "shm-size"); !size.empty()) {
    const auto bytes = parse_int(size);
    if (!bytes) throw Error(Errc::invalid_argument, "failed to parse shm-size: " + size);
    out.shm_size = *bytes;
  }
  out.ulimits = parse_ulimits(text(options, "ulimit"));
  out.cgroup_parent = text(options, "cgroup-parent");
  out.hostname = text(options, "hostname");
  if (auto flag = text(options, "multi-platform"); !flag.empty())
    out.multi_platform = dockerfile::parse_bool(flag).value_or(false);
  out.multi_platform = out.multi_platform || out.platforms.size() > 1;
  out.request = text(options, "requestid");
  out.syntax = text(options, "cmdline");
  read_switches(out);
  return out;
}

}  // namespace gantry::frontend
