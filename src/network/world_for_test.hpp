#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <linux/netlink.h>

#include "async/lanes.hpp"
#include "db/sqlite.hpp"
#include "network/networks.hpp"
#include "sys/namespace.hpp"
#include "sys/netlink.hpp"
#include "sys/process.hpp"

/// A host of its own for tests: network and mount namespaces that end with the process.
namespace gantry::network::test {

/// Runs before main(), so that every thread of the process is inside.
inline const bool isolated = [] {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    std::abort();
  sys::NetlinkSocket socket(NETLINK_ROUTE);
  sys::NetlinkBatch batch;
  sys::add_link_change(batch, {.name = "lo", .up = true});
  socket.transact(std::move(batch));
  return true;
}();

inline std::string shell(const std::string& command) {
  sys::SpawnOptions options;
  options.argv = {"/bin/sh", "-c", command};
  options.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  const auto output = sys::run(options, 20);
  return output.stdout_text + output.stderr_text;
}

/// Answers every connection or datagram on a port with "peer=<address>", inside a namespace.
class Server {
 public:
  Server(const sys::Path& netns, int type, std::uint16_t port) : type_(type) {
    auto open = [&] {
      fd_ = sys::Fd(::socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int one = 1;
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
      sockaddr_in6 address{};
      address.sin6_family = AF_INET6;
      address.sin6_port = htons(port);
      if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        throw Error::from_errno(errno, "bind of the test server");
      if (type == SOCK_STREAM) ::listen(fd_.get(), 64);
    };
    if (netns.empty()) open();
    else sys::enter_netns(netns, open);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    stop_ = true;
    thread_.join();
  }

 private:
  static std::string answer(const sockaddr_in6& peer) {
    char text[INET6_ADDRSTRLEN];
    ::inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text);
    std::string ip(text);
    return "peer=" + (ip.rfind("::ffff:", 0) == 0 ? ip.substr(7) : ip);
  }
  void serve() {
    while (!stop_) {
      pollfd wait{fd_.get(), POLLIN, 0};
      if (::poll(&wait, 1, 20) <= 0) continue;
      sockaddr_in6 peer{};
      socklen_t length = sizeof peer;
      if (type_ == SOCK_STREAM) {
        sys::Fd client(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC));
        if (client) {
          const std::string text = answer(peer);
          [[maybe_unused]] auto n = ::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL);
        }
      } else {
        char byte[64];
        if (::recvfrom(fd_.get(), byte, sizeof byte, 0, reinterpret_cast<sockaddr*>(&peer), &length) < 0) continue;
        const std::string text = answer(peer);
        ::sendto(fd_.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&peer), length);
      }
    }
  }
  int type_;
  sys::Fd fd_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// What the server at this address says to a client in `netns` (empty: the host); "" if it cannot be reached.
inline std::string ask(const sys::Path& netns, const std::string& ip, std::uint16_t port, int type = SOCK_STREAM,
                       int timeout_ms = 400) {
  std::string out;
  auto body = [&] {
    const bool v6 = ip.find(':') != std::string::npos;
    sys::Fd fd(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage to{};
    socklen_t length;
    if (v6) {
      auto* address = reinterpret_cast<sockaddr_in6*>(&to);
      address->sin6_family = AF_INET6;
      address->sin6_port = htons(port);
      ::inet_pton(AF_INET6, ip.c_str(), &address->sin6_addr);
      length = sizeof *address;
    } else {
      auto* address = reinterpret_cast<sockaddr_in*>(&to);
      address->sin_family = AF_INET;
      address->sin_port = htons(port);
      ::inet_pton(AF_INET, ip.c_str(), &address->sin_addr);
      length = sizeof *address;
    }
    ::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length);
    if (type == SOCK_DGRAM) ::send(fd.get(), "x", 1, MSG_NOSIGNAL);
    pollfd wait{fd.get(), POLLIN, 0};
    if (::poll(&wait, 1, timeout_ms) <= 0) return;
    char text[128];
    const ssize_t n = ::recv(fd.get(), text, sizeof text, 0);
    if (n > 0) out.assign(text, static_cast<std::size_t>(n));
  };
  if (netns.empty()) body();
  else sys::enter_netns(netns, body);
  return out;
}

