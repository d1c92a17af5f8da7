#pragma once

#include <memory>

#include "config/load.hpp"

namespace gantry {

/// The daemon: the only place that constructs services and says in which order they recover, start and stop.
class App {
 public:
  /// Opens state and builds every service. Throws Error for what makes a start impossible, with the remedy.
  App(config::ParsedCommandLine command_line, config::LoadResult loaded);
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Recovers, serves until TERM or INT, and leaves the containers running. Returns the exit status.
  int run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry
