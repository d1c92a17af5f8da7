"""What an engine has left in the kernel: mounts, processes, cgroups and network interfaces."""

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import private_host

_CGROUPS = Path("/sys/fs/cgroup")


def mounts(engine):
    root = str(engine.root)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line.split(" ")[4] for line in lines if line.split(" ")[4].startswith(root + "/"))


def cgroups(engine):
    """Directories below the engine's parent cgroup, deepest first; in every hierarchy."""
    found = []
    hierarchies = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir())] if _CGROUPS.exists() else []
    for hierarchy in hierarchies:
        parent = hierarchy / engine.name
        if parent.is_dir():
            found += sorted((Path(at) for at, _, _ in os.walk(parent)), key=lambda path: -len(path.parts))
    return found


def _cgroup_processes(engine):
    pids = set()
    for directory in cgroups(engine):
        try:
            pids |= {int(pid) for pid in (directory / "cgroup.procs").read_text().split()}
        except OSError:
            pass  # the cgroup went away while we looked
    return pids


def processes(engine):
    """pid -> command line of all processes that belong to the engine, but not the engine itself."""
    own = engine.process.pid if engine.process is not None else 0
    in_cgroups = _cgroup_processes(engine)
    root = str(engine.root).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (own, os.getpid()):
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            continue  # it ended while we looked
        if not zombie and (int(entry.name) in in_cgroups or (root in command and not _is_client(command))):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def _is_client(command):
    return command.split(b"\0")[0].rsplit(b"/", 1)[-1] in (b"docker", b"python3", b"curl")


def veths():
    return sorted(name for name in private_host.links() if name.startswith(("veth", "gtv")))


def _lasting_veths(timeout=60):
    """The kernel removes the links of a namespace after its last user has gone, in its own time (cleanup_net), and
    says so on the route socket: what is there after that is left behind."""
    if not veths():
        return []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as links:
        links.bind((0, 1))  # RTMGRP_LINK
        deadline = time.monotonic() + timeout
        while (left := veths()) and (seconds := deadline - time.monotonic()) > 0:
            if select.select([links], [], [], seconds)[0]:
                links.recv(65536)
    return left


def report(engine, idle=(), timeout=30):
    """What is there, and stays, although no container runs. `idle` names mounts that an idle engine keeps."""
    deadline = time.monotonic() + timeout
    while (found := _report(engine, idle)) and time.monotonic() < deadline:
        time.sleep(0.05)  # a shim ends after its container
    return found


def _report(engine, idle):
    found = []
    # dockerd keeps the host's own network namespace mounted once a container has used it.
    found += [f"mount {at}" for at in mounts(engine) if at not in idle and not at.endswith("/netns/default")]
    if engine.kind == "gantry":
        found += [f"process {pid}: {command}" for pid, command in processes(engine).items()]
    # The parent itself may stay while the engine runs.
    found += [f"cgroup {path}" for path in cgroups(engine) if path.name != engine.name]
    found += [f"interface {name}" for name in _lasting_veths()]
    return found


def sweep(engine):
    """Removes everything of an engine that has ended."""
    for pid in processes(engine):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for at in reversed(mounts(engine)):
        subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL, check=False)
    for directory in cgroups(engine):
        _await_empty(directory)
        try:
            directory.rmdir()
        except OSError:
            pass  # a process that was killed a moment ago; the next sweep gets it


def remove_bridges():
    """Bridges of networks outlive an engine that ends while containers run. The next one would take them for somebody
    else's."""
    for name in private_host.links():
        if name.startswith("br-"):
            subprocess.run(["ip", "link", "del", name], stderr=subprocess.DEVNULL, check=False)


def _await_empty(directory):
    """Waits for killed processes through their pidfds."""
    try:
        pids = [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
    except OSError:
        return
    import select

    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        select.select([pidfd], [], [], 5)
        os.close(pidfd)
