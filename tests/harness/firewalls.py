"""Other people's packet filters as Debian packs them: unpacked below build/firewalls, not installed. They run in the
namespaces of the test, with a message bus and a configuration of their own."""

import os
import shutil
import subprocess
import time

from . import private_host
from .engine import REPO

_TREE = REPO / "build/firewalls/root"
_PACKAGES = ("firewalld", "python3-firewall", "python3-nftables", "python3-dbus", "python3-gi", "gir1.2-glib-2.0",
             "libgirepository-1.0-1", "libglib2.0-0", "libdbus-1-3", "libdbus-glib-1-2", "python3-cap-ng", "libcap-ng0",
             "libffi8", "libexpat1", "libsystemd0", "libapparmor1", "dbus-daemon", "dbus-bin", "ufw")
_LIBRARIES = _TREE / "usr/lib/x86_64-linux-gnu"
_MODULES = _TREE / "usr/lib/python3/dist-packages"
_ENV = {**os.environ, "PATH": f"{_TREE}/usr/bin:{_TREE}/usr/sbin:/usr/local/sbin:/usr/sbin:/sbin:" + os.environ["PATH"],
        "LD_LIBRARY_PATH": str(_LIBRARIES), "GI_TYPELIB_PATH": str(_LIBRARIES / "girepository-1.0"),
        "PYTHONPATH": str(_MODULES), "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/test-bus"}

_BUS = """<busconfig><type>system</type><listen>unix:path=/run/test-bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>
"""


def fetch():
    if (_TREE / "usr/sbin/firewalld").exists() and (_TREE / "usr/sbin/ufw").exists():
        return
    packages = _TREE.parent / "debs"
    packages.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-o", "Acquire::Retries=5", "download", "-q", *_PACKAGES]
    subprocess.run(private_host.outside(command), cwd=packages, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, _TREE], check=True)


class Firewalld:
    """With the nftables backend and its usual zones."""

    def __init__(self, directory):
        fetch()
        directory.mkdir()
        (directory / "bus.conf").write_text(_BUS)
        shutil.copytree(_TREE / "etc/firewalld", directory / "system")
        self._log = (directory / "log").open("w")
        self._bus = subprocess.Popen(["dbus-daemon", f"--config-file={directory}/bus.conf", "--nofork", "--nopidfile"],
                                     env=_ENV, stdout=self._log, stderr=self._log)
        self._await(lambda: os.path.exists("/run/test-bus"), self._bus)
        command = ["/usr/bin/python3", _TREE / "usr/sbin/firewalld", "--nofork", "--nopid", "--log-target", "console",
                   "--system-config", directory / "system", "--default-config", _TREE / "usr/lib/firewalld"]
        self._daemon = subprocess.Popen(command, env=_ENV, stdout=self._log, stderr=self._log)
        self._await(lambda: self._call("firewall-cmd", "--state").returncode == 0, self._daemon)

    def _await(self, ready, process):
        end = time.monotonic() + 200
        while not ready():
            assert process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.05)

    def log(self):
        with open(self._log.name) as log:
            return log.read()

    def _call(self, program, *arguments):
        return subprocess.run(["/usr/bin/python3", _TREE / "usr/bin" / program, *arguments], env=_ENV, capture_output=True,
                              text=True, timeout=200)

    def command(self, *arguments):
        result = self._call("firewall-cmd", *arguments)
        assert result.returncode == 0, f"{arguments}: {result.stdout} {result.stderr}\n{self.log()}"
        return result.stdout

    def close(self):
        for process in (self._daemon, self._bus):
            process.terminate()
            process.wait()
        self._log.close()


class Ufw:
    """With a configuration below `directory`."""

    def __init__(self, directory):
        fetch()
        self.directory = directory
        etc = directory / "etc"
        shutil.copytree(_TREE / "usr/share/ufw", etc / "ufw")
        shutil.copytree(_TREE / "usr/share/ufw/iptables", etc / "ufw", dirs_exist_ok=True)
        shutil.copytree(_TREE / "etc", etc, dirs_exist_ok=True)
        shutil.copytree(_TREE / "lib/ufw", directory / "lib/ufw")
        self.command("--force", "enable")

    def command(self, *arguments):
        command = ["/usr/bin/python3", _TREE / "usr/sbin/ufw", f"--rootdir={self.directory}", f"--datadir={self.directory}",
                   *arguments]
        result = subprocess.run(command, env=_ENV, capture_output=True, text=True, timeout=200)
        assert result.returncode == 0, f"{arguments}: {result.stdout} {result.stderr}"
        return result.stdout

    def close(self):
        """ufw leaves its chains, and us among them."""
        self.command("disable")
        for program in ("iptables", "ip6tables"):
            for command in ("-F", "-X"):
                subprocess.run([program, command], check=True)
