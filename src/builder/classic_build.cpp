#include "builder/classic_build.hpp"

#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildcache/cache.hpp"
#include "builder/classic_context.hpp"
#include "builder/classic_resolver.hpp"
#include "builder/classic_watch.hpp"
#include "builder/image_export.hpp"
#include "builder/tree_reader.hpp"
#include "dockerfile/dockerfile.hpp"
#include "dockerfile/expand_instruction.hpp"
#include "dockerfile/scope.hpp"
#include "frontend/convert.hpp"
#include "llb/definition.hpp"
#include "solver/checksum.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {
namespace {

constexpr const char* kNeedsBuildKit =
    " requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit "
    "enabled";

std::string short_id(const std::string& id) {
  const std::string digits = id.starts_with("sha256:") ? id.substr(7) : id;
  return digits.substr(0, 12);
}

std::optional<dockerfile::RunNetwork> network_of(const std::string& mode) {
  if (mode == "host") return dockerfile::RunNetwork::host;
  if (mode == "none") return dockerfile::RunNetwork::none;
  return std::nullopt;
}

frontend::BuildOptions frontend_options(const ClassicOptions& options) {
  frontend::BuildOptions out;
  out.classic = true;
  out.every_stage = true;
  out.target = options.target;
  out.build_args = options.build_args;
  out.no_cache = options.no_cache;
  out.resolve_mode = options.pull ? frontend::ResolveMode::pull : frontend::ResolveMode::standard;
  out.shm_size = options.shm_size;
  out.ulimits = options.ulimits;
  out.cgroup_parent = options.cgroup_parent;
  out.context = options.remote;
  if (!options.dockerfile.empty()) out.filename = options.dockerfile;
  if (!options.platform.empty()) out.platforms.push_back(image::parse_platform(options.platform));
  out.network = network_of(options.network_mode);
  if (!out.network && options.network_mode != "default" && options.network_mode != "bridge")
    out.network_name = options.network_mode;
  for (const auto& host : options.extra_hosts) {
    const auto [name, address] = split_once(host, ':');
    out.extra_hosts.push_back({std::string(name), std::string(address)});
  }
  return out;
}

/// What only BuildKit understands.
void require_classic(const dockerfile::Instruction& instruction) {
  std::string flag;
  if (const auto* run = std::get_if<dockerfile::RunInstruction>(&instruction.body)) {
    if (!run->flags_used.empty()) flag = "the --" + run->flags_used[0] + " option";
    if (!run->heredocs.empty()) flag = "a heredoc";
  }
  if (const auto* copy = std::get_if<dockerfile::CopyInstruction>(&instruction.body)) {
    if (!copy->chmod.empty()) flag = "the --chmod option";
    if (!copy->inline_files.empty()) flag = "a heredoc";
  }
  if (!flag.empty()) throw Error(Errc::invalid_argument, flag + kNeedsBuildKit);
}

/// True if a file in the form of /etc/passwd has an entry of this name.
bool has_entry(const std::optional<std::string>& file, std::string_view name) {
  if (!file) return false;
  for (const auto& line : split(*file, '\n'))
    if (split_once(line, ':').first == name) return true;
  return false;
}

}  // namespace

/// One `POST /build`, from the Dockerfile on.
class ClassicBuild {
 public:
  ClassicBuild(const Services& services, const ClassicOptions& options, ClassicStream& stream, solver::JobPtr job,
               std::stop_token stop)
      : services_(services),
        options_(options),
        stream_(stream),
        job_(std::move(job)),
        stop_(std::move(stop)),
        frontend_options_(frontend_options(options)),
        resolver_(services, job_, options, stream, stop_),
        contexts_(frontend_options_, resolver_) {}

  /// The context came with the request, or is at an address.
  void prepare(ContextTrees& trees, buildlink::Exchange& exchange);
  void run();
  int exit_code() const noexcept { return exit_code_; }
  /// As the classic builder words it.
  std::string failure_text(const Error& error);

