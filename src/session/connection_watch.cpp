#include "session/connection_watch.hpp"

#include <cerrno>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/error.hpp"

namespace gantry::session {

ConnectionWatch::ConnectionWatch() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) throw Error::from_errno(errno, "eventfd");
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

ConnectionWatch::~ConnectionWatch() {
  thread_.request_stop();
  wake();
}

void ConnectionWatch::wake() const { ::eventfd_write(wake_.get(), 1); }

void ConnectionWatch::add(const sys::Fd& connection, std::function<void()> ended) {
  auto watched = std::make_shared<Watched>(Watched{connection.duplicate(), std::move(ended)});
  {
    const std::lock_guard lock(mutex_);
    watched_.emplace(next_++, std::move(watched));
  }
  wake();
}

std::size_t ConnectionWatch::count() const {
  const std::lock_guard lock(mutex_);
  return watched_.size();
}

void ConnectionWatch::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
    std::vector<std::uint64_t> numbers = {0};
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [number, watched] : watched_) {
        fds.push_back({watched->connection.get(), POLLRDHUP, 0});
        numbers.push_back(number);
      }
    }
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    eventfd_t ignored = 0;
    ::eventfd_read(wake_.get(), &ignored);
    for (std::size_t i = 1; i < fds.size() && !stop.stop_requested(); ++i) {
      if (fds[i].revents == 0) continue;
      std::shared_ptr<Watched> watched;
      {
        const std::lock_guard lock(mutex_);
        watched = std::move(watched_.extract(numbers[i]).mapped());
      }
      watched->ended();
    }
  }
}

}  // namespace gantry::session
