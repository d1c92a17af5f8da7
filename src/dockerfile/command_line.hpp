#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dockerfile/instruction.hpp"

namespace gantry::dockerfile {

/// The SHELL of a Linux image that sets none.
const std::vector<std::string>& default_shell();

/// CMD and ENTRYPOINT as they go into an image's config: the words of a JSON array, or the shell and the text.
/// An empty `shell` stands for the default one.
std::vector<std::string> command_words(const CommandLine& command, const std::vector<std::string>& shell);

/// What RUN executes.
struct RunCommand {
  std::vector<std::string> args;
  /// `RUN <<NAME` whose body begins with `#!`: a file of mode 0755 that is mounted read-only into kScriptDirectory.
  std::optional<InlineFile> script;
};
inline constexpr const char* kScriptDirectory = "/dev/pipes/";

/// A command that is nothing but a heredoc is its body, as a script or as the shell's text; heredocs in any other
/// command are put back below it for the shell to read. Bodies are never expanded here. Throws Error(invalid_argument)
/// for heredocs with an array.
RunCommand run_command(const RunInstruction& run, const std::vector<std::string>& shell);

}  // namespace gantry::dockerfile
