#include "shim/stdio.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>

#include <fcntl.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::shim {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kDrainLimit{2000};
constexpr milliseconds kFlushLimit{1000};
/// What Docker waits for a logger to end; then what is not written comes later, or not at all.
constexpr milliseconds kLogLimit{10'000};
constexpr milliseconds kSilence{1000};
/// Fewer, larger reads for processes that print a lot. The kernel takes the pages only when they are filled.
constexpr int kPipeSize = 1 << 20;

struct Pipe {
  sys::Fd read_end;
  sys::Fd write_end;
};

Pipe make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) throw Error::from_errno(errno, "pipe");
  return {sys::Fd(fds[0]), sys::Fd(fds[1])};
}

void set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) throw Error::from_errno(errno, "set O_NONBLOCK");
}

}  // namespace

void ReadBuffer::Free::operator()(char* p) const noexcept { std::free(p); }

char* ReadBuffer::get() {
  if (!memory_) memory_.reset(static_cast<char*>(std::malloc(kSize)));
  if (!memory_) throw std::bad_alloc();
  return memory_.get();
}

Stdio::Stdio(Loop& loop, ReadBuffer& buffer, StdioOptions options, LogOutput* log)
    : loop_(loop), buffer_(buffer), options_(options), log_(log) {
  input_gone_ = !options_.open_stdin;
  if (log_ != nullptr) log_->on_change([this] { client_changed(); });
}

Stdio::~Stdio() {
  if (log_ != nullptr) log_->on_change({});
}

Stdio::ChildEnds Stdio::open_pipes() {
  ChildEnds ends;
  if (options_.open_stdin) {
    Pipe in = make_pipe();
    set_nonblocking(in.write_end.get());
    input_ = std::move(in.write_end);
    ends.in = std::move(in.read_end);
    input_watch_ = loop_.watch(input_.get(), Watch::kOff, [this](std::uint32_t) { write_input(); });
  }
  for (const logs::Stream stream : {logs::Stream::out, logs::Stream::err}) {
    Pipe pipe = make_pipe();
    set_nonblocking(pipe.read_end.get());
    (stream == logs::Stream::out ? ends.out : ends.err) = std::move(pipe.write_end);
    add_source(std::move(pipe.read_end), stream);
  }
  return ends;
}

void Stdio::set_console(sys::Fd master) {
  set_nonblocking(master.get());
  console_ = std::move(master);
  if (wanted_size_.rows != 0 || wanted_size_.columns != 0) sys::set_terminal_size(console_.get(), wanted_size_);
  if (options_.open_stdin) {
    input_ = console_.duplicate();
    input_watch_ = loop_.watch(input_.get(), Watch::kOff, [this](std::uint32_t) { write_input(); });
  }
  add_source(console_.duplicate(), logs::Stream::out);
}

void Stdio::add_source(sys::Fd fd, logs::Stream stream) {
  auto source = std::make_unique<Source>();
  Source* const raw = source.get();
  source->fd = std::move(fd);
  source->stream = stream;
  source->watch = loop_.watch(raw->fd.get(), Watch::kOff, [this, raw](std::uint32_t) { on_readable(*raw); });
  sources_.push_back(std::move(source));
}

void Stdio::begin() {
  begun_ = true;
  pause_sources(paused_);
  settle();
}

void Stdio::attach(sys::Fd socket, protocol::AttachRequest request, std::string first_output, std::string first_input) {
  request.use_stdin = request.use_stdin && options_.open_stdin;
  clients_.push_back(std::make_unique<AttachClient>(loop_, *this, std::move(socket), std::move(request), options_.tty,
                                                    std::move(first_output), std::move(first_input)));
  if (ending_) clients_.back()->finish();
}

std::uint32_t Stdio::attached() const noexcept {
  return static_cast<std::uint32_t>(
      std::count_if(clients_.begin(), clients_.end(), [](const auto& client) { return !client->dead(); }));
}

bool Stdio::resize(sys::TerminalSize size) {
  if (!options_.tty) return false;
  wanted_size_ = size;
  if (console_) sys::set_terminal_size(console_.get(), size);
  return true;
}

// ---- output

void Stdio::on_readable(Source& source) {
  if (read_once(source) != Read::end) return;
  std::erase_if(sources_, [&source](const auto& other) { return other.get() == &source; });
  if (ending_ && sources_.empty()) drained();
}

Stdio::Read Stdio::read_once(Source& source) {
  char* const memory = buffer_.get();
  const ssize_t got = ::read(source.fd.get(), memory, ReadBuffer::kSize);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Read::nothing;
  // EIO: every process that had the terminal open is gone.
  if (got <= 0) return Read::end;
  const auto size = static_cast<std::size_t>(got);
  // A process that fills its pipe is worth a larger one; it fails harmlessly at the user's pipe limit.
  if (!options_.tty && size >= (48 << 10)) (void)::fcntl(source.fd.get(), F_SETPIPE_SZ, kPipeSize);
  deliver(source.stream, {memory, size});
  return Read::some;
}

