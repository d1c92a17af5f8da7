#include "frontend/stage_state.hpp"

#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/command_line.hpp"
#include "dockerfile/expand.hpp"

namespace gantry::frontend {
namespace {

std::string upper_keyword(const std::string& text) {
  const std::size_t end = std::min(text.find(' '), text.size());
  return to_upper(text.substr(0, end)) + text.substr(end);
}

/// A command that is a heredoc alone shows the beginning of its body.
std::string heredoc_summary(const dockerfile::Instruction& instruction) {
  const auto* run = std::get_if<dockerfile::RunInstruction>(&instruction.body);
  if (run == nullptr || run->heredocs.size() != 1 || !run->command.shell) return {};
  const std::string text = run->command.words.empty() ? std::string() : std::string(trim(run->command.words[0]));
  if (!dockerfile::parse_heredoc_word(text)) return {};
  const std::string_view body = trim(run->heredocs[0].content);
  const auto [first, rest] = split_once(body, '\n');
  std::string line(first);
  if (line.ends_with('\r')) line.pop_back();
  return " (" + line + (rest.empty() ? "" : "...") + ")";
}

}  // namespace

std::string next_step_name(StageState& stage, const std::string& text, const std::string& platform_prefix) {
  if (stage.steps == 0) return text;
  std::string out = "[";
  if (!platform_prefix.empty()) out += platform_prefix + " ";
  if (!stage.display_name.empty()) out += stage.display_name + " ";
  const std::string total = std::to_string(stage.steps);
  std::string number = std::to_string(++stage.step);
  if (number.size() < total.size()) number.insert(0, total.size() - number.size(), ' ');
  return out + number + "/" + total + "] " + text;
}

std::string shown_instruction(const dockerfile::PlannedInstruction& planned, const dockerfile::Environment& environment,
                              char escape, const std::vector<std::string>& masked) {
  std::string text = planned.instruction.source + heredoc_summary(planned.instruction);
  dockerfile::Environment shown = environment;
  for (const auto& name : masked) shown.set(name, "****");
  try {
    text = dockerfile::expand(text, shown, {.escape = escape, .raw_quotes = true, .keep_unset = true}).text;
  } catch (const Error&) {
    // What cannot be read as words of a shell is shown as it is written.
  }
  return (planned.on_build ? "ONBUILD " : "") + upper_keyword(text);
}

int count_steps(const dockerfile::PlannedStage& stage) {
  int out = 0;
  for (const auto& planned : stage.instructions) {
    const auto& body = planned.instruction.body;
    if (std::holds_alternative<dockerfile::RunInstruction>(body) ||
        std::holds_alternative<dockerfile::CopyInstruction>(body) ||
        std::holds_alternative<dockerfile::WorkdirInstruction>(body))
      ++out;
  }
  return out;
}

}  // namespace gantry::frontend