 private:
  void step_line(const std::string& text);
  void run_stage(std::size_t index, bool last);
  void begin(frontend::StageState& stage, std::size_t index);
  void run_instruction(frontend::StageState& stage, const dockerfile::PlannedInstruction& planned);
  bool run_op(const frontend::StageState& stage, bool announce);
  bool known_step(const std::string& before, const std::string& now);
  void show_metadata_step(const std::string& before, const frontend::StageState& stage);
  void finish(frontend::StageState& stage);
  void require_owner(const frontend::StageState& stage, const dockerfile::Instruction& instruction);
  std::string identity(const frontend::StageState& stage);
  buildcache::SnapshotPtr tree_of(const frontend::StageState& stage);

  const Services services_;
  const ClassicOptions& options_;
  ClassicStream& stream_;
  solver::JobPtr job_;
  std::stop_token stop_;
  frontend::BuildOptions frontend_options_;
  ClassicResolver resolver_;
  frontend::Contexts contexts_;
  std::optional<ClassicContext> context_;
  frontend::DockerfileText text_;
  std::optional<dockerfile::Dockerfile> file_;
  std::optional<frontend::Converter> converter_;
  std::optional<ClassicWatch> watch_;
  std::size_t steps_ = 0;
  std::size_t step_ = 0;
  bool cache_hits_ = true;  // of this stage: once missed, stays missed
  std::map<std::size_t, std::string> stage_ids_;
  int exit_code_ = 0;
  const dockerfile::PlannedInstruction* current_ = nullptr;
};

void ClassicBuild::prepare(ContextTrees& trees, buildlink::Exchange& exchange) {
  if (options_.remote.empty()) {
    context_ = receive_context(services_, trees, options_, exchange);
    frontend_options_.context_source = context_->tree->identifier();
    text_ = {context_->filename, context_->dockerfile, {}};
  } else {
    text_ = contexts_.load_dockerfile();
  }
  file_ = dockerfile::parse(text_.text);
  const image::Platform target =
      frontend_options_.platforms.empty() ? image::host_platform() : frontend_options_.platforms.front();
  converter_.emplace(frontend_options_, *file_, text_, contexts_, resolver_, target);
  const auto& plan = converter_->plan();
  steps_ = file_->global_args.size() + options_.labels.size();
  for (std::size_t i = 0; i <= plan.target().index; ++i) steps_ += 1 + plan.stages()[i].instructions.size();
  if (options_.squash && !services_.engine.settings().Experimental)
    throw Error(Errc::invalid_argument, "squash is only supported with experimental mode");
}

void ClassicBuild::step_line(const std::string& text) {
  stream_.text("Step " + std::to_string(++step_) + "/" + std::to_string(steps_) + " : " + text);
  stream_.text("\n");
}

void ClassicBuild::run() {
  watch_.emplace(*job_, stream_);
  for (const auto& arg : file_->global_args) step_line(arg.source);
  const std::size_t target = converter_->plan().target().index;
  for (std::size_t i = 0; i <= target; ++i) run_stage(i, i == target);
}

void ClassicBuild::run_stage(std::size_t index, bool last) {
  cache_hits_ = !options_.no_cache;
  step_line(converter_->plan().stages()[index].source);
  converter_->resolve_base_of(index);
  const dockerfile::PlannedStage& planned = converter_->plan().stages()[index];
  frontend::StageState stage = converter_->begin_stage(index);
  begin(stage, index);
  for (const auto& one : planned.instructions) run_instruction(stage, one);
  if (last) {
    for (const auto& [name, value] : options_.labels) {
      const std::string before = identity(stage);
      step_line("LABEL " + name + "=" + value);
      converter_->add_label(stage, name, value);
      show_metadata_step(before, stage);
    }
    return finish(stage);
  }
  const std::string id = identity(stage);
  stage_ids_[index] = id;
  stream_.aux(id);
  converter_->finish_stage(index, std::move(stage));
}

void ClassicBuild::begin(frontend::StageState& stage, std::size_t index) {
  const dockerfile::PlannedStage& planned = converter_->plan().stages()[index];
  std::string id;
  if (planned.base.kind == dockerfile::SourceKind::stage) id = stage_ids_[planned.base.stage];
  if (planned.base.kind == dockerfile::SourceKind::image) id = resolver_.image_id(planned.base.name);
  tree_of(stage);
  stream_.text(" ---> " + short_id(id) + "\n");
  std::size_t triggers = 0;
  for (const auto& one : planned.instructions) triggers += one.on_build ? 1 : 0;
  if (triggers > 0)
    stream_.text("# Executing " + std::to_string(triggers) + " build trigger" + (triggers > 1 ? "s" : "") + "\n");
}

