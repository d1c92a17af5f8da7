#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "image/platform.hpp"
#include "llb/graph.hpp"

/// Single ops as a Dockerfile needs them.
namespace gantry::frontend {

/// What progress calls a step, and how its op is treated.
struct StepMeta {
  std::string name{};
  bool ignore_cache = false;
  std::string network{};  // of a command: another one than the default
  llb::SourceLines lines{};
};

using Attributes = std::vector<std::pair<std::string, std::string>>;

llb::Output add_source_op(llb::Graph& graph, const std::string& identifier, const Attributes& attributes,
                          const std::optional<image::Platform>& platform, const StepMeta& meta);

/// Adds a file op: inputs and actions are collected first.
class FileStep {
 public:
  explicit FileStep(llb::Output base) : base_(std::move(base)) {}

  /// The next action: its input is the result of the one before. Its oneof is for the caller to set.
  pb::FileAction& add_action();
  /// The number of an input for FileAction::secondary_input. -1 for the empty tree.
  std::int64_t input(const llb::Output& output);
  /// `user[:group]`, numbers or names; names are looked up in the tree that is changed.
  pb::ChownOpt owner(const std::string& chown);
  bool empty() const noexcept { return op_.file().actions_size() == 0; }

  llb::Output add_to(llb::Graph& graph, const std::optional<image::Platform>& platform, const StepMeta& meta);

 private:
  llb::Output base_;
  pb::Op op_;
  std::vector<std::pair<std::int64_t, bool>> previous_;
};

/// A file on the empty tree.
llb::Output add_inline_file(llb::Graph& graph, const std::string& name, const std::string& data, int mode,
                            const std::string& step_name);

void set_platform(pb::Op& op, const image::Platform& platform);
pb::OpMetadata make_metadata(const StepMeta& meta);

/// "/a/b" of any spelling: absolute, clean, ".." stays below "/".
std::string absolute_path(const std::string& path);
/// A destination: relative to `directory`, clean, with the "/" at its end that means a directory.
std::string destination_path(const std::string& directory, const std::string& path);

}  // namespace gantry::frontend
