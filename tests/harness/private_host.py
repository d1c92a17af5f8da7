"""Moves this process into network and mount namespaces of its own, so that a test run cannot touch the host.

Every engine, client and probe that is started afterwards shares them: a published port is reached at 127.0.0.1, and
when the run ends the kernel removes every interface, packet filter rule and mount of it.
"""

import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_MS_REC, _MS_PRIVATE, _MS_BIND = 0x4000, 1 << 18, 0x1000  # linux/mount.h

_libc = ctypes.CDLL(None, use_errno=True)
_left = None  # the network namespace that enter() left


def _check(result, what):
    if result != 0:
        err = ctypes.get_errno()
        raise OSError(err, f"{what}: {os.strerror(err)}")


def _mount(source, target, fstype, flags=0, data=""):
    _check(_libc.mount(source.encode(), target.encode(), fstype.encode(), flags, data.encode()), f"mount {target}")


def enter():
    """Requires root and a process with one thread."""
    global _left
    _left = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
    _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    # /sys/class/net shows the namespace that was current when sysfs was mounted.
    keep = Path("/run/.cgroup")
    keep.mkdir()
    _mount("/sys/fs/cgroup", str(keep), "none", _MS_BIND | _MS_REC)
    _mount("sysfs", "/sys", "sysfs")
    _mount(str(keep), "/sys/fs/cgroup", "none", _MS_BIND | _MS_REC)
    _check(_libc.umount2(str(keep).encode(), 2), "umount")
    keep.rmdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def outside(command):
    """The command with what runs it in the host's own network, for downloads."""
    return command if _left is None else ["nsenter", f"--net=/proc/{os.getpid()}/fd/{_left}", *command]


def links():
    """Names of this namespace's network interfaces, without those that the kernel makes by itself."""
    output = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = {line.split(":")[1].strip().split("@")[0] for line in output.splitlines()}
    kernel_made = ("lo", "ifb", "tunl", "gre", "gretap", "erspan", "ip_vti", "ip6_vti", "sit", "ip6tnl", "ip6gre", "dummy0")
    return {name for name in names if not name.startswith(kernel_made)}
