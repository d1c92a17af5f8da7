#include "shim/attach_client.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shim/stdio.hpp"

namespace gantry::shim {
namespace {

/// What a full pipe may still hold when the process ends, and a little.
constexpr std::size_t kDrainRoom = 4 << 20;

}  // namespace

AttachClient::AttachClient(Loop& loop, Stdio& stdio, sys::Fd socket, protocol::AttachRequest request, bool raw,
                           std::string first_output, std::string first_input)
    : stdio_(stdio),
      loop_(loop),
      request_(std::move(request)),
      raw_(raw),
      socket_(std::move(socket)),
      queue_(std::move(first_output)),
      first_input_(std::move(first_input)) {
  watch_ = loop_.watch(socket_.get(), 0, [this](std::uint32_t events) { on_event(events); });
  flush();
  input_ready();
}

void AttachClient::output(logs::Stream stream, std::string_view bytes) {
  if (dead() || finishing_) return;
  if (!(stream == logs::Stream::err ? request_.use_stderr : request_.use_stdout)) return;
  while (!bytes.empty() && !dead()) {
    const std::string_view piece = bytes.substr(0, protocol::kMaxStreamPiece);
    bytes.remove_prefix(piece.size());
    unsigned char header[protocol::kStreamHeaderSize];
    std::size_t done = 0;
    const std::size_t header_size = raw_ ? 0 : sizeof header;
    protocol::encode_stream_header(header, static_cast<int>(stream), static_cast<std::uint32_t>(piece.size()));
    if (queued() == 0) {
      iovec parts[2] = {{header, header_size}, {const_cast<char*>(piece.data()), piece.size()}};
      msghdr message{};
      message.msg_iov = raw_ ? parts + 1 : parts;
      message.msg_iovlen = raw_ ? 1 : 2;
      const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return close();
      done = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
    }
    if (done < header_size) enqueue({reinterpret_cast<char*>(header) + done, header_size - done});
    const std::size_t from_piece = done > header_size ? done - header_size : 0;
    if (from_piece < piece.size()) enqueue(piece.substr(from_piece));
  }
  judge_queue();
}

void AttachClient::enqueue(std::string_view bytes) {
  if (sent_ > queue_.size() / 2) {
    queue_.erase(0, sent_);
    sent_ = 0;
  }
  queue_ += bytes;
}

void AttachClient::flush() {
  while (queued() > 0) {
    const ssize_t sent = ::send(socket_.get(), queue_.data() + sent_, queued(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return close();
    sent_ += static_cast<std::size_t>(sent);
  }
  if (queued() == 0) {
    queue_ = std::string();
    sent_ = 0;
    if (finishing_) return close();
  }
  judge_queue();
}

/// Decides whether the process has to wait for this client, and whether it has waited enough.
void AttachClient::judge_queue() {
  if (dead()) return;
  const std::size_t bound = request_.queue_bytes + (draining_ ? kDrainRoom : 0);
  if (queued() > bound && (request_.patience_ms == 0 || draining_)) return close();
  if (!full_ && queued() > request_.queue_bytes) {
    full_ = true;
    patience_ = loop_.after(std::chrono::milliseconds(request_.patience_ms), [this] { close(); });
    stdio_.client_changed();
  } else if (full_ && queued() <= request_.queue_bytes / 2) {
    full_ = false;
    if (!finishing_) patience_.reset();
    stdio_.client_changed();
  }
  update_watch();
}

void AttachClient::finish() {
  if (dead() || finishing_) return;
  finishing_ = true;
  if (queued() == 0) return close();
  // Its last chance begins now, however much is left.
  const auto patience = std::chrono::milliseconds(std::max<std::uint64_t>(request_.patience_ms, 1000));
  patience_ = loop_.after(patience, [this] { close(); });
  update_watch();
}

void AttachClient::close() {
  if (dead()) return;
  watch_.reset();
  patience_.reset();
  socket_.reset();
  queue_ = std::string();
  sent_ = 0;
  if (std::exchange(input_open_, false)) stdio_.client_input_ended(*this);
  stdio_.client_changed();
}

void AttachClient::input_ready() {
  if (dead()) return;
  if (!first_input_.empty() && stdio_.takes_input()) stdio_.input(std::exchange(first_input_, {}), *this);
  update_watch();
}

void AttachClient::update_watch() {
  if (dead()) return;
  const bool blocked = request_.use_stdin && !stdio_.takes_input();
  if (blocked && hung_up_) return watch_.change(Watch::kOff);  // the hang-up would be reported over and over
  std::uint32_t events = 0;
  if (input_open_ && !blocked) events |= EPOLLIN;
  if (queued() > 0) events |= EPOLLOUT;
  watch_.change(events);
}

void AttachClient::on_event(std::uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) hung_up_ = true;
  if (!hung_up_ && (events & EPOLLOUT) != 0) flush();
  if (dead()) return;
  const bool blocked = request_.use_stdin && !stdio_.takes_input();
  if (input_open_ && !blocked && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_input();
  // What a client sent before it went away still belongs to the process.
  if (!dead() && hung_up_ && !input_open_) close();
  update_watch();
}

void AttachClient::read_input() {
  char buffer[32 << 10];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return input_ended();
  if (request_.use_stdin) stdio_.input(std::string(buffer, static_cast<std::size_t>(got)), *this);
}

void AttachClient::input_ended() {
  input_open_ = false;
  stdio_.client_input_ended(*this);
}

}  // namespace gantry::shim
