#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/stages.hpp"
#include "frontend/contexts.hpp"
#include "frontend/ops.hpp"
#include "frontend/stage_state.hpp"

namespace gantry::frontend {

/// Stands in a classic image's history where the digest of what was copied belongs.
inline constexpr const char* kClassicContent = "%content%";

/// What a Dockerfile becomes for one platform.
struct Converted {
  image::Platform platform;
  llb::Output head;
  pb::Definition definition;
  std::string config;       // of the image: its layers, times and identity are the exporter's to fill in
  std::string base_config;  // of the image at the bottom; empty: none
};

/// Turns a Dockerfile into a graph of ops and an image config, for one target platform.
/// Facts: BuildKit's frontend/dockerfile/dockerfile2llb, as buildkit.md §4 has them.
class Converter {
 public:
  /// `file` and what `text` holds must outlive it. Throws dockerfile::SourceError.
  Converter(const BuildOptions& options, const dockerfile::Dockerfile& file, const DockerfileText& text,
            Contexts& contexts, Resolver& resolver, const image::Platform& target);

  /// Resolves the base images that the target needs, and converts. Throws SourceError and what the resolver throws.
  Converted convert();

  // One by one, as the classic builder goes.
  void resolve_bases();
  /// Resolves what one stage begins with. True if more stages are needed now than before.
  bool resolve_base_of(std::size_t index);
  const dockerfile::BuildPlan& plan() const noexcept { return plan_; }
  StageState begin_stage(std::size_t index);
  void apply(StageState& stage, const dockerfile::PlannedInstruction& planned);
  void finish_stage(std::size_t index, StageState stage);
  llb::Graph& graph() noexcept { return graph_; }
  /// A label that the client gives, as one more instruction.
  void add_label(StageState& stage, const std::string& name, const std::string& value);
  /// How the classic builder begins the history of what it does itself: `/bin/sh -c #(nop) `.
  static std::string classic_nop(const StageState& stage);

 private:
  struct Base {
    ImageModel image;
    std::string config;
    std::string reference;  // image: with its digest; empty: a tree
    std::string named;      // the named context that it is; empty: none
    std::optional<NamedContext> context;
    image::Platform platform;
  };
  struct CopySource {
    llb::Output tree;
    bool is_context = false;
    std::string context_name;  // of a named context
  };

  Base resolve_base(const dockerfile::PlannedStage& stage);
  Base resolve_image_base(const std::string& name, const image::Platform& platform, bool platform_given);
  Base resolve_named_base(const std::string& name, const image::Platform& platform, bool platform_given);
  void convert_stages();
  llb::Output base_output(StageState& stage, const Base& base);
  CopySource source(const dockerfile::SourceRef& ref, const image::Platform& platform);
  llb::Output image_source(const std::string& name, const image::Platform& platform);
  void use_path(const CopySource& source, const std::string& path);

  void apply_run(StageState& stage, const dockerfile::PlannedInstruction& planned);
  void apply_copy(StageState& stage, const dockerfile::PlannedInstruction& planned);
  void apply_workdir(StageState& stage, const dockerfile::PlannedInstruction& planned,
                     const dockerfile::WorkdirInstruction& workdir);
  void apply_config(StageState& stage, const dockerfile::Instruction& expanded);
  void add_source_action(StageState& stage, FileStep& step, const dockerfile::CopyInstruction& copy,
                         const std::string& path, const std::string& destination, const CopySource& from,
                         const std::string& step_name);
  void add_tree_action(FileStep& step, const dockerfile::CopyInstruction& copy, const std::string& path,
                       const std::string& destination, const CopySource& from);
  pb::FileActionCopy& add_copy(FileStep& step, const dockerfile::CopyInstruction& copy, const llb::Output& from,
                               const std::string& source, const std::string& destination);
  void add_mounts(StageState& stage, const dockerfile::PlannedInstruction& planned,
                  const dockerfile::RunInstruction& run, pb::Op& op, std::vector<std::string>& masked);
  void add_tree_mount(StageState& stage, const dockerfile::Mount& mount, const CopySource& from, pb::Op& op);
  std::string platform_prefix(const StageState& stage) const;
  StepMeta step_meta(const StageState& stage, std::string name, dockerfile::LineRange lines) const;
  void add_history(StageState& stage, std::string text, bool has_layer);
  void add_config_history(StageState& stage, const std::string& text);
  void add_step_history(StageState& stage, const std::string& text, const std::string& classic_text);

  const BuildOptions& options_;
  const dockerfile::Dockerfile& file_;
  Contexts& contexts_;
  Resolver& resolver_;
  image::Platform target_;
  dockerfile::GlobalScope global_;
  dockerfile::BuildPlan plan_;
  std::map<std::size_t, Base> bases_;
  std::map<std::string, Base> images_;  // sources of COPY --from and mounts, by name and platform
  llb::Graph graph_;
  std::size_t source_file_ = 0;
  std::map<std::size_t, StageState> stages_;
  std::map<std::string, std::set<std::string>> used_paths_;  // by context name; "": the build context
  std::map<std::string, llb::Output> contexts_added_;
  bool collecting_ = false;  // the first pass only finds out which paths of contexts are used
};

}  // namespace gantry::frontend
