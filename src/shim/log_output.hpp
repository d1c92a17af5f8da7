#pragma once

#include <functional>
#include <memory>
#include <string>

#include "logs/compressor.hpp"
#include "protocol/types.hpp"
#include "shim/log_sender.hpp"

namespace gantry::shim {

/// Where the container's output is logged: a file, a server, or both, the file being what `docker logs` reads then.
/// Where the container must never wait for its log, the file is written by a process of its own.
class LogOutput {
 public:
  LogOutput(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config);

  void append(logs::Stream stream, std::string_view bytes, Timestamp now);
  void finish(Timestamp now);
  void release_memory();
  /// The container has to wait for the server.
  bool blocked() const noexcept { return sender_ && sender_->blocked(); }
  /// After the end: something is on its way to a server or being compressed.
  bool busy() const noexcept;
  /// The file is written by a process that has not done with it, which after the end means: it is not complete yet.
  bool writing() const noexcept { return file_process_ && file_process_->running(); }
  /// Called when blocked() or writing() may have become false.
  void on_change(std::function<void()> action) { changed_ = std::move(action); }
  /// See LogSender. Without a server: at once.
  void when_ready(std::function<void(const std::string& failure)> action);
  /// Null if nothing is written here.
  logs::Writer* file() noexcept { return file_.get(); }
  std::uint64_t dropped_bytes() const noexcept;

 private:
  std::unique_ptr<LogSender> start_sender(Loop& loop, Reaper& reaper, LogSender::Options options);

  std::function<void()> changed_;
  std::unique_ptr<logs::Writer> file_;
  std::unique_ptr<logs::Compressor> compressor_;
  std::unique_ptr<LogSender> file_process_;  // instead of file_
  std::unique_ptr<LogSender> sender_;
};

}  // namespace gantry::shim
