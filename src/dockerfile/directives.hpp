#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/syntax.hpp"

namespace gantry::dockerfile {

/// Reads the directives that a file may begin with, one line after the other.
class DirectiveReader {
 public:
  /// `comment` is what a directive begins with: `#`, or `//` in files of other frontends.
  explicit DirectiveReader(std::string_view comment) : comment_(comment) {}

  /// True if the line (without its end) is a directive. The first line that is none ends them: then always false.
  /// Throws SourceError: `only one escape parser directive can be used`, ``invalid escape token 'x' does not match ` or
  /// \``.
  bool read(std::string_view line, int number);
  bool done() const noexcept { return done_; }
  /// The character of `# escape=`, or '\0'.
  char escape() const noexcept { return escape_; }
  std::vector<Directive> take() { return std::move(found_); }

 private:
  std::string_view comment_;
  std::vector<Directive> found_;
  bool done_ = false;
  char escape_ = '\0';
};

}  // namespace gantry::dockerfile
