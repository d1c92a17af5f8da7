#pragma once

#include <source_location>
#include <string>

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::dockerfile {

/// Lines of a Dockerfile, counted from 1, both ends included. {0, 0}: no place in a file (a trigger of a base image).
struct LineRange {
  int first = 0;
  int last = 0;
  bool operator==(const LineRange&) const = default;
};

/// An Error (invalid_argument, texts as BuildKit words them, always UTF-8) with the lines it is about, for the excerpt
/// that clients print below it.
class SourceError : public Error {
 public:
  SourceError(const std::string& message, LineRange lines, std::source_location where = std::source_location::current())
      : Error(Errc::invalid_argument, replace_invalid_utf8(message), where), lines_(lines) {}
  const LineRange& lines() const noexcept { return lines_; }

 private:
  LineRange lines_;
};

}  // namespace gantry::dockerfile
