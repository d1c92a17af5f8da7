#include "dockerfile/expand_instruction.hpp"

#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dockerfile/expand.hpp"

namespace gantry::dockerfile {
namespace {

class Visitor {
 public:
  Visitor(const Environment& environment, char escape, Expansion& looked_up)
      : environment_(environment), looked_up_(looked_up) {
    options_.escape = escape;
  }

  void operator()(EnvInstruction& env) { pairs(env.variables); }
  void operator()(LabelInstruction& label) { pairs(label.labels); }
  void operator()(WorkdirInstruction& workdir) { word(workdir.path); }
  void operator()(UserInstruction& user) { word(user.user); }
  void operator()(StopSignalInstruction& stop) { word(stop.signal); }
  void operator()(VolumeInstruction& volume) {
    for (std::string& path : volume.paths) {
      word(path);
      if (path.empty()) throw Error(Errc::invalid_argument, "VOLUME specified can not be an empty string");
    }
  }
  void operator()(ExposeInstruction& expose) {
    std::vector<std::string> ports;
    for (const std::string& port : expose.ports)
      for (std::string& one : expanded(port, options_).words) ports.push_back(std::move(one));
    expose.ports = std::move(ports);
  }
  void operator()(CopyInstruction& copy) {
    for (std::string* text : {&copy.chown, &copy.chmod, &copy.checksum, &copy.destination}) word(*text);
    for (std::string& exclude : copy.excludes) word(exclude);
    for (std::string& source : copy.sources) word(source);
    ExpandOptions body;  // quotes in a heredoc are text; the escape character is always a backslash
    body.ignore_quotes = true;
    for (InlineFile& file : copy.inline_files)
      if (file.expand) file.content = expanded(file.content, body).text;
  }
  template <class Other>
  void operator()(Other&) {}

 private:
  /// One instruction's texts together are bounded as each of them.
  Expansion expanded(std::string_view text, const ExpandOptions& options) {
    Expansion result = expand(text, environment_, options, &looked_up_);
    produced_ += result.text.size();
    if (produced_ > kMaxExpansion) throw Error(Errc::invalid_argument, "the expanded text is too long");
    return result;
  }
  void word(std::string& text) {
    if (!text.empty()) text = expanded(text, options_).text;
  }
  void pairs(std::vector<KeyValue>& pairs) {
    for (KeyValue& pair : pairs) {
      word(pair.name);
      word(pair.value);
    }
  }

  const Environment& environment_;
  Expansion& looked_up_;
  ExpandOptions options_;
  std::size_t produced_ = 0;
};

}  // namespace

Instruction expand_instruction(const Instruction& instruction, const Environment& environment, char escape,
                               std::set<std::string>* unmatched) {
  Instruction expanded = instruction;
  Expansion looked_up;
  const auto tell = [&] {
    if (unmatched != nullptr) unmatched->merge(looked_up.unmatched);
  };
  try {
    std::visit(Visitor(environment, escape, looked_up), expanded.body);
  } catch (const Error& e) {
    tell();
    throw SourceError(e.message(), instruction.lines);
  }
  tell();
  return expanded;
}

void require_no_variables(const CopyInstruction& copy) {
  if (copy.from.empty() || expand(copy.from, {}).text == copy.from) return;
  throw Error(
      Errc::invalid_argument,
      "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
      "as a workaround");
}

}  // namespace gantry::dockerfile
