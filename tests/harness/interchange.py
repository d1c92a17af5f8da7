"""podman and buildah as Debian packs them: unpacked below build/interchange, not installed; their state in a scratch
directory. For exchanging images only: they run no containers here."""

import json
import os
import subprocess

from . import private_host
from .engine import REPO

_TREE = REPO / "build/interchange/root"
_PACKAGES = ("podman", "buildah", "conmon", "golang-github-containers-common", "golang-github-containers-image", "libsubid4",
             "libgpgme11", "libassuan0", "libglib2.0-0")


def fetch():
    if all((_TREE / "usr/bin" / each).exists() for each in ("podman", "buildah", "conmon")):
        return
    packages = _TREE.parent / "debs"
    packages.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-o", "Acquire::Retries=5", "download", "-q", *_PACKAGES]
    subprocess.run(private_host.outside(command), cwd=packages, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, _TREE], check=True)


class Containers:
    """A store of podman and buildah in `directory`."""

    def __init__(self, directory):
        fetch()
        self.directory = directory
        (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (directory / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
        # Nothing is run, but podman does not start without a conmon.
        (directory / "containers.conf").write_text(f'[engine]\nconmon_path = ["{_TREE}/usr/bin/conmon"]\nevents_logger = "none"\n'
                                                   'cgroup_manager = "cgroupfs"\n[network]\n'
                                                   f'network_config_dir = "{directory}/networks"\n')
        self.env = {"PATH": f"{_TREE}/usr/bin:" + os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory),
                    "LD_LIBRARY_PATH": str(_TREE / "usr/lib/x86_64-linux-gnu"),
                    "CONTAINERS_CONF": str(directory / "containers.conf"),
                    "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf")}

    def _run(self, program, *arguments):
        command = [str(_TREE / "usr/bin" / program), "--root", str(self.directory / "root"), "--runroot",
                   str(self.directory / "run"), "--storage-driver", "vfs", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=200)
        assert result.returncode == 0, f"{program} {arguments}: {result.stderr}"
        return result.stdout

    def podman(self, *arguments):
        return self._run("podman", "--tmpdir", self.directory / "tmp", *arguments)

    def buildah(self, *arguments):
        return self._run("buildah", *arguments)

    @property
    def policy(self):
        return ("--signature-policy", self.directory / "policy.json")

    def image(self, name):
        return json.loads(self.podman("image", "inspect", name))[0]
