#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "buildcache/cache.hpp"
#include "buildlink/engine.hpp"
#include "solver/progress.hpp"

namespace gantry::builder {

struct ExportRequest {
  buildcache::SnapshotPtr tree;    // nullptr: an image without layers
  std::string config;              // as the frontend made it: the base's layers and history, and its own history
  std::vector<std::string> names;  // tags to move to the image; may be empty
  std::string comment = "buildkit.exporter.image.v0";  // of history entries that the config lacks
  std::optional<Timestamp> epoch;                      // instead of the times at which layers were made
};

struct ExportedImage {
  buildlink::CreatedImage image;
  std::string config;  // the final blob
};

/// Makes an image of the daemon out of a build's result: layers that the daemon does not have yet are given to it, the
/// config gets its layers and times (a rebuild of what is cached gives the same bytes), and the names move.
/// Blocks. Throws what the daemon answers; cancelled.
ExportedImage export_image(buildcache::Cache& cache, buildlink::Engine& engine, const ExportRequest& request,
                           solver::Progress& progress, std::stop_token stop);

/// The daemon's layers of a tree, lowest first; gives it those that it lacks.
std::vector<buildlink::ImageLayer> give_layers(buildcache::Cache& cache, buildlink::Engine& engine,
                                               const buildcache::SnapshotPtr& tree, std::stop_token stop);

/// One layer as far as the config tells of it.
struct LayerFacts {
  std::string diff_id;
  Timestamp created;
  std::string description;
};
/// The config with `layers`: one history entry that is no empty layer for each, times filled in, members sorted
/// (buildkit.md, appendix D).
std::string complete_config(const std::string& config, const std::vector<LayerFacts>& layers,
                            const std::string& comment, std::optional<Timestamp> epoch);

}  // namespace gantry::builder
