#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dockerfile/environment.hpp"

/// Variables and quotes in words of a Dockerfile, and splitting them as a shell does.
namespace gantry::dockerfile {

/// An expansion that becomes larger than this, or nests `${a:-${b:-…}}` deeper, is refused: a few lines could otherwise
/// ask for all memory.
inline constexpr std::size_t kMaxExpansion = 8 * 1024 * 1024;
inline constexpr int kMaxExpansionDepth = 64;

struct ExpandOptions {
  char escape = '\\';
  bool raw_quotes = false;     // quotes stay in the result
  bool raw_escapes = false;    // escape characters stay in the result
  bool ignore_quotes = false;  // quotes mean nothing (heredoc bodies)
  bool keep_unset = false;     // variables that are not set stay as they are written
};

struct Expansion {
  std::string text;                 // everything as one word
  std::vector<std::string> words;   // split at blanks that were outside quotes, also those that came from variables
  std::set<std::string> matched;    // variables that were looked up and found
  std::set<std::string> unmatched;  // and those that were not
};

/// `$x ${x} ${x:-w} ${x-w} ${x:+w} ${x+w} ${x:?w} ${x?w} ${x#p} ${x##p} ${x%p} ${x%%p} ${x/p/r} ${x//p/r}`; w, p and r
/// are expanded themselves. Throws Error(invalid_argument) `failed to process "word": …` with BuildKit's reasons.
/// What was looked up before a failure is added to `looked_up`, if given.
Expansion expand(std::string_view word, const Environment& environment, const ExpandOptions& options = {},
                 Expansion* looked_up = nullptr);

}  // namespace gantry::dockerfile