void ClassicBuild::run_instruction(frontend::StageState& stage, const dockerfile::PlannedInstruction& planned) {
  if (!planned.on_build) step_line(planned.instruction.source);
  current_ = &planned;
  require_classic(planned.instruction);
  require_owner(stage, planned.instruction);
  const std::string before = identity(stage);
  const llb::Output root = stage.root;
  converter_->apply(stage, planned);
  if (stage.root == root) return show_metadata_step(before, stage);
  const bool copies = std::holds_alternative<dockerfile::CopyInstruction>(planned.instruction.body);
  if (!run_op(stage, !copies)) cache_hits_ = false;
  current_ = nullptr;
  stream_.text(" ---> " + short_id(identity(stage)) + "\n");
}

/// BuildKit takes an unknown name for root; the classic builder refuses it.
void ClassicBuild::require_owner(const frontend::StageState& stage, const dockerfile::Instruction& instruction) {
  const dockerfile::Instruction expanded =
      dockerfile::expand_instruction(instruction, stage.scope->environment(), file_->escape);
  const auto* copy = std::get_if<dockerfile::CopyInstruction>(&expanded.body);
  if (copy == nullptr || copy->chown.empty()) return;
  const auto [user, group] = split_once(copy->chown, ':');
  const auto view = services_.cache.snapshots().view(tree_of(stage));
  constexpr std::size_t kLimit = 4 << 20;
  if (!user.empty() && !parse_int(user) && !has_entry(read_tree_file(*view, "/etc/passwd", 0, 0, kLimit), user))
    throw Error(Errc::invalid_argument,
                "unable to convert uid/gid chown string to host mapping: can't find uid for user " + std::string(user) +
                    ": no such user: " + std::string(user));
  if (!group.empty() && !parse_int(group) && !has_entry(read_tree_file(*view, "/etc/group", 0, 0, kLimit), group))
    throw Error(Errc::invalid_argument,
                "unable to convert uid/gid chown string to host mapping: can't find gid for group " +
                    std::string(group) + ": no such group: " + std::string(group));
}

/// Executes what the stage's tree has become. True if the cache had it.
bool ClassicBuild::run_op(const frontend::StageState& stage, bool announce) {
  watch_->begin(stage.root.digest, announce);
  tree_of(stage);
  const ClassicWatch::Step step = watch_->end();
  if (step.cached) stream_.text(" ---> Using cache\n");
  else if (!step.container.empty()) stream_.text("Removing intermediate container " + step.container + "\n");
  return step.cached;
}

buildcache::SnapshotPtr ClassicBuild::tree_of(const frontend::StageState& stage) {
  return services_.solver.solve(job_, llb::Definition::parse(converter_->graph().definition(stage.root)), stop_);
}

/// What identifies the image as it is now: nobody can run it, but equal builds show equal ones.
std::string ClassicBuild::identity(const frontend::StageState& stage) {
  const auto tree = tree_of(stage);
  return llb::op_digest(stage.image.render() + "\n" + (tree ? tree->id() : std::string("scratch")));
}

bool ClassicBuild::known_step(const std::string& before, const std::string& now) {
  auto& index = services_.cache.index();
  const std::string key = "classic " + before;
  if (cache_hits_ && index.find_link(key + " " + now)) return true;
  cache_hits_ = false;
  index.link(key + " " + now, now);
  return false;
}

void ClassicBuild::show_metadata_step(const std::string& before, const frontend::StageState& stage) {
  const std::string now = identity(stage);
  if (known_step(before, now)) {
    stream_.text(" ---> Using cache\n");
  } else {
    const std::string container = make_container_name();
    stream_.text(" ---> Running in " + container + "\n");
    stream_.text("Removing intermediate container " + container + "\n");
  }
  stream_.text(" ---> " + short_id(now) + "\n");
}

