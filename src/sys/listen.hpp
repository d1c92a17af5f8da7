#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "sys/fd.hpp"
#include "sys/file.hpp"

/// Listening sockets, and the two protocols of service managers. All of it throws Error.
namespace gantry::sys {

/// A listening unix socket and the file that names it.
struct UnixListener {
  Fd fd;
  Path path;
  dev_t device = 0;
  ino_t inode = 0;
  /// Set when something that was not required failed (the group does not exist).
  std::string warning;

  /// Removes the file if it is still this socket. A daemon that started after us has its own there.
  void unlink_if_ours() const noexcept;
};

struct UnixListenOptions {
  mode_t mode = 0660;
  std::string group;            // name or number; empty: leave it
  bool group_required = false;  // else a missing group is a warning
  int backlog = 4096;
};

/// Listens at `path`. The file appears with its final owner and mode, and only when connections are accepted. A socket
/// nobody listens on any more is replaced; one that answers throws conflict; what is no socket throws conflict.
UnixListener listen_unix(const Path& path, const UnixListenOptions& options);

/// A socket that the service manager opened for us.
struct ActivatedSocket {
  Fd fd;
  std::string name;  // of LISTEN_FDNAMES; may be empty
  int family = 0;    // AF_UNIX, AF_INET, AF_INET6
};

/// The sockets of LISTEN_FDS if LISTEN_PID is us, each checked to be a listening stream socket; then the variables are
/// removed from the environment. Number i of the result was descriptor 3 + i. Source: sd_listen_fds(3).
std::vector<ActivatedSocket> take_activated_sockets();

/// Sends "READY=1", "STOPPING=1", "STATUS=…" or "WATCHDOG=1" to NOTIFY_SOCKET; false if there is none.
/// Source: sd_notify(3). Never blocks.
bool notify_service_manager(std::string_view state);

}  // namespace gantry::sys
