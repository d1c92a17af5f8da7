#include "dockerfile/dockerfile.hpp"

#include <utility>

#include "base/text.hpp"
#include "dockerfile/typed.hpp"

namespace gantry::dockerfile {
namespace {

template <class Make>
auto with_line(const Node& node, Make&& make) {
  try {
    return make(node);
  } catch (const Error& e) {
    throw SourceError("dockerfile parse error on line " + std::to_string(node.lines.first) + ": " + e.message(),
                      node.lines);
  }
}

}  // namespace

Dockerfile parse(std::string_view text) {
  Syntax syntax = parse_syntax(text);
  Dockerfile file;
  file.escape = syntax.escape;
  file.directives = std::move(syntax.directives);
  file.empty_continuations = std::move(syntax.empty_continuations);
  for (const Node& node : syntax.nodes) {
    if (equals_ignoring_case(node.keyword, "FROM")) {
      file.stages.push_back(with_line(node, make_stage));
      continue;
    }
    Instruction instruction = with_line(node, make_instruction);
    if (!file.stages.empty()) {
      file.stages.back().instructions.push_back(std::move(instruction));
    } else if (std::holds_alternative<ArgInstruction>(instruction.body)) {
      file.global_args.push_back(std::move(instruction));
    } else {
      throw SourceError("no build stage in current context", node.lines);
    }
  }
  if (file.stages.empty()) throw SourceError("dockerfile contains no stages to build", {});
  return file;
}

Instruction parse_trigger(std::string_view expression, LineRange lines) {
  try {
    Syntax syntax = parse_syntax(expression);
    if (syntax.nodes.size() != 1) throw SourceError("onbuild trigger should be a single expression", lines);
    Node& node = syntax.nodes.front();
    node.lines = lines;
    if (equals_ignoring_case(node.keyword, "FROM"))
      throw SourceError("FROM isn't allowed as an ONBUILD trigger", lines);
    return make_instruction(node);
  } catch (const Error& e) {
    throw SourceError(e.message(), lines);
  }
}

}  // namespace gantry::dockerfile
