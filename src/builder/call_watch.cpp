#include "builder/call_watch.hpp"

#include <chrono>
#include <vector>

namespace gantry::builder {

namespace {
constexpr std::chrono::milliseconds kInterval{150};
}

CallWatch::CallWatch() : thread_([this](const std::stop_token& stop) { run(stop); }) {}

CallWatch::Call::Call(CallWatch& watch, grpc::ServerContext& context) : watch_(watch), context_(context) {
  const std::lock_guard lock(watch_.mutex_);
  place_ = watch_.calls_.insert(watch_.calls_.end(), this);
  watch_.changed_.notify_all();
}

CallWatch::Call::~Call() {
  const std::lock_guard lock(watch_.mutex_);
  watch_.calls_.erase(place_);
}

void CallWatch::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    changed_.wait(lock, stop, [this] { return !calls_.empty(); });
    changed_.wait_for(lock, stop, kInterval, [] { return false; });
    // Callbacks of a stop run without the lock: they may take others'.
    std::vector<std::stop_source> gone;
    for (Call* call : calls_)
      if (!call->source_.stop_requested() && call->context_.IsCancelled()) gone.push_back(call->source_);
    lock.unlock();
    for (auto& source : gone) source.request_stop();
    lock.lock();
  }
}

}  // namespace gantry::builder
