"""What networks and published ports cost; bench/run shows these rows with its own."""

import os
import statistics
import subprocess
import sys
import time

from harness.wire import HOST, Client, Neighbour, enter_container, ip

_IDLE = ["sleep", "1000000"]

_ECHO = """
import select, socket
listener = socket.socket(socket.AF_INET6); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(('::', 80)); listener.listen(512); print('up', flush=True)
poll = select.epoll(); poll.register(listener, select.EPOLLIN); open_ = {}
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            peer, _ = listener.accept(); open_[peer.fileno()] = peer; poll.register(peer, select.EPOLLIN)
        else:
            data = open_[fd].recv(4096) if fd in open_ else b''
            if data: open_[fd].sendall(data)
            else: poll.unregister(fd); open_.pop(fd).close()
"""

_DRIVE = """
import socket, sys, time
host, port, seconds, fresh = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == 'new'
def connect():
    s = socket.create_connection((host, port), 5); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); return s
s, count, end = connect(), 0, time.perf_counter() + seconds
while time.perf_counter() < end:
    if fresh: s.close(); s = connect()
    s.sendall(b'x' * 100)
    assert s.recv(4096)
    count += 1
print(count / seconds)
"""


def _processes():
    """Of everybody in this network namespace."""
    ours, count = os.readlink("/proc/self/ns/net"), 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            count += os.readlink(f"/proc/{name}/ns/net") == ours
        except OSError:
            continue
    return count


