#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "buildlink/link.hpp"

namespace gantry::builder {

/// The reply to a classic build: JSON objects, a line each (buildkit.md §1.4). Thread-safe. Writing throws cancelled
/// when the client has gone.
class ClassicStream {
 public:
  /// `quiet`: text is kept back, and shown only if the build fails.
  ClassicStream(buildlink::Exchange& exchange, bool quiet) : exchange_(exchange), quiet_(quiet) {}

  void text(std::string_view text);
  /// What a command wrote to its standard error.
  void error_text(std::string_view text);
  void aux(const std::string& image_id);
  void pull_status(const std::string& id, const std::string& status, std::int64_t current, std::int64_t total);
  /// The last line of a quiet build.
  void result(const std::string& image_id);
  /// The last line of a build that failed. `code` is the client's exit status; 0: it is not told.
  void failure(const std::string& message, int code);

 private:
  void send(std::string line);
  std::mutex mutex_;
  buildlink::Exchange& exchange_;
  const bool quiet_;
  std::string kept_;  // of a quiet build
};

}  // namespace gantry::builder
