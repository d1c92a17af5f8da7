#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/types.hpp"
#include "shim/native_child.hpp"

namespace gantry::shim {

/// The children's end of NativeJob::status. Failures are worded as runc words them; they end the process.
class NativeReporter {
 public:
  explicit NativeReporter(int socket) : socket_(socket) {}

  int socket() const noexcept { return socket_; }
  void send_descriptor(NativeReport kind, std::string_view bytes, int fd) const;
  [[noreturn]] void fail(std::string_view what) const;
  /// "what: <errno as text>"
  [[noreturn]] void fail_errno(std::string_view what) const;
  [[noreturn]] void fail(protocol::FailureKind kind, std::string_view path, std::string_view what) const;

 private:
  int socket_;
};

/// "no such file or directory": strerror(3) in the runtimes' spelling.
std::string errno_text(int number);

/// Sets the three sets of the calling process. false with errno set if it may not.
bool set_capabilities(std::uint64_t permitted, std::uint64_t effective, std::uint64_t inheritable);

}  // namespace gantry::shim
