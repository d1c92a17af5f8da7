#pragma once

#include <string_view>
#include <vector>

#include "dockerfile/instruction.hpp"
#include "dockerfile/syntax.hpp"

namespace gantry::dockerfile {

/// A whole Dockerfile, checked as far as possible without build arguments.
struct Dockerfile {
  char escape = '\\';
  std::vector<Directive> directives;
  std::vector<LineRange> empty_continuations;
  std::vector<Instruction> global_args;  // ARG before the first FROM
  std::vector<Stage> stages;             // at least one
};

/// Throws SourceError: what parse_syntax throws, `dockerfile parse error on line N: …` for an instruction that is
/// wrong, `no build stage in current context`, `dockerfile contains no stages to build`. Pure; linear in the text but
/// for the suggestion in a message.
Dockerfile parse(std::string_view text);

}  // namespace gantry::dockerfile
