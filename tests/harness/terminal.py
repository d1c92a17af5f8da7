"""A program on a pseudo-terminal, as a person would run it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time


class Terminal:
    def __init__(self, argv, env, rows=40, columns=120):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(argv, env={**env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)
        self.output = b""

    def type(self, text):
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def resize(self, rows, columns):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.killpg(self.process.pid, 28)  # SIGWINCH: no controlling terminal delivers it here

    def read_until(self, wanted, timeout=60):
        wanted = wanted.encode() if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + timeout
        start = 0
        while wanted not in self.output[start:]:
            if not self._read(deadline):
                raise AssertionError(f"no {wanted!r} in {self.output!r}")
        end = self.output.index(wanted, start) + len(wanted)
        data, self.output = self.output[:end], self.output[end:]
        return data

    def read_to_end(self, timeout=60):
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self.output

    def _read(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._master], [], [], left)[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # EIO: every program on the terminal has ended
            return False
        self.output += chunk
        return bool(chunk)

    def wait(self, timeout=60):
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
