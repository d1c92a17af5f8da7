"""gantry-build seen from outside: its process, and builds that are under way."""

import os
import socket
import time

from . import leaks
from .builds import context

SLEEPER = "FROM busybox\nRUN echo begun; sleep 1000\n"


def begin(api, dockerfile, until):
    """Starts a build and returns its connection and stream when `until` was printed."""
    connection, response = api.open("POST", "/build", {"nocache": 1}, data=context(dockerfile),
                                    headers={"Content-Type": "application/x-tar"})
    assert response.status == 200
    seen = b""
    while f'{until}\\n"'.encode() not in seen:
        line = response.readline()
        assert line, f"the build ended: {seen}"
        seen += line
    return connection, response


def workers(engine):
    """Pids. A child that has not yet become the program that it is to be looks like its parent: it does not count."""
    found = [pid for pid, command in leaks.processes(engine).items() if command.split(" ")[0].endswith("gantry-build")]
    return [pid for pid in found if _parent(pid) not in found]


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None  # it has ended meanwhile


def await_true(what, condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not after {timeout} s"
        time.sleep(0.05)
    return value


def assert_nothing_runs(engine):
    """No worker and nothing that one has started or mounted."""
    await_true("the worker's end", lambda: not workers(engine))
    assert not leaks.report(engine, leaks.mounts(engine))


def directories(engine):
    """Layers, and what is unfinished."""
    return sorted(os.listdir(engine.data_root / "layers")), os.listdir(engine.data_root / "tmp")


def upgrade(engine, path="/grpc", headers=("Connection: Upgrade", "Upgrade: h2c")):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(engine.socket))
    sock.sendall("\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "Content-Length: 0", "", ""]).encode())
    return sock, sock.recv(65536)
