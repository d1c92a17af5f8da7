#include "builder/build.hpp"

#include <utility>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/text.hpp"
#include "builder/build_resolver.hpp"
#include "builder/failure.hpp"
#include "frontend/frontend.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {

namespace {

namespace gateway = moby::buildkit::v1::frontend;

constexpr std::size_t kMaxRefs = 10'000;

/// "dockerfile.v0", or "gateway.v0" with an image that is what we have built in.
void check_frontend(const std::string& name, const frontend::OptionMap& options) {
  if (name == "dockerfile.v0") return;
  if (name == "gateway.v0") {
    const auto source = options.find("source");
    const std::string image = source == options.end() ? "" : source->second;
    if (frontend::is_own_syntax(image)) return;
    throw Error(Errc::not_implemented, "frontend " + image + " not supported");
  }
  throw Error(Errc::not_implemented, "frontend " + name + " not supported");
}

std::map<std::string, pb::Definition> merged(const std::map<std::string, pb::Definition>& first,
                                             const google::protobuf::Map<std::string, pb::Definition>& second) {
  auto out = first;
  for (const auto& [key, definition] : second) out[key] = definition;
  return out;
}

/// The config that belongs to the only tree of a result.
std::string config_of(const gateway::Result& result, const std::string& platform) {
  const auto& metadata = result.metadata();
  for (const auto& key : {"containerimage.config/" + platform, std::string("containerimage.config")})
    if (const auto it = metadata.find(key); it != metadata.end()) return it->second;
  return "";
}

std::optional<Timestamp> epoch_of(const frontend::OptionMap& options) {
  const auto it = options.find("build-arg:SOURCE_DATE_EPOCH");
  const auto seconds = it == options.end() ? std::nullopt : parse_int(it->second);
  if (!seconds) return std::nullopt;
  return Timestamp(std::chrono::seconds(*seconds));
}

}  // namespace

Build::Build(const Services& services, solver::JobPtr job, BuildRequest request)
    : services_(services), job_(std::move(job)), request_(std::move(request)) {}

gateway::Ref Build::add_ref(const pb::Definition& definition) {
  llb::Definition parsed = llb::Definition::parse(definition);
  gateway::Ref out;
  *out.mutable_def() = definition;
  if (!parsed.head().vertex) return out;
  // Clients keep names of theirs in the same form: 25 letters and digits.
  out.set_id(random_id().substr(0, 25));
  const std::lock_guard lock(mutex_);
  if (refs_.size() == kMaxRefs) throw Error(Errc::unavailable, "too many results in one build");
  refs_.emplace(out.id(), std::move(parsed));
  return out;
}

gateway::Result Build::solve_dockerfile(const frontend::OptionMap& options,
                                        const std::map<std::string, pb::Definition>& inputs, std::stop_token stop) {
  BuildResolver resolver(services_, job_, request_.session, inputs, std::move(stop));
  const frontend::FrontendResult made = frontend::build_dockerfile(options, resolver);
  gateway::Result out;
  for (const auto& [key, value] : made.metadata) (*out.mutable_metadata())[key] = value;
  if (made.platforms.size() == 1 && !made.multi_platform) {
    *out.mutable_ref() = add_ref(made.platforms.front().definition);
  } else if (made.platforms.empty()) {
    out.mutable_ref();
  } else {
    for (const auto& one : made.platforms) (*out.mutable_refs()->mutable_refs())[one.id] = add_ref(one.definition);
  }
  return out;
}

gateway::Result Build::solve(const gateway::SolveRequest& request, std::stop_token stop) {
  gateway::Result out;
  if (request.frontend().empty()) {
    *out.mutable_ref() = add_ref(request.definition());
  } else {
    const frontend::OptionMap options(request.frontend_opt().begin(), request.frontend_opt().end());
    check_frontend(request.frontend(), options);
    out = solve_dockerfile(options, merged(request_.inputs, request.frontend_inputs()), stop);
  }
  if (request.evaluate()) {
    if (out.has_ref()) evaluate(out.ref().id(), stop);
    for (const auto& [platform, ref] : out.refs().refs()) evaluate(ref.id(), stop);
  }
  return out;
}

