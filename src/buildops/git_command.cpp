#include "buildops/git_command.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"
#include "buildops/program.hpp"

namespace gantry::buildops {
namespace {

constexpr std::size_t kMostOutput = 16 << 20;
constexpr std::size_t kMostWords = 4096;

}  // namespace

GitCommand::GitCommand(sys::Path home, solver::Progress& progress, std::stop_token stop)
    : home_(std::move(home)), progress_(progress), stop_(std::move(stop)) {
  settings_ = {{"core.hooksPath", "/dev/null"},   {"core.fsmonitor", "false"},      {"core.symlinks", "true"},
               {"advice.detachedHead", "false"},  {"init.defaultBranch", "master"}, {"gc.auto", "0"},
               {"http.lowSpeedLimit", "1"},       {"http.lowSpeedTime", "60"},      {"safe.directory", "*"},
               {"transfer.fsckObjects", "false"}, {"submodule.recurse", "false"}};
}

GitCommand& GitCommand::protocols(std::string allowed) {
  protocols_ = std::move(allowed);
  return *this;
}

GitCommand& GitCommand::set(const std::string& key, std::string value) {
  settings_[key] = std::move(value);
  return *this;
}

GitCommand& GitCommand::environment(std::string entry) {
  environment_.push_back(std::move(entry));
  return *this;
}

std::string GitCommand::run(const sys::Path& directory, const std::vector<std::string>& arguments) const {
  sys::SpawnOptions options;
  options.argv = {"git"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.directory = directory;
  options.env = own_environment({"PATH"});
  options.env.insert(options.env.end(),
                     {"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false",
                      "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C", "HOME=" + home_.string(),
                      "GIT_ALLOW_PROTOCOL=" + protocols_, fmt::format("GIT_CONFIG_COUNT={}", settings_.size())});
  std::size_t number = 0;
  for (const auto& [key, value] : settings_) {
    options.env.push_back(fmt::format("GIT_CONFIG_KEY_{}={}", number, key));
    options.env.push_back(fmt::format("GIT_CONFIG_VALUE_{}={}", number++, value));
  }
  options.env.insert(options.env.end(), environment_.begin(), environment_.end());
  std::string printed;
  std::string words;
  ProgramHooks hooks;
  hooks.output = [&](int stream, std::string_view bytes) {
    std::string& into = stream == 1 ? printed : words;
    into += bytes;
    if (stream == 2) {
      progress_.log(2, bytes);
      if (words.size() > kMostWords) words.erase(0, words.size() - kMostWords);
    } else if (printed.size() > kMostOutput) {
      throw Error(Errc::invalid_argument, "git: too much output");
    }
  };
  const int code = run_program(options, hooks, stop_);
  if (code != 0) throw Error(Errc::unavailable, fmt::format("git stderr:\n{}: exit status {}", trim(words), code));
  return printed;
}

}  // namespace gantry::buildops
