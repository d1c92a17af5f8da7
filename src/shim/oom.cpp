#include "shim/oom.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/text.hpp"

namespace gantry::shim {
namespace {

using std::chrono::milliseconds;
/// Version 1 signals before it kills, and counts after that.
constexpr milliseconds kLookAgain[] = {milliseconds(5), milliseconds(50), milliseconds(500), milliseconds(5000)};

std::uint64_t counter(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const auto [line, rest] = split_once(text, '\n');
    text = rest;
    const auto [key, value] = split_once(line, ' ');
    if (key == name) return static_cast<std::uint64_t>(parse_int(value).value_or(0));
  }
  return 0;
}

}  // namespace

OomWatch::OomWatch(Loop& loop, const sys::Path& cgroup, std::function<void()> changed)
    : loop_(loop), cgroup_(cgroup), changed_(std::move(changed)) {
  if (cgroup_.empty()) return;
  if (::access((cgroup_ / "memory.events").c_str(), R_OK) == 0) watch_v2();
  else if (::access((cgroup_ / "memory.oom_control").c_str(), R_OK) == 0) watch_v1();
  refresh();
}

void OomWatch::watch_v2() {
  v2_ = true;
  notify_ = sys::Fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!notify_ || ::inotify_add_watch(notify_.get(), (cgroup_ / "memory.events").c_str(), IN_MODIFY) < 0) return;
  watch_ = loop_.watch(notify_.get(), EPOLLIN, [this](std::uint32_t) {
    char events[1024];
    while (::read(notify_.get(), events, sizeof events) > 0) {
    }
    refresh();
  });
}

void OomWatch::watch_v1() {
  notify_ = sys::Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  control_ = sys::Fd(::open((cgroup_ / "memory.oom_control").c_str(), O_RDONLY | O_CLOEXEC));
  const sys::Fd registry(::open((cgroup_ / "cgroup.event_control").c_str(), O_WRONLY | O_CLOEXEC));
  if (!notify_ || !control_ || !registry) return;
  const std::string line = std::to_string(notify_.get()) + " " + std::to_string(control_.get());
  if (::write(registry.get(), line.data(), line.size()) < 0) return;
  watch_ = loop_.watch(notify_.get(), EPOLLIN, [this](std::uint32_t) {
    std::uint64_t count = 0;
    (void)!::read(notify_.get(), &count, sizeof count);
    refresh();
    // The removal of the cgroup signals too, for ever after.
    if (::access((cgroup_ / "memory.oom_control").c_str(), R_OK) != 0) return watch_.reset();
    look_again(0);
  });
  look_again(0);  // a kill that began before we asked to be told
}

void OomWatch::look_again(int attempt) {
  if (attempt >= static_cast<int>(std::size(kLookAgain))) return;
  again_ = loop_.after(kLookAgain[attempt], [this, attempt] {
    refresh();
    look_again(attempt + 1);
  });
}

bool OomWatch::rose_within(milliseconds span) const {
  return kills_ > 0 && std::chrono::steady_clock::now() - last_rise_ <= span;
}

void OomWatch::refresh() {
  if (cgroup_.empty()) return;
  const auto text = sys::try_read_small(cgroup_ / (v2_ ? "memory.events" : "memory.oom_control"));
  if (!text) return;
  const std::uint64_t kills = counter(*text, "oom_kill");
  if (kills <= kills_) return;
  kills_ = kills;
  last_rise_ = std::chrono::steady_clock::now();
  changed_();
}

}  // namespace gantry::shim
