#pragma once

#include <functional>

namespace gantry::buildops {

/// Puts a layer, as an overlay's upper directory looks, over the tree open as `root`: what the layer deletes goes, what
/// it has replaces what is there, directories are merged. `check` is called for every entry and may throw to end it.
void apply_layer(int layer, int root, const std::function<void()>& check);

/// Writes into the empty directory `delta` what must be put over the tree `lower` to get the tree `upper`, as an
/// overlay's upper directory. A `lower` of -1 is the empty tree.
void write_difference(int lower, int upper, int delta, const std::function<void()>& check);

}  // namespace gantry::buildops
