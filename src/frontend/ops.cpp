#include "frontend/ops.hpp"

#include "base/text.hpp"
#include "dockerfile/values.hpp"

namespace gantry::frontend {
namespace {

pb::UserOpt user_option(std::string_view text) {
  pb::UserOpt out;
  if (auto number = parse_int(text); number && *number >= 0 && *number <= UINT32_MAX) {
    out.set_by_id(static_cast<std::uint32_t>(*number));
    return out;
  }
  out.mutable_by_name()->set_name(std::string(text));
  return out;
}

}  // namespace

void set_platform(pb::Op& op, const image::Platform& platform) {
  auto& to = *op.mutable_platform();
  to.set_os(platform.os);
  to.set_architecture(platform.architecture);
  to.set_variant(platform.variant);
  to.set_os_version(platform.os_version);
}

pb::OpMetadata make_metadata(const StepMeta& meta) {
  pb::OpMetadata out;
  out.set_ignore_cache(meta.ignore_cache);
  if (!meta.name.empty()) (*out.mutable_description())["llb.customname"] = meta.name;
  if (!meta.network.empty()) (*out.mutable_description())["gantry.network"] = meta.network;
  return out;
}

llb::Output add_source_op(llb::Graph& graph, const std::string& identifier, const Attributes& attributes,
                          const std::optional<image::Platform>& platform, const StepMeta& meta) {
  pb::Op op;
  auto& source = *op.mutable_source();
  source.set_identifier(identifier);
  for (const auto& [name, value] : attributes) (*source.mutable_attrs())[name] = value;
  if (platform) set_platform(op, *platform);
  return graph.add(op, make_metadata(meta), meta.lines);
}

// The result of an action is numbered after all inputs of the op, which are known at the end only.
pb::FileAction& FileStep::add_action() {
  auto& file = *op_.mutable_file();
  const bool first = file.actions_size() == 0;
  const std::int64_t base = first ? (base_.empty() ? -1 : input(base_)) : 0;
  previous_.emplace_back(first ? base : file.actions_size() - 1, !first);
  auto& action = *file.add_actions();
  action.set_secondary_input(-1);
  action.set_output(-1);
  return action;
}

std::int64_t FileStep::input(const llb::Output& output) {
  if (output.empty()) return -1;
  for (int i = 0; i < op_.inputs_size(); ++i)
    if (op_.inputs(i).digest() == output.digest && op_.inputs(i).index() == output.index) return i;
  auto& input = *op_.add_inputs();
  input.set_digest(output.digest);
  input.set_index(output.index);
  return op_.inputs_size() - 1;
}

pb::ChownOpt FileStep::owner(const std::string& chown) {
  pb::ChownOpt out;
  const auto [user, group] = split_once(chown, ':');
  const std::int64_t base = base_.empty() ? -1 : input(base_);
  if (!user.empty()) *out.mutable_user() = user_option(user);
  if (!group.empty()) *out.mutable_group() = user_option(group);
  if (out.user().has_by_name()) out.mutable_user()->mutable_by_name()->set_input(base);
  if (out.group().has_by_name()) out.mutable_group()->mutable_by_name()->set_input(base);
  return out;
}

llb::Output FileStep::add_to(llb::Graph& graph, const std::optional<image::Platform>& platform, const StepMeta& meta) {
  auto& file = *op_.mutable_file();
  for (int i = 0; i < file.actions_size(); ++i) {
    const auto& [number, is_action] = previous_[static_cast<std::size_t>(i)];
    file.mutable_actions(i)->set_input(is_action ? op_.inputs_size() + number : number);
  }
  file.mutable_actions(file.actions_size() - 1)->set_output(0);
  if (platform) set_platform(op_, *platform);
  return graph.add(op_, make_metadata(meta), meta.lines);
}

llb::Output add_inline_file(llb::Graph& graph, const std::string& name, const std::string& data, int mode,
                            const std::string& step_name) {
  FileStep step{llb::Output{}};
  auto& file = *step.add_action().mutable_mkfile();
  file.set_path(absolute_path(name));
  file.set_mode(mode);
  file.set_data(data);
  file.set_timestamp(-1);
  return step.add_to(graph, std::nullopt, {.name = step_name});
}

std::string absolute_path(const std::string& path) { return dockerfile::clean_path("/" + path); }

std::string destination_path(const std::string& directory, const std::string& path) {
  const bool is_directory = path.empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
  std::string out = path.starts_with('/') ? absolute_path(path) : absolute_path(directory + "/" + path);
  if (is_directory && !out.ends_with('/')) out += '/';
  return out;
}

}  // namespace gantry::frontend
