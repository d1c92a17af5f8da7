#pragma once

#include <string>

#include "engine/container.hpp"

namespace gantry::engine {

/// The JSON of a container's row. Names in it are part of the format on disk: a member may be added, never renamed.
std::string encode_config(const Container& container);
std::string encode_state(const ContainerState& state);
/// Throws invalid_argument, naming the field.
void decode_config(const std::string& text, Container& into);
ContainerState decode_state(const std::string& text);

}  // namespace gantry::engine
