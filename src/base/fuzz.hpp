#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/error.hpp"

/// For the fuzz targets (*_fuzz.cpp, run by scripts/fuzz) only.
///
/// A target hands its input to a reader of bytes from outside. Whatever the bytes are, the reader either succeeds or
/// throws gantry::Error; any other exception ends the target, and so does require(). What a target has in durable state
/// it takes back before it returns.
namespace gantry::fuzz {

inline void require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

/// True if `body` ended without an Error.
template <class Body>
bool accepts(Body&& body) {
  try {
    std::forward<Body>(body)();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace gantry::fuzz
