#pragma once

#include <utility>

namespace gantry::sys {

/// Owns a file descriptor. Every descriptor of ours is close-on-exec from birth; a raw `int` lives only inside a
/// system call on the same line.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept;
  /// A second descriptor for the same open file. Throws.
  Fd duplicate() const;

 private:
  int fd_ = -1;
};

}  // namespace gantry::sys
