#include "shim/relay.hpp"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/error.hpp"
#include "shim/relay_state.hpp"

namespace gantry::shim {

SocketAddress SocketAddress::parse(const std::string& ip, std::uint16_t port) {
  SocketAddress out;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (::inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    out.length = sizeof *v4;
  } else if (::inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    out.length = sizeof *v6;
  } else {
    throw Error(Errc::invalid_argument, "relay target is not an address: " + ip);
  }
  return out;
}

Relay::State::State(std::vector<RelayPort> wanted) : epoll(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll) throw Error::from_errno(errno, "creating the relay's epoll");
  clock = std::make_unique<Clock>(*this);
  watch(clock->timer.get(), EPOLLIN, clock.get());
  for (RelayPort& port : wanted) {
    if (!port.serve) {
      held.push_back(std::move(port.socket));
      continue;
    }
    const bool udp = port.proto == "udp";
    const int fd = port.socket.get();
    std::unique_ptr<RelayItem> item;
    if (udp) item = std::make_unique<UdpPort>(*this, std::move(port));
    else item = std::make_unique<Listener>(*this, std::move(port));
    watch(fd, EPOLLIN, item.get());
    // From here on clients are answered. There is no filter if a test or an older gantryd set none.
    const int unused = 0;
    if (::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused) != 0 && errno != ENOENT)
      throw Error::from_errno(errno, "opening a published port");
    ports.push_back(std::move(item));
  }
}

Relay::State::~State() = default;

void Relay::State::watch(int fd, std::uint32_t events, RelayItem* item) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = item;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    throw Error::from_errno(errno, "watching a relay socket");
}

void Relay::State::forget(int fd) noexcept { ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd, nullptr); }

void Relay::State::pause_accepting() {
  if (paused) return;
  paused = true;
  for (auto& item : ports)
    if (auto* listener = dynamic_cast<Listener*>(item.get())) forget(listener->socket.get());
  clock->arm(std::chrono::seconds(1));
}

void Relay::State::resume_accepting() {
  if (!paused || connections.size() >= kMaxConnections) return;
  paused = false;
  for (auto& item : ports)
    if (auto* listener = dynamic_cast<Listener*>(item.get())) watch(listener->socket.get(), EPOLLIN, listener);
}

void Relay::State::retire(std::shared_ptr<void> item) { retired.push_back(std::move(item)); }

void Relay::State::drop(Connection* connection) {
  auto it = connections.find(connection);
  if (it == connections.end()) return;
  unfinished.erase(connection);
  connection->client.retired = connection->server.retired = true;
  retire(std::move(it->second));
  connections.erase(it);
}

void Relay::State::drop(UdpClient* client) {
  client->port.clients.erase(client->key);
  std::unique_ptr<UdpClient> owned = std::move(*client->place);
  udp_clients.erase(owned->place);
  owned->retired = true;
  retire(std::move(owned));
}

void Relay::State::expire_udp_clients() {
  const auto limit = std::chrono::steady_clock::now() - kUdpIdle;
  while (!udp_clients.empty() && udp_clients.front()->last < limit) drop(udp_clients.front().get());
}

void Relay::State::run_again(Connection* connection) {
  unfinished.insert(connection);
  clock->arm(std::chrono::milliseconds(0));
}

void Relay::State::wait_and_run() {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll.get(), events, 64, 0);
  for (int i = 0; i < count; ++i) {
    auto* item = static_cast<RelayItem*>(events[i].data.ptr);
    if (!item->retired) item->ready(events[i].events);
  }
  retired.clear();
  resume_accepting();
}

Relay::State::Clock::Clock(State& owner)
    : state(owner), timer(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  if (!timer) throw Error::from_errno(errno, "creating the relay's timer");
}

void Relay::State::Clock::arm(std::chrono::milliseconds delay) {
  itimerspec when{};
  when.it_value.tv_sec = delay.count() / 1000;
  when.it_value.tv_nsec = std::max<long>(1, delay.count() % 1000 * 1000000);  // 0 would disarm it
  ::timerfd_settime(timer.get(), 0, &when, nullptr);
  armed = true;
}

void Relay::State::Clock::ready(std::uint32_t) {
  std::uint64_t expirations;
  if (::read(timer.get(), &expirations, sizeof expirations) < 0) return;
  armed = false;
  const std::set<Connection*> again = std::exchange(state.unfinished, {});
  for (Connection* connection : again)
    if (state.connections.contains(connection)) connection->carry();
  state.expire_udp_clients();
  state.resume_accepting();
  const bool wanted = !state.udp_clients.empty() || state.paused;
  if (wanted && !armed) arm(state.paused ? std::chrono::seconds(1) : std::chrono::seconds(10));
}

Relay::Relay(std::vector<RelayPort> ports) : state_(std::make_unique<State>(std::move(ports))) {}
Relay::~Relay() = default;
int Relay::fd() const noexcept { return state_->epoll.get(); }
void Relay::on_ready() { state_->wait_and_run(); }
std::size_t Relay::connections() const noexcept { return state_->connections.size(); }
std::size_t Relay::udp_clients() const noexcept { return state_->udp_clients.size(); }

void Relay::retarget(const std::string& target_ip) {
  for (auto& item : state_->ports) {
    auto* listener = dynamic_cast<State::Listener*>(item.get());
    SocketAddress& target = listener != nullptr ? listener->target : static_cast<State::UdpPort*>(item.get())->target;
    // sin_port and sin6_port lie at the same place.
    const auto port = ntohs(reinterpret_cast<const sockaddr_in*>(&target.storage)->sin_port);
    SocketAddress next = SocketAddress::parse(target_ip, port);
    if (next.storage.ss_family == target.storage.ss_family) target = next;
  }
}

}  // namespace gantry::shim
