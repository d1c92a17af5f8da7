#pragma once

#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace gantry::dockerfile {

/// The message of the Error (of kind invalid_argument) that `body` throws; "" if it throws none.
template <class Body>
std::string refusal(Body&& body) {
  try {
    std::forward<Body>(body)();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::invalid_argument);
    return e.message();
  }
  return "";
}

}  // namespace gantry::dockerfile
