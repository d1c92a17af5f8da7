#include "shim/dns_server.hpp"

#include <algorithm>
#include <cerrno>

#include <arpa/inet.h>
#include <netinet/in.h>

namespace gantry::shim::dns {
namespace {

constexpr int kDatagramsPerRound = 64;

char* buffer() {
  static char bytes[kMaxMessage];
  return bytes;
}

std::string address_bytes(std::string_view text) {
  const std::string copy(text);
  char bytes[16];
  const bool v6 = copy.find(':') != std::string::npos;
  if (::inet_pton(v6 ? AF_INET6 : AF_INET, copy.c_str(), bytes) != 1) return {};
  return {bytes, v6 ? 16u : 4u};
}

}  // namespace

void NameServer::serve(const sys::Path& netns, const sys::Path& names) {
  if (serving()) return;
  network_.emplace(netns);
  names_.emplace(names);
  forwarder_.emplace(loop_, *network_);
  listeners_ = listen_in(*network_);
  udp_watch_ = loop_.watch(listeners_->udp.get(), EPOLLIN, [this](std::uint32_t) { on_datagrams(); });
  tcp_watch_ = loop_.watch(listeners_->tcp.get(), EPOLLIN, [this](std::uint32_t) { accept_clients(); });
}

// ---- datagrams

void NameServer::on_datagrams() {
  for (int i = 0; i < kDatagramsPerRound; ++i) {
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t got = ::recvfrom(listeners_->udp.get(), buffer(), kMaxMessage, MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return;
    answer({buffer(), static_cast<std::size_t>(got)}, false, [this, from](std::string_view bytes) {
      // A client that does not take it asks again.
      (void)!::sendto(listeners_->udp.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                      reinterpret_cast<const sockaddr*>(&from), sizeof from);
    });
  }
}

// ---- connections

void NameServer::accept_clients() {
  for (;;) {
    if (clients_.size() >= kMaxClients) return tcp_watch_.change(Watch::kOff);  // the others wait in the kernel's queue
    sys::Fd fd(::accept4(listeners_->tcp.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      // Out of descriptors: a client that ends makes room. Without one, drop the pace instead of spinning.
      if ((errno == EMFILE || errno == ENFILE) && !clients_.empty()) tcp_watch_.change(Watch::kOff);
      return;
    }
    const std::uint64_t id = next_client_++;
    auto client = std::make_unique<Client>();
    client->fd = std::move(fd);
    client->idle = loop_.after(kIdle, [this, id] { close_client(id); });
    client->watch = loop_.watch(client->fd.get(), EPOLLIN, [this, id](std::uint32_t events) { on_client(id, events); });
    clients_[id] = std::move(client);
  }
}

void NameServer::close_client(std::uint64_t id) {
  clients_.erase(id);
  tcp_watch_.change(EPOLLIN);
}

void NameServer::on_client(std::uint64_t id, std::uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return close_client(id);
  if ((events & EPOLLOUT) != 0) return flush_client(id);
  if ((events & EPOLLIN) != 0) read_client(id);
}

void NameServer::read_client(std::uint64_t id) {
  Client& client = *clients_.at(id);
  const ssize_t got = ::recv(client.fd.get(), buffer(), kMaxMessage, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close_client(id);
  client.input.append(buffer(), static_cast<std::size_t>(got));
  next_question(id);
}

/// One at a time; while one is being answered nothing is read, so that the input stays small.
void NameServer::next_question(std::uint64_t id) {
  Client& client = *clients_.at(id);
  if (client.busy || !client.output.empty()) return;
  const auto byte = [&](std::size_t at) {
    return static_cast<std::size_t>(static_cast<unsigned char>(client.input[at]));
  };
  const std::size_t length = client.input.size() < 2 ? kMaxMessage : byte(0) << 8 | byte(1);
  if (client.input.size() < 2 || client.input.size() < 2 + length) return client.watch.change(EPOLLIN);
  const std::string message = client.input.substr(2, length);
  client.input.erase(0, 2 + length);
  client.busy = true;
  client.watch.change(0);
  client.idle = loop_.after(kIdle + Forwarder::kLastPatience, [this, id] { close_client(id); });
  answer(message, true, [this, id](std::string_view bytes) { send_to_client(id, bytes); });
}

void NameServer::send_to_client(std::uint64_t id, std::string_view bytes) {
  const auto it = clients_.find(id);
  if (it == clients_.end()) return;
  Client& client = *it->second;
  client.busy = false;
  client.output = {static_cast<char>(bytes.size() >> 8), static_cast<char>(bytes.size() & 0xff)};
  client.output += bytes;
  client.idle = loop_.after(kIdle, [this, id] { close_client(id); });
  // Not from here: this may be inside the call that asked.
  client.watch.change(EPOLLOUT);
}

void NameServer::flush_client(std::uint64_t id) {
  Client& client = *clients_.at(id);
  const ssize_t sent = ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (sent < 0) return close_client(id);
  client.output.erase(0, static_cast<std::size_t>(sent));
  if (client.output.empty()) next_question(id);
}

// ---- questions

void NameServer::answer(std::string_view message, bool tcp, Send send) {
  const ParsedQuery parsed = parse_query(message);
  if (parsed.verdict == Verdict::ignore) return;
  if (parsed.verdict == Verdict::bad) return send(render_failure(message, parsed.failure));
  const Query& query = parsed.query;
  if (query.question_class != kClassIn) return send(render_failure(message, Rcode::refused));
  if (const auto own = answer_here(query, query.limit(tcp))) return send(*own);
  pass_on(message, query, tcp, std::move(send));
}

std::optional<std::string> NameServer::answer_here(const Query& query, std::size_t limit) {
  if (query.name.empty()) return std::nullopt;
  if (query.type == kTypePtr) {
    const auto address = reverse_address(query.name);
    const std::string owner = address ? names_->find_owner(*address) : std::string();
    if (owner.empty()) return std::nullopt;
    Answer answer(query, limit);
    answer.add_name(owner);
    return answer.finish();
  }
  const bool wants_address = query.type == kTypeA || query.type == kTypeAaaa;
  const int family = query.type == kTypeA ? AF_INET : query.type == kTypeAaaa ? AF_INET6 : AF_UNSPEC;
  Names::Found found = names_->find(query.name, family);
  const bool single = query.name.find('.') == std::string::npos;
  if (!found.known && !(wants_address && single && names_->keeps_single_labels())) return std::nullopt;
  return render_addresses(query, limit, std::move(found.addresses));
}

std::string NameServer::render_addresses(const Query& query, std::size_t limit,
                                         std::vector<std::string_view> addresses) {
  // Each client gets another one first.
  if (addresses.size() > 1) {
    std::uint64_t state = random_number() | 1;
    for (std::size_t i = addresses.size() - 1; i > 0; --i) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      std::swap(addresses[i], addresses[state % (i + 1)]);
    }
  }
  Answer answer(query, limit);
  for (const std::string_view address : addresses) {
    const std::string bytes = address_bytes(address);
    if (!bytes.empty() && !answer.add_address(bytes)) break;
  }
  return answer.finish();
}

void NameServer::pass_on(std::string_view message, const Query& query, bool tcp, Send send) {
  const std::string failed = render_failure(message, Rcode::server_failure);
  const std::vector<Upstream> servers = names_->upstreams();
  if (servers.empty()) return send(failed);
  const bool accepted =
      forwarder_->forward(message, tcp, servers, [send, failed, limit = query.limit(tcp)](std::string_view answer) {
        if (answer.empty()) return send(failed);
        if (answer.size() > limit) return send(truncated(answer));
        send(answer);
      });
  if (!accepted) send(render_failure(message, Rcode::refused));
}

}  // namespace gantry::shim::dns