void ClassicBuild::finish(frontend::StageState& stage) {
  ExportRequest request;
  request.tree = tree_of(stage);
  request.config = stage.image.render();
  request.names = options_.tags;
  request.comment = {};
  const auto exported = solver::Solver::run_vertex(
      *job_, "exporting to image", llb::op_digest("classic export"), [&](solver::Progress& progress) {
        return export_image(services_.cache, services_.engine, request, progress, stop_);
      });
  stream_.aux(exported.image.id);
  std::map<std::string, std::string> given = options_.build_args;
  for (const auto& name : options_.unset_build_args) given.emplace(name, "");
  if (const auto unused = dockerfile::unused_build_args(*file_, given); !unused.empty())
    stream_.text("[Warning] One or more build-args [" + join(unused, " ") + "] were not consumed\n");
  if (options_.quiet) return stream_.result(exported.image.id);
  stream_.text("Successfully built " + short_id(exported.image.id) + "\n");
  for (const auto& tag : options_.tags) stream_.text("Successfully tagged " + tag + "\n");
}

std::string ClassicBuild::failure_text(const Error& error) {
  const std::string& text = error.message();
  if (current_ == nullptr) return text;
  if (const auto* run = std::get_if<dockerfile::RunInstruction>(&current_->instruction.body)) {
    const std::size_t at = text.rfind("did not complete successfully: exit code: ");
    if (at == std::string::npos) return text;
    const std::string code = text.substr(at + 42);
    exit_code_ = static_cast<int>(parse_int(trim(split_once(code, ':').first)).value_or(1));
    const std::size_t from = text.find("process \"");
    const std::size_t to = text.rfind("\" did not complete");
    const std::string command = from == std::string::npos || to == std::string::npos || to < from + 9
                                    ? join(run->command.words, " ")
                                    : text.substr(from + 9, to - from - 9);
    return "The command '" + command + "' returned a non-zero code: " + std::to_string(exit_code_);
  }
  if (const auto* copy = std::get_if<dockerfile::CopyInstruction>(&current_->instruction.body)) {
    const std::size_t end = text.rfind("\": not found");
    const std::size_t from = end == std::string::npos ? end : text.rfind('"', end - 1);
    if (from == std::string::npos || end == std::string::npos) return text;
    std::string path = text.substr(from + 1, end - from - 1);
    if (path.starts_with('/')) path.erase(0, 1);
    return std::string(copy->add ? "ADD" : "COPY") +
           " failed: file not found in build context or excluded by .dockerignore: stat " + path +
           ": file does not exist";
  }
  return text;
}

void ClassicBuilds::serve(buildlink::Incoming incoming) {
  buildlink::Exchange exchange(std::move(incoming.fd));
  std::stop_source stop;
  std::string name;
  try {
    const ClassicOptions options = read_classic_options(incoming);
    {
      const std::lock_guard lock(mutex_);
      name = options.build_id.empty() ? "classic build " + std::to_string(++last_) : options.build_id;
      running_[name] = stop;
    }
    const std::stop_callback hang_up(exchange.client_gone(), [&] { stop.request_stop(); });
    solver::JobOptions job_options;
    job_options.entitlements = {"network.host"};
    job_options.log_size = 0;
    job_options.log_speed = 0;
    const std::string ref = "classic-" + make_container_name();
    const auto job = services_.solver.create_job(ref, job_options);
    const std::stop_callback stop_job(stop.get_token(), [&] { job->stop().request_stop(); });
    struct Discard {
      solver::Solver& solver;
      const std::string& ref;
      ~Discard() { solver.discard_job(ref); }
    } discard{services_.solver, ref};
    {
      ClassicStream stream(exchange, options.quiet);
      ClassicBuild build(services_, options, stream, job, stop.get_token());
      build.prepare(trees_, exchange);
      try {
        build.run();
      } catch (const Error& e) {
        const std::string text = build.failure_text(e);
        stream.failure(text, build.exit_code());
      }
      job->finish();
    }
    // The client may prune as soon as it has the last line: nothing of the build may be in use then.
    exchange.finish();
    services_.cache.collect_soon();
  } catch (const Error& e) {
    exchange.fail(e);
  }
  const std::lock_guard lock(mutex_);
  running_.erase(name);
}

void ClassicBuilds::cancel(const std::string& build_id) {
  std::stop_source stop(std::nostopstate);
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = running_.find(build_id); it != running_.end()) stop = it->second;
  }
  stop.request_stop();
}

std::size_t ClassicBuilds::count() const {
  const std::lock_guard lock(mutex_);
  return running_.size();
}

}  // namespace gantry::builder
