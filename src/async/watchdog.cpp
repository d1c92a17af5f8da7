#include "async/watchdog.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <boost/asio/post.hpp>

#include "base/log.hpp"

namespace asio = boost::asio;

namespace gantry::async {

using Clock = std::chrono::steady_clock;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

/// The thread posts a beat to the loop and measures how long the loop takes to run it, so an idle daemon is not woken
/// by more than one timer.
struct Watchdog::State {
  State(asio::any_io_executor executor, const Operations& ops, milliseconds late)
      : loop(std::move(executor)), operations(ops), limit(late) {}
  asio::any_io_executor loop;
  const Operations& operations;
  const milliseconds limit;
  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false;
  bool beaten = true;
  std::atomic<std::size_t> stalls{0};
  std::atomic<std::int64_t> longest_ms{0};
  std::thread thread;
};

namespace {

constexpr milliseconds kBeatEvery{1000};

std::string describe(const Operations& operations) {
  std::string out;
  for (const Operations::Entry& op : operations.list())
    out += fmt::format(" [{} {} @ {} {} ms]", op.what, op.subject, op.step, op.step_age.count());
  return out.empty() ? " no operation in flight" : out;
}

}  // namespace

Watchdog::Watchdog(asio::any_io_executor loop, const Operations& operations, milliseconds limit)
    : state_(std::make_shared<State>(std::move(loop), operations, limit)) {
  auto state = state_;
  state->thread = std::thread([state = state.get(), shared = std::weak_ptr<State>(state)] {
    std::unique_lock lock(state->mutex);
    while (!state->stop) {
      state->beaten = false;
      const Clock::time_point sent = Clock::now();
      asio::post(state->loop, [shared] {
        if (auto alive = shared.lock()) {
          std::lock_guard beat(alive->mutex);
          alive->beaten = true;
          alive->wake.notify_all();
        }
      });
      bool told = false;
      while (!state->beaten && !state->stop) {
        state->wake.wait_for(lock, state->limit);
        if (state->beaten || state->stop || told) continue;
        told = true;
        ++state->stalls;
        log::warning("event loop late by more than {} ms:{}", state->limit.count(), describe(state->operations));
      }
      const auto late = duration_cast<milliseconds>(Clock::now() - sent).count();
      if (late > state->longest_ms) state->longest_ms = late;
      state->wake.wait_for(lock, kBeatEvery, [state] { return state->stop; });
    }
  });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

std::size_t Watchdog::stalls() const noexcept { return state_->stalls; }
milliseconds Watchdog::longest_stall() const noexcept { return milliseconds(state_->longest_ms); }

}  // namespace gantry::async
