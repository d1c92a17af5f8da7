#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <gtest/gtest.h>

#include "api/router.hpp"
#include "api/server.hpp"
#include "base/error.hpp"
#include "sys/fd.hpp"

/// For tests: a server on a loop of its own thread, and a client that sees every byte.
namespace gantry::api {

class TestDirectory {
 public:
  TestDirectory() {
    char name[] = "/tmp/gantry-api-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~TestDirectory() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class TestServer {
 public:
  explicit TestServer(std::function<void(Router&)> routes, std::function<void(ServerOptions&)> tune = {}) {
    options_.hosts = {"unix://" + socket_path()};
    options_.engine_version = "28.0.0";
    options_.socket_group.clear();
    if (tune) tune(options_);
    routes(router_);
    server_ = std::make_unique<Server>(loop_.get_executor(), router_, options_);
    server_->start();
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~TestServer() {
    stop(std::chrono::milliseconds(50));
    work_.reset();
    thread_.join();
  }
  std::string socket_path() const { return directory_.file("docker.sock"); }
  Server& server() { return *server_; }

  /// Runs `f` on the loop and waits for it.
  template <class F>
  auto on_loop(F f) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto result = task.get_future();
    boost::asio::post(loop_, std::move(task));
    return result.get();
  }
  void stop(std::chrono::milliseconds grace) {
    std::promise<void> done;
    boost::asio::co_spawn(loop_, server_->stop(grace), [&](std::exception_ptr) { done.set_value(); });
    done.get_future().wait();
  }
  /// Waits until `condition`, evaluated on the loop, holds. False after ten seconds.
  bool eventually(std::function<bool()> condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < until) {
      if (on_loop(condition)) return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  TestDirectory directory_;
  boost::asio::io_context loop_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{loop_.get_executor()};
  Router router_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

/// A blocking socket; every read gives up after ten seconds.
class TestClient {
 public:
  explicit TestClient(const TestServer& server) : TestClient(server.socket_path()) {}
  explicit TestClient(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    connect_to(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  explicit TestClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect_to(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  /// What one recv(2) gives; empty at the end.
  std::string receive_some() {
    char buffer[65536];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
  }
  /// Reads until `end` has been seen; what follows it stays for the next call.
  std::string receive_until(const std::string& end) {
    std::size_t at;
    while ((at = seen_.find(end)) == std::string::npos) {
      const std::string more = receive_some();
      if (more.empty()) return std::exchange(seen_, {});
      seen_ += more;
    }
    std::string out = seen_.substr(0, at + end.size());
    seen_.erase(0, at + end.size());
    return out;
  }
  std::string receive_exactly(std::size_t size) {
    while (seen_.size() < size) {
      const std::string more = receive_some();
      if (more.empty()) break;
      seen_ += more;
    }
    std::string out = seen_.substr(0, size);
    seen_.erase(0, out.size());
    return out;
  }
  std::string receive_all() {
    for (std::string more; !(more = receive_some()).empty();) seen_ += more;
    return std::exchange(seen_, {});
  }
  /// A reply with a Content-Length, whole.
  std::string receive_reply() {
    std::string head = receive_until("\r\n\r\n");
    const std::size_t at = head.find("Content-Length: ");
    return at == std::string::npos ? head : head + receive_exactly(std::stoul(head.substr(at + 16)));
  }
  void half_close() { ::shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }
  int fd() const { return fd_.get(); }

 private:
  void connect_to(const sockaddr* address, socklen_t size) {
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(fd_.get(), address, size) != 0) throw Error::from_errno(errno, "connect");
  }
  sys::Fd fd_;
  std::string seen_;
};

inline std::string get_request(const std::string& target, const std::string& more = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: docker\r\n" + more + "\r\n";
}

inline std::string post_request(const std::string& target, const std::string& body, const std::string& more = "") {
  return "POST " + target + " HTTP/1.1\r\nHost: docker\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         more + "\r\n" + body;
}

}  // namespace gantry::api
