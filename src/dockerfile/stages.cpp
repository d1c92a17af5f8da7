#include "dockerfile/stages.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/suggest.hpp"

namespace gantry::dockerfile {
namespace {

constexpr std::size_t kMaxStages = 1000;

std::string expand_in_from(const std::string& text, const GlobalScope& global, LineRange lines,
                           const std::string& context) {
  ExpandOptions options;
  options.escape = global.escape();
  try {
    return expand(text, global.environment(), options).text;
  } catch (const Error& e) {
    throw SourceError(context + e.message(), lines);
  }
}

std::string display_name(const Stage& stage, std::size_t index) {
  return stage.name.empty() ? "stage-" + std::to_string(index) : stage.name;
}

}  // namespace

BuildPlan::BuildPlan(const Dockerfile& file, const GlobalScope& global, PlanOptions options)
    : options_(std::move(options)) {
  if (file.stages.size() > kMaxStages) throw SourceError("the Dockerfile has too many stages", {});
  for (const Stage& stage : file.stages) add_stage(stage, global);
  select_target();
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    const PlannedStage& stage = stages_[i];
    if (stage.named && stage.base.kind == SourceKind::named_context && stage.base.name == stage.name) continue;
    for (const Instruction& instruction : file.stages[i].instructions)
      stages_[i].instructions.push_back(plan_instruction(instruction, false));
  }
  settle();
}

std::optional<std::size_t> BuildPlan::find_stage(std::string_view name) const {
  const auto at = by_name_.find(to_lower(name));
  if (at == by_name_.end()) return std::nullopt;
  return at->second;
}

bool BuildPlan::is_named_context(const std::string& name) const {
  if (!options_.is_named_context || equals_ignoring_case(name, "scratch") || equals_ignoring_case(name, "context"))
    return false;
  return options_.is_named_context(name);
}

void BuildPlan::add_stage(const Stage& stage, const GlobalScope& global) {
  PlannedStage planned;
  planned.index = stages_.size();
  planned.name = display_name(stage, planned.index);
  planned.named = !stage.name.empty();
  planned.source = stage.source;
  planned.lines = stage.lines;
  planned.base_name = expand_in_from(stage.base_name, global, stage.lines, "");
  if (planned.base_name.empty())
    throw SourceError("base name (" + stage.base_name + ") should not be blank", stage.lines);
  if (!stage.platform.empty()) {
    planned.platform =
        expand_in_from(stage.platform, global, stage.lines, "failed to process arguments for platform : ");
    if (planned.platform.empty())
      throw SourceError("empty platform value from expression " + stage.platform, stage.lines);
  }
  const std::string& base = planned.base_name;
  const auto earlier = find_stage(base);
  if (planned.named && is_named_context(stage.name)) {
    planned.base = {SourceKind::named_context, 0, stage.name};
  } else if (earlier) {
    planned.base = {SourceKind::stage, *earlier, base};
  } else if (base == "scratch") {
    planned.base = {SourceKind::scratch, 0, base};
  } else {
    planned.base = {is_named_context(base) ? SourceKind::named_context : SourceKind::image, 0, base};
  }
  if (planned.named) by_name_[stage.name] = planned.index;
  stages_.push_back(std::move(planned));
}

void BuildPlan::select_target() {
  target_ = stages_.size() - 1;
  if (options_.target.empty()) return;
  if (const auto stage = find_stage(options_.target)) {
    target_ = *stage;
    return;
  }
  const auto number = parse_int(options_.target);
  if (number && *number >= 0 && *number < static_cast<std::int64_t>(stages_.size())) {
    target_ = static_cast<std::size_t>(*number);
    return;
  }
  std::vector<std::string> names;
  for (const PlannedStage& stage : stages_) names.push_back(stage.name);
  throw SourceError(
      "target stage " + quote(options_.target) + " could not be found" + did_you_mean(options_.target, names, true),
      {});
}

SourceRef BuildPlan::resolve(const std::string& name, bool allow_number, const Instruction& instruction) const {
  const auto number = allow_number ? parse_int(name) : std::nullopt;
  if (number) {
    if (*number < 0 || *number >= static_cast<std::int64_t>(stages_.size()))
      throw SourceError("invalid stage index " + std::to_string(*number), instruction.lines);
    return {SourceKind::stage, static_cast<std::size_t>(*number), name};
  }
  if (const auto stage = find_stage(name)) return {SourceKind::stage, *stage, name};
  if (name == "scratch") return {SourceKind::scratch, 0, name};
  return {is_named_context(name) ? SourceKind::named_context : SourceKind::image, 0, name};
}

PlannedInstruction BuildPlan::plan_instruction(const Instruction& instruction, bool on_build) const {
  PlannedInstruction planned{instruction, on_build, {}};
  if (const auto* copy = std::get_if<CopyInstruction>(&instruction.body)) {
    try {
      require_no_variables(*copy);
    } catch (const Error& e) {
      throw SourceError(e.message(), instruction.lines);
    }
    planned.sources.push_back(copy->from.empty() ? SourceRef{} : resolve(copy->from, true, instruction));
  } else if (const auto* run = std::get_if<RunInstruction>(&instruction.body)) {
    for (const MountFlag& mount : run->mounts)
      planned.sources.push_back(mount.from.empty() ? SourceRef{} : resolve(mount.from, false, instruction));
  }
  return planned;
}

