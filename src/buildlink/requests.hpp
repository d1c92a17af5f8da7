#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "protocol/build_link.hpp"
#include "sys/fd.hpp"

namespace gantry::buildlink {

struct Answer {
  std::string text;  // JSON
  sys::Fd fd;
};

/// The worker's end of the requests' socket: any number of threads ask, one reads the answers.
class Requests {
 public:
  using Figures = std::function<void(const std::string& json)>;

  /// `gone` is called once, from the reading thread, when the daemon closes its end.
  Requests(sys::Fd socket, std::function<void()> gone);
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  /// Blocks until the daemon has answered. `figures` is called from the reading thread. When `stop` is requested the
  /// daemon is told, and what it then answers is waited for, because it may have been done by then.
  /// Throws what the daemon answers; unavailable when it is gone.
  Answer call(const std::string& method, std::string params, std::stop_token stop, Figures figures);
  /// Asks for something without an answer. Nothing happens if the daemon is gone.
  void notify(const std::string& method, std::string params);

 private:
  struct Call {
    Figures figures;
    protocol::LinkFrame reply;
    sys::Fd fd;
    bool done = false;
    std::condition_variable changed;
  };
  void send(const protocol::LinkFrame& frame);
  void read_answers();
  bool read_exactly(char* to, std::size_t size, sys::Fd* fd);
  void take(protocol::LinkFrame frame, sys::Fd fd);
  void end_all();

  sys::Fd socket_;
  std::function<void()> gone_;
  std::mutex sending_;
  std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<Call>> calls_;
  std::uint64_t last_ = 0;
  bool closed_ = false;
  std::thread reader_;
};

}  // namespace gantry::buildlink
