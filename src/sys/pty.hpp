#pragma once

#include <cstdint>

#include "sys/fd.hpp"

namespace gantry::sys {

struct TerminalSize {
  std::uint16_t rows = 0;
  std::uint16_t columns = 0;
};

/// Sets the size of the terminal behind a pty's master (or slave); its foreground group gets SIGWINCH. Throws.
void set_terminal_size(int fd, TerminalSize size);
TerminalSize terminal_size(int fd);
/// true if `fd` is the master of a pty.
bool is_pty_master(int fd) noexcept;

}  // namespace gantry::sys
