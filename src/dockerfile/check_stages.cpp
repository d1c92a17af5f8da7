#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/text.hpp"
#include "dockerfile/check_file.hpp"
#include "dockerfile/check_values.hpp"
#include "dockerfile/checks.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/linter.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/suggest.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::string_view kDefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What instructions of a stage leave for the next ones, as far as checks ask.
struct StageState {
  StageScope scope;
  bool has_shell = false;
  bool workdir_set = false;
  std::optional<LineRange> cmd;
  std::optional<LineRange> entrypoint;
  std::optional<LineRange> healthcheck;
};

bool is_url(std::string_view source) {
  return source.starts_with("http://") || source.starts_with("https://") || source.starts_with("git@") ||
         source.starts_with("git://") || source.starts_with("ssh://");
}

/// Goes through one stage's instructions as a build would, without doing anything.
class StageWalk {
 public:
  StageWalk(StageState& state, const GlobalScope& global, const CheckInputs& inputs, Linter& linter)
      : state_(state), global_(global), inputs_(inputs), linter_(linter) {}

  void step(const PlannedInstruction& planned) {
    const Instruction& written = planned.instruction;
    linter_.at(written.comments);
    current_ = &planned;
    try {
      std::set<std::string> unmatched;
      const Instruction expanded = expand_and_report(written, unmatched);
      std::visit([&](const auto& body) { check(body); }, expanded.body);
    } catch (const SourceError&) {
      throw;
    } catch (const Error& e) {
      throw SourceError(e.message(), written.lines);
    }
  }

 private:
  LineRange lines() const { return current_->instruction.lines; }
  const std::string& keyword() const { return current_->instruction.keyword; }
  void warn(std::string_view rule, const std::string& message) { linter_.warn(rule, lines(), message); }

  Instruction expand_and_report(const Instruction& written, std::set<std::string>& unmatched) {
    try {
      Instruction expanded = expand_instruction(written, state_.scope.environment(), global_.escape(), &unmatched);
      report(unmatched);
      return expanded;
    } catch (const Error&) {
      report(unmatched);
      throw;
    }
  }

  void report(const std::set<std::string>& unmatched) {
    if (unmatched.empty()) return;
    const std::vector<std::string> names = state_.scope.environment().names();
    for (const std::string& name : unmatched) {
      if (linter_.full()) return;
      if (state_.scope.has_arg(name)) continue;
      const std::string meant = closest_option(name, names, true);
      warn("UndefinedVar",
           "Usage of undefined variable '$" + name + "'" + (meant.empty() ? "" : " (did you mean $" + meant + "?)"));
    }
  }

  void check_pairs(const std::vector<KeyValue>& pairs) {
    for (const KeyValue& pair : pairs)
      if (pair.legacy)
        warn("LegacyKeyValueFormat",
             "\"" + keyword() + " key=value\" should be used instead of legacy \"" + keyword() + " key value\" format");
  }

  void check_secret(const std::string& instruction, const std::string& name) {
    if (names_secret(name))
      warn("SecretsUsedInArgOrEnv",
           "Do not use ARG or ENV instructions for sensitive data (" + instruction + " " + quote(name) + ")");
  }

  void check_only(std::optional<LineRange>& earlier) {
    if (earlier)  // the earlier one is the one without effect
      linter_.warn("MultipleInstructionsDisallowed", *earlier,
                   "Multiple " + keyword() +
                       " instructions should not be used in the same stage because only the last one will be used");
    earlier = lines();
  }

  void check_command(const CommandLine& command, std::optional<LineRange>& earlier) {
    check_only(earlier);
    if (command.shell && !state_.has_shell)
      warn("JSONArgsRecommended",
           "JSON arguments recommended for " + keyword() + " to prevent unintended behavior related to OS signals");
  }

  void check(const EnvInstruction& env) {
    check_pairs(env.variables);
    for (const KeyValue& variable : env.variables) check_secret("ENV", variable.name);
    state_.scope.apply(env);
  }
  void check(const LabelInstruction& label) { check_pairs(label.labels); }
  void check(const ArgInstruction& arg) {
    for (const ArgDefinition& definition : arg.args) check_secret("ARG", definition.name);
    std::set<std::string> unmatched;
    try {
      state_.scope.apply(arg, &unmatched);
    } catch (const Error&) {
      report(unmatched);
      throw;
    }
    report(unmatched);
  }
  void check(const RunInstruction& run) {
    ExpandOptions options;
    options.escape = global_.escape();
    Expansion looked_up;
    const ExpandWord expand_word = [&](std::string_view word) {
      return expand(word, state_.scope.environment(), options, &looked_up).text;
    };
    for (const MountFlag& mount : run.mounts) parse_mount(mount.text, expand_word);
    report(looked_up.unmatched);
  }
  void check(const CmdInstruction& cmd) { check_command(cmd.command, state_.cmd); }
  void check(const EntrypointInstruction& entrypoint) { check_command(entrypoint.command, state_.entrypoint); }
  void check(const HealthcheckInstruction&) { check_only(state_.healthcheck); }
  void check(const ShellInstruction&) { state_.has_shell = true; }
  void check(const WorkdirInstruction& workdir) {
    if (!state_.workdir_set && !workdir.path.starts_with('/'))
      warn("WorkdirRelativePath",
           "Relative workdir " + quote(workdir.path) + " can have unexpected results if the base image changes");
    state_.workdir_set = true;
  }
  void check(const StopSignalInstruction& stop) { check_signal(stop.signal); }
  void check(const ExposeInstruction& expose) {
    for (const std::string& port : expose.ports) {
      const ExposedPorts read = parse_exposed_ports(port);
      if (read.proto_not_lower)
        warn("ExposeProtoCasing", "Defined protocol '" + port + "' in EXPOSE instruction should be lowercase");
      if (read.has_mapping)
        warn("ExposeInvalidFormat",
             "EXPOSE instruction should not define an IP address or host-port mapping, found '" + port + "'");
    }
  }
  void check(const CopyInstruction& copy) {
    if (!copy.chmod.empty()) check_chmod(copy.chmod);
    const bool from_context = copy.from.empty();
    if (!from_context || inputs_.ignore == nullptr || inputs_.ignore->has_negations()) return;
    for (const std::string& written : copy.sources) {
      if (copy.add && is_url(written)) continue;
      const std::string source = clean_path(written);
      const bool root = source == "." || source == "/";
      if (root && !inputs_.ignore->excludes_root()) continue;
      if (inputs_.ignore->excludes(source))
        warn("CopyIgnoredFile", std::string("Attempting to ") + (copy.add ? "Add" : "Copy") + " file " + quote(source) +
                                    " that is excluded by .dockerignore");
    }
  }
  void check(const UserInstruction&) {}
  void check(const VolumeInstruction&) {}
  void check(const MaintainerInstruction&) {}
  void check(const OnbuildInstruction&) {}

