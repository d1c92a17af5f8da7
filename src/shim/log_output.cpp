#include "shim/log_output.hpp"

namespace gantry::shim {

LogOutput::LogOutput(Loop& loop, Reaper& reaper, const protocol::ShimConfig& config) {
  if (!config.log_path.empty())
    file_ = std::make_unique<logs::Writer>(
        config.log_path, logs::WriterOptions{config.log.max_size, config.log.max_file}, config.log_attrs);
  if (file_ && config.log_compress && !config.log_program.empty())
    compressor_ = std::make_unique<LogCompressor>(reaper, config.log_program, *file_);
  if (!config.log_settings.empty())
    sender_ = std::make_unique<LogSender>(
        loop, reaper, LogSender::Options{config.log_program, config.log_settings, config.log_drops}, [this] {
          if (changed_) changed_();
        });
}

void LogOutput::append(logs::Stream stream, std::string_view bytes, Timestamp now) {
  if (file_) file_->append(stream, bytes, now);
  if (sender_) sender_->send(stream, bytes, now);
}

void LogOutput::finish(Timestamp now) {
  if (file_) file_->finish(now);
  if (sender_) sender_->finish();
}

void LogOutput::release_memory() {
  if (file_) file_->release_memory();
}

void LogOutput::when_ready(std::function<void(const std::string&)> action) {
  if (sender_) sender_->when_ready(std::move(action));
  else action("");
}

std::uint64_t LogOutput::dropped_bytes() const noexcept {
  return (file_ ? file_->dropped_bytes() : 0) + (sender_ ? sender_->dropped_bytes() : 0);
}

}  // namespace gantry::shim
