"""Containers that print what they see, and the host's control groups of containers."""

from pathlib import Path

import pytest

CGROUPS = Path("/sys/fs/cgroup")
MEMORY = "memory"


def is_v2():
    return (CGROUPS / "cgroup.controllers").exists()


needs_v1 = pytest.mark.skipif(is_v2(), reason="a file of cgroup version 1")


def run(api, command, host=None, **config):
    """Runs a shell command in a new container; (exit code, output)."""
    config.setdefault("Cmd", ["sh", "-c", command])
    container = api.create(host=host or {}, **config)
    api.start(container)
    code = api.wait(container)
    return code, api.logs(container).decode()


def cgroup_file(engine, container, v1, v2):
    """The file of a running container and the value it must have. `v1` is (controller, file, value), `v2` (file, value)."""
    wanted = v2 if is_v2() else v1
    if wanted is None:
        return None, None
    below = CGROUPS if is_v2() else CGROUPS / wanted[0]
    path = below / engine.name / container / wanted[-2]
    return (path, wanted[-1]) if path.exists() else (None, None)
