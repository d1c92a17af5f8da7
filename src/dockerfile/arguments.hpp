#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/syntax.hpp"

namespace gantry::dockerfile {

/// Names of all instructions, upper case.
const std::vector<std::string>& instruction_names();

/// Cuts a logical line into keyword, flags and arguments of the shape that the keyword asks for. The keyword may be
/// unknown: then there are no arguments. Throws Error(invalid_argument) without a place: `ENV must have two arguments`,
/// `Syntax error - can't find = in "x". Must be of the form: name=value`, `when using JSON array syntax, …`.
Node parse_line(std::string_view line, char escape);

}  // namespace gantry::dockerfile
