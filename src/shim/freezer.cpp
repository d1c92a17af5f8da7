#include "shim/freezer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/text.hpp"

namespace gantry::shim {
namespace {

constexpr std::chrono::milliseconds kInterval{5};
constexpr int kAttempts = 400;

bool write_text(const sys::Path& path, std::string_view text) {
  const sys::Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

bool Freezer::v2() const { return ::access((cgroup_ / "cgroup.freeze").c_str(), W_OK) == 0; }

bool Freezer::usable() const {
  return !cgroup_.empty() && (v2() || ::access((cgroup_ / "freezer.state").c_str(), W_OK) == 0);
}

bool Freezer::request(bool frozen) {
  if (v2()) return write_text(cgroup_ / "cgroup.freeze", frozen ? "1" : "0");
  return write_text(cgroup_ / "freezer.state", frozen ? "FROZEN" : "THAWED");
}

bool Freezer::reached(bool frozen) const {
  if (v2()) {
    const std::string events = sys::try_read_small(cgroup_ / "cgroup.events").value_or(std::string());
    return events.find(frozen ? "frozen 1" : "frozen 0") != std::string::npos;
  }
  return trim(sys::try_read_small(cgroup_ / "freezer.state").value_or(std::string())) == (frozen ? "FROZEN" : "THAWED");
}

void Freezer::set(bool frozen, Done done) {
  done_ = std::move(done);
  if (!request(frozen)) return finish("cannot write the freezer of " + cgroup_.string());
  check(frozen, 0);
}

void Freezer::check(bool frozen, int attempt) {
  if (reached(frozen)) return finish({});
  if (attempt == kAttempts) {
    if (frozen) (void)request(false);
    return finish(frozen ? "a process does not let itself be frozen" : "a process does not let itself be thawed");
  }
  // v1 gets stuck in FREEZING when processes come and go meanwhile. Writing again goes on with it, and letting them
  // run for a moment helps those that cannot be frozen where they are.
  if (frozen && !v2() && attempt % 20 == 19) (void)request(false);
  if (attempt % 10 == 9 || attempt % 20 == 0) (void)request(frozen);
  timer_ = loop_.after(kInterval, [this, frozen, attempt] { check(frozen, attempt + 1); });
}

void Freezer::finish(std::string failure) {
  const Done done = std::exchange(done_, nullptr);
  done(std::move(failure));
}

}  // namespace gantry::shim
