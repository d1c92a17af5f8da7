#pragma once

#include <string>
#include <vector>

#include "async/task.hpp"
#include "image/context.hpp"
#include "image/transfers.hpp"

namespace gantry::image {

/// See Transfers::pack_layer, Transfers::find_layer_blob and Transfers::assemble.
Task<PackedLayer> pack_layer(Context& context, sys::Path directory, std::shared_ptr<const std::atomic<bool>> give_up);
Task<std::optional<Descriptor>> find_layer_blob(Context& context, std::string chain_id);
Task<AssembledImage> assemble(Context& context, AssembleRequest request);

}  // namespace gantry::image
