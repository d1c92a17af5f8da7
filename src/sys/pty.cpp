#include "sys/pty.hpp"

#include <cerrno>

#include <sys/ioctl.h>

#include "base/error.hpp"

namespace gantry::sys {

void set_terminal_size(int fd, TerminalSize size) {
  winsize wanted{size.rows, size.columns, 0, 0};
  if (::ioctl(fd, TIOCSWINSZ, &wanted) != 0) throw Error::from_errno(errno, "set terminal size");
}

TerminalSize terminal_size(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) throw Error::from_errno(errno, "get terminal size");
  return {size.ws_row, size.ws_col};
}

bool is_pty_master(int fd) noexcept {
  unsigned number = 0;
  return ::ioctl(fd, TIOCGPTN, &number) == 0;
}

}  // namespace gantry::sys
