#include "async/operation.hpp"

#include <fmt/format.h>

#include "base/log.hpp"

namespace gantry::async {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

}  // namespace

Operation::Operation(Operations& all, std::string what, std::string subject)
    : all_(all), what_(std::move(what)), subject_(std::move(subject)), since_(Clock::now()), step_since_(since_) {
  std::lock_guard lock(all_.mutex_);
  place_ = all_.live_.insert(all_.live_.end(), this);
}

Operation::~Operation() {
  {
    std::lock_guard lock(all_.mutex_);
    all_.live_.erase(place_);
  }
  const Clock::time_point now = Clock::now();
  end_step(now);
  log::debug("{} {} took {:.1f} ms:{}", what_, subject_,
             std::chrono::duration<double, std::milli>(now - since_).count(), timing_);
}

void Operation::step(std::string_view name) {
  const Clock::time_point now = Clock::now();
  end_step(now);
  std::lock_guard lock(all_.mutex_);
  step_ = name;
  step_since_ = now;
}

/// Where the time of a verb went, without a profiler.
void Operation::end_step(Clock::time_point at) {
  if (step_.empty() || log::level() > log::Level::debug) return;
  timing_ += fmt::format(" [{} {:.1f}]", step_, std::chrono::duration<double, std::milli>(at - step_since_).count());
}

std::string Operation::step_name() const {
  std::lock_guard lock(all_.mutex_);
  return step_.empty() ? what_ : step_;
}

Task<void> Operation::roll_back() {
  for (; !undo_.empty(); undo_.pop_back()) {
    try {
      co_await undo_.back()();
    } catch (const Error& e) {
      log::error("{} {}: undo failed: {}", what_, subject_, e.log_detail());
    } catch (const std::exception& e) {
      log::error("{} {}: undo failed: {}", what_, subject_, e.what());
    }
  }
}

OperationPtr Operations::begin(std::string what, std::string subject) {
  return std::make_shared<Operation>(*this, std::move(what), std::move(subject));
}

std::vector<Operations::Entry> Operations::list() const {
  std::lock_guard lock(mutex_);
  std::vector<Entry> out;
  const Clock::time_point now = Clock::now();
  for (const Operation* op : live_)
    out.push_back({op->what_, op->subject_, op->step_, duration_cast<milliseconds>(now - op->since_),
                   duration_cast<milliseconds>(now - op->step_since_)});
  return out;
}

}  // namespace gantry::async
