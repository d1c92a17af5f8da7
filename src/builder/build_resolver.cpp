#include "builder/build_resolver.hpp"

#include <utility>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "builder/tree_reader.hpp"
#include "buildlink/engine.hpp"
#include "buildops/source_op.hpp"
#include "image/platform.hpp"
#include "llb/definition.hpp"
#include "llb/graph.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {

namespace {

buildlink::ResolveMode engine_mode(frontend::ResolveMode mode) {
  // The engine's own images are what "default" means, as in dockerd.
  return mode == frontend::ResolveMode::pull ? buildlink::ResolveMode::pull : buildlink::ResolveMode::prefer_local;
}

}  // namespace

frontend::Resolver::ImageAnswer BuildResolver::resolve_image(const std::string& reference,
                                                             const image::Platform& platform,
                                                             frontend::ResolveMode mode, const std::string& log_name) {
  const std::string text = image::render_platform(platform);
  const std::string digest = llb::op_digest("resolve image config\n" + reference + "\n" + text + "\n" + log_name);
  return solver::Solver::run_vertex(*job_, log_name, digest, [&](solver::Progress& progress) {
    buildlink::ImageRequest request;
    request.reference = reference;
    request.platform = text;
    request.mode = engine_mode(mode);
    request.layers = false;
    const buildlink::Image image =
        buildops::resolve_image(services_.operations, request, job_->sessions(), &progress, stop_);
    return ImageAnswer{image.digest, image.config_json};
  });
}

std::optional<std::string> BuildResolver::read_file(const pb::Definition& definition, const std::string& path,
                                                    std::size_t limit) {
  const auto tree = services_.solver.solve(job_, llb::Definition::parse(definition), stop_);
  const auto view = services_.cache.snapshots().view(tree);
  // "Up to `limit` bytes from its start": a longer file is the caller's to refuse.
  return read_tree_file(*view, path, 0, static_cast<std::int64_t>(limit), limit);
}

std::optional<pb::Definition> BuildResolver::find_input(const std::string& key) {
  const auto it = inputs_.find(key);
  if (it == inputs_.end()) return std::nullopt;
  return it->second;
}

void BuildResolver::warn(const dockerfile::Warning& warning, const pb::SourceInfo& source) {
  const llb::Definition definition = llb::Definition::parse(source.definition());
  if (!definition.head().vertex) return;
  solver::Warning out;
  out.short_text = warning.text();
  out.detail = {warning.description};
  out.url = warning.url;
  out.info = source;
  auto& range = out.ranges.emplace_back();
  range.mutable_start()->set_line(warning.lines.first);
  range.mutable_end()->set_line(warning.lines.last);
  if (const auto progress = job_->progress_of(definition.head().vertex->digest())) progress->warn(std::move(out));
}

}  // namespace gantry::builder
