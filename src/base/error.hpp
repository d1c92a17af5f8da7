#pragma once

#include <concepts>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

namespace gantry {

/// What went wrong, in the terms that decide the reply. `api/http_error.cpp` maps each to one HTTP status.
enum class Errc {
  invalid_argument,  // the request cannot be right whatever the state is
  not_found,
  conflict,      // the request is fine, the state of the object is not
  not_modified,  // already in the wanted state
  unauthorized,
  forbidden,
  unavailable,  // may work later
  not_implemented,
  cancelled,
  timed_out,
  corrupted,  // stored data is not what was stored
  internal,
};

std::string_view errc_name(Errc code) noexcept;

/// The only exception type that our code throws.
///
/// A message of the 4xx kinds belongs to the user: it is final, because clients match it. A message of the other
/// kinds grows on its way up (`add_context`), so that it tells which step of which verb broke.
class Error : public std::exception {
 public:
  Error(Errc code, std::string message, std::source_location where = std::source_location::current());

  /// The error that the kernel reported. `err` is an errno value; read it before anything can change it.
  /// ENOENT becomes not_found, EEXIST conflict, EPERM and EACCES forbidden, anything else internal.
  static Error from_errno(int err, std::string_view what, std::source_location where = std::source_location::current());

  const char* what() const noexcept override { return message_.c_str(); }
  const std::string& message() const noexcept { return message_; }
  Errc code() const noexcept { return code_; }
  /// The errno value that caused it, or 0.
  int sys_errno() const noexcept { return errno_; }

  /// Puts "context: " in front of the message if this kind of message grows; does nothing otherwise.
  void add_context(std::string_view context);
  /// Puts "context: " in front whatever the kind. For texts that Docker itself prefixes.
  void prefix(std::string_view context);

  /// For the log: message, kind, and the place that threw it.
  std::string log_detail() const;

 private:
  Errc code_;
  int errno_ = 0;
  std::string message_;
  std::source_location where_;
};

/// Runs `body`; an Error that leaves it carries `context` (see Error::add_context).
template <std::invocable F>
decltype(auto) with_context(std::string_view context, F&& body) {
  try {
    return std::forward<F>(body)();
  } catch (Error& e) {
    e.add_context(context);
    throw;
  }
}

}  // namespace gantry
