#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "sys/fd.hpp"

namespace gantry::session {

/// Tells when connections end that a library owns and says nothing about: it looks at a second descriptor of each
/// (POLLRDHUP). Thread-safe.
class ConnectionWatch {
 public:
  ConnectionWatch();
  /// Forgets all without calling back.
  ~ConnectionWatch();
  ConnectionWatch(const ConnectionWatch&) = delete;
  ConnectionWatch& operator=(const ConnectionWatch&) = delete;

  /// Calls `ended` once, in the watch's thread, when the peer of `connection` has closed it or the connection broke.
  void add(const sys::Fd& connection, std::function<void()> ended);
  /// How many have not ended.
  std::size_t count() const;

 private:
  struct Watched {
    sys::Fd connection;
    std::function<void()> ended;
  };
  void run(const std::stop_token& stop);
  void wake() const;

  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<Watched>> watched_;
  std::uint64_t next_ = 0;
  sys::Fd wake_;
  std::jthread thread_;
};

}  // namespace gantry::session
