"""Clients that are not installed: two generations of docker-compose, and a newer docker and SDK than this machine's.

All are Debian's packages, unpacked below build/clients; nothing is installed, and apt's own state is left alone.
"""

import importlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from . import private_host

_REPO = Path(__file__).resolve().parents[2]
_ROOT = _REPO / "build/clients"
_NEWER_SUITE = "trixie"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = "http://deb.debian.org/debian"
# docker-compose 1.29 is Python: with what it imports and `run` of the tests does not install.
_COMPOSE_1 = ("docker-compose", "python3-dockerpty", "python3-docopt", "python3-dotenv", "python3-jsonschema",
              "python3-pyrsistent", "python3-texttable", "python3-websocket", "python3-distro", "python3-yaml",
              "python3-attr")
_NEWER = ("docker-compose", "docker-cli", "python3-docker")


def _apt_get(arguments, environment=None, **options):
    subprocess.run(private_host.outside(["apt-get", "-q", "-o", "Acquire::Retries=5", *arguments]), check=True,
                   env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def _unpack(name, packages, environment=None):
    """Downloads and unpacks once; returns the tree."""
    tree = _ROOT / name
    if tree.exists():
        return tree
    packages_at = _ROOT / f"{name}-debs"
    packages_at.mkdir(parents=True, exist_ok=True)
    _apt_get(["download", *packages], environment, cwd=packages_at)
    making = _ROOT / f"{name}.making"
    shutil.rmtree(making, ignore_errors=True)
    for package in packages_at.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, making], check=True)
    making.rename(tree)
    return tree


def _newer_suite():
    """Environment in which apt-get knows the packages of the newer suite."""
    apt = _ROOT / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    (apt / "sources.sources").write_text(f"Types: deb\nURIs: {_MIRROR}\nSuites: {_NEWER_SUITE}\nComponents: main\n"
                                         f"Signed-By: {_KEYRING}\n")
    (apt / "conf").write_text(f'Dir::State::lists "{apt}/lists";\nDir::Cache "{apt}/cache";\n'
                              f'Dir::Etc::sourcelist "{apt}/sources.sources";\nDir::Etc::sourceparts "-";\n'
                              'Dir::State::status "/dev/null";\n')
    environment = {"APT_CONFIG": str(apt / "conf")}
    _apt_get(["update"], environment)
    return environment


def newer():
    """The tree with Debian 13's docker 26.1, docker-compose 2.26 and python3-docker 7.1."""
    return _ROOT / "newer" if (_ROOT / "newer").exists() else _unpack("newer", _NEWER, _newer_suite())


def buildx():
    """Debian 13's docker-buildx 0.13: a plugin, and a program by itself."""
    program = "usr/libexec/docker/cli-plugins/docker-buildx"
    tree = _ROOT / "buildx"
    return (tree if tree.exists() else _unpack("buildx", ("docker-buildx",), _newer_suite())) / program


def newer_docker():
    """The program of docker 26.1."""
    return newer() / "usr/bin/docker"


def compose_1():
    """(command, environment) of docker-compose 1.29."""
    tree = _unpack("compose-1", _COMPOSE_1)
    path = tree / "usr/lib/python3/dist-packages"
    return ["/usr/bin/python3", str(tree / "usr/bin/docker-compose")], {"PYTHONPATH": str(path), "PYTHONWARNINGS": "ignore"}


def compose_2():
    """(command, environment) of docker-compose 2.26."""
    return [str(newer() / "usr/libexec/docker/cli-plugins/docker-compose")], {}


@contextmanager
def python_sdk(generation):
    """The module `docker` of that generation: "installed" is the machine's, "newer" Debian 13's."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "docker"}
    for name in before:
        del sys.modules[name]
    if generation == "newer":
        sys.path.insert(0, str(newer() / "usr/lib/python3/dist-packages"))
    try:
        yield importlib.import_module("docker")
    finally:
        if generation == "newer":
            sys.path.pop(0)
        for name in [name for name in sys.modules if name.split(".")[0] == "docker"]:
            del sys.modules[name]
        sys.modules.update(before)
