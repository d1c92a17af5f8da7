#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// Stream sockets of the unix family.
namespace gantry::sys {

/// A path that bind(2) or connect(2) accepts for `path`, however long that is: unix(7) allows 107 bytes, so a longer
/// one goes through a descriptor of its directory, which must stay open as long as the path is used.
class SocketPath {
 public:
  explicit SocketPath(const Path& path);
  const std::string& str() const noexcept { return text_; }

 private:
  Fd directory_;
  std::string text_;
};

/// Listens at `path`, mode 0600, non-blocking. An old socket there is replaced. Throws.
Fd listen_unix(const Path& path, int backlog = 256);
/// A connection, non-blocking, or nullopt if none waits. Throws on other errors.
std::optional<Fd> accept_unix(int listener);
/// Connects without waiting. Throws not_found if there is no socket, unavailable if nobody listens or the queue is
/// full.
Fd connect_unix(const Path& path);

/// One byte with descriptors beside it (SCM_RIGHTS).
void send_fds(int socket, std::span<const int> fds);
/// The first descriptor that comes with the next bytes, which are dropped; close-on-exec. An empty Fd if the peer
/// closed or sent none. Further descriptors are closed. Throws unavailable if nothing is there yet (non-blocking).
Fd receive_fd(int socket);

}  // namespace gantry::sys
