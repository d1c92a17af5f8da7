#pragma once

#include "dockerfile/dockerfile.hpp"
#include "dockerfile/linter.hpp"
#include "dockerfile/scope.hpp"

namespace gantry::dockerfile {

/// The checks that need nothing but the text: casing, names, comments.
void check_file(const Dockerfile& file, Linter& linter);

/// The checks of FROM lines: their variables and platforms.
void check_from_lines(const Dockerfile& file, const GlobalScope& global, Linter& linter);

}  // namespace gantry::dockerfile
