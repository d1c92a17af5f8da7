#include "logdriver/sender.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>

#include <poll.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/error.hpp"

namespace gantry::logdriver {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kQueueBytes = 1 << 20;   // what may wait where the container waits, too
constexpr std::size_t kAsyncBytes = 16 << 20;  // and where fluentd-buffer-limit counts messages
constexpr std::size_t kRecordCost = 96;        // of a record, beside its bytes
constexpr std::size_t kReadSize = 64 << 10;
constexpr milliseconds kStartLimit{5000};       // for the first connection
constexpr milliseconds kStuckAtTheEnd{10'000};  // the container has ended and the server takes nothing
constexpr milliseconds kLongestEnd{60'000};
constexpr milliseconds kReportEvery{1000};
constexpr const char* kJournalSocket = "/run/systemd/journal/socket";

std::string own_hostname() {
  utsname name{};
  return ::uname(&name) == 0 ? name.nodename : "localhost";
}

std::unique_ptr<Encoder> make_encoder(const Settings& settings) {
  const std::string driver = settings.get("driver");
  if (driver == "syslog") return make_syslog_encoder(settings, own_hostname(), ::getpid());
  if (driver == "fluentd") return make_fluentd_encoder(settings);
  if (driver == "gelf") return make_gelf_encoder(settings, own_hostname());
  if (driver == "journald") return make_journald_encoder(settings);
  throw Error(Errc::invalid_argument, "logger: no log driver named '" + driver + "' is registered");
}

/// Less than a millisecond is one, because 0 means none.
std::int64_t timeout_of(const Settings& settings, const std::string& key) {
  const std::string text = settings.get(key, "0");
  const std::int64_t ms = logs::parse_duration_ms(text);
  return ms == 0 && text.find_first_of("123456789") != std::string::npos ? 1 : ms;
}

int ms_until(std::chrono::steady_clock::time_point when) {
  const auto left = std::chrono::ceil<milliseconds>(when - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
}

}  // namespace

RetryPolicy retry_policy(const Settings& settings) {
  RetryPolicy policy;
  const std::string driver = settings.get("driver");
  if (driver == "fluentd") {
    policy.first_wait = logs::parse_duration_ms(settings.get("fluentd-retry-wait", "1s"));
    policy.growth = 1.5;
    policy.longest_wait = 60'000;
    policy.connect_limit = 3000;
    policy.write_limit = timeout_of(settings, "fluentd-write-timeout");
    policy.read_limit = timeout_of(settings, "fluentd-read-timeout");
    policy.patient_attempts = settings.number("fluentd-max-retries", INT32_MAX);
    policy.patient_ms = INT64_MAX / 2;
  } else if (driver == "gelf") {
    const long long attempts = settings.number("gelf-tcp-max-reconnect", 3);
    const long long delay = settings.number("gelf-tcp-reconnect-delay", 1) * 1000;
    policy.first_wait = std::max<std::int64_t>(delay, 100);
    policy.patient_attempts = attempts;
    policy.patient_ms = attempts * delay;
  }
  policy.longest_wait = std::max(policy.longest_wait, policy.first_wait);
  return policy;
}

Target make_target(const Settings& settings) {
  Target target;
  const std::string driver = settings.get("driver");
  if (driver == "journald") {
    target.address.scheme = "unixgram";
    target.address.path = kJournalSocket;
  } else if (driver == "fluentd") {
    target.address = logs::parse_address(settings.get("fluentd-address"), "tcp", "24224");
    if (target.address.scheme == "tls") target.tls.emplace();
  } else if (driver == "gelf") {
    target.address = logs::parse_address(settings.get("gelf-address"), "", "12201");
  } else if (settings.get("syslog-address").empty()) {
    target.local_syslog = true;
  } else {
    target.address = logs::parse_address(settings.get("syslog-address"), "", "514");
    if (target.address.scheme == "tcp+tls")
      target.tls = TlsOptions{settings.get("syslog-tls-ca-cert"), settings.get("syslog-tls-cert"),
                              settings.get("syslog-tls-key"), settings.has("syslog-tls-skip-verify")};
  }
  return target;
}

Sender::Sender(const Settings& settings, int shim)
    : settings_(settings),
      shim_(shim),
      drops_(settings.get("drop") == "1"),
      limit_(kQueueBytes),
      max_records_(SIZE_MAX),
      policy_(retry_policy(settings)),
      encoder_(make_encoder(settings)),
      connection_(make_target(settings)) {
  if (drops_) limit_ = static_cast<std::size_t>(settings.number("buffer", kQueueBytes));
  if (drops_ && settings.get("mode") != "non-blocking" && settings.get("driver") == "fluentd") {
    limit_ = kAsyncBytes;
    max_records_ = static_cast<std::size_t>(logs::parse_bytes(settings.get("fluentd-buffer-limit", "1048576")));
  }
}

void Sender::tell(const std::string& line) const {
  (void)!::send(shim_, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool Sender::run() {
  if (!begin()) return false;
  while (!finished()) loop_once();
  report_dropped(true);
  return true;
}

/// Where the container is made to wait, a server that is not there refuses the start, as with Docker.
bool Sender::begin() {
  progress_at_ = lost_at_ = Clock::now();
  if (drops_ || settings_.get("restarted") == "1" || connect_now()) {
    tell("ok");
    return true;
  }
  return false;
}

bool Sender::connect_now() {
  const auto deadline = Clock::now() + kStartLimit;
  std::string failure = "dial " + settings_.get(settings_.get("driver") + "-address") + ": i/o timeout";
  try {
    connection_.open();
    while (connection_.state() == Connection::State::connecting) {
      pollfd entry{connection_.fd(), connection_.wanted(false), 0};
      if (ms_until(deadline) == 0) break;
      if (::poll(&entry, 1, ms_until(deadline)) > 0) connection_.on_ready(entry.revents);
    }
  } catch (const Error& e) {
    failure = e.message();
  }
  if (connection_.state() == Connection::State::open) return true;
  if (settings_.get("driver") == "journald") failure = "journald is not enabled on this host";
  if (settings_.get("driver") == "gelf")
    failure = "gelf: cannot connect to GELF endpoint: " +
              settings_.get("gelf-address").substr(settings_.get("gelf-address").find("://") + 3) + " " + failure;
  tell("error " + failure);
  return false;
}

bool Sender::finished() const {
  if (!input_ended_ || consumed_ < input_.size()) return false;
  if (queue_.empty()) return true;
  const auto now = Clock::now();
  return now >= std::max(progress_at_, ended_at_) + kStuckAtTheEnd || now >= ended_at_ + kLongestEnd;
}

int Sender::timeout_ms() const {
  auto next = Clock::now() + std::chrono::hours(1);
  if (connection_.state() == Connection::State::closed && (!queue_.empty() || !drops_ || failures_ > 0))
    next = std::min(next, next_try_);
  if (connection_.state() == Connection::State::connecting) next = std::min(next, connect_deadline_);
  next = std::min(next, server_deadline_);
  if (dropped_ != reported_) next = std::min(next, report_at_);
  if (input_ended_)
    next = std::min({next, std::max(progress_at_, ended_at_) + kStuckAtTheEnd, ended_at_ + kLongestEnd});
  // The moment at which patience with the server ends frees the container.
  if (!drops_ && full() && connection_.state() != Connection::State::open && policy_.patient_ms < 3'600'000)
    next = std::min(next, std::max(lost_at_ + milliseconds(policy_.patient_ms), Clock::now() + milliseconds(10)));
  return ms_until(next);
}

void Sender::loop_once() {
  using State = Connection::State;
  if (connection_.state() == State::closed && Clock::now() >= next_try_) connect();
  if (connection_.state() == State::open) deliver();
  do {
    process_input();
    if (connection_.state() == State::open) deliver();
    // What was read and had no room has some now, and nothing else would wake us for it.
  } while (consumed_ < input_.size() && !full());
  report_dropped(false);
  if (finished()) return;
  pollfd entries[2] = {{may_read() ? shim_ : -1, POLLIN, 0}, {connection_.fd(), 0, 0}};
  entries[1].events = connection_.wanted(!queue_.empty() && !awaiting_ack_);
  if (::poll(entries, 2, timeout_ms()) < 0 && errno != EINTR) throw Error::from_errno(errno, "poll");
  if (entries[0].revents != 0) read_shim();
  try {
    if (entries[1].revents != 0) connection_.on_ready(entries[1].revents);
    if (connection_.state() == State::connecting && Clock::now() >= connect_deadline_)
      throw Error(Errc::unavailable, "i/o timeout");
    if (awaiting_ack_ && !ack_missing()) return;
    if (Clock::now() >= server_deadline_)
      throw Error(Errc::unavailable, awaiting_ack_ ? "read: i/o timeout" : "write: i/o timeout");
  } catch (const Error& e) {
    lost(e.message());
  }
}

// ---- from the shim

bool Sender::may_read() const { return !input_ended_ && consumed_ == input_.size(); }

void Sender::read_shim() {
  input_.resize(kReadSize);
  const ssize_t got = ::recv(shim_, input_.data(), kReadSize, MSG_DONTWAIT);
  input_.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  consumed_ = 0;
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;
  input_ended_ = true;
  ended_at_ = Clock::now();
  for (const logs::Stream stream : {logs::Stream::out, logs::Stream::err}) flush_carry(stream, last_time_);
}

void Sender::process_input() {
  std::string header;
  while (consumed_ < input_.size()) {
    if (!frame_) {
      // A header may be cut in two by the end of a read.
      if (input_.size() - consumed_ < logs::kPipeHeaderSize) {
        header.assign(input_, consumed_);
        header.resize(logs::kPipeHeaderSize);
        const std::size_t have = input_.size() - consumed_;
        const ssize_t got = ::recv(shim_, header.data() + have, logs::kPipeHeaderSize - have, MSG_WAITALL);
        if (got != static_cast<ssize_t>(logs::kPipeHeaderSize - have)) {
          consumed_ = input_.size();
          return;  // the shim is gone; the next read tells
        }
        consumed_ = input_.size();
        frame_ = logs::decode_pipe_header(header);
      } else {
        frame_ = logs::decode_pipe_header(std::string_view(input_).substr(consumed_));
        consumed_ += logs::kPipeHeaderSize;
      }
      last_time_ = frame_->time;
      if (frame_->gap) flush_carry(frame_->stream, frame_->time);
    }
    if (!process_frame_bytes()) return;
    if (frame_->size == 0) frame_.reset();
  }
}

/// false if the queue is full and the container has to wait.
bool Sender::process_frame_bytes() {
  std::string_view bytes = std::string_view(input_).substr(consumed_);
  bytes = bytes.substr(0, frame_->size);
  LogMessage message;
  while (!bytes.empty()) {
    if (!drops_ && full() && patient()) return false;
    const std::size_t before = bytes.size();
    const bool whole = splitter_.next(frame_->stream, bytes, frame_->time, message);
    consumed_ += before - bytes.size();
    frame_->size -= static_cast<std::uint32_t>(before - bytes.size());
    if (whole) take(message);
  }
  return true;
}

void Sender::flush_carry(logs::Stream stream, Timestamp time) {
  LogMessage message;
  if (splitter_.flush(stream, time, message)) take(message);
}

void Sender::take(const LogMessage& message) {
  if (full()) {
    dropped_ += message.text.size();
    return;
  }
  scratch_.clear();
  encoder_->encode(message, scratch_);
  if (scratch_.empty()) dropped_ += message.text.size();
  for (Record& record : scratch_) {
    queued_ += record.bytes.size() + kRecordCost;
    queue_.push_back(std::move(record));
  }
}

bool Sender::full() const { return queued_ >= limit_ || queue_.size() >= max_records_; }

/// Whether the container waits for the server.
bool Sender::patient() const {
  if (connection_.state() == Connection::State::open) return true;
  return failures_ < policy_.patient_attempts &&
         Clock::now() - lost_at_ < milliseconds(std::min<std::int64_t>(policy_.patient_ms, 1LL << 40));
}

// ---- to the server

void Sender::connect() {
  try {
    connect_deadline_ = Clock::now() + milliseconds(policy_.connect_limit);
    connection_.open();
  } catch (const Error& e) {
    lost(e.message());
  }
}

void Sender::lost(const std::string& why) {
  if (failures_ == 0) {
    lost_at_ = Clock::now();
    tell("log " + settings_.get("driver") + ": " + why);
  }
  connection_.close();
  sent_ = 0;
  awaiting_ack_ = false;
  server_deadline_ = kNever;
  const double wait = static_cast<double>(policy_.first_wait) *
                      std::pow(policy_.growth, static_cast<double>(std::min<long long>(failures_, 40)));
  ++failures_;
  next_try_ =
      Clock::now() + milliseconds(static_cast<std::int64_t>(std::min(wait, static_cast<double>(policy_.longest_wait))));
}

void Sender::deliver() {
  failures_ = 0;
  try {
    while (!queue_.empty() && !awaiting_ack_) {
      const Record& record = queue_.front();
      if (server_deadline_ == kNever) server_deadline_ = deadline_in(policy_.write_limit);
      const std::size_t taken = connection_.send(std::string_view(record.bytes).substr(sent_));
      if (taken == 0) return;
      progress_at_ = Clock::now();
      sent_ += taken;
      if (sent_ < record.bytes.size()) continue;
      if (!record.ack.empty()) {
        awaiting_ack_ = true;
        server_deadline_ = deadline_in(policy_.read_limit);
        return;
      }
      record_done();
    }
  } catch (const Error& e) {
    lost(e.message());
  }
}

/// fluentd answers {"ack": <the record's id>}.
bool Sender::ack_missing() {
  const Record& record = queue_.front();
  if (connection_.received().find(record.ack) == std::string::npos) return true;
  connection_.received().clear();
  awaiting_ack_ = false;
  record_done();
  return false;
}

/// The first record is delivered.
void Sender::record_done() {
  queued_ -= queue_.front().bytes.size() + kRecordCost;
  sent_ = 0;
  server_deadline_ = kNever;
  queue_.pop_front();
}

Sender::Clock::time_point Sender::deadline_in(std::int64_t ms) {
  return ms == 0 ? kNever : Clock::now() + milliseconds(ms);
}

void Sender::report_dropped(bool now) {
  if (dropped_ == reported_ || (!now && Clock::now() < report_at_)) return;
  reported_ = dropped_;
  report_at_ = Clock::now() + kReportEvery;
  tell("dropped " + std::to_string(dropped_));
}

}  // namespace gantry::logdriver
