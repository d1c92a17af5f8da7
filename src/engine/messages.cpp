#include "engine/messages.hpp"

#include <fmt/format.h>

#include "base/text.hpp"

namespace gantry::engine {

Error no_such_container(std::string_view reference) {
  return {Errc::not_found, fmt::format("No such container: {}", reference)};
}

Error name_in_use(std::string_view name, std::string_view holder_id) {
  return {Errc::conflict,
          fmt::format("Conflict. The container name {} is already in use by container {}. You have to remove (or "
                      "rename) that container to be able to reuse that name.",
                      quote("/" + std::string(name)), quote(holder_id))};
}

Error invalid_container_name(std::string_view name) {
  return {Errc::invalid_argument,
          fmt::format("Invalid container name ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)};
}

Error container_not_running(std::string_view id) {
  return {Errc::conflict, fmt::format("container {} is not running", id)};
}

Error container_already_paused(std::string_view id) {
  return {Errc::conflict, fmt::format("Container {} is already paused", id)};
}

Error container_not_paused(std::string_view id) {
  return {Errc::internal, fmt::format("Container {} is not paused", id)};
}

Error container_is_restarting(std::string_view id) {
  return {Errc::conflict, fmt::format("Container {} is restarting, wait until the container is running", id)};
}

Error no_such_exec(std::string_view id) { return {Errc::not_found, fmt::format("No such exec instance: {}", id)}; }

Error container_is_paused(std::string_view reference) {
  return {Errc::conflict, fmt::format("Container {} is paused, unpause the container before exec", reference)};
}

namespace {

/// What the runtime would have said, in the words that the docker CLI searches for (engine-api.md §2.1).
std::string runtime_words(const protocol::RuntimeFailure& failure, std::string_view program) {
  using protocol::FailureKind;
  const bool first_process = failure.stage != protocol::Stage::exec;
  const std::string exec =
      fmt::format("unable to start container process: {}exec: {}", first_process ? "error during container init: " : "",
                  quote(failure.path.empty() ? std::string(program) : failure.path));
  switch (failure.kind) {
    case FailureKind::executable_not_found:
      return program.find('/') == std::string_view::npos
                 ? exec + ": executable file not found in $PATH"
                 : fmt::format("{}: stat {}: no such file or directory", exec, program);
    case FailureKind::permission_denied: return exec + ": permission denied";
    case FailureKind::is_directory: return exec + ": is a directory: permission denied";
    case FailureKind::no_such_file:
    case FailureKind::not_directory:
    case FailureKind::timed_out:
    case FailureKind::other: return failure.message;
  }
  return failure.message;
}

}  // namespace

StartFailure render_start_failure(const protocol::RuntimeFailure& failure, std::string_view program) {
  using protocol::FailureKind;
  std::string text =
      "failed to create task for container: failed to create shim task: OCI runtime create failed: runc "
      "create failed: " +
      runtime_words(failure, program);
  switch (failure.kind) {
    case FailureKind::executable_not_found:
    case FailureKind::no_such_file: return {127, {Errc::invalid_argument, std::move(text)}};
    case FailureKind::permission_denied:
    case FailureKind::is_directory: return {126, {Errc::invalid_argument, std::move(text)}};
    case FailureKind::not_directory:
      text +=
          ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path "
          "exists and is the expected type";
      return {127, {Errc::invalid_argument, std::move(text)}};
    case FailureKind::timed_out:
    case FailureKind::other: return {128, {Errc::internal, std::move(text)}};
  }
  return {128, {Errc::internal, std::move(text)}};
}

StartFailure render_exec_failure(const protocol::RuntimeFailure& failure, std::string_view program) {
  using protocol::FailureKind;
  std::string words = runtime_words(failure, program);
  if (!words.starts_with("exec failed: ")) words.insert(0, "exec failed: ");
  std::string text = "OCI runtime exec failed: " + words + ": unknown";
  switch (failure.kind) {
    case FailureKind::executable_not_found:
    case FailureKind::no_such_file:
    case FailureKind::not_directory: return {127, {Errc::invalid_argument, std::move(text)}};
    case FailureKind::permission_denied:
    case FailureKind::is_directory: return {126, {Errc::invalid_argument, std::move(text)}};
    case FailureKind::timed_out:
    case FailureKind::other: return {126, {Errc::internal, std::move(text)}};
  }
  return {126, {Errc::internal, std::move(text)}};
}

}  // namespace gantry::engine
