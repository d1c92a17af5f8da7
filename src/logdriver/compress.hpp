#pragma once

namespace gantry::logdriver {

/// Compresses a rotated log file as logs/rotated.hpp says. Throws; what it wrote is then worthless.
void compress_file(int from, int to);

}  // namespace gantry::logdriver