buildcache::SnapshotPtr Build::evaluate(const std::string& ref, std::stop_token stop) {
  if (ref.empty()) return nullptr;
  llb::Definition definition;
  {
    const std::lock_guard lock(mutex_);
    const auto it = refs_.find(ref);
    if (it == refs_.end()) throw Error(Errc::not_found, "no such ref: " + ref);
    definition = it->second;
  }
  return services_.solver.solve(job_, definition, std::move(stop));
}

gateway::ResolveImageConfigResponse Build::resolve_image(const gateway::ResolveImageConfigRequest& request,
                                                         std::stop_token stop) {
  BuildResolver resolver(services_, job_, request_.session, {}, std::move(stop));
  image::Platform platform = image::host_platform();
  if (!request.platform().os().empty()) platform.os = request.platform().os();
  if (!request.platform().architecture().empty()) {
    platform.architecture = request.platform().architecture();
    platform.variant = request.platform().variant();
  }
  auto mode = frontend::ResolveMode::standard;
  if (request.resolve_mode() == "pull") mode = frontend::ResolveMode::pull;
  if (request.resolve_mode() == "local") mode = frontend::ResolveMode::local;
  const std::string name =
      request.log_name().empty() ? "resolve image config for " + request.ref() : request.log_name();
  auto answer = resolver.resolve_image(request.ref(), platform, mode, name);
  gateway::ResolveImageConfigResponse out;
  out.set_ref(request.ref());
  out.set_digest(std::move(answer.digest));
  out.set_config(std::move(answer.config));
  return out;
}

void Build::warn(const gateway::WarnRequest& request) {
  const auto progress = job_->progress_of(request.digest());
  if (!progress) return;
  solver::Warning warning;
  warning.level = request.level();
  warning.short_text = request.short_text();
  warning.detail.assign(request.detail().begin(), request.detail().end());
  warning.url = request.url();
  if (request.has_info()) warning.info = request.info();
  warning.ranges.assign(request.ranges().begin(), request.ranges().end());
  progress->warn(std::move(warning));
}

void Build::return_result(gateway::ReturnRequest result) {
  const std::lock_guard lock(mutex_);
  if (!returned_) returned_ = std::move(result);
  returned_changed_.notify_all();
}

gateway::Result Build::await_return(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  returned_changed_.wait(lock, stop, [this] { return returned_.has_value(); });
  if (!returned_) throw Error(Errc::cancelled, "context canceled");
  if (returned_->has_error()) throw ToldFailure(returned_->error());
  return returned_->result();
}

gateway::Result Build::own_result(std::stop_token stop) {
  if (!request_.frontend.empty()) {
    check_frontend(request_.frontend, request_.options);
    return solve_dockerfile(request_.options, request_.inputs, std::move(stop));
  }
  if (request_.definition.def_size() == 0) return await_return(std::move(stop));
  gateway::Result out;
  *out.mutable_ref() = add_ref(request_.definition);
  return out;
}

std::map<std::string, std::string> Build::export_result(const Result& result, std::stop_token stop) {
  std::map<std::string, gateway::Ref> refs;
  if (result.has_ref()) refs[""] = result.ref();
  for (const auto& [platform, ref] : result.refs().refs()) refs[platform] = ref;
  std::map<std::string, BuildResult> trees;
  for (const auto& [platform, ref] : refs)
    trees[platform] = {evaluate(ref.id(), stop), config_of(result, platform), epoch_of(request_.options)};

  std::map<std::string, std::string> response;
  if (!request_.exporters.empty() && trees.size() > 1)
    throw Error(Errc::invalid_argument, "results of more than one platform cannot be exported");
  for (std::size_t i = 0; i < request_.exporters.size(); ++i) {
    const BuildResult one = trees.empty() ? BuildResult{} : trees.begin()->second;
    response.merge(
        run_exporter(services_, *job_, request_.session, static_cast<int>(i), request_.exporters[i], one, stop));
  }
  for (const auto& [key, value] : result.metadata())
    if (key.starts_with("frontend.")) response[key] = value;
  return response;
}

std::map<std::string, std::string> Build::run(std::stop_token stop) {
  for (const auto& exporter : request_.exporters) check_exporter(exporter);
  const Result result = own_result(stop);
  return export_result(result, stop);
}

}  // namespace gantry::builder
