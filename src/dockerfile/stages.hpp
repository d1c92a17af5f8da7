#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/scope.hpp"

/// Which stages a build needs and what each takes from where.
namespace gantry::dockerfile {

enum class SourceKind {
  build_context,
  scratch,
  stage,
  image,          // a reference to resolve
  named_context,  // --build-context NAME=…
};

struct SourceRef {
  SourceKind kind = SourceKind::build_context;
  std::size_t stage = 0;  // kind stage: its index
  std::string name;       // as written (expanded for FROM): image or context
  bool operator==(const SourceRef&) const = default;
};

struct PlannedInstruction {
  Instruction instruction;
  bool on_build = false;           // a trigger of the base
  std::vector<SourceRef> sources;  // COPY: one. RUN: one for each --mount. Else none.
};

struct PlannedStage {
  std::size_t index = 0;
  std::string name;  // lower case, or "stage-N"
  bool named = false;
  std::string base_name;  // expanded
  std::string platform;   // expanded; "" : the target platform
  SourceRef base;         // stage, image, named_context or scratch
  std::string source;     // the FROM line
  LineRange lines;
  bool reachable = false;  // needed for the target
  bool triggers_done = false;
  std::vector<PlannedInstruction> instructions;  // none if a named context replaces the stage
};

struct PlanOptions {
  std::string target;  // name (any case) or number; "" : the last stage
  /// Is there a `--build-context` of this name? Never asked for "scratch" and "context". Empty: there are none.
  std::function<bool(const std::string&)> is_named_context;
  bool all_stages = false;  // every stage counts as reachable (build checks without a target)
};

/// The graph of at most 1000 stages. Pure: base images' configs are told by who resolves them (add_triggers).
class BuildPlan {
 public:
  /// Resolves names in FROM (an earlier stage before an image), COPY --from and RUN --mount=from, selects the target,
  /// marks what it needs, and expands ONBUILD of stages that are bases of stages. Throws SourceError:
  /// `base name (${x}) should not be blank`, `target stage "bulid" could not be found (did you mean build?)`,
  /// `invalid stage index N`, `circular dependency detected on stage: x`, `cannot copy from stage "x", it needs to be
  /// defined before current stage "y"`, `cannot mount from stage …`.
  BuildPlan(const Dockerfile& file, const GlobalScope& global, PlanOptions options);

  const std::vector<PlannedStage>& stages() const noexcept { return stages_; }
  const PlannedStage& target() const noexcept { return stages_[target_]; }
  /// Reachable stages in the order of the file: each only needs earlier ones.
  std::vector<std::size_t> order() const;

  /// Puts the triggers of the resolved base image's config in front of a stage's instructions. They may need stages
  /// and images that nothing needed before: true if something became reachable. Throws as the constructor.
  /// Call once for each stage whose base is an image or a named context.
  bool add_triggers(std::size_t stage, const std::vector<std::string>& triggers);

 private:
  std::optional<std::size_t> find_stage(std::string_view name) const;
  bool is_named_context(const std::string& name) const;
  void add_stage(const Stage& stage, const GlobalScope& global);
  void select_target();
  SourceRef resolve(const std::string& name, bool allow_number, const Instruction& instruction) const;
  PlannedInstruction plan_instruction(const Instruction& instruction, bool on_build) const;
  std::vector<std::size_t> dependencies(const PlannedStage& stage) const;
  void refuse_cycles() const;
  void mark_reachable();
  bool expand_stage_triggers();
  void refuse_forward_references() const;
  void settle();

  PlanOptions options_;
  std::vector<PlannedStage> stages_;
  std::map<std::string, std::size_t, std::less<>> by_name_;  // lower case; the last of a name
  std::size_t target_ = 0;
};

}  // namespace gantry::dockerfile
