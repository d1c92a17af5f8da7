#include "builder/classic_resolver.hpp"

#include <utility>

#include "base/error.hpp"
#include "buildcache/cache.hpp"
#include "builder/tree_reader.hpp"
#include "image/reference.hpp"
#include "llb/definition.hpp"
#include "solver/solver.hpp"

namespace gantry::builder {

frontend::Resolver::ImageAnswer ClassicResolver::resolve_image(const std::string& reference,
                                                               const image::Platform& platform,
                                                               frontend::ResolveMode mode, const std::string&) {
  buildlink::ImageRequest request;
  request.reference = reference;
  if (!options_.platform.empty()) request.platform = image::render_platform(platform);
  request.mode =
      mode == frontend::ResolveMode::pull ? buildlink::ResolveMode::pull : buildlink::ResolveMode::prefer_local;
  request.auth = auth_for(options_, reference);
  request.layers = false;
  const auto found = services_.engine.resolve_image(
      request,
      [this](const buildlink::PullProgress& figure) {
        stream_.pull_status(figure.Id, figure.Status, figure.Current, figure.Total);
      },
      stop_);
  ids_[reference] = found.id;
  ImageAnswer out{found.digest, found.config_json};
  // By ID, or by the name with what it means now.
  const auto parsed = image::try_parse_reference(reference);
  const bool by_name = parsed && !found.name.empty() && found.name.starts_with(parsed->name());
  out.reference = by_name ? parsed->with_default_tag().canonical() : found.id;
  if (by_name && parsed->digest.empty()) out.reference += "@" + found.digest;
  return out;
}

std::optional<std::string> ClassicResolver::read_file(const pb::Definition& definition, const std::string& path,
                                                      std::size_t limit) {
  const auto tree = services_.solver.solve(job_, llb::Definition::parse(definition), stop_);
  const auto view = services_.cache.snapshots().view(tree);
  return read_tree_file(*view, path, 0, 0, limit);
}

std::optional<pb::Definition> ClassicResolver::find_input(const std::string&) { return std::nullopt; }

// The classic builder checks nothing.
void ClassicResolver::warn(const dockerfile::Warning&, const pb::SourceInfo&) {}

std::string ClassicResolver::image_id(const std::string& reference) const {
  const auto it = ids_.find(reference);
  return it == ids_.end() ? std::string() : it->second;
}

}  // namespace gantry::builder
