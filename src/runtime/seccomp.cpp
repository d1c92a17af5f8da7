#include "runtime/seccomp.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <seccomp.h>
#include <boost/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "json/json.hpp"

namespace gantry::runtime {
namespace {

constexpr std::size_t kMaxProfile = 1 << 20;
constexpr std::size_t kMaxGroups = 4096;

[[noreturn]] void broken(const std::string& why) {
  throw Error(Errc::invalid_argument, "Decoding seccomp profile failed: " + why);
}

const std::set<std::string_view> kActions{"SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                                          "SCMP_ACT_TRAP",  "SCMP_ACT_ERRNO",        "SCMP_ACT_TRACE",
                                          "SCMP_ACT_ALLOW", "SCMP_ACT_LOG",          "SCMP_ACT_NOTIFY"};
const std::set<std::string_view> kOperators{"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
                                            "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};

const json::Object& object_of(const json::Value& value, const std::string& where) {
  const json::Object* object = value.if_object();
  if (object == nullptr) broken(where + " is not an object");
  return *object;
}

/// A member that is there and not null.
const json::Value* member(const json::Object& object, std::string_view name) {
  const json::Value* value = json::find(object, name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string text_of(const json::Object& object, std::string_view name, const std::string& where) {
  const json::Value* value = member(object, name);
  if (value == nullptr) return {};
  if (!value->is_string()) broken(fmt::format("{}.{} is not a string", where, name));
  return std::string(value->get_string());
}

std::vector<std::string> texts_of(const json::Object& object, std::string_view name, const std::string& where) {
  std::vector<std::string> out;
  const json::Value* value = member(object, name);
  if (value == nullptr) return out;
  if (!value->is_array()) broken(fmt::format("{}.{} is not an array", where, name));
  for (const json::Value& item : value->get_array()) {
    if (!item.is_string()) broken(fmt::format("{}.{} has an item that is not a string", where, name));
    out.emplace_back(item.get_string());
  }
  return out;
}

std::optional<std::uint64_t> number_of(const json::Object& object, std::string_view name, const std::string& where) {
  const json::Value* value = member(object, name);
  if (value == nullptr) return std::nullopt;
  if (value->is_uint64()) return value->get_uint64();
  if (value->is_int64() && value->get_int64() >= 0) return static_cast<std::uint64_t>(value->get_int64());
  broken(fmt::format("{}.{} is not a whole number", where, name));
}

std::string action_of(const json::Object& object, std::string_view name, const std::string& where) {
  std::string action = text_of(object, name, where);
  if (!kActions.contains(action)) broken(fmt::format("{}.{}: unknown action {}", where, name, quote(action)));
  return action;
}

/// libseccomp's name of this machine's architecture.
std::string_view native_architecture(const HostFacts& facts) {
  static const std::map<std::string_view, std::string_view> names{
      {"amd64", "SCMP_ARCH_X86_64"},   {"386", "SCMP_ARCH_X86"},         {"arm64", "SCMP_ARCH_AARCH64"},
      {"arm", "SCMP_ARCH_ARM"},        {"ppc64le", "SCMP_ARCH_PPC64LE"}, {"s390x", "SCMP_ARCH_S390X"},
      {"riscv64", "SCMP_ARCH_RISCV64"}};
  const auto found = names.find(facts.goarch);
  return found == names.end() ? std::string_view() : found->second;
}

/// Architectures as the conditions of a profile spell them: Go's words, but "x86" for 386.
bool is_this_architecture(std::string_view name, const HostFacts& facts) {
  return name == facts.goarch || (name == "x86" && facts.goarch == "386");
}

bool kernel_at_least(const std::string& text, const HostFacts& facts) {
  const auto [major_text, rest] = split_once(text, '.');
  const auto major = parse_int(major_text), minor = parse_int(split_once(rest, '.').first);
  if (!major || !minor) broken("invalid kernel version " + quote(text));
  return std::pair{static_cast<std::int64_t>(facts.kernel_major), static_cast<std::int64_t>(facts.kernel_minor)} >=
         std::pair{*major, *minor};
}

struct Context {
  const std::vector<std::string>& capabilities;
  const HostFacts& facts;

  bool has_capability(const std::string& name) const {
    return std::ranges::find(capabilities, name) != capabilities.end();
  }
  bool is_native(const std::string& name) const { return is_this_architecture(name, facts); }
};

/// Whether a group's `includes` and `excludes` let it in. Docker's rule: architectures are alternatives, every
/// capability of `includes` is needed, and any match of `excludes` keeps the group out.
bool applies(const json::Object& group, const Context& context, const std::string& where) {
  if (const json::Value* value = member(group, "excludes")) {
    const json::Object& excludes = object_of(*value, where + ".excludes");
    for (const std::string& arch : texts_of(excludes, "arches", where))
      if (context.is_native(arch)) return false;
    for (const std::string& capability : texts_of(excludes, "caps", where))
      if (context.has_capability(capability)) return false;
    if (const auto kernel = text_of(excludes, "minKernel", where);
        !kernel.empty() && kernel_at_least(kernel, context.facts))
      return false;
  }
  if (const json::Value* value = member(group, "includes")) {
    const json::Object& includes = object_of(*value, where + ".includes");
    const auto arches = texts_of(includes, "arches", where);
    if (!arches.empty() && std::ranges::none_of(arches, [&](const auto& arch) { return context.is_native(arch); }))
      return false;
    for (const std::string& capability : texts_of(includes, "caps", where))
      if (!context.has_capability(capability)) return false;
    if (const auto kernel = text_of(includes, "minKernel", where);
        !kernel.empty() && !kernel_at_least(kernel, context.facts))
      return false;
  }
  return true;
}

/// seccomp_syscall_resolve_name(3) gives a number for every name in libseccomp's table, a negative one for names of
/// other architectures only.
bool is_known_syscall(const std::string& name) { return seccomp_syscall_resolve_name(name.c_str()) != __NR_SCMP_ERROR; }

json::Array render_arguments(const json::Object& group, const std::string& where) {
  json::Array out;
  const json::Value* value = member(group, "args");
  if (value == nullptr) return out;
  if (!value->is_array() || value->get_array().size() > 6) broken(where + ".args is not an array of at most six");
  for (const json::Value& item : value->get_array()) {
    const json::Object& argument = object_of(item, where + ".args[]");
    const std::string op = text_of(argument, "op", where);
    if (!kOperators.contains(op)) broken(fmt::format("{}.args: unknown operator {}", where, quote(op)));
    const auto index = number_of(argument, "index", where).value_or(0);
    if (index > 5) broken(fmt::format("{}.args: index {} is not below 6", where, index));
    json::Object rendered{{"index", index}, {"value", number_of(argument, "value", where).value_or(0)}};
    if (const auto second = number_of(argument, "valueTwo", where)) rendered["valueTwo"] = *second;
    rendered["op"] = op;
    out.push_back(std::move(rendered));
  }
  return out;
}

/// nullopt if nothing of the group is left for this container.
std::optional<json::Object> render_group(const json::Object& group, const Context& context, const std::string& where) {
  const std::string name = text_of(group, "name", where);
  std::vector<std::string> names = texts_of(group, "names", where);
  if (!name.empty() && !names.empty())
    broken("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'");
  if (!name.empty()) names.push_back(name);
  const std::string action = action_of(group, "action", where);
  json::Array arguments = render_arguments(group, where);
  const auto errno_value = number_of(group, "errnoRet", where);
  if (!applies(group, context, where)) return std::nullopt;
  json::Array known;
  for (const std::string& syscall : names)
    if (is_known_syscall(syscall)) known.emplace_back(syscall);
  if (known.empty()) return std::nullopt;
  json::Object out{{"names", std::move(known)}, {"action", action}};
  if (errno_value) out["errnoRet"] = *errno_value;
  if (!arguments.empty()) out["args"] = std::move(arguments);
  return out;
}

json::Array render_architectures(const json::Object& profile, const HostFacts& facts) {
  const auto plain = texts_of(profile, "architectures", "profile");
  const json::Value* map = member(profile, "archMap");
  const bool has_map = map != nullptr && map->is_array() && !map->get_array().empty();
  if (!plain.empty() && has_map)
    broken(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or "
        "'archMap'");
  json::Array out;
  for (const std::string& name : plain) out.emplace_back(name);
  if (!has_map) return out;
  for (const json::Value& item : map->get_array()) {
    const json::Object& entry = object_of(item, "archMap[]");
    if (text_of(entry, "architecture", "archMap[]") != native_architecture(facts)) continue;
    out.emplace_back(native_architecture(facts));
    for (const std::string& sub : texts_of(entry, "subArchitectures", "archMap[]")) out.emplace_back(sub);
  }
  return out;
}

}  // namespace

std::string render_seccomp(std::string_view profile, const std::vector<std::string>& capabilities,
                           const HostFacts& facts) {
  if (profile.size() > kMaxProfile) broken(fmt::format("profile is larger than {} bytes", kMaxProfile));
  json::Value document;
  try {
    document = json::parse(profile);
  } catch (const Error& e) {
    broken(e.message());
  }
  const json::Object& root = object_of(document, "profile");
  json::Object out{{"defaultAction", action_of(root, "defaultAction", "profile")}};
  if (const auto value = number_of(root, "defaultErrnoRet", "profile")) out["defaultErrnoRet"] = *value;
  if (auto architectures = render_architectures(root, facts); !architectures.empty())
    out["architectures"] = std::move(architectures);
  json::Array flags;
  for (const std::string& flag : texts_of(root, "flags", "profile")) flags.emplace_back(flag);
  if (!flags.empty()) out["flags"] = std::move(flags);
  for (const char* name : {"listenerPath", "listenerMetadata"})
    if (const auto text = text_of(root, name, "profile"); !text.empty()) out[name] = text;

  json::Array groups;
  const Context context{capabilities, facts};
  if (const json::Value* syscalls = member(root, "syscalls")) {
    if (!syscalls->is_array() || syscalls->get_array().size() > kMaxGroups)
      broken(fmt::format("syscalls is not an array of at most {}", kMaxGroups));
    std::size_t index = 0;
    for (const json::Value& item : syscalls->get_array()) {
      const std::string where = fmt::format("syscalls[{}]", index++);
      if (auto group = render_group(object_of(item, where), context, where)) groups.push_back(std::move(*group));
    }
  }
  if (!groups.empty()) out["syscalls"] = std::move(groups);
  return json::render(out);
}

void validate_seccomp_profile(std::string_view profile, const HostFacts& facts) {
  (void)render_seccomp(profile, {}, facts);
}

std::shared_ptr<const std::string> SeccompCache::get_default(const std::vector<std::string>& capabilities) {
  return get(default_seccomp_profile(), capabilities);
}

std::shared_ptr<const std::string> SeccompCache::get(std::string_view profile,
                                                     const std::vector<std::string>& capabilities) {
  // The profile's own text is the key's tail: no hash to collide, and a handful of profiles at most.
  std::string key = join(capabilities, ",") + "\n" + std::string(profile);
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(entries_, key, &Entry::key);
    if (found != entries_.end()) {
      std::rotate(entries_.begin(), found, found + 1);
      return entries_.front().text;
    }
  }
  auto text = std::make_shared<const std::string>(render_seccomp(profile, capabilities, facts_));
  const std::lock_guard lock(mutex_);
  entries_.insert(entries_.begin(), Entry{std::move(key), text});
  if (entries_.size() > kLimit) entries_.pop_back();
  return text;
}

}  // namespace gantry::runtime
