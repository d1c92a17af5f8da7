#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "shim/container.hpp"
#include "shim/dns_server.hpp"
#include "shim/loop.hpp"
#include "sys/file.hpp"

namespace gantry::shim {

/// The shim's socket: takes connections, decodes requests, sends answers.
///
/// A connection that violates the protocol, or does not take its answers, is closed; nothing else suffers from it.
class Server {
 public:
  /// `release_ports` closes the sockets of published ports: the next run of the container wants them.
  Server(Loop& loop, Container& container, dns::NameServer& names, sys::Path socket,
         std::function<void()> release_ports);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// What is done when published ports are to lead to another address of the container's.
  void on_retarget(std::function<void(const std::string& ip)> retarget) { retarget_ = std::move(retarget); }

  // For Reply.
  void send(std::uint64_t connection, const protocol::Message& message);
  bool has(std::uint64_t connection) const { return connections_.contains(connection); }

 private:
  struct Connection {
    sys::Fd fd;
    Watch watch;
    protocol::Decoder decoder;
    std::string output;
    bool closing = false;  // after the output
  };

  void accept_all();
  void accept_waiting();
  void on_event(std::uint64_t id, std::uint32_t events);
  void read_from(std::uint64_t id);
  void flush(std::uint64_t id);
  void close(std::uint64_t id);
  void handle(std::uint64_t id, const protocol::Message& request);
  void dispatch(const protocol::Message& request, const Reply& reply);
  void dispatch_log(const protocol::Message& request, const Reply& reply);
  void dispatch_exec(const protocol::Message& request, const Reply& reply);
  void hello(const Reply& reply);
  void attach(const protocol::Message& request, const Reply& reply);
  void kill(const protocol::Message& request, const Reply& reply);
  void shutdown(const Reply& reply);
  void stop_when_quiet(int attempts);

  Loop& loop_;
  Container& container_;
  dns::NameServer& names_;
  sys::Path socket_;
  std::function<void()> release_ports_;
  std::function<void(const std::string&)> retarget_ = [](const std::string&) {};
  sys::Fd listener_;
  Watch watch_;
  Timer accept_again_;
  Timer stop_;
  std::uint64_t next_id_ = 1;
  std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;
};

}  // namespace gantry::shim
