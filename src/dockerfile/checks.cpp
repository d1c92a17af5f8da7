#include "dockerfile/checks.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/linter.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

std::set<std::string> names_in(std::string_view list) {
  std::set<std::string> names;
  for (const std::string& name : split(list, ',')) names.insert(std::string(trim(name)));
  return names;
}

}  // namespace

const std::vector<CheckRule>& check_rules() {
  static const std::vector<CheckRule> kRules = {
      {"StageNameCasing", "Stage names should be lowercase", "stage-name-casing"},
      {"FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", "from-as-casing"},
      {"NoEmptyContinuation", "Empty continuation lines will become errors in a future release",
       "no-empty-continuation"},
      {"ConsistentInstructionCasing",
       "All commands within the Dockerfile should use the same casing (either upper or lower)",
       "consistent-instruction-casing"},
      {"DuplicateStageName", "Stage names should be unique", "duplicate-stage-name"},
      {"ReservedStageName", "Reserved words should not be used as stage names", "reserved-stage-name"},
      {"JSONArgsRecommended",
       "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
       "json-args-recommended"},
      {"MaintainerDeprecated",
       "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
       "maintainer-deprecated"},
      {"UndefinedArgInFrom", "FROM command must use declared ARGs", "undefined-arg-in-from"},
      {"WorkdirRelativePath",
       "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
       "image changes",
       "workdir-relative-path"},
      {"UndefinedVar", "Variables should be defined before their use", "undefined-var"},
      {"MultipleInstructionsDisallowed", "Multiple instructions of the same type should not be used in the same stage",
       "multiple-instructions-disallowed"},
      {"LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used",
       "legacy-key-value-format"},
      {"InvalidBaseImagePlatform", "Base image platform does not match expected target platform", ""},
      {"RedundantTargetPlatform",
       "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
       "redundant-target-platform"},
      {"SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands",
       "secrets-used-in-arg-or-env"},
      {"InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name",
       "invalid-default-arg-in-from"},
      {"FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value",
       "from-platform-flag-const-disallowed"},
      {"CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore", "copy-ignored-file"},
      {"InvalidDefinitionDescription",
       "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
       "not intended to be a description comment, add an empty line or comment between the instruction and the "
       "comment.",
       "invalid-definition-description", true},
      {"ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", "expose-proto-casing"},
      {"ExposeInvalidFormat",
       "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
       "future release",
       "expose-invalid-format"}};
  return kRules;
}

std::string CheckRule::url() const {
  return page.empty() ? "" : "https://docs.docker.com/go/dockerfile/rule/" + std::string(page) + "/";
}

CheckOptions parse_check_options(std::string_view text) {
  CheckOptions options;
  text = trim(text);
  if (text.empty()) return options;
  for (const std::string& part : split(text, ';')) {
    const auto [written_key, written_value] = split_once(part, '=');
    const std::string_view key = trim(written_key);
    const std::string_view value = trim(written_value);
    if (part.find('=') == std::string::npos) throw Error(Errc::invalid_argument, "invalid check option " + quote(part));
    if (key == "skip") {
      options.skip_all = value == "all";
      if (!options.skip_all) options.skip = names_in(value);
    } else if (key == "experimental") {
      options.experimental_all = value == "all";
      if (!options.experimental_all) options.experimental = names_in(value);
    } else if (key == "error") {
      const auto error = parse_bool(value);
      if (!error)
        throw Error(Errc::invalid_argument, "failed to parse check option " + quote(part) +
                                                ": strconv.ParseBool: parsing " + quote(value) + ": invalid syntax");
      options.error = *error;
    } else {
      throw Error(Errc::invalid_argument, "invalid check option " + quote(key));
    }
  }
  return options;
}

std::string Warning::text() const {
  std::string text = rule + ": " + message;
  if (lines.first > 0) text += " (line " + std::to_string(lines.first) + ")";
  return text;
}

std::string CheckResult::violation() const {
  if (!fail_on_warning || warnings.empty()) return "";
  std::set<std::string> rules;
  for (const Warning& warning : warnings) rules.insert(warning.rule);
  return "lint violation found for rules: " + join({rules.begin(), rules.end()}, ", ");
}

void Linter::at(const std::vector<std::string>& comments) {
  inline_ = {};
  for (const std::string& comment : comments) {
    const auto [key, value] = split_once(comment, '=');
    if (trim(key) != "check" || comment.find('=') == std::string::npos) continue;
    try {
      CheckOptions options = parse_check_options(value);
      inline_.skip_all |= options.skip_all;
      inline_.experimental_all |= options.experimental_all;
      inline_.skip.merge(options.skip);
      inline_.experimental.merge(options.experimental);
    } catch (const Error& e) {
      if (e.code() != Errc::invalid_argument) throw;
      continue;  // a comment like any other
    }
  }
}

bool Linter::wants(const CheckRule& rule) const {
  const std::string name(rule.name);
  if (rule.experimental)
    return options_.experimental_all || inline_.experimental_all || options_.experimental.contains(name) ||
           inline_.experimental.contains(name);
  return !options_.skip_all && !inline_.skip_all && !options_.skip.contains(name) && !inline_.skip.contains(name);
}

void Linter::warn(std::string_view rule, LineRange lines, const std::string& message) {
  const auto at = std::find_if(check_rules().begin(), check_rules().end(),
                               [&](const CheckRule& known) { return known.name == rule; });
  if (full() || at == check_rules().end() || !wants(*at)) return;
  warnings_.emplace(lines.first, Warning{std::string(rule), std::string(at->description), at->url(),
                                         replace_invalid_utf8(message), lines});
}

std::vector<Warning> Linter::take() {
  std::vector<Warning> list;
  for (auto& [line, warning] : warnings_) list.push_back(std::move(warning));
  warnings_.clear();
  return list;
}

}  // namespace gantry::dockerfile
