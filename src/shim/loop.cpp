#include "shim/loop.hpp"

#include <algorithm>
#include <cerrno>

#include "base/error.hpp"
#include "base/log.hpp"

namespace gantry::shim {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// Runs a handler. Whatever goes wrong in one must not end the shim: the container's streams would end with it.
template <class F>
void contain(F&& handler) noexcept {
  try {
    handler();
  } catch (const std::exception& e) {
    log::error("unexpected: {}", e.what());
  }
}

}  // namespace

Watch& Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    token_ = other.token_;
  }
  return *this;
}

void Watch::reset() noexcept {
  if (Loop* loop = std::exchange(loop_, nullptr)) loop->forget(token_);
}

void Watch::change(std::uint32_t events) {
  if (loop_ != nullptr) loop_->change(token_, events);
}

Timer& Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    token_ = other.token_;
  }
  return *this;
}

void Timer::reset() noexcept {
  if (Loop* loop = std::exchange(loop_, nullptr)) loop->alarms_.erase(token_);
}

bool Timer::pending() const noexcept { return loop_ != nullptr && loop_->alarms_.contains(token_); }

Loop::Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) throw Error::from_errno(errno, "epoll_create");
}

Watch Loop::watch(int fd, std::uint32_t events, Handler handler) {
  const std::uint64_t token = next_token_++;
  watches_[token] = Registration{fd, false, 0, std::make_shared<Handler>(std::move(handler))};
  Watch watch(this, token);
  change(token, events);
  return watch;
}

void Loop::change(std::uint64_t token, std::uint32_t events) {
  Registration& entry = watches_.at(token);
  const bool wanted = events != Watch::kOff;
  if (wanted == entry.registered && (!wanted || events == entry.events)) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  const int operation = !wanted ? EPOLL_CTL_DEL : entry.registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (::epoll_ctl(epoll_.get(), operation, entry.fd, &event) != 0) throw Error::from_errno(errno, "epoll_ctl");
  entry.registered = wanted;
  entry.events = events;
}

void Loop::forget(std::uint64_t token) noexcept {
  const auto it = watches_.find(token);
  if (it == watches_.end()) return;
  // Fails if the descriptor is closed already, which has removed it.
  if (it->second.registered) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr);
  watches_.erase(it);
}

Timer Loop::after(milliseconds delay, std::function<void()> action) {
  const std::uint64_t token = next_token_++;
  alarms_[token] = Alarm{steady_clock::now() + delay, std::move(action)};
  return Timer(this, token);
}

int Loop::timeout_ms() const {
  if (alarms_.empty()) return -1;
  auto first = steady_clock::time_point::max();
  for (const auto& [token, alarm] : alarms_) first = std::min(first, alarm.when);
  const auto left = std::chrono::ceil<milliseconds>(first - steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

void Loop::run_timers() {
  if (alarms_.empty()) return;
  const auto now = steady_clock::now();
  std::vector<std::uint64_t> due;
  for (const auto& [token, alarm] : alarms_)
    if (alarm.when <= now) due.push_back(token);
  for (const std::uint64_t token : due) {
    const auto it = alarms_.find(token);  // an earlier one may have cancelled it
    if (it == alarms_.end()) continue;
    const std::function<void()> action = std::move(it->second.action);
    alarms_.erase(it);
    contain(action);
  }
}

void Loop::run() {
  epoll_event events[32];
  while (running_) {
    const int count = ::epoll_wait(epoll_.get(), events, std::size(events), timeout_ms());
    if (count < 0 && errno != EINTR) throw Error::from_errno(errno, "epoll_wait");
    for (int i = 0; i < count; ++i) {
      // An earlier event of this round may have ended this watch.
      const std::uint64_t token = events[i].data.u64;  // a copy: the struct is packed on x86-64
      const auto it = watches_.find(token);
      if (it == watches_.end() || !it->second.registered) continue;
      const std::shared_ptr<Handler> handler = it->second.handler;
      contain([&] { (*handler)(events[i].events); });
    }
    run_timers();
  }
}

}  // namespace gantry::shim
