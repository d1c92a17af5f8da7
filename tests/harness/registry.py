"""Debian's docker-registry on a loopback port."""

import base64
import json
import os
import select
import socket
import subprocess
import time
import urllib.request
from pathlib import Path


class Registry:
    def __init__(self, directory, user=None, password=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.user, self.password = user, password
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        auth = ""
        if self.user:
            users = self.directory / "htpasswd"
            users.write_text(_htpasswd(self.user, self.password) + "\n")
            auth = f"auth:\n  htpasswd:\n    realm: tests\n    path: {users}\n"
        config = self.directory / "config.yml"
        config.write_text("version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: "
                          f"{self.directory}/store\n  delete:\n    enabled: true\nhttp:\n  addr: {self.host}\n{auth}")
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
        self._await_listening()
        return self

    def _await_listening(self):
        deadline, log = time.monotonic() + 60, b""
        pipe = self.process.stderr.fileno()
        while b"listening on" not in log:
            if not select.select([pipe], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"docker-registry does not listen: {log!r}")
            chunk = os.read(pipe, 65536)
            if not chunk:
                raise AssertionError(f"docker-registry ended: {log!r}")
            log += chunk
        # Nobody reads its log any more; a closed pipe must not end it.
        import threading

        threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(pipe, 65536), b"")], daemon=True).start()

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def auth_header(self):
        """For X-Registry-Auth."""
        auth = {"username": self.user, "password": self.password, "serveraddress": self.host}
        return base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()

    def get(self, path, accept="*/*"):
        request = urllib.request.Request(f"http://{self.host}{path}", headers={"Accept": accept})
        if self.user:
            token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_header("Authorization", "Basic " + token)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)


def _htpasswd(user, password):
    """docker-registry takes bcrypt only; crypt(3) of Debian knows it."""
    import crypt

    return f"{user}:{crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=2**5))}"


class SilentServer:
    """Accepts connections and never answers: a registry that hangs."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(16)
        self.host = "127.0.0.1:%d" % self._socket.getsockname()[1]

    def accept(self, timeout=60):
        self._socket.settimeout(timeout)
        return self._socket.accept()[0]

    def close(self):
        self._socket.close()