void Stdio::deliver(logs::Stream stream, std::string_view bytes) {
  if (log_ != nullptr) {
    log_->append(stream, bytes, now());
    if (log_->blocked()) client_changed();
  }
  for (const auto& client : clients_) client->output(stream, bytes);
  active_ = true;
  if (!silence_.pending()) forget_memory_when_silent();
}

void Stdio::forget_memory_when_silent() {
  active_ = false;
  silence_ = loop_.after(kSilence, [this] {
    if (active_) return forget_memory_when_silent();
    buffer_.release();
    if (log_ != nullptr) log_->release_memory();
  });
}

void Stdio::pause_sources(bool pause) {
  paused_ = pause;
  if (!begun_) return;
  for (const auto& source : sources_) source->watch.change(pause ? Watch::kOff : EPOLLIN);
}

void Stdio::client_changed() {
  // Later: the caller is one of the clients that settle() may destroy.
  if (!settle_.pending()) settle_ = loop_.after(milliseconds(0), [this] { settle(); });
}

void Stdio::settle() {
  std::erase_if(clients_, [](const auto& client) { return client->dead(); });
  const bool slow_log = log_ != nullptr && log_->blocked();
  const bool wait =
      !ending_ && (slow_log || std::any_of(clients_.begin(), clients_.end(), [](const auto& c) { return c->full(); }));
  if (wait != paused_) pause_sources(wait);
  for (const auto& client : clients_) client->input_ready();
  if (!drained_called_) return;
  const bool log_done = log_ == nullptr || !log_->writing();
  if (flushed_ && log_done && (clients_.empty() || clients_late_)) flushed();
  if (idle_ && clients_.empty()) idle_();  // may destroy this
}

// ---- input

bool Stdio::takes_input() const noexcept { return input_gone_ || input_closing_ || (input_ && pending_input_.empty()); }

void Stdio::input(std::string bytes, AttachClient&) {
  if (input_gone_ || input_closing_) return;
  pending_input_ += bytes;
  write_input();
}

void Stdio::write_input() {
  while (!pending_input_.empty() && input_) {
    const ssize_t wrote = ::write(input_.get(), pending_input_.data(), pending_input_.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) break;
    if (wrote <= 0) return input_broken();
    pending_input_.erase(0, static_cast<std::size_t>(wrote));
  }
  if (!input_) return;
  if (pending_input_.empty() && input_closing_) return input_broken();
  input_watch_.change(pending_input_.empty() ? Watch::kOff : EPOLLOUT);
  if (pending_input_.empty()) client_changed();
}

/// Nothing more goes in: it was closed as asked, or the process has closed its end.
void Stdio::input_broken() {
  input_watch_.reset();
  input_.reset();
  pending_input_ = std::string();
  input_gone_ = true;
  client_changed();
}

void Stdio::close_stdin() {
  if (input_gone_ || options_.tty) return;
  input_closing_ = true;
  write_input();
}

void Stdio::client_input_ended(AttachClient& client) {
  if (!client.uses_stdin()) return;
  if (options_.stdin_once && !options_.tty) close_stdin();
  else client.finish();
}

// ---- the end

void Stdio::end(std::function<void()> drained_action, std::function<void()> flushed_action) {
  ending_ = true;
  drained_ = std::move(drained_action);
  flushed_ = std::move(flushed_action);
  input_broken();
  if (!begun_) sources_.clear();
  for (const auto& client : clients_) client->accept_last_output();
  pause_sources(false);
  limit_ = loop_.after(kDrainLimit, [this] {
    sources_.clear();
    drained();
  });
  drain_now();
}

/// Mostly everything is there already and the streams are at their ends: no need to go through the loop for it.
void Stdio::drain_now() {
  for (const auto& source : sources_) {
    for (int i = 0; i < 64; ++i) {
      const Read result = read_once(*source);
      if (result == Read::some) continue;
      if (result == Read::end) {
        source->watch.reset();
        source->fd.reset();
      }
      break;
    }
  }
  std::erase_if(sources_, [](const auto& source) { return !source->fd; });
  if (sources_.empty()) drained();
}

void Stdio::drained() {
  if (std::exchange(drained_called_, true)) return;
  console_.reset();
  if (log_ != nullptr) log_->finish(now());
  if (drained_) std::exchange(drained_, nullptr)();
  for (const auto& client : clients_) client->finish();
  limit_ = loop_.after(kFlushLimit, [this] { flush_limit(); });
  client_changed();
}

void Stdio::flush_limit() {
  if (log_ == nullptr || !log_->writing()) return flushed();
  clients_late_ = true;
  limit_ = loop_.after(kLogLimit - kFlushLimit, [this] { flushed(); });
}

void Stdio::flushed() {
  limit_.reset();
  buffer_.release();
  if (flushed_) std::exchange(flushed_, nullptr)();
}

}  // namespace gantry::shim
