#include "solver/threads.hpp"

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>

#include "base/error.hpp"

namespace gantry::solver {
namespace {

/// Only what is touched costs memory.
constexpr std::size_t kStack = 64 << 20;
/// Of all builds together: hostile graphs are as wide as they like. Beyond it, tasks run one after the other.
constexpr int kMostHelpers = 256;
std::atomic<int> helpers{0};

class HelperSlot {
 public:
  HelperSlot() : granted_(helpers.fetch_add(1) < kMostHelpers) {}
  ~HelperSlot() { helpers.fetch_sub(1); }
  HelperSlot(const HelperSlot&) = delete;
  HelperSlot& operator=(const HelperSlot&) = delete;
  explicit operator bool() const noexcept { return granted_; }

 private:
  const bool granted_;
};

void* run_body(void* argument) {
  const std::unique_ptr<std::function<void()>> body(static_cast<std::function<void()>*>(argument));
  (*body)();
  return nullptr;
}

/// The error that counts among those of several tasks.
class FirstError {
 public:
  void run(const Task& task, LinkedStop& group) {
    try {
      task(group.token());
    } catch (const Error& e) {
      keep(std::current_exception(), e.code() == Errc::cancelled, group);
    } catch (const std::exception& e) {
      keep(std::make_exception_ptr(Error(Errc::internal, e.what())), false, group);
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void keep(std::exception_ptr error, bool is_stop, LinkedStop& group) {
    const std::lock_guard lock(mutex_);
    if (!error_ || (is_stop_ && !is_stop)) {
      error_ = std::move(error);
      is_stop_ = is_stop;
    }
    group.request_stop();
  }

  std::mutex mutex_;
  std::exception_ptr error_;
  bool is_stop_ = false;
};

}  // namespace

DeepThread::DeepThread(std::function<void()> body) {
  auto owned = std::make_unique<std::function<void()>>(std::move(body));
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStack);
  const int err = ::pthread_create(&thread_, &attributes, run_body, owned.get());
  ::pthread_attr_destroy(&attributes);
  if (err != 0) throw Error(Errc::unavailable, "the builder cannot start another thread");
  owned.release();
}

DeepThread::~DeepThread() { ::pthread_join(thread_, nullptr); }

LinkedStop::LinkedStop(const std::stop_token& a, const std::stop_token& b)
    : a_(a, Forward{source_}), b_(b, Forward{source_}) {}

void require_running(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Error(Errc::cancelled, "context canceled");
}

void run_all(std::vector<Task> tasks, const std::stop_token& stop) {
  require_running(stop);
  if (tasks.empty()) return;
  if (tasks.size() == 1) return tasks.front()(stop);
  LinkedStop group(stop);
  FirstError error;
  {
    std::vector<std::unique_ptr<HelperSlot>> slots;  // given back after their threads have ended
    std::vector<std::unique_ptr<DeepThread>> threads;
    std::vector<const Task*> mine{&tasks.front()};
    for (std::size_t i = 1; i < tasks.size(); ++i) {
      auto slot = std::make_unique<HelperSlot>();
      if (!*slot) {
        mine.push_back(&tasks[i]);
        continue;
      }
      threads.push_back(std::make_unique<DeepThread>([&, i] { error.run(tasks[i], group); }));
      slots.push_back(std::move(slot));
    }
    for (const Task* task : mine) error.run(*task, group);
    threads.clear();
  }
  error.rethrow();
}

}  // namespace gantry::solver
