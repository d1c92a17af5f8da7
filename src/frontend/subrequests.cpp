#include "frontend/subrequests.hpp"

#include <algorithm>
#include <set>
#include <utility>
#include <variant>

#include <boost/json/array.hpp>

#include "base/text.hpp"
#include "dockerfile/dockerfile.hpp"
#include "dockerfile/expand.hpp"
#include "dockerfile/ignore.hpp"
#include "dockerfile/mount.hpp"
#include "frontend/image_model.hpp"
#include "image/reference.hpp"
#include "json/json.hpp"

namespace gantry::frontend {
namespace {

json::Object location(dockerfile::LineRange lines) {
  json::Object range;
  range["start"] = json::Object{{"line", lines.first}};
  range["end"] = json::Object{{"line", lines.last}};
  json::Object out;
  out["ranges"] = json::Array{std::move(range)};
  return out;
}

/// A table with blanks between its columns, as Go's tabwriter lays it out.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - row[i].size() + 4, ' ');
    }
    out += line + "\n";
  }
  return out;
}

FrontendResult answer(const json::Value& document, std::string text) {
  FrontendResult out;
  out.metadata["result.json"] = json::render(document);
  out.metadata["result.txt"] = std::move(text);
  out.metadata["version"] = "1.0.0";
  return out;
}

json::Object source_object(const DockerfileText& file) {
  json::Object out;
  out["filename"] = file.filename;
  out["language"] = "Dockerfile";
  out["data"] = base64_encode(file.text);
  return out;
}

/// The lines around a warning, the ones it is about marked.
std::string excerpt(const DockerfileText& file, dockerfile::LineRange lines) {
  const auto all = split(file.text, '\n');
  const int first = std::max(1, lines.first - 2);
  const int last = std::min(static_cast<int>(all.size()), lines.last + 2);
  std::string out = file.filename + ":" + std::to_string(lines.first) + "\n--------------------\n";
  for (int line = first; line <= last; ++line) {
    const bool marked = line >= lines.first && line <= lines.last;
    std::string number = std::to_string(line);
    number.insert(0, number.size() < 4 ? 4 - number.size() : 0, ' ');
    out += number + " | " + (marked ? ">>> " : "    ") + all[static_cast<std::size_t>(line - 1)] + "\n";
  }
  return out + "--------------------\n";
}

FrontendResult lint(const DockerfileText& file, const dockerfile::CheckResult& checks) {
  json::Object document;
  json::Array warnings;
  std::string text;
  for (const auto& one : checks.warnings) {
    json::Object item;
    item["ruleName"] = one.rule;
    item["description"] = one.description;
    if (!one.url.empty()) item["url"] = one.url;
    item["detail"] = one.message;
    json::Object place = location(one.lines);
    place["sourceIndex"] = 0;
    item["location"] = std::move(place);
    warnings.push_back(std::move(item));
    text += "\nWARNING: " + one.rule + (one.url.empty() ? "" : " - " + one.url) + "\n" + one.message + "\n\n" +
            excerpt(file, one.lines);
  }
  document["warnings"] = std::move(warnings);
  document["sources"] = json::Array{source_object(file)};
  if (checks.failure) {
    json::Object failure;
    failure["message"] = checks.failure->message;
    failure["location"] = location(checks.failure->lines);
    document["buildError"] = std::move(failure);
    text += "\nERROR: " + checks.failure->message + "\n";
    if (checks.failure->lines.first > 0) text += "\n" + excerpt(file, checks.failure->lines);
  }
  if (checks.warnings.empty() && !checks.failure) text = "Check complete, no warnings found.\n";
  FrontendResult out = answer(document, std::move(text));
  out.metadata["result.statuscode"] = checks.warnings.empty() && !checks.failure ? "0" : "1";
  return out;
}

/// What checks want to know of a base image; nothing if it cannot be had, which is the build's own error to report.
std::optional<dockerfile::BaseFacts> image_facts(const dockerfile::PlannedStage& stage, const BuildOptions& options,
                                                 Resolver& resolver) {
  try {
    const std::string reference = image::parse_reference(stage.base.name).with_default_tag().canonical();
    const image::Platform platform =
        stage.platform.empty() ? image::host_platform() : image::parse_platform(stage.platform);
    const auto found =
        resolver.resolve_image(reference, platform, options.resolve_mode, "[internal] load metadata for " + reference);
    const ImageModel model = ImageModel::from_config(found.config);
    dockerfile::BaseFacts out;
    out.env = model.env;
    out.has_shell = !model.shell.empty();
    const auto& p = model.platform();
    out.platform = dockerfile::Platform{p.os, p.os_version, p.architecture, p.variant};
    return out;
  } catch (const Error& e) {
    if (e.code() == Errc::cancelled) throw;
    return std::nullopt;
  }
}

