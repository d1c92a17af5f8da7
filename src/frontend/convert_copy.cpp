#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/values.hpp"
#include "frontend/convert.hpp"

// COPY and ADD.
namespace gantry::frontend {
namespace {

bool has_wildcard(std::string_view path) { return path.find_first_of("*?[") != std::string_view::npos; }

/// The directory that holds everything a pattern can match.
std::string fixed_prefix(const std::string& path) {
  const std::size_t wildcard = path.find_first_of("*?[");
  if (wildcard == std::string::npos) return path;
  const std::size_t slash = path.rfind('/', wildcard);
  return slash == std::string::npos ? "/" : path.substr(0, slash + 1);
}

/// The last part of an address's path, which a download is named by.
std::string download_name(const std::string& url) {
  std::string path = url.substr(url.find("://") + 3);
  path = path.substr(0, path.find_first_of("?#"));
  const std::size_t slash = path.find('/');
  const std::string name = slash == std::string::npos ? std::string() : path.substr(path.rfind('/') + 1);
  return name.empty() ? "__unnamed__" : name;
}

std::string history_text(const dockerfile::CopyInstruction& copy) {
  std::string out = copy.add ? "ADD" : "COPY";
  if (copy.parents) out += " --parents";
  if (!copy.chown.empty()) out += " --chown=" + copy.chown;
  if (!copy.chmod.empty()) out += " --chmod=" + copy.chmod;
  for (const auto& source : copy.sources) out += " " + source;
  for (const auto& file : copy.inline_files) out += " <<" + file.name;
  return out + " " + copy.destination + " # buildkit";
}

/// What was copied is told by its content there, which nobody knows yet: see kClassicContent.
std::string classic_history(const dockerfile::CopyInstruction& copy) {
  return std::string(copy.add ? "ADD" : "COPY") + " " + kClassicContent + " in " + copy.destination + " ";
}

void check_checksum(const dockerfile::CopyInstruction& copy) {
  if (copy.checksum.empty()) return;
  if (copy.sources.size() + copy.inline_files.size() != 1)
    throw Error(Errc::invalid_argument, "checksum can't be specified for multiple sources");
  if (!is_http_source(copy.sources[0]) && !parse_git_source(copy.sources[0]))
    throw Error(Errc::invalid_argument, "checksum requires HTTP(S) or Git sources");
}

}  // namespace

void Converter::apply_copy(StageState& stage, const dockerfile::PlannedInstruction& planned) {
  const dockerfile::Environment& environment = stage.scope->environment();
  const dockerfile::Instruction expanded =
      dockerfile::expand_instruction(planned.instruction, environment, file_.escape);
  const auto& copy = std::get<dockerfile::CopyInstruction>(expanded.body);
  const std::string name =
      next_step_name(stage, shown_instruction(planned, environment, file_.escape), platform_prefix(stage));
  check_checksum(copy);
  const std::string destination = destination_path(stage.image.working_directory, copy.destination);
  const CopySource from = copy.sources.empty() ? CopySource{} : source(planned.sources.at(0), stage.platform);
  FileStep step(stage.root);
  for (const auto& path : copy.sources) add_source_action(stage, step, copy, path, destination, from, name);
  for (const auto& file : copy.inline_files) {
    const llb::Output inline_file =
        add_inline_file(graph_, file.name, file.content, 0644, "[internal] preparing inline document");
    add_copy(step, copy, inline_file, absolute_path(file.name), destination);
  }
  stage.root = step.add_to(graph_, stage.platform, step_meta(stage, name, planned.instruction.lines));
  add_step_history(stage, history_text(copy), classic_nop(stage) + classic_history(copy));
}

pb::FileActionCopy& Converter::add_copy(FileStep& step, const dockerfile::CopyInstruction& copy,
                                        const llb::Output& from, const std::string& source,
                                        const std::string& destination) {
  auto& action = step.add_action();
  action.set_secondary_input(step.input(from));
  auto& out = *action.mutable_copy();
  out.set_src(source);
  out.set_dest(destination);
  out.set_create_dest_path(true);
  out.set_timestamp(-1);
  out.set_mode(-1);
  if (!copy.chown.empty()) *out.mutable_owner() = step.owner(copy.chown);
  if (!copy.chmod.empty()) {
    const auto mode = dockerfile::check_chmod(copy.chmod);
    if (mode) out.set_mode(static_cast<std::int32_t>(*mode));
    else out.set_mode_str(copy.chmod);
  }
  return out;
}

void Converter::add_source_action(StageState& stage, FileStep& step, const dockerfile::CopyInstruction& copy,
                                  const std::string& path, const std::string& destination, const CopySource& from,
                                  const std::string& step_name) {
  if (auto git = copy.from.empty() ? parse_git_source(path) : std::nullopt) {
    if (!copy.add) throw Error(Errc::invalid_argument, "source can't be a git ref for COPY");
    const bool keep = copy.keep_git_dir.value_or(git->keep_git_directory.value_or(false));
    const llb::Output tree = add_git_op(graph_, *git, keep, copy.checksum, step_name, stage.ignore_cache);
    auto& out = add_copy(step, copy, tree, "/", destination);
    out.set_dir_copy_contents(true);
    for (const auto& pattern : copy.excludes) out.add_exclude_patterns(pattern);
    return;
  }
  if (copy.from.empty() && is_http_source(path)) {
    if (!copy.add) throw Error(Errc::invalid_argument, "source can't be a URL for COPY");
    const std::string name = download_name(path);
    Attributes attributes = {{"http.filename", name}};
    if (!copy.checksum.empty()) attributes.emplace_back("http.checksum", copy.checksum);
    const llb::Output file =
        add_source_op(graph_, path, attributes, std::nullopt, {.name = step_name, .ignore_cache = stage.ignore_cache});
    auto& out = add_copy(step, copy, file, absolute_path(name), destination);
    out.set_attempt_unpack(copy.unpack.value_or(false));
    return;
  }
  add_tree_action(step, copy, path, destination, from);
}

void Converter::add_tree_action(FileStep& step, const dockerfile::CopyInstruction& copy, const std::string& path,
                                const std::string& destination, const CopySource& from) {
  std::string source = path;
  std::string pattern;
  if (copy.parents) {
    const std::size_t pivot = path.find("/./");
    pattern = pivot == std::string::npos ? path : path.substr(pivot + 3);
    source = pivot == std::string::npos ? "/" : path.substr(0, pivot);
    pattern = absolute_path(pattern).substr(1);
    use_path(from, fixed_prefix(absolute_path(source) + "/" + pattern));
  } else {
    use_path(from, path);
  }
  auto& out = add_copy(step, copy, from.tree, absolute_path(source), destination);
  out.set_follow_symlink(true);
  out.set_dir_copy_contents(true);
  out.set_attempt_unpack(copy.unpack.value_or(copy.add));
  out.set_allow_wildcard(true);
  out.set_allow_empty_wildcard(true);
  for (const auto& exclude : copy.excludes) out.add_exclude_patterns(exclude);
  if (!pattern.empty()) {
    out.add_include_patterns(pattern);
    if (!has_wildcard(pattern)) out.add_required_paths(pattern);
  }
}

}  // namespace gantry::frontend
