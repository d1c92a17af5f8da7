#include "dockerfile/check_file.hpp"

#include <algorithm>
#include <set>

#include "base/text.hpp"
#include "dockerfile/check_values.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/suggest.hpp"

namespace gantry::dockerfile {
namespace {

bool is_lower(const std::string& text) { return to_lower(text) == text; }
bool is_upper(const std::string& text) { return to_upper(text) == text; }

void check_description(const std::string& keyword, const std::vector<std::string>& names,
                       const std::vector<std::string>& comments, LineRange lines, Linter& linter) {
  if (comments.empty() || names.empty()) return;
  const std::string first_word(split_once(comments.back(), ' ').first);
  if (std::find(names.begin(), names.end(), first_word) != names.end()) return;
  const std::string& example = names.size() > 1 ? "<arg_key>" : names.front();
  linter.warn("InvalidDefinitionDescription", lines,
              "Comment for " + keyword + " should follow the format: `# " + example + " <description>`");
}

void check_instruction_text(const Instruction& instruction, Linter& linter) {
  linter.at(instruction.comments);
  if (std::holds_alternative<MaintainerInstruction>(instruction.body))
    linter.warn("MaintainerDeprecated", instruction.lines,
                "Maintainer instruction is deprecated in favor of using label");
  if (const auto* arg = std::get_if<ArgInstruction>(&instruction.body)) {
    std::vector<std::string> names;
    for (const ArgDefinition& definition : arg->args) names.push_back(definition.name);
    check_description("ARG", names, instruction.comments, instruction.lines, linter);
  }
}

void check_stage_text(const Stage& stage, Linter& linter) {
  linter.at(stage.comments);
  if (stage.written_name != stage.name)
    linter.warn("StageNameCasing", stage.lines, "Stage name '" + stage.written_name + "' should be lowercase");
  const bool lower = is_lower(stage.keyword);
  const bool mixed = !lower && !is_upper(stage.keyword);
  if (!mixed && (lower ? !is_lower(stage.as_keyword) : !is_upper(stage.as_keyword)))
    linter.warn("FromAsCasing", stage.lines,
                "'" + stage.as_keyword + "' and '" + stage.keyword + "' keywords' casing do not match");
  if (!stage.name.empty()) check_description("FROM", {stage.name}, stage.comments, stage.lines, linter);
}

void check_stage_names(const Dockerfile& file, Linter& linter) {
  std::set<std::string> seen;
  for (const Stage& stage : file.stages) {
    if (stage.name.empty()) continue;
    linter.at(stage.comments);
    if (stage.name == "context" || stage.name == "scratch")
      linter.warn("ReservedStageName", stage.lines,
                  "Stage name should not use the same name as reserved stage " + quote(stage.name));
    if (!seen.insert(stage.name).second)
      linter.warn("DuplicateStageName", stage.lines,
                  "Duplicate stage name " + quote(stage.name) + ", stage names should be unique");
  }
}

void check_casing(const Dockerfile& file, Linter& linter) {
  int lower = 0;
  int upper = 0;
  const auto count = [&](const std::string& keyword) {
    if (is_lower(keyword)) {
      ++lower;
    } else if (is_upper(keyword)) {
      ++upper;
    }
  };
  for (const Stage& stage : file.stages) {
    count(stage.keyword);
    for (const Instruction& instruction : stage.instructions) count(instruction.keyword);
  }
  const bool wants_lower = lower > upper;
  const auto check = [&](const std::string& keyword, LineRange lines, const std::vector<std::string>& comments) {
    if (wants_lower ? is_lower(keyword) : is_upper(keyword)) return;
    linter.at(comments);
    linter.warn("ConsistentInstructionCasing", lines,
                "Command '" + keyword + "' should match the case of the command majority (" +
                    (wants_lower ? "lowercase" : "uppercase") + ")");
  };
  for (const Stage& stage : file.stages) {
    check(stage.keyword, stage.lines, stage.comments);
    for (const Instruction& instruction : stage.instructions)
      check(instruction.keyword, instruction.lines, instruction.comments);
  }
}

void check_default_bases(const Dockerfile& file, const GlobalScope& global, Linter& linter) {
  ExpandOptions options;
  options.escape = file.escape;
  try {
    const GlobalScope defaults(file, global.inputs(), true);
    for (const Stage& stage : file.stages) {
      linter.at(stage.comments);
      if (!is_image_reference(expand(stage.base_name, defaults.environment(), options).text))
        linter.warn("InvalidDefaultArgInFrom", stage.lines,
                    "Default value for ARG " + stage.base_name + " results in empty or invalid base image name");
    }
  } catch (const Error& e) {
    if (e.code() != Errc::invalid_argument) throw;  // the build itself tells what cannot be expanded
  }
}

void check_undeclared(const Expansion& looked_up, const GlobalScope& global, LineRange lines, Linter& linter) {
  const std::set<std::string> known = global.known_names();
  const std::vector<std::string> options(known.begin(), known.end());
  for (const std::string& name : looked_up.unmatched)
    if (!known.contains(name))
      linter.warn("UndefinedArgInFrom", lines,
                  "FROM argument '" + name + "' is not declared" + did_you_mean(name, options, true));
}

void check_platform_flag(const Stage& stage, const Expansion& platform, const GlobalScope& global, Linter& linter) {
  const std::string* target = global.environment().find("TARGETPLATFORM");
  if (platform.matched == std::set<std::string>{"TARGETPLATFORM"} && platform.unmatched.empty() && target != nullptr &&
      platform.text == *target)
    linter.warn(
        "RedundantTargetPlatform", stage.lines,
        "Setting platform to predefined " + stage.platform + " in FROM is redundant as this is the default behavior");
  if (!platform.matched.empty() || !platform.unmatched.empty()) return;
  const auto read = read_platform(platform.text, global.inputs().build_platform.architecture);
  if (!read || stage.name.find(read->os) != std::string::npos ||
      (!read->architecture.empty() && stage.name.find(read->architecture) != std::string::npos))
    return;
  linter.warn("FromPlatformFlagConstDisallowed", stage.lines,
              "FROM --platform flag should not use constant value " + quote(platform.text));
}

}  // namespace

void check_file(const Dockerfile& file, Linter& linter) {
  linter.at({});
  for (const LineRange& lines : file.empty_continuations)
    linter.warn("NoEmptyContinuation", lines, "Empty continuation line");
  for (const Instruction& instruction : file.global_args) check_instruction_text(instruction, linter);
  for (const Stage& stage : file.stages) {
    check_stage_text(stage, linter);
    for (const Instruction& instruction : stage.instructions) check_instruction_text(instruction, linter);
  }
  check_stage_names(file, linter);
  check_casing(file, linter);
}

void check_from_lines(const Dockerfile& file, const GlobalScope& global, Linter& linter) {
  check_default_bases(file, global, linter);
  ExpandOptions options;
  options.escape = file.escape;
  for (const Stage& stage : file.stages) {
    linter.at(stage.comments);
    try {
      check_undeclared(expand(stage.base_name, global.environment(), options), global, stage.lines, linter);
      if (stage.platform.empty()) continue;
      const Expansion platform = expand(stage.platform, global.environment(), options);
      check_undeclared(platform, global, stage.lines, linter);
      check_platform_flag(stage, platform, global, linter);
    } catch (const Error& e) {
      if (e.code() != Errc::invalid_argument) throw;
      return;  // the plan fails for the same reason
    }
  }
}

}  // namespace gantry::dockerfile