FrontendResult list_targets(const DockerfileText& file) {
  const dockerfile::Dockerfile parsed = dockerfile::parse(file.text);
  json::Array targets;
  std::vector<std::vector<std::string>> rows = {{"TARGET", "DESCRIPTION"}};
  for (std::size_t i = 0; i < parsed.stages.size(); ++i) {
    const auto& stage = parsed.stages[i];
    json::Object item;
    if (!stage.name.empty()) item["name"] = stage.name;
    const bool last = i + 1 == parsed.stages.size();
    if (last) item["default"] = true;
    if (!stage.description.empty()) item["description"] = stage.description;
    if (!stage.base_name.empty()) item["base"] = stage.base_name;
    if (!stage.platform.empty()) item["platform"] = stage.platform;
    item["location"] = location(stage.lines);
    targets.push_back(std::move(item));
    rows.push_back({stage.name + (last ? stage.name.empty() ? "(default)" : " (default)" : ""), stage.description});
  }
  json::Object document;
  document["targets"] = std::move(targets);
  document["sources"] = json::Array{json::Value(base64_encode(file.text))};
  return answer(document, table(rows));
}

/// What a target can be given from outside.
struct Outline {
  json::Array args;
  json::Array secrets;
  json::Array ssh;
  json::Array cache;
  std::vector<std::vector<std::string>> arg_rows = {{"BUILD ARG", "VALUE", "DESCRIPTION"}};
  std::vector<std::vector<std::string>> secret_rows = {{"SECRET", "REQUIRED"}};
  std::vector<std::vector<std::string>> ssh_rows = {{"SSH", "REQUIRED"}};
  std::set<std::string> seen;

  void add_arg(const dockerfile::ArgDefinition& arg, const std::string& value, dockerfile::LineRange lines) {
    if (!seen.insert("arg " + arg.name).second) return;
    json::Object item;
    item["name"] = arg.name;
    if (!arg.description.empty()) item["description"] = arg.description;
    if (!value.empty()) item["value"] = value;
    item["location"] = location(lines);
    args.push_back(std::move(item));
    arg_rows.push_back({arg.name, value, arg.description});
  }
  void add_mount(const dockerfile::Mount& mount, dockerfile::LineRange lines) {
    std::string id = mount.id.empty() ? mount.source : mount.id;
    json::Object item;
    if (mount.type == dockerfile::MountType::cache) {
      if (id.empty()) id = mount.target;
      item["ID"] = id;
      item["location"] = location(lines);
      if (seen.insert("cache " + id).second) cache.push_back(std::move(item));
      return;
    }
    const bool secret = mount.type == dockerfile::MountType::secret;
    if (!secret && mount.type != dockerfile::MountType::ssh) return;
    if (id.empty()) id = secret ? mount.target.substr(mount.target.rfind('/') + 1) : "default";
    if (!seen.insert((secret ? "secret " : "ssh ") + id).second) return;
    item["name"] = id;
    if (mount.required) item["required"] = true;
    item["location"] = location(lines);
    (secret ? secrets : ssh).push_back(std::move(item));
    (secret ? secret_rows : ssh_rows).push_back({id, mount.required ? "true" : ""});
  }
};

FrontendResult render_outline(const std::string& target, const std::string& description, Outline outline,
                              const DockerfileText& file) {
  json::Object document;
  std::string text;
  if (!target.empty()) {
    document["name"] = target;
    text += "TARGET:      " + target + "\n";
  }
  if (!description.empty()) {
    document["description"] = description;
    text += "DESCRIPTION: " + description + "\n";
  }
  if (!text.empty()) text += "\n";
  if (!outline.args.empty()) text += table(outline.arg_rows) + "\n";
  if (!outline.secrets.empty()) text += table(outline.secret_rows) + "\n";
  if (!outline.ssh.empty()) text += table(outline.ssh_rows) + "\n";
  if (!outline.args.empty()) document["args"] = std::move(outline.args);
  if (!outline.secrets.empty()) document["secrets"] = std::move(outline.secrets);
  if (!outline.ssh.empty()) document["ssh"] = std::move(outline.ssh);
  if (!outline.cache.empty()) document["cache"] = std::move(outline.cache);
  document["sources"] = json::Array{json::Value(base64_encode(file.text))};
  return answer(document, text);
}

