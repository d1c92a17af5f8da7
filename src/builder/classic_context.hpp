#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "builder/classic_options.hpp"
#include "builder/context_trees.hpp"
#include "builder/services.hpp"

namespace gantry::builder {

/// The archive that a classic build came with, unpacked, and its Dockerfile.
struct ClassicContext {
  std::unique_ptr<ContextTrees::Entry> tree;
  std::string filename;
  std::string dockerfile;
};

/// Reads the request's body to its end. Files that the context's own .dockerignore excludes but that the client sent
/// for us (.dockerignore, the Dockerfile) are taken out. Throws invalid_argument `Cannot locate specified Dockerfile:
/// X`, `the Dockerfile (X) cannot be empty`, `forbidden path outside the build context: …`, and what is wrong with the
/// archive.
ClassicContext receive_context(const Services& services, ContextTrees& trees, const ClassicOptions& options,
                               buildlink::Exchange& exchange);

}  // namespace gantry::builder
