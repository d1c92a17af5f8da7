#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sys/process.hpp"

namespace gantry::buildops {

/// What a program is run with beside its own options.
struct ProgramHooks {
  /// What it prints: stream 1 or 2. Called on the caller's thread.
  std::function<void(int stream, std::string_view bytes)> output;
  /// Called after a stop, again and again until the program has ended, with how long that has taken. Empty: its whole
  /// session is killed.
  std::function<void(const sys::Child& child, std::chrono::milliseconds since)> kill;
};

/// Runs a program to its end, its standard input empty, its output piped. Returns the exit status, 128 + n after a
/// signal. Output that others keep coming after the end is waited for a second.
/// Blocks. Throws Error if it cannot be started; cancelled after a stop, when it has ended.
int run_program(sys::SpawnOptions options, const ProgramHooks& hooks, std::stop_token stop);

/// The variables of our own environment with these names that are set, as "NAME=value".
std::vector<std::string> own_environment(const std::vector<std::string>& names);

}  // namespace gantry::buildops
