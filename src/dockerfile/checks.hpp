#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/scope.hpp"
#include "dockerfile/stages.hpp"

/// Docker's build checks (`docker build --check`, warnings of a build). Facts: BuildKit's frontend/dockerfile/linter.
namespace gantry::dockerfile {

struct CheckRule {
  std::string_view name;
  std::string_view description;
  std::string_view page;  // last part of the url; "" : it has none
  bool experimental = false;
  std::string url() const;  // https://docs.docker.com/go/dockerfile/rule/<page>/
};
/// All rules, in Docker's order.
const std::vector<CheckRule>& check_rules();

/// `skip=RuleA,RuleB;error=true;experimental=all`.
struct CheckOptions {
  bool skip_all = false;
  bool experimental_all = false;
  bool error = false;  // a warning fails the build
  std::set<std::string> skip;
  std::set<std::string> experimental;
};
/// Throws Error(invalid_argument) `invalid check option "x"`, `failed to parse check option "error=x": …`.
CheckOptions parse_check_options(std::string_view text);

struct Warning {
  std::string rule;
  std::string description;
  std::string url;
  std::string message;
  LineRange lines;
  /// `StageNameCasing: Stage name 'X' should be lowercase (line 3)`.
  std::string text() const;
};

/// What is known about an image that a stage is based on.
struct BaseFacts {
  std::vector<std::string> env;
  bool has_shell = false;
  std::optional<Platform> platform;  // to compare with the expected one
};

struct CheckInputs {
  ScopeInputs scope;
  std::string target;  // "" : all stages
  /// Replaces `# check=…` of the file (the build argument BUILDKIT_DOCKERFILE_CHECK).
  std::optional<std::string> options;
  const IgnoreMatcher* ignore = nullptr;
  std::function<bool(const std::string&)> is_named_context;
  /// Asked for each stage whose base is no other stage; nullopt: nothing is known, as for scratch.
  std::function<std::optional<BaseFacts>(const PlannedStage&)> base_facts;
};

struct CheckResult {
  std::vector<Warning> warnings;
  /// What would fail the build, with its lines: a parse error, an unknown stage, … The warnings up to it are kept.
  struct Failure {
    std::string message;
    LineRange lines;
  };
  std::optional<Failure> failure;
  bool fail_on_warning = false;  // error=true
  /// `lint violation found for rules: A, B`; "" unless there are warnings and fail_on_warning.
  std::string violation() const;
};

/// Runs every check that the file's (or the inputs') options want. Warnings are in the order of their lines. Does not
/// throw for what the inputs say.
CheckResult run_checks(std::string_view dockerfile, const CheckInputs& inputs);

}  // namespace gantry::dockerfile
