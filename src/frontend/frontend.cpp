#include "frontend/frontend.hpp"

#include <utility>

#include <boost/json/array.hpp>

#include "base/text.hpp"
#include "dockerfile/dockerfile.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/syntax.hpp"
#include "frontend/contexts.hpp"
#include "frontend/convert.hpp"
#include "frontend/subrequests.hpp"
#include "image/reference.hpp"
#include "json/json.hpp"

namespace gantry::frontend {
namespace {

/// `# syntax=…` of the file, unless the client said which.
void require_own_syntax(const BuildOptions& options, const DockerfileText& file) {
  std::string wanted = options.syntax;
  if (wanted.empty())
    if (const auto directive = dockerfile::detect_syntax(file.text)) wanted = directive->value;
  wanted = std::string(split_once(trim(wanted), ' ').first);
  if (wanted.empty() || is_own_syntax(wanted)) return;
  throw Error(Errc::not_implemented,
              "frontend " + wanted +
                  " not supported: this engine has docker/dockerfile built in and runs no others; "
                  "take the line \"# syntax=" +
                  wanted + "\" out or use a builder with the docker-container driver");
}

dockerfile::CheckInputs check_inputs(const BuildOptions& options, Contexts& contexts) {
  dockerfile::CheckInputs out;
  const image::Platform target = options.platforms.empty() ? image::host_platform() : options.platforms.front();
  const auto convert = [](const image::Platform& p) {
    return dockerfile::Platform{p.os, p.os_version, p.architecture, p.variant};
  };
  out.scope.build_args = options.build_args;
  out.scope.build_platform = convert(image::host_platform());
  out.scope.target_platform = convert(target);
  out.scope.target_stage = options.target;
  out.target = options.target;
  out.options = options.check;
  out.is_named_context = [&contexts](const std::string& name) { return contexts.has_named(name); };
  return out;
}

std::string platforms_metadata(const FrontendResult& result) {
  json::Array list;
  for (const auto& one : result.platforms) {
    json::Object platform;
    platform["architecture"] = one.platform.architecture;
    platform["os"] = one.platform.os;
    if (!one.platform.variant.empty()) platform["variant"] = one.platform.variant;
    list.push_back({{"ID", one.id}, {"Platform", std::move(platform)}});
  }
  json::Object out;
  out["Platforms"] = std::move(list);
  return json::render(out);
}

void add_metadata(FrontendResult& result) {
  for (const auto& one : result.platforms) {
    const std::string suffix = result.multi_platform ? "/" + one.id : std::string();
    result.metadata["containerimage.config" + suffix] = one.config;
    if (!one.base_config.empty()) result.metadata["containerimage.base.config" + suffix] = one.base_config;
  }
  result.metadata["refs.platforms"] = platforms_metadata(result);
}

}  // namespace

bool is_own_syntax(const std::string& reference) {
  if (reference == "dockerfile.v0") return true;
  const auto parsed = image::try_parse_reference(reference);
  if (!parsed) return false;
  const std::string name = parsed->name();
  return name == "docker.io/docker/dockerfile" || name == "docker.io/docker/dockerfile-upstream";
}

FrontendResult build_dockerfile(const OptionMap& given, Resolver& resolver) {
  BuildOptions options = parse_options(given);
  if (options.request == "frontend.subrequests.describe") return describe_requests();
  Contexts contexts(options, resolver);
  const DockerfileText file = contexts.load_dockerfile();
  require_own_syntax(options, file);
  try {
    if (!options.request.empty()) {
      std::optional<FrontendResult> answer =
          answer_request(options, file, contexts, resolver, check_inputs(options, contexts));
      if (answer) return std::move(*answer);
    }
    const dockerfile::Dockerfile parsed = dockerfile::parse(file.text);
    dockerfile::CheckInputs inputs = check_inputs(options, contexts);
    const dockerfile::IgnoreMatcher ignore(contexts.ignore_patterns());
    inputs.ignore = &ignore;
    const dockerfile::CheckResult checks = dockerfile::run_checks(file.text, inputs);
    const pb::SourceInfo source = file.source();
    for (const auto& warning : checks.warnings) resolver.warn(warning, source);
    if (const std::string violation = checks.violation(); !violation.empty())
      throw Error(Errc::invalid_argument, violation);
    FrontendResult result;
    result.multi_platform = options.multi_platform;
    std::vector<image::Platform> targets = options.platforms;
    if (targets.empty()) targets.push_back(image::normalize(image::host_platform()));
    for (const auto& target : targets) {
      Converted one = Converter(options, parsed, file, contexts, resolver, target).convert();
      const image::Platform platform = image::normalize(one.platform);
      result.platforms.push_back({image::render_platform(platform), platform, std::move(one.definition),
                                  std::move(one.config), std::move(one.base_config)});
    }
    add_metadata(result);
    return result;
  } catch (const dockerfile::SourceError& e) {
    throw FrontendError(e, file.source(), e.lines());
  }
}

}  // namespace gantry::frontend
