#include <cstdint>
#include <string>

#include "base/fuzz.hpp"
#include "dockerfile/checks.hpp"
#include "dockerfile/dockerfile.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace dockerfile = gantry::dockerfile;

// A whole Dockerfile: parsed, planned and checked.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  accepts([&] { (void)dockerfile::detect_syntax(text); });
  dockerfile::Dockerfile file;
  const bool parsed = accepts([&] { file = dockerfile::parse(text); });
  if (parsed) {
    require(!file.stages.empty(), "a file has a stage");
    for (const auto& stage : file.stages) {
      require(stage.lines.first > 0 && stage.lines.first <= stage.lines.last, "lines of a stage");
      for (const auto& instruction : stage.instructions) {
        require(instruction.lines.first <= instruction.lines.last, "lines of an instruction");
        const auto* onbuild = std::get_if<dockerfile::OnbuildInstruction>(&instruction.body);
        if (onbuild != nullptr) accepts([&] { (void)dockerfile::parse_trigger(onbuild->expression, stage.lines); });
      }
    }
  }
  const dockerfile::IgnoreMatcher ignore({"*.log", "**/x"});
  dockerfile::CheckInputs inputs;
  inputs.ignore = &ignore;
  inputs.scope.build_args = {{"A", "1"}, {"HTTP_PROXY", "p"}};
  const dockerfile::CheckResult result = dockerfile::run_checks(text, inputs);
  require(parsed || result.failure.has_value(), "what cannot be parsed fails the checks");
  return 0;
}
