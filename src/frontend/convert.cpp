#include "frontend/convert.hpp"

#include <utility>
#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/command_line.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "image/reference.hpp"

namespace gantry::frontend {
namespace {

dockerfile::Platform to_scope(const image::Platform& platform) {
  return {platform.os, platform.os_version, platform.architecture, platform.variant};
}

dockerfile::ScopeInputs scope_inputs(const BuildOptions& options, const image::Platform& target) {
  dockerfile::ScopeInputs out;
  out.build_args = options.build_args;
  out.build_platform = to_scope(image::host_platform());
  out.target_platform = to_scope(target);
  out.target_stage = options.target;
  return out;
}

dockerfile::PlanOptions plan_options(const BuildOptions& options, const Contexts& contexts) {
  dockerfile::PlanOptions out;
  out.target = options.target;
  out.is_named_context = [&contexts](const std::string& name) { return contexts.has_named(name); };
  out.all_stages = options.every_stage;
  return out;
}

}  // namespace

Converter::Converter(const BuildOptions& options, const dockerfile::Dockerfile& file, const DockerfileText& text,
                     Contexts& contexts, Resolver& resolver, const image::Platform& target)
    : options_(options),
      file_(file),
      contexts_(contexts),
      resolver_(resolver),
      target_(target),
      global_(file, scope_inputs(options, target)),
      plan_(file, global_, plan_options(options, contexts)) {
  source_file_ = graph_.add_source(text.filename, text.text, "Dockerfile", text.definition);
}

Converted Converter::convert() {
  resolve_bases();
  // Which files of the context are used is known at the end only, and is part of its op: everything is done twice.
  const llb::Graph empty = graph_;
  collecting_ = true;
  convert_stages();
  collecting_ = false;
  graph_ = empty;
  stages_.clear();
  contexts_added_.clear();
  convert_stages();

  StageState& last = stages_.at(plan_.target().index);
  for (const auto& [name, value] : options_.labels) last.image.labels[name] = value;
  if (options_.source_date_epoch) last.image.set_created(*options_.source_date_epoch);
  Converted out;
  out.platform = last.platform;
  out.head = last.root;
  out.definition = graph_.definition(last.root);
  out.config = last.image.render();
  out.base_config = last.base_config;
  return out;
}

void Converter::resolve_bases() {
  // A trigger of a base may need stages and images that nothing needed before.
  for (bool again = true; again;) {
    again = false;
    for (const std::size_t index : plan_.order())
      if (resolve_base_of(index)) again = true;
  }
}

bool Converter::resolve_base_of(std::size_t index) {
  const dockerfile::PlannedStage& stage = plan_.stages()[index];
  if (bases_.count(index) != 0) return false;
  if (stage.base.kind != dockerfile::SourceKind::image && stage.base.kind != dockerfile::SourceKind::named_context)
    return false;
  Base base = resolve_base(stage);
  const auto triggers = base.image.on_build;
  bases_.emplace(index, std::move(base));
  return plan_.add_triggers(index, triggers);
}

void Converter::add_label(StageState& stage, const std::string& name, const std::string& value) {
  stage.image.labels[name] = value;
  add_config_history(stage, "LABEL " + name + "=" + value);
}

Converter::Base Converter::resolve_base(const dockerfile::PlannedStage& stage) {
  try {
    const image::Platform platform = stage.platform.empty() ? target_ : image::parse_platform(stage.platform);
    if (stage.base.kind == dockerfile::SourceKind::named_context)
      return resolve_named_base(stage.base.name, platform, !stage.platform.empty());
    return resolve_image_base(stage.base.name, platform, !stage.platform.empty());
  } catch (const dockerfile::SourceError&) {
    throw;
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    throw dockerfile::SourceError(e.message(), stage.lines);
  }
}

Converter::Base Converter::resolve_image_base(const std::string& name, const image::Platform& platform,
                                              bool platform_given) {
  const std::string reference = options_.classic ? name : image::parse_reference(name).with_default_tag().canonical();
  Resolver::ImageAnswer answer;
  try {
    answer = resolver_.resolve_image(reference, platform, options_.resolve_mode,
                                     "[internal] load metadata for " + reference);
  } catch (Error& e) {
    if (!options_.classic) e.prefix(name + ": failed to resolve source metadata for " + reference);
    throw;
  }
  Base base{ImageModel::from_config(answer.config), answer.config, reference, {}, {}, platform};
  if (!answer.reference.empty()) base.reference = answer.reference;
  else if (!answer.digest.empty() && reference.find('@') == std::string::npos) base.reference += "@" + answer.digest;
  // The only platform that an image has is taken if none was asked for.
  if (!platform_given && options_.platforms.empty()) base.platform = image::normalize(base.image.platform());
  if (platform_given || !options_.platforms.empty()) base.image.set_platform(platform);
  return base;
}

Converter::Base Converter::resolve_named_base(const std::string& name, const image::Platform& platform,
                                              bool platform_given) {
  NamedContext context = contexts_.named(name, platform);
  if (context.kind == NamedContext::Kind::image) {
    Base base = resolve_image_base(context.reference, platform, platform_given);
    base.named = name;
    return base;
  }
  Base base{context.config ? ImageModel::from_config(*context.config) : ImageModel::scratch(platform),
            context.config.value_or(std::string()),
            {},
            name,
            std::move(context),
            platform};
  return base;
}

void Converter::convert_stages() {
  for (const std::size_t index : plan_.order()) {
    StageState stage = begin_stage(index);
    for (const auto& planned : plan_.stages()[index].instructions) apply(stage, planned);
    finish_stage(index, std::move(stage));
  }
}

StageState Converter::begin_stage(std::size_t index) {
  const dockerfile::PlannedStage& planned = plan_.stages()[index];
  StageState stage;
  if (planned.base.kind == dockerfile::SourceKind::stage) {
    stage = stages_.at(planned.base.stage);
    stage.step = 0;
    stage.cmd_set = false;
  } else if (auto base = bases_.find(index); base != bases_.end()) {
    stage.image = base->second.image;
    stage.platform = base->second.platform;
    stage.base_config = base->second.config;
  } else {
    stage.platform = planned.platform.empty() ? target_ : image::parse_platform(planned.platform);
    stage.image = ImageModel::scratch(stage.platform);
  }
  stage.image.on_build.clear();
  stage.display_name = plan_.stages().size() > 1 || planned.named ? planned.name : std::string();
  stage.ignore_cache = options_.no_cache || options_.no_cache_stages.count(to_lower(planned.name)) != 0;
  stage.steps = count_steps(planned);
  if (auto base = bases_.find(index); base != bases_.end()) {
    if (!base->second.reference.empty()) ++stage.steps;
    stage.root = base_output(stage, base->second);
  }
  if (!stage.scope)
    stage.scope.emplace(global_, stage.image.env,
                        options_.classic ? dockerfile::ArgOverEnv::env_wins : dockerfile::ArgOverEnv::last_wins);
  return stage;
}

llb::Output Converter::base_output(StageState& stage, const Base& base) {
  if (base.reference.empty()) return contexts_.add_named_tree(graph_, *base.context, {"/"});
  const std::string name = next_step_name(stage, "FROM " + base.reference, platform_prefix(stage));
  static constexpr std::string_view kModes[] = {"default", "pull", "local"};
  return add_source_op(graph_, "docker-image://" + base.reference,
                       {{"image.resolvemode", std::string(kModes[static_cast<int>(options_.resolve_mode)])}},
                       base.platform, {.name = name, .ignore_cache = false});
}

void Converter::finish_stage(std::size_t index, StageState stage) { stages_[index] = std::move(stage); }

llb::Output Converter::image_source(const std::string& name, const image::Platform& platform) {
  const std::string key = name + " " + image::render_platform(platform);
  auto it = images_.find(key);
  if (it == images_.end()) it = images_.emplace(key, resolve_image_base(name, platform, true)).first;
  StageState none;
  return base_output(none, it->second);
}

Converter::CopySource Converter::source(const dockerfile::SourceRef& ref, const image::Platform& platform) {
  CopySource out;
  switch (ref.kind) {
    case dockerfile::SourceKind::scratch: return out;
    case dockerfile::SourceKind::stage: out.tree = stages_.at(ref.stage).root; return out;
    case dockerfile::SourceKind::image: out.tree = image_source(ref.name, platform); return out;
    case dockerfile::SourceKind::build_context: out.is_context = true; break;
    case dockerfile::SourceKind::named_context: {
      const NamedContext context = contexts_.named(ref.name, platform);
      if (context.kind == NamedContext::Kind::image) {
        out.tree = image_source(context.reference, platform);
        return out;
      }
      out.is_context = !context.local_name.empty();
      out.context_name = ref.name;
      if (!collecting_ && contexts_added_.count(ref.name) == 0)
        contexts_added_[ref.name] = contexts_.add_named_tree(graph_, context, used_paths_[ref.name]);
      out.tree = contexts_added_[ref.name];
      return out;
    }
  }
  if (!collecting_ && contexts_added_.count("") == 0)
    contexts_added_[""] = contexts_.add_build_context(graph_, used_paths_[""]);
  out.tree = contexts_added_[""];
  return out;
}

void Converter::use_path(const CopySource& source, const std::string& path) {
  if (collecting_ && source.is_context) used_paths_[source.context_name].insert(absolute_path(path));
}

std::string Converter::platform_prefix(const StageState& stage) const {
  return options_.multi_platform ? image::render_platform(stage.platform) : std::string();
}

StepMeta Converter::step_meta(const StageState& stage, std::string name, dockerfile::LineRange lines) const {
  return {
      .name = std::move(name), .ignore_cache = stage.ignore_cache, .lines = {source_file_, lines.first, lines.last}};
}

void Converter::add_history(StageState& stage, std::string text, bool has_layer) {
  stage.image.add_history(std::move(text), "buildkit.dockerfile.v0", !has_layer, options_.source_date_epoch);
}

std::string Converter::classic_nop(const StageState& stage) {
  return join(stage.image.shell.empty() ? dockerfile::default_shell() : stage.image.shell, " ") + " #(nop) ";
}

// The classic builder tells of what changes no file by a comment of the shell.
void Converter::add_config_history(StageState& stage, const std::string& text) {
  if (!options_.classic) return add_history(stage, text, false);
  stage.image.add_history(classic_nop(stage) + " " + text, {}, true);
}

void Converter::add_step_history(StageState& stage, const std::string& text, const std::string& classic_text) {
  if (!options_.classic) return add_history(stage, text, true);
  stage.image.add_history(classic_text, {}, false);
}

void Converter::apply(StageState& stage, const dockerfile::PlannedInstruction& planned) {
  try {
    if (std::holds_alternative<dockerfile::RunInstruction>(planned.instruction.body)) return apply_run(stage, planned);
    if (std::holds_alternative<dockerfile::CopyInstruction>(planned.instruction.body))
      return apply_copy(stage, planned);
    const dockerfile::Instruction expanded =
        dockerfile::expand_instruction(planned.instruction, stage.scope->environment(), file_.escape);
    if (const auto* workdir = std::get_if<dockerfile::WorkdirInstruction>(&expanded.body))
      return apply_workdir(stage, planned, *workdir);
    apply_config(stage, expanded);
  } catch (const dockerfile::SourceError&) {
    throw;
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    throw dockerfile::SourceError(e.message(), planned.instruction.lines);
  }
}

void Converter::apply_workdir(StageState& stage, const dockerfile::PlannedInstruction& planned,
                              const dockerfile::WorkdirInstruction& workdir) {
  const std::string path = workdir.path.starts_with('/')
                               ? absolute_path(workdir.path)
                               : absolute_path(stage.image.working_directory + "/" + workdir.path);
  const std::string name = next_step_name(stage, shown_instruction(planned, stage.scope->environment(), file_.escape),
                                          platform_prefix(stage));
  stage.image.working_directory = path;
  if (path == "/") return add_config_history(stage, "WORKDIR " + path);
  FileStep step(stage.root);
  auto& make = *step.add_action().mutable_mkdir();
  make.set_path(path);
  make.set_mode(0755);
  make.set_make_parents(true);
  make.set_timestamp(-1);
  if (!stage.image.user.empty()) *make.mutable_owner() = step.owner(stage.image.user);
  stage.root = step.add_to(graph_, stage.platform, step_meta(stage, name, planned.instruction.lines));
  add_step_history(stage, "WORKDIR " + path, classic_nop(stage) + "WORKDIR " + path);
}

}  // namespace gantry::frontend
