#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/environment.hpp"

/// Which variables are visible where: build arguments, ARG before the first FROM, ARG and ENV in stages.
namespace gantry::dockerfile {

struct Platform {
  std::string os = "linux";
  std::string os_version;
  std::string architecture;
  std::string variant;
  std::string text() const;  // linux/arm/v7
};

struct ScopeInputs {
  std::map<std::string, std::string> build_args;
  Platform build_platform;
  Platform target_platform;
  std::string target_stage;  // the stage asked for; "" : none was
};

/// Variables of FROM lines: the predefined ones (BUILDPLATFORM, TARGETARCH, TARGETSTAGE …, which build arguments
/// override) and the ARGs before the first FROM.
class GlobalScope {
 public:
  /// Throws SourceError for a default that cannot be expanded. With `defaults_only` build arguments count for nothing
  /// (for the check InvalidDefaultArgInFrom).
  GlobalScope(const Dockerfile& file, ScopeInputs inputs, bool defaults_only = false);

  const Environment& environment() const noexcept { return environment_; }
  const ScopeInputs& inputs() const noexcept { return inputs_; }
  char escape() const noexcept { return escape_; }
  /// Every name that FROM may use without a warning: declared (also without a value) or predefined.
  std::set<std::string> known_names() const;

 private:
  ScopeInputs inputs_;
  char escape_;
  Environment environment_;
  std::set<std::string> declared_;
};

/// Build arguments that no ARG uses and that nothing predefines, sorted: for the classic builder's warning.
std::vector<std::string> unused_build_args(const Dockerfile& file,
                                           const std::map<std::string, std::string>& build_args);

/// HTTP_PROXY, https_proxy … among the build arguments: exported to RUN without ARG, in neither history nor cache keys.
/// Both spellings of each name, the last given one wins.
std::vector<std::pair<std::string, std::string>> proxy_variables(const std::map<std::string, std::string>& build_args);

/// What ARG does when ENV defined the same name before.
enum class ArgOverEnv {
  last_wins,  // BuildKit
  env_wins,   // the classic builder
};

/// The variables inside one stage, at one point. `FROM that-stage` continues with a copy.
class StageScope {
 public:
  /// `image_env` is the environment of the base image's config.
  StageScope(const GlobalScope& global, const std::vector<std::string>& image_env,
             ArgOverEnv precedence = ArgOverEnv::last_wins);

  /// What expansions see and RUN gets (without proxies).
  const Environment& environment() const noexcept { return environment_; }

  /// `env` must be expanded already.
  void apply(const EnvInstruction& env);
  /// Takes build arguments, global ARGs or the (expanded here) defaults, in this order of precedence: build argument,
  /// own default, global value. Returns the definitions with their final values, for history. `unmatched` receives
  /// variables of defaults that are not set. Throws Error.
  std::vector<ArgDefinition> apply(const ArgInstruction& arg, std::set<std::string>* unmatched = nullptr);

  /// `NAME=value` of the ARGs declared so far, inherited ones first, each once, with the value the environment has now:
  /// the `|N …` in the history of RUN.
  std::vector<std::string> history_args() const;
  bool has_arg(std::string_view name) const;

 private:
  std::map<std::string, std::string> build_args_;
  Environment globals_;
  char escape_;
  ArgOverEnv precedence_;
  Environment environment_;
  std::vector<ArgDefinition> args_;
  std::set<std::string, std::less<>> env_names_;  // by ENV, not ARG
};

}  // namespace gantry::dockerfile
