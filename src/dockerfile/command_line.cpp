#include "dockerfile/command_line.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

namespace gantry::dockerfile {

const std::vector<std::string>& default_shell() {
  static const std::vector<std::string> kShell = {"/bin/sh", "-c"};
  return kShell;
}

std::vector<std::string> command_words(const CommandLine& command, const std::vector<std::string>& shell) {
  if (!command.shell) return command.words;
  std::vector<std::string> words = shell.empty() ? default_shell() : shell;
  words.push_back(join(command.words, " "));
  return words;
}

RunCommand run_command(const RunInstruction& run, const std::vector<std::string>& shell) {
  RunCommand result;
  CommandLine command = run.command;
  if (!run.heredocs.empty()) {
    if (!command.shell || command.words.size() != 1)
      throw Error(Errc::invalid_argument,
                  "parsing produced an invalid run command: [" + join(command.words, " ") + "]");
    std::string& text = command.words.front();
    if (parse_heredoc_word(text)) {
      const Heredoc& heredoc = run.heredocs.front();
      text = heredoc.strip_tabs ? strip_leading_tabs(heredoc.content) : heredoc.content;
      if (text.starts_with("#!")) {
        result.script = InlineFile{heredoc.name, std::move(text), false};
        text = kScriptDirectory + heredoc.name;
      }
    } else {
      for (const Heredoc& heredoc : run.heredocs) text += "\n" + heredoc.content + heredoc.name;
    }
  }
  result.args = command_words(command, shell);
  return result;
}

}  // namespace gantry::dockerfile