std::vector<std::size_t> BuildPlan::dependencies(const PlannedStage& stage) const {
  std::vector<std::size_t> needed;
  if (stage.base.kind == SourceKind::stage) needed.push_back(stage.base.stage);
  for (const PlannedInstruction& planned : stage.instructions)
    for (const SourceRef& source : planned.sources)
      if (source.kind == SourceKind::stage) needed.push_back(source.stage);
  return needed;
}

void BuildPlan::refuse_cycles() const {
  enum class State { fresh, open, done };
  std::vector<State> states(stages_.size(), State::fresh);
  struct Frame {
    std::size_t stage;
    std::vector<std::size_t> needed;
    std::size_t next = 0;
  };
  for (std::size_t root = 0; root < stages_.size(); ++root) {
    if (states[root] != State::fresh) continue;
    std::vector<Frame> path;
    path.push_back({root, dependencies(stages_[root])});
    states[root] = State::open;
    while (!path.empty()) {
      Frame& top = path.back();
      if (top.next == top.needed.size()) {
        states[top.stage] = State::done;
        path.pop_back();
        continue;
      }
      const std::size_t next = top.needed[top.next++];
      if (states[next] == State::open)
        throw SourceError("circular dependency detected on stage: " + stages_[root].name, stages_[top.stage].lines);
      if (states[next] == State::done) continue;
      states[next] = State::open;
      path.push_back({next, dependencies(stages_[next])});
    }
  }
}

void BuildPlan::mark_reachable() {
  std::vector<std::size_t> open = {target_};
  if (options_.all_stages)
    for (const PlannedStage& stage : stages_) open.push_back(stage.index);
  for (PlannedStage& stage : stages_) stage.reachable = false;
  while (!open.empty()) {
    PlannedStage& stage = stages_[open.back()];
    open.pop_back();
    if (std::exchange(stage.reachable, true)) continue;
    for (const std::size_t needed : dependencies(stage)) open.push_back(needed);
  }
}

/// A stage that begins with another one executes the triggers which that one's own ONBUILD instructions leave.
bool BuildPlan::expand_stage_triggers() {
  bool added = false;
  for (PlannedStage& stage : stages_) {
    if (!stage.reachable || stage.base.kind != SourceKind::stage || std::exchange(stage.triggers_done, true)) continue;
    std::vector<PlannedInstruction> triggers;
    for (const PlannedInstruction& planned : stages_[stage.base.stage].instructions) {
      const auto* onbuild = std::get_if<OnbuildInstruction>(&planned.instruction.body);
      if (onbuild == nullptr) continue;
      triggers.push_back(plan_instruction(parse_trigger(onbuild->expression, stage.lines), true));
      added = true;
    }
    stage.instructions.insert(stage.instructions.begin(), std::make_move_iterator(triggers.begin()),
                              std::make_move_iterator(triggers.end()));
  }
  return added;
}

void BuildPlan::refuse_forward_references() const {
  for (const PlannedStage& stage : stages_) {
    if (!stage.reachable) continue;
    for (const PlannedInstruction& planned : stage.instructions) {
      for (std::size_t i = 0; i < planned.sources.size(); ++i) {
        const SourceRef& source = planned.sources[i];
        if (source.kind != SourceKind::stage || source.stage < stage.index) continue;
        const auto* run = std::get_if<RunInstruction>(&planned.instruction.body);
        if (run == nullptr)
          throw SourceError("cannot copy from stage " + quote(source.name) +
                                ", it needs to be defined before current stage " + quote(stage.name),
                            planned.instruction.lines);
        throw SourceError("cannot mount from stage " + quote(source.name) + " to " + quote(run->mounts[i].target) +
                              ", stage needs to be defined before current command",
                          planned.instruction.lines);
      }
    }
  }
}

void BuildPlan::settle() {
  do {  // triggers can make more stages reachable, which have triggers of their own
    refuse_cycles();
    mark_reachable();
  } while (expand_stage_triggers());
  refuse_forward_references();
}

std::vector<std::size_t> BuildPlan::order() const {
  std::vector<std::size_t> order;
  for (const PlannedStage& stage : stages_)
    if (stage.reachable) order.push_back(stage.index);
  return order;
}

bool BuildPlan::add_triggers(std::size_t stage, const std::vector<std::string>& triggers) {
  PlannedStage& planned = stages_.at(stage);
  if (triggers.empty() || std::exchange(planned.triggers_done, true)) return false;
  const std::vector<std::size_t> before = order();
  std::vector<PlannedInstruction> added;
  for (const std::string& trigger : triggers)
    added.push_back(plan_instruction(parse_trigger(trigger, planned.lines), true));
  const bool new_images = std::any_of(added.begin(), added.end(), [](const PlannedInstruction& instruction) {
    return std::any_of(instruction.sources.begin(), instruction.sources.end(), [](const SourceRef& source) {
      return source.kind == SourceKind::image || source.kind == SourceKind::named_context;
    });
  });
  planned.instructions.insert(planned.instructions.begin(), std::make_move_iterator(added.begin()),
                              std::make_move_iterator(added.end()));
  settle();
  return new_images || order() != before;
}

}  // namespace gantry::dockerfile
