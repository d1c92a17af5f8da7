#pragma once

#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include "solver/progress.hpp"
#include "sys/file.hpp"

namespace gantry::buildops {

/// Runs git with nothing of the machine's or anybody's own configuration, no hooks, no prompts, and only the ways to
/// reach repositories that are named. What it is told in secret goes by its environment, which only root can read.
class GitCommand {
 public:
  /// `home` is an empty directory.
  GitCommand(sys::Path home, solver::Progress& progress, std::stop_token stop);

  /// Ways to reach repositories: "http:https:git:ssh" unless set.
  GitCommand& protocols(std::string allowed);
  /// A setting for this run of git and the ones that it starts.
  GitCommand& set(const std::string& key, std::string value);
  GitCommand& environment(std::string entry);

  /// Its standard output. What it prints on standard error is shown as the step's.
  /// Throws with the last lines of that when it fails; cancelled.
  std::string run(const sys::Path& directory, const std::vector<std::string>& arguments) const;

 private:
  const sys::Path home_;
  solver::Progress& progress_;
  const std::stop_token stop_;
  std::string protocols_ = "http:https:git:ssh";
  std::map<std::string, std::string> settings_;
  std::vector<std::string> environment_;
};

}  // namespace gantry::buildops