class NetworkBench:
    """`bench`: the engine, its API and the number of rounds."""

    def __init__(self, bench):
        self.bench, self.api = bench, bench.api

    def _with_ports(self, number):
        if number >= 1000 and self.bench.engine.kind == "docker":
            raise RuntimeError("two processes for each port: it takes minutes and 6 GiB")
        bindings = {f"{port}/tcp": [{"HostPort": str(20000 + port)}] for port in range(1, number + 1)}
        return self.api.create(Cmd=_IDLE, ExposedPorts={port: {} for port in bindings}, host={"PortBindings": bindings})

    def _start(self, container):
        started = time.perf_counter()
        self.api.start(container)
        return (time.perf_counter() - started) * 1000

    def start_in(self, network):
        """Milliseconds of the start alone."""
        if network == "user":
            self.api.ok("POST", "/networks/create", body={"Name": "bench-user", "IPAM": {"Config": [{"Subnet": "10.199.0.0/24"}]}})
        mode = "bench-user" if network == "user" else network
        times = []
        for _ in range(self.bench.rounds):
            container = self.api.create(Cmd=_IDLE, host={"NetworkMode": mode})
            times.append(self._start(container))
            self.api.remove(container)
        if network == "user":
            self.api.ok("DELETE", "/networks/bench-user")
        return times

    def start_with_ports(self, number):
        times = []
        for _ in range(3 if number < 1000 else 2):
            container = self._with_ports(number)
            times.append(self._start(container))
            self.api.remove(container)
        return times

    def cost_of_ports(self, number, measure):
        before = measure()
        container = self._with_ports(number)
        self._start(container)
        result = [measure() - before]
        self.api.remove(container)
        return result

    def create_networks(self, number):
        """Milliseconds for each."""
        times, made = [], []
        for n in range(number):
            body = {"Name": f"bench-{n}", "IPAM": {"Config": [{"Subnet": f"10.{200 + n // 250}.{n % 250}.0/24"}]}}
            started = time.perf_counter()
            made.append(self.api.ok("POST", "/networks/create", body=body).json()["Id"])
            times.append((time.perf_counter() - started) * 1000)
        for network in made:
            self.api.ok("DELETE", f"/networks/{network}")
        return times

    def last_against_first(self, number):
        """The time of the last ten starts on one bridge over that of the first ten."""
        times = [self._start(self.api.create(Cmd=_IDLE)) for _ in range(number)]
        self.bench._wipe()
        return [statistics.median(times[-10:]) / statistics.median(times[:10])]

    def rate(self, place, fresh):
        """Requests of 100 bytes per second, one at a time."""
        container = self.api.run(_IDLE, ExposedPorts={"80/tcp": {}}, host={"PortBindings": {"80/tcp": [{"HostPort": "20080"}]}})
        server = subprocess.Popen([*enter_container(self.api, container), sys.executable, "-c", _ECHO],
                                  stdout=subprocess.PIPE, text=True)
        neighbour = Neighbour()
        try:
            assert server.stdout.readline() == "up\n"
            host = "127.0.0.1" if place == "loopback" else HOST
            enter = neighbour.enter() if place == "neighbour" else []
            command = [*enter, sys.executable, "-c", _DRIVE, host, "20080", "1.5", "new" if fresh else "one"]
            return [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        finally:
            neighbour.remove()
            server.kill()
            server.wait()
            self.api.remove(container)

    def repair_with_ports(self, number):
        """Milliseconds from the loss of the bridge until a published port answers again."""
        self.api.ok("POST", "/networks/create", body={"Name": "bench-repair", "Options": {
            "com.docker.network.bridge.name": "br-repair"}})
        bindings = {f"{port}/tcp": [{"HostPort": str(20000 + port)}] for port in range(1, number + 1)}
        container = self.api.run(_IDLE, ExposedPorts={port: {} for port in bindings},
                                 host={"NetworkMode": "bench-repair", "PortBindings": bindings})
        server = subprocess.Popen([*enter_container(self.api, container), sys.executable, "-c", _ECHO],
                                  stdout=subprocess.PIPE, text=True)
        neighbour = Neighbour()
        client = Client(neighbour.enter())
        times = []
        try:
            assert server.stdout.readline() == "up\n"
            for _ in range(3):
                ip("link", "del", "br-repair")
                started = time.perf_counter()
                script = (f"import socket,time\nend=time.time()+10\nwhile time.time()<end:\n try:\n"
                          f"  s=socket.create_connection(('{HOST}',20080),0.05); s.sendall(b'x'); s.recv(1); break\n"
                          f" except OSError: pass\nelse: raise SystemExit(1)")
                subprocess.run([*neighbour.enter(), sys.executable, "-c", script], check=True)
                times.append((time.perf_counter() - started) * 1000)
        finally:
            client.close()
            neighbour.remove()
            server.kill()
            server.wait()
            self.api.remove(container)
            self.api.delete("/networks/bench-repair")
        return times


def rows(quick, memory):
    """(name, unit, more is better, measurement). `memory`: MiB of an engine's processes, by its kind."""
    def of(method, *args):
        return lambda bench: getattr(NetworkBench(bench), method)(*args)

    for name, network in (("without network", "none"), ("in the default network", "bridge"), ("in a user network", "user")):
        yield f"start {name}", "ms", False, of("start_in", network)
    for number in (1, 100, 1000):
        yield f"start with {number} ports", "ms", False, of("start_with_ports", number)
    for number in (100,) if quick else (100, 1000):
        yield f"processes for {number} ports", "", False, of("cost_of_ports", number, _processes)
        yield (f"memory for {number} ports", "MiB", False,
               lambda bench, n=number: NetworkBench(bench).cost_of_ports(n, lambda: memory(bench.engine.kind)))
    yield f"network create, {50 if quick else 500}", "ms", False, of("create_networks", 50 if quick else 500)
    yield f"start of the {50 if quick else 200}th on a bridge", "x 1st", False, of("last_against_first", 50 if quick else 200)
    for place in ("host", "loopback", "neighbour"):
        yield f"requests from {place}", "per s", True, of("rate", place, False)
        yield f"connections from {place}", "per s", True, of("rate", place, True)
    yield "repair with 1000 ports", "ms", False, of("repair_with_ports", 1000)
