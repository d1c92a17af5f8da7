#include "dockerfile/scope.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "dockerfile/expand.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::array<std::string_view, 5> kProxies = {"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY",
                                                      "ALL_PROXY"};
/// ARGs that steer the scanner, not the build.
constexpr std::array<std::string_view, 2> kNotExported = {"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"};

std::vector<std::pair<std::string, std::string>> predefined(const ScopeInputs& inputs) {
  std::vector<std::pair<std::string, std::string>> list;
  const auto add = [&](const std::string& prefix, const Platform& platform) {
    list.emplace_back(prefix + "PLATFORM", platform.text());
    list.emplace_back(prefix + "OS", platform.os);
    list.emplace_back(prefix + "OSVERSION", platform.os_version);
    list.emplace_back(prefix + "ARCH", platform.architecture);
    list.emplace_back(prefix + "VARIANT", platform.variant);
  };
  add("BUILD", inputs.build_platform);
  add("TARGET", inputs.target_platform);
  list.emplace_back("TARGETSTAGE", inputs.target_stage.empty() ? "default" : inputs.target_stage);
  return list;
}

Expansion expand_default(const std::string& value, const Environment& environment, char escape, Expansion* looked_up) {
  ExpandOptions options;
  options.escape = escape;
  return expand(value, environment, options, looked_up);
}

std::string_view proxy_name(std::string_view name) {
  const std::string upper = to_upper(name);
  const auto at = std::find(kProxies.begin(), kProxies.end(), upper);
  return at == kProxies.end() ? std::string_view() : *at;
}

}  // namespace

std::string Platform::text() const {
  std::string text = os;
  if (!architecture.empty()) text += "/" + architecture;
  if (!variant.empty()) text += "/" + variant;
  return text;
}

GlobalScope::GlobalScope(const Dockerfile& file, ScopeInputs inputs, bool defaults_only)
    : inputs_(std::move(inputs)), escape_(file.escape) {
  if (inputs_.target_stage.empty() && !file.stages.empty()) inputs_.target_stage = file.stages.back().name;
  const std::map<std::string, std::string> none;
  const std::map<std::string, std::string>& given = defaults_only ? none : inputs_.build_args;
  for (auto& [name, value] : predefined(inputs_)) {
    // What is predefined can be overridden even where other build arguments do not count.
    const auto own = inputs_.build_args.find(name);
    environment_.set(name, own == inputs_.build_args.end() ? value : own->second);
  }
  for (const Instruction& instruction : file.global_args) {
    for (const ArgDefinition& arg : std::get<ArgInstruction>(instruction.body).args) {
      declared_.insert(arg.name);
      const auto own = given.find(arg.name);
      if (own != given.end()) {
        environment_.set(arg.name, own->second);
      } else if (arg.value) {
        try {
          environment_.set(arg.name, expand_default(*arg.value, environment_, escape_, nullptr).text);
        } catch (const Error& e) {
          throw SourceError(e.message(), instruction.lines);
        }
      }
    }
  }
}

std::set<std::string> GlobalScope::known_names() const {
  std::set<std::string> names = declared_;
  for (std::string& name : environment_.names()) names.insert(std::move(name));
  return names;
}

std::vector<std::string> unused_build_args(const Dockerfile& file,
                                           const std::map<std::string, std::string>& build_args) {
  std::set<std::string> used;
  const auto add = [&](const Instruction& instruction) {
    if (const auto* arg = std::get_if<ArgInstruction>(&instruction.body))
      for (const ArgDefinition& definition : arg->args) used.insert(definition.name);
  };
  for (const Instruction& instruction : file.global_args) add(instruction);
  for (const Stage& stage : file.stages)
    for (const Instruction& instruction : stage.instructions) add(instruction);
  for (auto& [name, value] : predefined({})) used.insert(name);
  std::vector<std::string> unused;
  for (const auto& [name, value] : build_args)
    if (!used.contains(name) && proxy_name(name).empty()) unused.push_back(name);
  return unused;
}

std::vector<std::pair<std::string, std::string>> proxy_variables(const std::map<std::string, std::string>& build_args) {
  std::map<std::string, std::string> values;
  for (const auto& [name, value] : build_args)
    if (const std::string_view proxy = proxy_name(name); !proxy.empty()) values[std::string(proxy)] = value;
  std::vector<std::pair<std::string, std::string>> list;
  for (const std::string_view name : kProxies) {
    const auto at = values.find(std::string(name));
    if (at == values.end()) continue;
    list.emplace_back(at->first, at->second);
    list.emplace_back(to_lower(at->first), at->second);
  }
  return list;
}

StageScope::StageScope(const GlobalScope& global, const std::vector<std::string>& image_env, ArgOverEnv precedence)
    : build_args_(global.inputs().build_args),
      globals_(global.environment()),
      escape_(global.escape()),
      precedence_(precedence),
      environment_(Environment::from_list(image_env)) {
  for (std::string& name : environment_.names()) env_names_.insert(std::move(name));
}

void StageScope::apply(const EnvInstruction& env) {
  for (const KeyValue& variable : env.variables) {
    environment_.set(variable.name, variable.value);
    env_names_.insert(variable.name);
  }
}

std::vector<ArgDefinition> StageScope::apply(const ArgInstruction& arg, std::set<std::string>* unmatched) {
  std::vector<ArgDefinition> resolved;
  for (ArgDefinition definition : arg.args) {
    const auto given = build_args_.find(definition.name);
    if (given != build_args_.end()) {
      definition.value = given->second;
    } else if (definition.value) {
      Expansion looked_up;
      try {
        definition.value = expand_default(*definition.value, environment_, escape_, &looked_up).text;
      } catch (const Error&) {
        if (unmatched != nullptr) unmatched->merge(looked_up.unmatched);
        throw;
      }
      if (unmatched != nullptr) unmatched->merge(looked_up.unmatched);
    } else if (const std::string* global = globals_.find(definition.name)) {
      definition.value = *global;
    }
    const bool hidden = precedence_ == ArgOverEnv::env_wins && env_names_.contains(definition.name);
    const bool exported =
        std::find(kNotExported.begin(), kNotExported.end(), definition.name) == kNotExported.end() && !hidden;
    if (definition.value && exported) environment_.set(definition.name, *definition.value);
    args_.push_back(definition);
    resolved.push_back(std::move(definition));
  }
  return resolved;
}

std::vector<std::string> StageScope::history_args() const {
  std::vector<std::string> list;
  std::map<std::string_view, std::size_t> places;
  for (const ArgDefinition& arg : args_) {
    const std::string* value = environment_.find(arg.name);
    std::string text = arg.name + "=" + (value != nullptr ? *value : arg.value.value_or(""));
    const auto [place, added] = places.emplace(arg.name, list.size());
    if (added) {
      list.push_back(std::move(text));
    } else {
      list[place->second] = std::move(text);
    }
  }
  return list;
}

bool StageScope::has_arg(std::string_view name) const {
  return std::any_of(args_.begin(), args_.end(), [&](const ArgDefinition& arg) { return arg.name == name; });
}

}  // namespace gantry::dockerfile
