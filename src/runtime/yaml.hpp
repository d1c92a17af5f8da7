#pragma once

#include <string_view>

#include "json/json.hpp"

namespace gantry::runtime {

/// The part of YAML that generators of device descriptions write: mappings and sequences in block style, plain and
/// quoted scalars, empty and one-line flow collections in JSON's form, comments, one document. Anchors, tags, block
/// scalars and the rest are refused. Throws invalid_argument, naming the line.
json::Value parse_yaml(std::string_view text);

}  // namespace gantry::runtime
