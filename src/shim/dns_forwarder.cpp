#include "shim/dns_forwarder.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/random.h>

#include "shim/dns_wire.hpp"

namespace gantry::shim::dns {
namespace {

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr auto kSilence = std::chrono::seconds(10);
constexpr std::size_t kMaxSilent = 16;

// One for all: the shim has one thread.
char* buffer() {
  static char bytes[kMaxMessage];
  return bytes;
}

}  // namespace

std::uint64_t random_number() {
  std::uint64_t out = 0;
  while (::getrandom(&out, sizeof out, 0) < 0 && errno == EINTR) {
  }
  return out;
}

bool Forwarder::forward(std::string_view query, bool tcp, const std::vector<Upstream>& servers, Done done) {
  if (pending_.size() >= kMaxPending) return false;
  auto pending = std::make_unique<Pending>();
  pending->client_id =
      static_cast<std::uint16_t>(static_cast<unsigned char>(query[0]) << 8 | static_cast<unsigned char>(query[1]));
  pending->tcp = tcp;
  std::string message(query);
  set_id(message, static_cast<std::uint16_t>(random_number()));
  if (tcp) pending->query = {static_cast<char>(message.size() >> 8), static_cast<char>(message.size() & 0xff)};
  pending->query += message;
  const auto now = Clock::now();
  const auto is_silent = [&](const Upstream& server) {
    const auto it = silent_until_.find(server.address);
    return it != silent_until_.end() && it->second > now;
  };
  for (const bool silent : {false, true})
    std::ranges::copy_if(servers, std::back_inserter(pending->servers),
                         [&](const Upstream& server) { return is_silent(server) == silent; });
  pending->done = std::move(done);
  const std::uint64_t id = next_id_++;
  pending_[id] = std::move(pending);
  if (!timer_.pending()) timer_ = loop_.after(kTick, [this] { tick(); });
  ask_next(id);
  return true;
}

void Forwarder::ask_next(std::uint64_t id) {
  Pending& pending = *pending_.at(id);
  pending.watch.reset();
  pending.socket.reset();
  pending.received.clear();
  pending.sent = 0;
  while (pending.next < pending.servers.size()) {
    const Upstream& server = pending.servers[pending.next++];
    if (ask(id, pending, server)) return;
    note_failure(server);
  }
  finish(id, {});
}

bool Forwarder::ask(std::uint64_t id, Pending& pending, const Upstream& server) {
  pending.socket = connect_to(network_, server, pending.tcp);
  if (!pending.socket) return false;
  if (!pending.tcp &&
      ::send(pending.socket.get(), pending.query.data(), pending.query.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return false;
  pending.deadline = Clock::now() + (pending.next < pending.servers.size() ? kPatience : kLastPatience);
  if (pending.tcp) {
    pending.watch =
        loop_.watch(pending.socket.get(), EPOLLOUT, [this, id](std::uint32_t events) { on_stream(id, events); });
  } else {
    pending.watch = loop_.watch(pending.socket.get(), EPOLLIN, [this, id](std::uint32_t) { on_datagram(id); });
  }
  return true;
}

void Forwarder::on_datagram(std::uint64_t id) {
  Pending& pending = *pending_.at(id);
  const ssize_t got = ::recv(pending.socket.get(), buffer(), kMaxMessage, MSG_DONTWAIT);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    note_failure(pending.servers[pending.next - 1]);  // nobody listens there
    return ask_next(id);
  }
  take(id, {buffer(), static_cast<std::size_t>(got)});
}

void Forwarder::on_stream(std::uint64_t id, std::uint32_t events) {
  Pending& pending = *pending_.at(id);
  const auto failed = [&] {
    note_failure(pending.servers[pending.next - 1]);
    ask_next(id);
  };
  if (pending.sent < pending.query.size()) {
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) return failed();
    const ssize_t sent = ::send(pending.socket.get(), pending.query.data() + pending.sent,
                                pending.query.size() - pending.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) return failed();
    pending.sent += static_cast<std::size_t>(sent);
    if (pending.sent == pending.query.size()) pending.watch.change(EPOLLIN);
    return;
  }
  const ssize_t got = ::recv(pending.socket.get(), buffer(), kMaxMessage, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return failed();
  std::string& received = pending.received;
  received.append(buffer(), static_cast<std::size_t>(got));
  if (received.size() < 2) return;
  const std::size_t length =
      static_cast<std::size_t>(static_cast<unsigned char>(received[0])) << 8 | static_cast<unsigned char>(received[1]);
  if (received.size() < 2 + length) return;
  const std::string answer = received.substr(2, length);
  received.erase(0, 2 + length);
  take(id, answer);
}

/// Something that came from the server that was asked.
void Forwarder::take(std::uint64_t id, std::string_view answer) {
  Pending& pending = *pending_.at(id);
  if (!is_answer_to(answer, pending.message())) return;  // a forgery, or an answer to an earlier question
  const std::uint8_t code = rcode_of(answer);
  if (code == static_cast<std::uint8_t>(Rcode::server_failure) || code == static_cast<std::uint8_t>(Rcode::refused))
    return ask_next(id);
  std::string own(answer);
  set_id(own, pending.client_id);
  finish(id, own);
}

void Forwarder::finish(std::uint64_t id, std::string_view answer) {
  const std::unique_ptr<Pending> pending = std::move(pending_.at(id));
  pending_.erase(id);
  pending->done(answer);
}

void Forwarder::note_failure(const Upstream& server) {
  if (silent_until_.size() >= kMaxSilent) silent_until_.clear();
  silent_until_[server.address] = Clock::now() + kSilence;
}

void Forwarder::tick() {
  const auto now = Clock::now();
  std::vector<std::uint64_t> late;
  for (const auto& [id, pending] : pending_)
    if (pending->deadline <= now) late.push_back(id);
  for (const std::uint64_t id : late) {
    const auto it = pending_.find(id);
    if (it == pending_.end()) continue;
    note_failure(it->second->servers[it->second->next - 1]);
    ask_next(id);
  }
  if (!pending_.empty()) timer_ = loop_.after(kTick, [this] { tick(); });
}

}  // namespace gantry::shim::dns
