"""Engines under test: gantryd, and Debian's dockerd as the oracle. Each has its own socket and directories."""

import json
import os
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import leaks, private_host
from .api import Api

REPO = Path(__file__).resolve().parents[2]
_START_TIMEOUT = 120
_STOP_TIMEOUT = 120


class EngineFailed(AssertionError):
    pass


class Engine:
    """One engine with its own data root, exec root and socket below `root`. `name` becomes the parent cgroup."""

    kind = ""

    def __init__(self, root, name="gantry-test"):
        self.root = Path(root)
        self.name = name
        self.root.mkdir(parents=True, exist_ok=True)
        self.socket = self.root / "api.sock"
        self.data_root = self.root / "data"
        self.exec_root = self.root / "run"
        self.config_file = self.root / "daemon.json"
        self.log_file = self.root / "daemon.log"
        self.pidfile = self.root / "daemon.pid"
        self.process = None
        self.arguments = []
        self.environment = {}
        self.write_config({})

    # What differs between engines.

    def command(self):
        raise NotImplementedError

    def env(self):
        sanitizers = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), **sanitizers}

    def base_config(self):
        return {}

    # Life.

    def write_config(self, settings):
        self.config_file.write_text(json.dumps({**self.base_config(), **settings}, indent=2))

    def start(self):
        """Returns when the engine has said that it listens (sd_notify), not before and not much later."""
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify_path = self.root / "notify"
        notify_path.unlink(missing_ok=True)
        notify.bind(str(notify_path))
        env = {**self.env(), "NOTIFY_SOCKET": str(notify_path), **self.environment}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command() + self.arguments, env=env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True, cwd="/")
        try:
            self._await_ready(notify)
        finally:
            notify.close()
        return self

    def _await_ready(self, notify):
        pidfd = os.pidfd_open(self.process.pid)
        deadline = time.monotonic() + _START_TIMEOUT
        try:
            while (left := deadline - time.monotonic()) > 0:
                ready = select.select([notify, pidfd], [], [], left)[0]
                if notify in ready and b"READY=1" in notify.recv(4096):
                    return
                if pidfd in ready:
                    raise EngineFailed(f"{self.kind} ended with {self.process.wait()}:\n{self.log_tail()}")
        finally:
            os.close(pidfd)
        self.kill()
        raise EngineFailed(f"{self.kind} was not ready after {_START_TIMEOUT} s:\n{self.log_tail()}")

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise EngineFailed(f"{self.kind} did not stop within {_STOP_TIMEOUT} s:\n{self.log_tail()}") from None
        finally:
            self.process = None

    def kill(self):
        """As a crash: SIGKILL, for the engine's own process only."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def destroy(self):
        """Removes every trace, whatever state it is in."""
        if self.process is not None:
            try:
                self.stop()
            except EngineFailed:
                pass
        leaks.sweep(self)
        shutil.rmtree(self.root, ignore_errors=True)

    # Use.

    def api(self, version="1.41", timeout=120):
        return Api(self.socket, version, timeout)

    def docker(self, *args, input=None, timeout=120, check=False, binary=False):
        """Runs the docker client against this engine."""
        if isinstance(input, str) and not binary:
            input = input.encode()
        result = subprocess.run(["docker", *args], input=input if input is not None else b"", timeout=timeout,
                                env=self.client_env(), capture_output=True)
        if not binary:
            result.stdout, result.stderr = result.stdout.decode(), result.stderr.decode()
        if check and result.returncode != 0:
            raise AssertionError(f"docker {' '.join(args)} gave {result.returncode}: {result.stderr}")
        return result

    def client_env(self):
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), "DOCKER_HOST": f"unix://{self.socket}",
                "DOCKER_CONFIG": str(self.root / "client")}

    def log_text(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines=25):
        return "\n".join(self.log_text().splitlines()[-lines:])


class Gantry(Engine):
    kind = "gantry"

    @staticmethod
    def program():
        return Path(os.environ.get("GANTRYD", REPO / "build/release/src/gantryd"))

    def base_config(self):
        return {"builder": {"idle": 3}}  # seconds: an engine is idle soon after a build

    def command(self):
        return [str(self.program()), "--config-file", str(self.config_file), "-H", f"unix://{self.socket}", "--data-root",
                str(self.data_root), "--exec-root", str(self.exec_root), "--pidfile", str(self.pidfile),
                "--cgroup-parent", "/" + self.name, "-D"]


class Docker(Engine):
    """Debian's dockerd 20.10, unpacked below build/oracle by `scripts/oracle fetch`."""

    kind = "docker"
    tree = REPO / "build/oracle/root"

    def base_config(self):
        return {"deprecated-key-path": str(self.root / "key.json")}

    def command(self):
        return [str(self.tree / "usr/sbin/dockerd"), "--config-file", str(self.config_file), "-H", f"unix://{self.socket}",
                "--data-root", str(self.data_root), "--exec-root", str(self.exec_root), "--pidfile", str(self.pidfile),
                "--cgroup-parent", "/" + self.name, "--userland-proxy-path", str(self.tree / "usr/sbin/docker-proxy"),
                "--init-path", shutil.which("tini-static") or "tini-static"]

    def env(self):
        paths = [self.tree / "usr/bin", self.tree / "usr/sbin", os.environ["PATH"], "/usr/sbin", "/sbin"]
        return {**super().env(), "PATH": ":".join(map(str, paths))}


def fetch_oracle():
    """Downloads Debian's docker.io and containerd and unpacks them; nothing is installed or started."""
    program = Docker.tree / "usr/sbin/dockerd"
    if program.exists() and (Docker.tree / "usr/bin/containerd").exists():
        return program
    packages = Docker.tree.parent / "debs"
    packages.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-o", "Acquire::Retries=5", "download", "-q", "docker.io", "containerd"]
    subprocess.run(private_host.outside(command), cwd=packages, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, Docker.tree], check=True)
    return program

