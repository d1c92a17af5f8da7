#include "shim/log_output.hpp"

#include "sys/process.hpp"

namespace gantry::shim {
namespace {

/// In a process of its own (gantry-log): neither the writer nor the container's other traffic waits for it.
logs::Compressor::Start in_a_process(Reaper& reaper, const std::string& program) {
  return [&reaper, program](int from, int to, const std::function<void(bool)>& done) {
    sys::SpawnOptions spawn;
    spawn.argv = {program, "compress"};
    spawn.stdin_fd = from;
    spawn.stdout_fd = to;
    spawn.directory = "/";
    const Reaper::Hold hold(reaper);
    reaper.expect(sys::spawn(spawn).pid, [done](int status, std::int64_t) { done(status == 0); });
  };
}

/// For `gantry-log write`: see logdriver/file_log.hpp.
std::vector<std::string> file_settings(const protocol::ShimConfig& config) {
  return {"path=" + config.log_path, "max_size=" + std::to_string(config.log.max_size),
          "max_file=" + std::to_string(config.log.max_file), "attrs=" + config.log_attrs,
          std::string("compress=") + (config.log_compress ? "1" : "0")};
}

}  // namespace

LogOutput::LogOutput(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config) {
  const bool helper = !config.log_program.empty();
  if (!config.log_path.empty() && config.log_buffer > 0 && helper) {
    LogSender::Options options{config.log_program, "write", file_settings(config)};
    options.drops = true;
    options.room = config.log_buffer;
    file_process_ = start_sender(loop, reaper, std::move(options));
  } else if (!config.log_path.empty()) {
    file_ = std::make_unique<logs::Writer>(
        config.log_path, logs::WriterOptions{config.log.max_size, config.log.max_file}, config.log_attrs);
    if (config.log_compress && helper)
      compressor_ = std::make_unique<logs::Compressor>(*file_, in_a_process(reaper, config.log_program));
  }
  if (config.log_settings.empty()) return;
  LogSender::Options options{config.log_program, "send", config.log_settings};
  options.drops = config.log_drops;
  sender_ = start_sender(loop, reaper, std::move(options));
}

std::unique_ptr<LogSender> LogOutput::start_sender(Loop& loop, Reaper& reaper, LogSender::Options options) {
  return std::make_unique<LogSender>(loop, reaper, std::move(options), [this] {
    if (changed_) changed_();
  });
}

void LogOutput::append(logs::Stream stream, std::string_view bytes, Timestamp now) {
  if (file_) file_->append(stream, bytes, now);
  if (file_process_) file_process_->send(stream, bytes, now);
  if (sender_) sender_->send(stream, bytes, now);
}

void LogOutput::finish(Timestamp now) {
  if (file_) file_->finish(now);
  if (file_process_) file_process_->finish();
  if (sender_) sender_->finish();
}

void LogOutput::release_memory() {
  if (file_) file_->release_memory();
}

bool LogOutput::busy() const noexcept {
  return (sender_ && sender_->busy()) || (file_process_ && file_process_->busy()) ||
         (compressor_ && compressor_->busy());
}

void LogOutput::when_ready(std::function<void(const std::string&)> action) {
  if (sender_) sender_->when_ready(std::move(action));
  else if (file_process_) file_process_->when_ready(std::move(action));
  else action("");
}

std::uint64_t LogOutput::dropped_bytes() const noexcept {
  return (file_ ? file_->dropped_bytes() : 0) + (file_process_ ? file_process_->dropped_bytes() : 0) +
         (sender_ ? sender_->dropped_bytes() : 0);
}

}  // namespace gantry::shim
