#include <algorithm>
#include <variant>

#include "base/error.hpp"
#include "base/text.hpp"
#include "base/time.hpp"
#include "dockerfile/command_line.hpp"
#include "dockerfile/values.hpp"
#include "frontend/convert.hpp"

// Instructions that change the image's config and no file, with the history that BuildKit writes for each.
namespace gantry::frontend {
namespace {

/// Go's %v of a slice.
std::string bracketed(const std::vector<std::string>& words) { return "[" + join(words, " ") + "]"; }

/// Go's %q of a slice.
std::string quoted_list(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const auto& one : words) out.push_back(quote(one));
  return bracketed(out);
}

std::string go_duration(std::chrono::nanoseconds duration) {
  return duration.count() == 0 ? "0s" : render_go_duration(duration);
}

struct ConfigWriter {
  ImageModel& image;
  StageState& stage;
  bool classic;
  std::string history{};

  void operator()(const dockerfile::EnvInstruction& env) {
    stage.scope->apply(env);
    std::vector<std::string> shown;
    for (const auto& one : env.variables) {
      image.set_env(one.name, one.value);
      shown.push_back(one.name + "=" + one.value);
    }
    history = "ENV " + join(shown, " ");
  }
  void operator()(const dockerfile::LabelInstruction& label) {
    std::vector<std::string> shown;
    for (const auto& one : label.labels) {
      image.labels[one.name] = one.value;
      shown.push_back(one.name + "=" + one.value);
    }
    history = "LABEL " + join(shown, " ");
  }
  void operator()(const dockerfile::ArgInstruction& arg) {
    std::vector<std::string> shown;
    for (const auto& one : stage.scope->apply(arg)) shown.push_back(one.value ? one.name + "=" + *one.value : one.name);
    history = "ARG " + join(shown, " ");
  }
  void operator()(const dockerfile::CmdInstruction& cmd) {
    auto words = dockerfile::command_words(cmd.command, image.shell);
    history = "CMD " + quoted_list(words);
    image.cmd = std::move(words);
    image.args_escaped = true;
    stage.cmd_set = true;
  }
  void operator()(const dockerfile::EntrypointInstruction& entrypoint) {
    auto words = dockerfile::command_words(entrypoint.command, image.shell);
    history = "ENTRYPOINT " + quoted_list(words);
    image.entrypoint = std::move(words);
    if (!stage.cmd_set) image.cmd.reset();
  }
  void operator()(const dockerfile::UserInstruction& user) {
    image.user = user.user;
    history = "USER " + user.user;
  }
  void operator()(const dockerfile::ExposeInstruction& expose) {
    std::vector<std::string> shown;
    for (const auto& word : expose.ports)
      for (const auto& port : dockerfile::parse_exposed_ports(word).list()) {
        image.exposed_ports.insert(port);
        shown.push_back(port);
      }
    history = "EXPOSE " + bracketed(shown);
  }
  void operator()(const dockerfile::VolumeInstruction& volume) {
    for (const auto& path : volume.paths) {
      if (path.empty()) throw Error(Errc::invalid_argument, "VOLUME specified can not be an empty string");
      image.volumes.insert(path);
    }
    history = "VOLUME " + bracketed(volume.paths);
  }
  void operator()(const dockerfile::StopSignalInstruction& stop) {
    dockerfile::check_signal(stop.signal);
    image.stop_signal = stop.signal;
    history = "STOPSIGNAL " + stop.signal;
  }
  void operator()(const dockerfile::ShellInstruction& shell) {
    image.shell = shell.shell;
    history = "SHELL " + bracketed(shell.shell);
  }
  void operator()(const dockerfile::MaintainerInstruction& maintainer) {
    image.author = maintainer.name;
    history = "MAINTAINER " + maintainer.name;
  }
  void operator()(const dockerfile::HealthcheckInstruction& health) {
    image.health_check = health;
    history = "HEALTHCHECK {Test:" + bracketed(health.test) + " Interval:" + go_duration(health.interval) +
              " Timeout:" + go_duration(health.timeout) + " StartPeriod:" + go_duration(health.start_period) +
              " StartInterval:" + go_duration(health.start_interval) + " Retries:" + std::to_string(health.retries) +
              "}";
  }
  void operator()(const dockerfile::OnbuildInstruction& onbuild) {
    image.on_build.push_back(onbuild.expression);
    if (classic) history = "ONBUILD " + onbuild.expression;
  }
  // Those that change files are converted elsewhere.
  void operator()(const dockerfile::RunInstruction&) {}
  void operator()(const dockerfile::CopyInstruction&) {}
  void operator()(const dockerfile::WorkdirInstruction&) {}
};

}  // namespace

void Converter::apply_config(StageState& stage, const dockerfile::Instruction& expanded) {
  ConfigWriter writer{stage.image, stage, options_.classic};
  std::visit(writer, expanded.body);
  if (!writer.history.empty()) add_config_history(stage, writer.history);
}

}  // namespace gantry::frontend