FrontendResult outline(const BuildOptions& options, const DockerfileText& file, Contexts& contexts,
                       const dockerfile::CheckInputs& checks) {
  const dockerfile::Dockerfile parsed = dockerfile::parse(file.text);
  const dockerfile::GlobalScope global(parsed, checks.scope);
  dockerfile::PlanOptions plan_options;
  plan_options.target = options.target;
  plan_options.is_named_context = [&contexts](const std::string& name) { return contexts.has_named(name); };
  const dockerfile::BuildPlan plan(parsed, global, plan_options);
  Outline out;
  for (const auto& instruction : parsed.global_args)
    for (const auto& arg : std::get<dockerfile::ArgInstruction>(instruction.body).args) {
      const std::string* value = global.environment().find(arg.name);
      out.add_arg(arg, value != nullptr ? *value : arg.value.value_or(""), instruction.lines);
    }
  for (const std::size_t index : plan.order()) {
    dockerfile::StageScope scope(global, {});
    for (const auto& planned : plan.stages()[index].instructions) {
      const auto& body = planned.instruction.body;
      if (const auto* arg = std::get_if<dockerfile::ArgInstruction>(&body)) {
        const auto resolved = scope.apply(*arg);
        for (std::size_t i = 0; i < resolved.size(); ++i) {
          dockerfile::ArgDefinition shown = resolved[i];
          shown.description = arg->args[i].description;
          out.add_arg(shown, resolved[i].value.value_or(""), planned.instruction.lines);
        }
      }
      if (const auto* run = std::get_if<dockerfile::RunInstruction>(&body))
        for (const auto& mount : run->mounts) {
          const auto expand = [&](std::string_view word) { return dockerfile::expand(word, scope.environment()).text; };
          out.add_mount(dockerfile::parse_mount(mount.text, expand), planned.instruction.lines);
        }
    }
  }
  const auto& target = plan.target();
  return render_outline(target.named ? target.name : std::string(), parsed.stages[target.index].description,
                        std::move(out), file);
}

json::Object request(const std::string& name, const std::string& description, const std::vector<std::string>& results) {
  json::Object out;
  out["name"] = name;
  out["version"] = "1.0.0";
  out["type"] = "rpc";
  out["description"] = description;
  json::Array metadata;
  for (const auto& one : results) metadata.push_back(json::Object{{"name", one}});
  out["metadata"] = std::move(metadata);
  return out;
}

}  // namespace

FrontendResult describe_requests() {
  const std::vector<std::string> both = {"result.json", "result.txt"};
  json::Array list;
  list.push_back(request("frontend.outline", "List all parameters current build target supports", both));
  list.push_back(request("frontend.lint", "Lint a Dockerfile", {"result.json", "result.txt", "result.statuscode"}));
  list.push_back(request("frontend.targets", "List all targets current build supports", both));
  list.push_back(request("frontend.subrequests.describe", "List available subrequest types", both));
  std::string text;
  for (const auto& one : list) text += std::string(one.get_object().at("name").get_string()) + "\n";
  return answer(list, text);
}

std::optional<FrontendResult> answer_request(const BuildOptions& options, const DockerfileText& file,
                                             Contexts& contexts, Resolver& resolver, dockerfile::CheckInputs checks) {
  if (options.request == "frontend.convertllb") return std::nullopt;
  if (options.request == "frontend.targets") return list_targets(file);
  if (options.request == "frontend.outline") return outline(options, file, contexts, checks);
  if (options.request != "frontend.lint") throw Error(Errc::not_implemented, "unsupported request " + options.request);
  const dockerfile::IgnoreMatcher ignore(contexts.ignore_patterns());
  checks.ignore = &ignore;
  checks.base_facts = [&](const dockerfile::PlannedStage& stage) -> std::optional<dockerfile::BaseFacts> {
    if (stage.base.kind != dockerfile::SourceKind::image) return std::nullopt;
    return image_facts(stage, options, resolver);
  };
  return lint(file, dockerfile::run_checks(file.text, checks));
}

}  // namespace gantry::frontend
