#include "shim/reaper.hpp"

#include <cerrno>
#include <csignal>

#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/time.hpp"

namespace gantry::shim {
namespace {

/// A container in the host's pid namespace hands us all its orphans; only recent ones can be the one we look for.
constexpr std::size_t kMaxEndings = 4096;

}  // namespace

Reaper::Reaper(Loop& loop) : loop_(loop) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &mask, nullptr) != 0) throw Error::from_errno(errno, "sigprocmask");
  signals_ = sys::Fd(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) throw Error::from_errno(errno, "signalfd");
  watch_ = loop.watch(signals_.get(), EPOLLIN, [this](std::uint32_t) { collect(); });
}

Reaper::Hold::~Hold() {
  if (reaper_ != nullptr && --reaper_->holds_ == 0) reaper_->endings_.clear();
}

void Reaper::expect(pid_t pid, Handler handler) {
  expected_[pid] = std::move(handler);
  const auto ended = endings_.find(pid);
  if (ended == endings_.end()) return;
  early_.emplace_back(pid, ended->second);
  endings_.erase(ended);
  late_ = loop_.after(std::chrono::milliseconds(0), [this] {
    for (const auto& [early, ending] : std::exchange(early_, {})) {
      auto node = expected_.extract(early);
      if (!node.empty()) node.mapped()(ending.status, ending.when_ns);
    }
  });
}

void Reaper::collect() {
  // Several signals may have become one: first empty the descriptor, then ask for every child.
  signalfd_siginfo ignored[8];
  while (::read(signals_.get(), ignored, sizeof ignored) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    const std::int64_t when = now().time_since_epoch().count();
    auto node = expected_.extract(pid);
    if (!node.empty()) {
      node.mapped()(status, when);
    } else if (holds_ > 0) {
      if (endings_.size() >= kMaxEndings) endings_.erase(endings_.begin());
      endings_[pid] = {status, when};
    }
  }
}

}  // namespace gantry::shim
