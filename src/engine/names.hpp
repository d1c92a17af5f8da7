#pragma once

#include <string>

namespace gantry::engine {

/// Throws invalid_argument with Docker's text. `name` is without the slash; `shown_before` it is what the text has there.
void validate_container_name(const std::string& name, const std::string& shown_before = {});

/// A name for a container that was given none: two words with "_" between them, and a digit behind them from the second
/// try on.
std::string generate_name(int attempt);

}  // namespace gantry::engine