  StageState& state_;
  const GlobalScope& global_;
  const CheckInputs& inputs_;
  Linter& linter_;
  const PlannedInstruction* current_ = nullptr;
};

class Run {
 public:
  Run(const CheckInputs& inputs, Linter& linter) : inputs_(inputs), linter_(linter) {}

  void run(std::string_view text) {
    const Dockerfile file = parse(text);
    check_file(file, linter_);
    ScopeInputs scope = inputs_.scope;
    if (scope.target_stage.empty()) scope.target_stage = inputs_.target;
    const GlobalScope global(file, scope);
    check_from_lines(file, global, linter_);
    const BuildPlan plan(file, global, {inputs_.target, inputs_.is_named_context, inputs_.target.empty()});
    std::map<std::size_t, int> children;  // stages to come that begin with this one
    for (const std::size_t index : plan.order())
      if (plan.stages()[index].base.kind == SourceKind::stage) ++children[plan.stages()[index].base.stage];
    for (const std::size_t index : plan.order()) {
      const PlannedStage& stage = plan.stages()[index];
      linter_.at({});
      StageState state = start(stage, global);
      StageWalk walk(state, global, inputs_, linter_);
      for (const PlannedInstruction& planned : stage.instructions) walk.step(planned);
      if (children.contains(index)) states_.emplace(index, std::move(state));
      if (stage.base.kind == SourceKind::stage && --children[stage.base.stage] == 0) states_.erase(stage.base.stage);
    }
  }

 private:
  StageState start(const PlannedStage& stage, const GlobalScope& global) {
    if (stage.base.kind == SourceKind::stage) {
      StageState state = states_.at(stage.base.stage);
      state.cmd = state.entrypoint = state.healthcheck = std::nullopt;
      return state;
    }
    const std::optional<BaseFacts> facts = inputs_.base_facts ? inputs_.base_facts(stage) : std::nullopt;
    std::vector<std::string> env = facts ? facts->env : std::vector<std::string>();
    if (std::none_of(env.begin(), env.end(), [](const std::string& entry) { return entry.starts_with("PATH="); }))
      env.emplace_back(kDefaultPath);
    if (facts && facts->platform) check_platform(stage, *facts->platform);
    StageState state{StageScope(global, env), facts && facts->has_shell, false, {}, {}, {}};
    return state;
  }

  void check_platform(const PlannedStage& stage, const Platform& actual) {
    const std::string expected = stage.platform.empty() ? inputs_.scope.target_platform.text() : stage.platform;
    const auto wanted = read_platform(expected, inputs_.scope.build_platform.architecture);
    if (!wanted || (wanted->os == actual.os && wanted->architecture == actual.architecture)) return;
    linter_.warn("InvalidBaseImagePlatform", stage.lines,
                 "Base image " + stage.base_name + " was pulled with platform " + quote(actual.text()) + ", expected " +
                     quote(expected) + " for current build");
  }

  const CheckInputs& inputs_;
  Linter& linter_;
  std::map<std::size_t, StageState> states_;
};

CheckOptions options_of(std::string_view text, const CheckInputs& inputs) {
  try {
    if (inputs.options) return parse_check_options(*inputs.options);
    const auto directive = find_directive(text, "check");
    return directive ? parse_check_options(directive->value) : CheckOptions();
  } catch (Error& e) {
    e.prefix("failed to parse check options");
    throw;
  }
}

}  // namespace

CheckResult run_checks(std::string_view dockerfile, const CheckInputs& inputs) {
  CheckResult result;
  Linter linter{CheckOptions()};
  try {
    linter = Linter(options_of(dockerfile, inputs));
    result.fail_on_warning = linter.options().error;
    Run(inputs, linter).run(dockerfile);
  } catch (const SourceError& e) {
    result.failure = {e.message(), e.lines()};
  } catch (const Error& e) {
    result.failure = {e.message(), {}};
  }
  result.warnings = linter.take();
  return result;
}

}  // namespace gantry::dockerfile