/// A Networks with a state of its own in a temporary directory.
class World : public ::testing::Test {
 protected:
  World() {
    char name[] = "/tmp/gantry-network-XXXXXX";
    directory = ::mkdtemp(name);
    options.bridge_name = "gt0";
    options.table_name = "gantry-test";
    options.netns_directory = directory / "netns";
    options.run_directory = directory / "run";
    options.names_directory = directory / "names";
    db = std::make_unique<db::Db>(directory / "state.db");
    restart();
  }
  ~World() override {
    if (networks) run(networks->stop());
    networks.reset();
    if (std::filesystem::exists(options.netns_directory))
      for (const auto& name : sys::list_directory(options.netns_directory))
        sys::remove_netns(options.netns_directory / name);
    // The host is the whole process's: the next test must not find this one's networks on it.
    shell("for bridge in $(ip -o link show type bridge | cut -d: -f2); do ip link del $bridge; done");
    shell("nft delete table ip gantry-test; nft delete table ip6 gantry-test");
    std::filesystem::remove_all(directory);
  }

  /// As if the daemon had been killed and started again.
  void restart() {
    if (networks) run(networks->stop());
    networks.reset();
    events.clear();
    networks = std::make_unique<Networks>(options, *db, lanes, loop.get_executor(),
                                          [this](const NetworkEvent& event) { events.push_back(event); });
  }

  template <class T>
  T run(Task<T> task) {
    std::exception_ptr failure;
    std::optional<T> value;
    bool done = false;
    boost::asio::co_spawn(loop, std::move(task), [&](std::exception_ptr e, T result) {
      failure = e;
      if (!e) value.emplace(std::move(result));
      done = true;
    });
    spin([&] { return done; });
    if (failure) std::rethrow_exception(failure);
    return std::move(*value);
  }
  void run(Task<void> task) {
    std::exception_ptr failure;
    bool done = false;
    boost::asio::co_spawn(loop, std::move(task), [&](std::exception_ptr e) {
      failure = e;
      done = true;
    });
    spin([&] { return done; });
    if (failure) std::rethrow_exception(failure);
  }
  /// Runs the loop until `done`, at most ten seconds.
  template <class Done>
  bool spin(Done done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done() && std::chrono::steady_clock::now() < end) {
      loop.restart();
      loop.run_one_for(std::chrono::milliseconds(10));
    }
    return done();
  }

  RecoverReport recover(std::set<std::string> running = {}) { return run(networks->recover(std::move(running))); }

  AttachRequest request(const std::string& id, const std::string& mode = "bridge") {
    AttachRequest out;
    out.container_id = id + std::string(64 - id.size(), '0');
    out.name = id;
    out.hostname = out.container_id.substr(0, 12);
    out.network_mode = mode;
    out.container_directory = directory / ("files-" + id);
    sys::make_directories(out.container_directory);
    return out;
  }
  AttachResult attach(AttachRequest request) { return run(networks->attach(std::move(request))); }
  void detach(const std::string& id) { run(networks->detach(id)); }
  std::string failure_of(AttachRequest request) {
    try {
      attach(std::move(request));
    } catch (const Error& e) {
      return e.message();
    }
    return "no failure";
  }

  /// A machine on the same wire: 10.200.0.2, with a route to every container network through us (10.200.0.1).
  sys::Path add_neighbour() {
    const sys::Path path = directory / "neighbour";
    if (sys::is_netns(path)) return path;
    sys::create_netns(path, {});
    sys::Fd netns = sys::open_file(path, 0);
    sys::NetlinkSocket host(NETLINK_ROUTE);
    sys::NetlinkBatch batch;
    sys::VethSpec veth;
    veth.outer_name = "wire0";
    veth.inner_name = "wire1";
    veth.netns_fd = netns.get();
    sys::add_veth(batch, veth);
    host.transact(std::move(batch));
    auto set_up = [](const std::string& name, const std::string& address, const std::string& gateway) {
      sys::NetlinkSocket socket(NETLINK_ROUTE);
      const int index = sys::find_link(socket, name)->index;
      sys::NetlinkBatch changes;
      sys::add_address(changes, index, IpAddress::parse(address).bytes(), 24);
      sys::add_link_change(changes, {.index = index, .up = true});
      if (!gateway.empty()) sys::add_default_route(changes, index, AF_INET, IpAddress::parse(gateway).bytes());
      socket.transact(std::move(changes));
    };
    set_up("wire0", "10.200.0.1", "");
    sys::enter_netns(path, [&] { set_up("wire1", "10.200.0.2", "10.200.0.1"); });
    return path;
  }
  void remove_neighbour() {
    shell("ip link del wire0");
    sys::remove_netns(directory / "neighbour");
  }

  sys::Path directory;
  Options options;
  std::unique_ptr<db::Db> db;
  boost::asio::io_context loop;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> busy{loop.get_executor()};
  async::Lanes lanes;
  std::vector<NetworkEvent> events;
  std::unique_ptr<Networks> networks;
};

}  // namespace gantry::network::test
