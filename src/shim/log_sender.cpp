#include "shim/log_sender.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include <sys/socket.h>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "shim/runtime_command.hpp"
#include "sys/process.hpp"

namespace gantry::shim {
namespace {

using std::chrono::milliseconds;

/// The last output of a container that has ended is taken even while the process is busy: it is little.
constexpr std::size_t kDrainRoom = 8 << 20;
constexpr std::size_t kLargestFrame = 64 << 10;
constexpr unsigned kLongestWait = 30;  // seconds before it is started again

std::vector<std::string> environment() {
  std::vector<std::string> env;
  if (const char* zone = std::getenv("TZ")) env.push_back(std::string("TZ=") + zone);
  return env;
}

}  // namespace

LogSender::LogSender(Loop& loop, Reaper& reaper, Options options, std::function<void()> changed)
    : loop_(loop), reaper_(reaper), options_(std::move(options)), changed_(std::move(changed)) {
  start();
}

void LogSender::start() {
  try {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw Error::from_errno(errno, "socketpair");
    socket_ = sys::Fd(ends[0]);
    const sys::Fd theirs(ends[1]);
    std::string text;
    for (const std::string& pair : options_.settings) text.append(pair) += '\0';
    if (restarts_ > 0) text.append("restarted=1") += '\0';
    const sys::Fd settings = text_file(text);
    sys::SpawnOptions spawn;
    spawn.argv = {options_.program, options_.verb};
    spawn.env = environment();
    spawn.stdin_fd = settings.get();
    spawn.directory = "/";  // it may live longer than our directory and what that is mounted on
    spawn.pass_fds = {theirs.get()};
    (void)sys::spawn(spawn);  // the reaper takes it when it ends, which its socket tells us
    watch_ = loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t events) { on_event(events); });
  } catch (const Error& e) {
    socket_.reset();
    log::error("log driver: {}", e.message());
    if (known_) return ended();
    settle(e.message());
  }
}

void LogSender::settle(const std::string& failure) {
  known_ = true;
  failure_ = failure;
  for (const auto& action : std::exchange(waiting_, {})) action(failure_);
}

void LogSender::when_ready(std::function<void(const std::string&)> action) {
  if (known_) return action(failure_);
  waiting_.push_back(std::move(action));
}

void LogSender::on_event(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if (socket_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_lines();
}

void LogSender::read_lines() {
  char buffer[1024];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return ended();
  lines_.append(buffer, static_cast<std::size_t>(got));
  std::size_t end = 0;
  while ((end = lines_.find('\n')) != std::string::npos) {
    const std::string line = lines_.substr(0, end);
    lines_.erase(0, end + 1);
    if (line == "ok" && !known_) settle("");
    else if (line.starts_with("error ") && !known_) settle(line.substr(6));
    else if (line.starts_with("log ")) log::warning("log driver: {}", line.substr(4));
    else if (line.starts_with("dropped "))
      told_dropped_ = static_cast<std::uint64_t>(parse_int(line.substr(8)).value_or(0));
  }
  if (lines_.size() > (64 << 10)) lines_.clear();
}

/// The process has ended, or cannot be started.
void LogSender::ended() {
  watch_.reset();
  socket_.reset();
  dropped_ += pending_.size() - sent_;
  for (Line& line : streams_) line = {false, line.skipping || line.open, true};
  pending_ = std::string();
  sent_ = 0;
  dropped_ += std::exchange(told_dropped_, 0);
  if (!known_) return settle("the log driver's process has ended");
  if (!failure_.empty() || finishing_) return changed_();
  const unsigned wait = restarts_ == 0 ? 0 : std::min(1u << std::min(restarts_ - 1, 8u), kLongestWait);
  ++restarts_;
  again_ = loop_.after(std::chrono::seconds(wait), [this] { start(); });
  changed_();
}

bool LogSender::has_room() const noexcept {
  const std::size_t room = options_.drops ? options_.room : kDrainRoom;
  return socket_ && !finishing_ && (pending_.empty() || pending_.size() - sent_ < room);
}

/// How much of a piece goes on its way: of what does not fit, the end of a line that was begun.
std::size_t LogSender::to_take(const Line& line, std::string_view piece) const {
  if (has_room()) return line.skipping ? 0 : piece.size();
  if (!line.open || !socket_ || finishing_) return 0;
  return piece.substr(0, logs::kMaxLine).find('\n') + 1;
}

void LogSender::drop(Line& line, std::string_view piece) {
  dropped_ += piece.size();
  line = {false, piece.back() != '\n', true};
}

void LogSender::send(logs::Stream stream, std::string_view bytes, Timestamp now) {
  Line& line = streams_[stream == logs::Stream::err ? 1 : 0];
  while (!bytes.empty()) {
    std::string_view piece = bytes.substr(0, kLargestFrame);
    if (const std::size_t taken = to_take(line, piece); taken > 0) {
      piece = piece.substr(0, taken);
      logs::PipeHeader header;
      header.size = static_cast<std::uint32_t>(piece.size());
      header.stream = stream;
      header.gap = std::exchange(line.gap, false);
      header.time = now;
      line.open = piece.back() != '\n';
      send_frame(header, piece);
    } else {
      // A line whose beginning was dropped is not taken up in its middle.
      if (const std::size_t end = piece.find('\n'); has_room() && end != std::string_view::npos)
        piece = piece.substr(0, end + 1);
      drop(line, piece);
    }
    bytes.remove_prefix(piece.size());
  }
}

void LogSender::send_frame(const logs::PipeHeader& header, std::string_view piece) {
  const auto head = logs::encode_pipe_header(header);
  ssize_t sent = 0;
  if (pending_.empty()) {
    iovec parts[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(piece.data()), piece.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    sent = std::max<ssize_t>(::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL), 0);
  }
  const auto taken = static_cast<std::size_t>(sent);
  if (taken == head.size() + piece.size()) return;
  if (taken < head.size()) pending_.append(head.data() + taken, head.size() - taken);
  pending_.append(piece.substr(taken < head.size() ? 0 : taken - head.size()));
  watch_.change(EPOLLIN | EPOLLOUT);
}

void LogSender::flush() {
  while (sent_ < pending_.size()) {
    const ssize_t sent =
        ::send(socket_.get(), pending_.data() + sent_, pending_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      // Moving the rest costs at most as much as was sent.
      if (sent_ >= pending_.size() - sent_) pending_.erase(0, std::exchange(sent_, 0));
      return;
    }
    if (sent <= 0) return ended();
    sent_ += static_cast<std::size_t>(sent);
  }
  pending_ = std::string();
  sent_ = 0;
  watch_.change(EPOLLIN);
  if (finishing_) (void)::shutdown(socket_.get(), SHUT_WR);
  changed_();
}

void LogSender::finish() {
  finishing_ = true;
  if (socket_ && pending_.empty()) (void)::shutdown(socket_.get(), SHUT_WR);
}

}  // namespace gantry::shim
