#include "frontend/contexts.hpp"

#include <utility>

#include <boost/json/array.hpp>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/syntax.hpp"
#include "frontend/ops.hpp"
#include "image/reference.hpp"
#include "json/json.hpp"

namespace gantry::frontend {
namespace {

constexpr const char* kUploadPrefix = "http://buildkit-session/";
constexpr std::size_t kArchiveProbe = 1024;

std::string json_list(const std::vector<std::string>& list) {
  json::Array out;
  for (const auto& one : list) out.emplace_back(one);
  return json::render(out);
}

/// gzip, bzip2, xz, zstd by their first bytes; tar by its magic number.
bool is_archive(std::string_view head) {
  using namespace std::string_view_literals;
  for (auto magic : {"\x1f\x8b"sv, "BZh"sv,
                     "\xfd"
                     "7zXZ\0"sv,
                     "\x28\xb5\x2f\xfd"sv})
    if (head.starts_with(magic)) return true;
  return head.size() >= 262 && head.substr(257, 5) == "ustar";
}

/// A file system path below the root of a local source, as `followpaths` wants it.
std::vector<std::string> follow_list(const std::set<std::string>& paths) {
  std::vector<std::string> out;
  for (const auto& path : paths) {
    if (path == "/" || path == ".") return {};
    out.push_back(path.starts_with('/') ? path.substr(1) : path);
  }
  return out;
}

}  // namespace

pb::SourceInfo DockerfileText::source() const {
  pb::SourceInfo out;
  out.set_filename(filename);
  out.set_data(text);
  out.set_language("Dockerfile");
  *out.mutable_definition() = definition;
  return out;
}

void Contexts::load_remote() {
  if (std::exchange(remote_loaded_, true) || options_.context.empty()) return;
  llb::Graph graph;
  if (auto git = parse_git_source(options_.context)) {
    if (!options_.context_subdirectory.empty()) git->directory = options_.context_subdirectory;
    const bool keep = options_.keep_git_directory.value_or(git->keep_git_directory.value_or(false));
    remote_ = graph.definition(add_git_op(graph, *git, keep, {}, "[internal] load git source " + options_.context));
    return;
  }
  if (!is_http_source(options_.context))
    throw Error(Errc::invalid_argument,
                "unable to prepare context: " + quote(options_.context) + " is neither a git nor an HTTP address");
  const bool upload = options_.context.starts_with(kUploadPrefix);
  Attributes attributes = {{"http.filename", "context"}};
  if (upload) attributes.emplace_back("http.session", resolver_.session_id());
  const llb::Output file = add_source_op(graph, options_.context, attributes, std::nullopt,
                                         {.name = "[internal] load remote build context"});
  const auto head = resolver_.read_file(graph.definition(file), "/context", dockerfile::kMaxDockerfileSize);
  if (!head) throw Error(Errc::invalid_argument, "failed to read downloaded context");
  if (!is_archive(std::string_view(*head).substr(0, kArchiveProbe))) {
    remote_dockerfile_ = DockerfileText{"Dockerfile", *head, graph.definition(file)};
    remote_ = pb::Definition();
    return;
  }
  FileStep step{llb::Output{}};
  auto& action = step.add_action();
  action.set_secondary_input(step.input(file));
  auto& copy = *action.mutable_copy();
  copy.set_src("/context");
  copy.set_dest("/");
  copy.set_mode(-1);
  copy.set_timestamp(-1);
  copy.set_attempt_unpack(true);
  copy.set_create_dest_path(true);
  remote_ = graph.definition(step.add_to(graph, std::nullopt, {.name = "copy /context /"}));
}

DockerfileText Contexts::load_dockerfile() {
  load_remote();
  if (remote_dockerfile_ && !options_.dockerfile_is_local) {
    dockerfile_source_ = remote_dockerfile_->definition;
    return *remote_dockerfile_;
  }
  llb::Graph graph;
  const std::string& name = options_.filename;
  std::string directory;
  if (remote_ && !options_.dockerfile_is_local) {
    dockerfile_source_ = *remote_;
    if (!parse_git_source(options_.context) && !options_.context_subdirectory.empty())
      directory = options_.context_subdirectory + "/";
  } else {
    std::vector<std::string> files = {name, name + ".dockerignore"};
    if (name == "Dockerfile") files.emplace_back("dockerfile");
    dockerfile_source_ =
        graph.definition(add_source_op(graph, "local://" + options_.dockerfile_name,
                                       {{"local.session", resolver_.session_id()},
                                        {"local.followpaths", json_list(files)},
                                        {"local.sharedkeyhint", options_.dockerfile_name},
                                        {"local.differ", "none"}},
                                       std::nullopt, {.name = "[internal] load build definition from " + name}));
  }
  const std::size_t limit = dockerfile::kMaxDockerfileSize + 1;
  auto text = resolver_.read_file(dockerfile_source_, absolute_path(directory + name), limit);
  if (!text && name == "Dockerfile")
    text = resolver_.read_file(dockerfile_source_, absolute_path(directory + "dockerfile"), limit);
  if (!text)
    throw Error(Errc::invalid_argument, "failed to read dockerfile: open " + name + ": no such file or directory");
  return {name, *text, dockerfile_source_};
}

const std::vector<std::string>& Contexts::ignore_patterns() {
  if (ignore_) return *ignore_;
  ignore_.emplace();
  auto text = resolver_.read_file(dockerfile_source_, absolute_path(options_.filename + ".dockerignore"),
                                  dockerfile::kMaxIgnoreFileSize + 1);
  if (!text && !remote_) text = read_ignore_of(options_.context_name, "[internal] load .dockerignore");
  if (!text && remote_ && remote_->def_size() != 0)
    text = resolver_.read_file(*remote_, "/.dockerignore", dockerfile::kMaxIgnoreFileSize + 1);
  if (text) *ignore_ = dockerfile::parse_ignore_file(*text);
  return *ignore_;
}

std::optional<std::string> Contexts::read_ignore_of(const std::string& local, const std::string& step) {
  llb::Graph graph;
  const llb::Output file = add_source_op(graph, "local://" + local,
                                         {{"local.session", resolver_.session_id()},
                                          {"local.followpaths", json_list({".dockerignore"})},
                                          {"local.sharedkeyhint", local + "-.dockerignore"},
                                          {"local.differ", "none"}},
                                         std::nullopt, {.name = step});
  return resolver_.read_file(graph.definition(file), "/.dockerignore", dockerfile::kMaxIgnoreFileSize + 1);
}

llb::Output Contexts::add_local(llb::Graph& graph, const std::string& local, const std::string& step,
                                const std::vector<std::string>& excludes, const std::set<std::string>& paths) {
  std::string session = resolver_.session_id();
  if (auto it = options_.local_sessions.find(local); it != options_.local_sessions.end()) session = it->second;
  std::string key = local;
  if (auto it = options_.shared_keys.find(local); it != options_.shared_keys.end()) key = it->second;
  Attributes attributes = {{"local.session", session}, {"local.sharedkeyhint", key}};
  if (!excludes.empty()) attributes.emplace_back("local.excludepatterns", json_list(excludes));
  if (const auto follow = follow_list(paths); !follow.empty())
    attributes.emplace_back("local.followpaths", json_list(follow));
  return add_source_op(graph, "local://" + local, attributes, std::nullopt, {.name = step});
}

llb::Output Contexts::add_build_context(llb::Graph& graph, const std::set<std::string>& paths) {
  if (!options_.context_source.empty())
    return add_source_op(graph, options_.context_source, {}, std::nullopt, {.name = "[internal] load build context"});
  load_remote();
  if (!remote_)
    return add_local(graph, options_.context_name, "[internal] load build context", ignore_patterns(), paths);
  const llb::Output tree = graph.add_definition(*remote_);
  if (tree.empty() || options_.context_subdirectory.empty() || parse_git_source(options_.context)) return tree;
  FileStep step{llb::Output{}};
  auto& action = step.add_action();
  action.set_secondary_input(step.input(tree));
  auto& copy = *action.mutable_copy();
  copy.set_src(absolute_path(options_.context_subdirectory));
  copy.set_dest("/");
  copy.set_mode(-1);
  copy.set_timestamp(-1);
  copy.set_dir_copy_contents(true);
  return step.add_to(graph, std::nullopt, {.name = "[internal] use directory " + options_.context_subdirectory});
}

bool Contexts::has_named(const std::string& name) const {
  std::string familiar = name;
  if (const auto reference = image::try_parse_reference(name)) familiar = reference->with_default_tag().familiar();
  for (const auto& [key, value] : options_.named_contexts) {
    const std::string own = key.substr(0, key.find("::"));
    if (own == name || own == familiar || own + ":latest" == familiar) return true;
  }
  return false;
}

NamedContext Contexts::named(const std::string& name, const image::Platform& platform) {
  std::string familiar = name;
  if (const auto reference = image::try_parse_reference(name)) familiar = reference->with_default_tag().familiar();
  std::string value;
  const std::string suffix = "::" + image::render_platform(platform);
  for (const std::string& tail : {suffix, std::string()})
    for (const auto& [key, text] : options_.named_contexts) {
      if (!value.empty() || !key.ends_with(tail) || (tail.empty() && key.find("::") != std::string::npos)) continue;
      const std::string own = key.substr(0, key.size() - tail.size());
      if (own == name || own == familiar || own + ":latest" == familiar) value = text;
    }
  NamedContext out;
  llb::Graph graph;
  if (value.starts_with("docker-image://")) {
    out.kind = NamedContext::Kind::image;
    out.reference = value.substr(15);
  } else if (value.starts_with("local:")) {
    out.local_name = value.substr(6);
  } else if (value.starts_with("input:")) {
    const std::string key = value.substr(6);
    out.definition = resolver_.find_input(key);
    if (!out.definition) throw Error(Errc::invalid_argument, "invalid input " + key + " for " + name);
    if (auto it = options_.input_metadata.find(key); it != options_.input_metadata.end()) {
      const auto metadata = json::parse(it->second);
      const auto* config = metadata.is_object() ? metadata.get_object().if_contains("containerimage.config") : nullptr;
      if (config != nullptr && config->is_string()) out.config = base64_decode(std::string(config->get_string()));
    }
  } else if (auto git = parse_git_source(value)) {
    out.definition = graph.definition(add_git_op(graph, *git, git->keep_git_directory.value_or(false), {},
                                                 "[context " + name + "] load git source " + value));
  } else if (is_http_source(value)) {
    out.definition = graph.definition(add_source_op(graph, value, {{"http.filename", "context"}}, std::nullopt,
                                                    {.name = "[context " + name + "] load remote " + value}));
  } else {
    throw Error(Errc::invalid_argument,
                "unsupported context source " + std::string(split_once(value, ':').first) + " for " + name);
  }
  return out;
}

llb::Output Contexts::add_named_tree(llb::Graph& graph, const NamedContext& context,
                                     const std::set<std::string>& paths) {
  if (context.definition) return graph.add_definition(*context.definition);
  const std::string prefix = "[context " + context.local_name + "] ";
  std::vector<std::string> excludes;
  if (const auto text = read_ignore_of(context.local_name, prefix + "load .dockerignore"))
    excludes = dockerfile::parse_ignore_file(*text);
  return add_local(graph, context.local_name, prefix + "load from client", excludes, paths);
}

}  // namespace gantry::frontend
