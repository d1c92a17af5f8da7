#include "logdriver/file_log.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "logdriver/compress.hpp"

namespace gantry::logdriver {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kReadSize = 256 << 10;
constexpr milliseconds kReportEvery{1000};
constexpr int kSilence = 1000;  // ms; then memory is given back

logs::WriterOptions options_of(const Settings& settings) {
  return {static_cast<std::uint64_t>(settings.number("max_size")),
          static_cast<std::uint32_t>(settings.number("max_file", 1))};
}

}  // namespace

FileLog::FileLog(const Settings& settings, int shim)
    : shim_(shim),
      writer_(settings.get("path"), options_of(settings), settings.get("attrs")),
      compress_(settings.flag("compress")) {
  if (!compress_) return;
  compressor_.emplace(writer_, [this](int from, int to, std::function<void(bool)> done) {
    begin_compression(from, to, std::move(done));
  });
}

void FileLog::tell(const std::string& line) const {
  (void)!::send(shim_, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void FileLog::run() {
  bool active = false;
  while (!ended_) {
    pollfd entries[2] = {{shim_, POLLIN, 0}, {child_.pidfd.get(), POLLIN, 0}};
    const int ready = ::poll(entries, 2, active || writer_.dropped_bytes() != reported_ ? kSilence : -1);
    if (ready < 0 && errno != EINTR) throw Error::from_errno(errno, "poll");
    if (ready == 0) writer_.release_memory();
    active = ready > 0 && entries[0].revents != 0;
    if (ready > 0 && entries[1].revents != 0) end_compression();
    if (active) read_shim();
    report_dropped(false);
  }
  writer_.finish(last_time_);
  report_dropped(true);
  // The shim counts the log as complete now; nobody waits for the rest.
  ::close(shim_);
  while (child_.pid > 0) end_compression();
}

void FileLog::read_shim() {
  std::string input(kReadSize, '\0');
  const ssize_t got = ::recv(shim_, input.data(), input.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) ended_ = true;
  else take(std::string_view(input).substr(0, static_cast<std::size_t>(got)));
}

void FileLog::take(std::string_view bytes) {
  while (!bytes.empty()) {
    if (frame_.size == 0) {
      const std::size_t part = std::min(bytes.size(), logs::kPipeHeaderSize - header_.size());
      header_.append(bytes.substr(0, part));
      bytes.remove_prefix(part);
      if (header_.size() < logs::kPipeHeaderSize) return;
      frame_ = logs::decode_pipe_header(header_);
      header_.clear();
      last_time_ = frame_.time;
      if (frame_.gap) end_line(frame_.stream, frame_.time);
      continue;
    }
    const std::string_view piece = bytes.substr(0, frame_.size);
    writer_.append(frame_.stream, piece, frame_.time);
    in_line_[frame_.stream == logs::Stream::err ? 1 : 0] = piece.back() != '\n';
    frame_.size -= static_cast<std::uint32_t>(piece.size());
    bytes.remove_prefix(piece.size());
  }
}

/// The rest of a line was dropped: the next one must not become its end.
void FileLog::end_line(logs::Stream stream, Timestamp time) {
  if (std::exchange(in_line_[stream == logs::Stream::err ? 1 : 0], false)) writer_.append(stream, "\n", time);
}

void FileLog::begin_compression(int from, int to, std::function<void(bool)> done) {
  const pid_t pid = ::fork();
  if (pid < 0) throw Error::from_errno(errno, "fork");
  if (pid == 0) {
    ::close(shim_);  // its end is the end of the log
    (void)::setpriority(PRIO_PROCESS, 0, 15);
    try {
      compress_file(from, to);
      ::_exit(0);
    } catch (const Error&) {
      ::_exit(1);
    }
  }
  child_.pid = pid;
  child_.pidfd = sys::open_pidfd(pid);
  compressed_ = std::move(done);
}

/// Waits for it. What is done then may begin the next one.
void FileLog::end_compression() {
  int status = 0;
  while (::waitpid(child_.pid, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = {};
  std::exchange(compressed_, nullptr)(status == 0);
}

void FileLog::report_dropped(bool now) {
  const std::uint64_t dropped = writer_.dropped_bytes();
  if (dropped == reported_ || (!now && Clock::now() < report_at_)) return;
  reported_ = dropped;
  report_at_ = Clock::now() + kReportEvery;
  tell("dropped " + std::to_string(dropped));
}

}  // namespace gantry::logdriver
