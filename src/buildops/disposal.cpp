#include "buildops/disposal.hpp"

#include <utility>

namespace gantry::buildops {

Disposal::Disposal() : thread_([this] { run(); }) {}

Disposal::~Disposal() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Disposal::add(std::shared_ptr<void> thing) {
  if (!thing) return;
  {
    const std::lock_guard lock(mutex_);
    if (things_.size() >= kMost) return;  // goes here, without the lock
    things_.push_back(std::move(thing));
  }
  changed_.notify_one();
}

void Disposal::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !things_.empty(); });
    if (things_.empty()) return;
    std::shared_ptr<void> thing = std::move(things_.front());
    things_.pop_front();
    lock.unlock();
    thing.reset();
    lock.lock();
  }
}

}  // namespace gantry::buildops
