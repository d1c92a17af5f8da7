#include "dockerfile/typed.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/text.hpp"
#include "dockerfile/arguments.hpp"
#include "dockerfile/flags.hpp"
#include "dockerfile/mount.hpp"
#include "dockerfile/suggest.hpp"
#include "dockerfile/utf8.hpp"
#include "dockerfile/values.hpp"

namespace gantry::dockerfile {
namespace {

using Type = Flags::Type;

[[noreturn]] void refuse(const std::string& message) { throw Error(Errc::invalid_argument, message); }

void no_flags(const Node& node) { (void)Flags(node.flags, {}); }

void at_least_one(const Node& node, std::string_view keyword) {
  if (node.args.empty() && node.pairs.empty()) refuse(std::string(keyword) + " requires at least one argument");
}

const std::string& exactly_one(const Node& node, std::string_view keyword) {
  if (node.args.size() != 1) refuse(std::string(keyword) + " requires exactly one argument");
  return node.args.front();
}

/// The rest of a comment `# NAME description`.
std::string description_of(const std::vector<std::string>& comments, const std::string& name) {
  if (name.empty()) return "";
  for (const std::string& comment : comments)
    if (comment.starts_with(name + " ")) return comment.substr(name.size() + 1);
  return "";
}

std::vector<KeyValue> make_pairs(const Node& node, std::string_view keyword) {
  no_flags(node);
  at_least_one(node, keyword);
  for (const KeyValue& pair : node.pairs)
    if (pair.name.empty()) refuse(std::string(keyword) + " names can not be blank");
  return node.pairs;
}

ArgInstruction make_arg(const Node& node) {
  at_least_one(node, "ARG");
  ArgInstruction arg;
  for (const std::string& word : node.args) {
    ArgDefinition definition;
    const auto [name, value] = split_once(word, '=');
    definition.name = std::string(name);
    if (word.find('=') != std::string::npos) {
      if (name.empty()) refuse("ARG names can not be blank");
      definition.value = std::string(value);
    }
    definition.description = description_of(node.comments, definition.name);
    arg.args.push_back(std::move(definition));
  }
  return arg;
}

CommandLine make_command(const Node& node) {
  CommandLine command;
  command.words = node.args;
  command.shell = !node.json;
  return command;
}

DeviceFlag make_device(const std::string& text) {
  DeviceFlag device;
  for (const std::string& field : parse_csv_record(text)) {
    const auto [key, value] = split_once(field, '=');
    if (field == "required") {
      device.required = true;
    } else if (key == "required") {
      const auto required = parse_bool(value);
      if (!required) refuse("invalid value for required: " + std::string(value));
      device.required = *required;
    } else if (key == "name" && device.name.empty()) {
      device.name = std::string(value);
    } else if (device.name.empty()) {
      device.name = field;  // vendor/class=name
    } else {
      refuse("unexpected key '" + std::string(key) + "' in '" + field + "'");
    }
  }
  return device;
}

RunInstruction make_run(const Node& node) {
  const Flags flags(node.flags,
                    {{"mount", Type::list}, {"network", Type::text}, {"security", Type::text}, {"device", Type::list}});
  RunInstruction run;
  run.command = make_command(node);
  run.heredocs = node.heredocs;
  run.flags_used = flags.used();
  for (const std::string& mount : flags.list("mount")) run.mounts.push_back(scan_mount(mount));
  for (const std::string& device : flags.list("device")) run.devices.push_back(make_device(device));
  const std::string network = flags.text("network");
  if (network == "none") {
    run.network = RunNetwork::none;
  } else if (network == "host") {
    run.network = RunNetwork::host;
  } else if (network != "" && network != "default") {
    refuse("unsupported network mode " + quote(network));
  }
  const std::string security = flags.text("security");
  if (security == "insecure") {
    run.security = RunSecurity::insecure;
  } else if (security != "" && security != "sandbox") {
    refuse("unsupported security mode " + quote(security));
  }
  return run;
}

void take_sources(const Node& node, std::string_view keyword, CopyInstruction& copy) {
  copy.destination = node.args.back();
  if (!node.json && parse_heredoc_word(copy.destination))
    refuse(std::string(keyword) + " cannot accept a heredoc as a destination");
  for (auto arg = node.args.begin(); arg != std::prev(node.args.end()); ++arg) {
    const auto heredoc = node.json ? std::nullopt : parse_heredoc_word(*arg);
    if (!heredoc) {
      copy.sources.push_back(*arg);
      continue;
    }
    InlineFile file{heredoc->name, "", heredoc->expand};
    for (const Heredoc& body : node.heredocs)
      if (body.name == file.name) file.content = heredoc->strip_tabs ? strip_leading_tabs(body.content) : body.content;
    copy.inline_files.push_back(std::move(file));
  }
}

CopyInstruction make_copy(const Node& node, bool add) {
  const std::string keyword = add ? "ADD" : "COPY";
  if (node.args.size() < 2)
    refuse(keyword +
           " requires at least two arguments, but only one was provided. Destination could not be determined");
  static const std::vector<Flags::Known> kCopyFlags = {{"chown", Type::text},      {"from", Type::text},
                                                       {"chmod", Type::text},      {"link", Type::boolean},
                                                       {"parents", Type::boolean}, {"exclude", Type::list}};
  static const std::vector<Flags::Known> kAddFlags = {
      {"chown", Type::text},    {"chmod", Type::text},     {"link", Type::boolean}, {"keep-git-dir", Type::boolean},
      {"checksum", Type::text}, {"unpack", Type::boolean}, {"exclude", Type::list}};
  const Flags flags(node.flags, add ? kAddFlags : kCopyFlags);
  CopyInstruction copy;
  copy.add = add;
  take_sources(node, keyword, copy);
  copy.from = flags.text("from");
  copy.chown = flags.text("chown");
  copy.chmod = flags.text("chmod");
  copy.link = flags.boolean("link").value_or(false);
  copy.parents = flags.boolean("parents").value_or(false);
  copy.excludes = flags.list("exclude");
  copy.checksum = flags.text("checksum");
  copy.keep_git_dir = flags.boolean("keep-git-dir");
  copy.unpack = flags.boolean("unpack");
  return copy;
}

VolumeInstruction make_volume(const Node& node) {
  at_least_one(node, "VOLUME");
  no_flags(node);
  VolumeInstruction volume;
  for (const std::string& arg : node.args) {
    const std::string_view path = trim_space(arg);
    if (path.empty()) refuse("VOLUME specified can not be an empty string");
    volume.paths.emplace_back(path);
  }
  return volume;
}

ExposeInstruction make_expose(const Node& node) {
  at_least_one(node, "EXPOSE");
  no_flags(node);
  ExposeInstruction expose{node.args};
  std::sort(expose.ports.begin(), expose.ports.end());
  return expose;
}

ShellInstruction make_shell(const Node& node) {
  no_flags(node);
  at_least_one(node, "SHELL");
  if (!node.json) refuse("SHELL requires the arguments to be in JSON form");
  return {node.args};
}

std::chrono::nanoseconds interval(const Flags& flags, std::string_view name) {
  const std::string text = flags.text(name);
  if (text.empty()) return {};
  const std::chrono::nanoseconds value = parse_duration(text);
  if (value.count() != 0 && value < std::chrono::milliseconds(1))
    refuse("Interval " + quote(name) + " cannot be less than 1ms");
  return value;
}

int retries(const std::string& text) {
  if (text.empty()) return 0;
  const auto value = parse_int(text);
  if (!value) refuse("strconv.ParseInt: parsing " + quote(text) + ": invalid syntax");
  if (*value > INT32_MAX || *value < INT32_MIN)
    refuse("strconv.ParseInt: parsing " + quote(text) + ": value out of range");
  if (*value < 0) refuse("--retries cannot be negative (" + std::to_string(*value) + ")");
  return static_cast<int>(*value);
}

HealthcheckInstruction make_healthcheck(const Node& node) {
  at_least_one(node, "HEALTHCHECK");
  HealthcheckInstruction health;
  const std::string type = to_upper(node.args.front());
  if (type == "NONE") {
    if (node.args.size() != 1) refuse("HEALTHCHECK NONE takes no arguments");
    health.test = {type};
    return health;
  }
  const Flags flags(node.flags, {{"interval", Type::text},
                                 {"timeout", Type::text},
                                 {"start-period", Type::text},
                                 {"start-interval", Type::text},
                                 {"retries", Type::text}});
  if (type != "CMD") refuse("Unknown type " + quote(type) + " in HEALTHCHECK (try CMD)");
  if (node.args.size() < 2) refuse("Missing command after HEALTHCHECK CMD");
  health.test = node.args;
  health.test.front() = node.json ? "CMD" : "CMD-SHELL";
  health.interval = interval(flags, "interval");
  health.timeout = interval(flags, "timeout");
  health.start_period = interval(flags, "start-period");
  health.start_interval = interval(flags, "start-interval");
  health.retries = retries(flags.text("retries"));
  return health;
}

OnbuildInstruction make_onbuild(const Node& node) {
  if (node.trigger.empty()) refuse("ONBUILD requires at least one argument");
  no_flags(node);
  const std::string trigger = to_upper(node.trigger.front().keyword);
  if (trigger == "ONBUILD") refuse("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
  if (trigger == "FROM" || trigger == "MAINTAINER") refuse(trigger + " isn't allowed as an ONBUILD trigger");
  OnbuildInstruction onbuild;
  std::string_view text = trim_left_space(node.original);
  text = trim_left_space(text.substr(node.keyword.size()));
  onbuild.expression = std::string(text);
  for (const Heredoc& heredoc : node.heredocs) onbuild.expression += "\n" + heredoc.content + heredoc.name;
  return onbuild;
}

InstructionBody make_body(const Node& node) {
  const std::string keyword = to_upper(node.keyword);
  if (keyword == "RUN") return make_run(node);
  if (keyword == "COPY") return make_copy(node, false);
  if (keyword == "ADD") return make_copy(node, true);
  if (keyword == "ENV") return EnvInstruction{make_pairs(node, "ENV")};
  if (keyword == "LABEL") return LabelInstruction{make_pairs(node, "LABEL")};
  if (keyword == "ARG") return make_arg(node);
  if (keyword == "HEALTHCHECK") return make_healthcheck(node);
  if (keyword == "ONBUILD") return make_onbuild(node);
  if (keyword == "VOLUME") return make_volume(node);
  if (keyword == "EXPOSE") return make_expose(node);
  if (keyword == "SHELL") return make_shell(node);
  if (keyword == "STOPSIGNAL") return StopSignalInstruction{exactly_one(node, keyword)};
  if (keyword == "CMD" || keyword == "ENTRYPOINT") {
    no_flags(node);
    if (keyword == "CMD") return CmdInstruction{make_command(node)};
    return EntrypointInstruction{make_command(node)};
  }
  if (keyword == "WORKDIR" || keyword == "USER" || keyword == "MAINTAINER") {
    const std::string& text = exactly_one(node, keyword);
    no_flags(node);
    if (keyword == "WORKDIR") return WorkdirInstruction{text};
    if (keyword == "USER") return UserInstruction{text};
    return MaintainerInstruction{text};
  }
  refuse("unknown instruction: " + node.keyword + did_you_mean(node.keyword, instruction_names(), false));
}

bool is_stage_name(std::string_view name) {
  return !name.empty() && name.front() >= 'a' && name.front() <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") == std::string_view::npos;
}

}  // namespace

Stage make_stage(const Node& node) {
  Stage stage;
  if (node.args.size() == 3 && equals_ignoring_case(node.args[1], "AS")) {
    stage.as_keyword = node.args[1];
    stage.written_name = node.args[2];
    stage.name = to_lower(stage.written_name);
    if (!is_stage_name(stage.name))
      refuse("invalid name for build stage: " + quote(stage.written_name) +
             ", name can't start with a number or contain symbols");
  } else if (node.args.size() != 1) {
    refuse("FROM requires either one or three arguments");
  }
  const Flags flags(node.flags, {{"platform", Type::text}});
  stage.base_name = node.args.front();
  stage.platform = flags.text("platform");
  stage.keyword = node.keyword;
  stage.source = std::string(trim_space(node.original));
  stage.description = description_of(node.comments, stage.name);
  stage.lines = node.lines;
  stage.comments = node.comments;
  return stage;
}

Instruction make_instruction(const Node& node) {
  return {make_body(node), node.keyword, std::string(trim_space(node.original)), node.lines, node.comments};
}

}  // namespace gantry::dockerfile
