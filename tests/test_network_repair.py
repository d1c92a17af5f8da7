"""Somebody breaks the network while a client transfers and another resolves: it is put right within two seconds."""

import os
import subprocess
import threading
import time

import pytest

from harness.dns import Inside
from harness.wire import HOST, Client, Neighbour, Server, enter_container, ip
from test_network_kinds import make_ok, sleeper

pytestmark = pytest.mark.gantry_only

_HEALED_WITHIN = 2.0  # nearly always; a loaded machine may take longer now and then
_PATIENCE = 60
PORT = 8080

_STREAM = """
import selectors, socket, sys
# Sends for as long as the other end reads; the reader counts.
if sys.argv[1] == 'send':
    listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(('', 90)); listener.listen(); print('up', flush=True)
    while True:
        peer, _ = listener.accept()
        try:
            while True: peer.sendall(b'x' * 4096)
        except OSError: pass
else:
    s = socket.create_connection((sys.argv[2], int(sys.argv[3])), 30); s.settimeout(60)
    total = 0
    while True:
        data = s.recv(65536)
        if not data: break
        total += len(data)
        print(total, flush=True)
"""


class Transfer:
    """A download from a container through its published port, by the neighbour, that goes on until it is closed."""

    def __init__(self, enter):
        self.process = subprocess.Popen([*enter, "python3", "-c", _STREAM, "receive", HOST, str(PORT + 10)],
                                        stdout=subprocess.PIPE, text=True)
        self.total = 0
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.total = int(line)
        self.ended = True

    def goes_on(self, within):
        before, end = self.total, time.monotonic() + within
        while time.monotonic() < end and not self.ended:
            if self.total > before:
                return True
            time.sleep(0.02)
        return False

    def close(self):
        self.process.kill()
        self.process.wait()


class World:
    def __init__(self, fresh, opened, config=None):
        self.engine = fresh(config=config)
        self.api = self.engine.api("1.48")
        opened.append(neighbour := Neighbour())
        make_ok(self.api, "blue", EnableIPv6=True, Options={"com.docker.network.bridge.name": "br-blue"})
        host = {"PortBindings": {"80/tcp": [{"HostPort": str(PORT)}], "90/tcp": [{"HostPort": str(PORT + 10)}]}}
        self.server = sleeper(self.api, "server", "blue", ExposedPorts={"80/tcp": {}, "90/tcp": {}}, host=host)
        self.client = sleeper(self.api, "client", "blue")
        enter = enter_container(self.api, self.server)
        opened.append(Server(enter))
        sender = subprocess.Popen([*enter, "python3", "-c", _STREAM, "send"], stdout=subprocess.PIPE, text=True)
        assert sender.stdout.readline() == "up\n"
        opened.append(Closing(sender))
        self.neighbour = Client(neighbour.enter())
        self.inside = Inside(self.api, self.client)
        self.peer = Client(enter_container(self.api, self.client))
        self.transfer = Transfer(neighbour.enter())
        opened.extend([self.neighbour, self.inside, self.peer, self.transfer])
        assert self.transfer.goes_on(_PATIENCE)

    def address(self, container="server"):
        return self.api.inspect(container)["NetworkSettings"]["Networks"]["blue"]["IPAddress"]

    def veth(self, container="server"):
        pid = str(self.api.state(container)["Pid"])
        index = subprocess.run(["nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "eth0"], capture_output=True,
                               text=True).stdout.split("@if")[1].split(":")[0]
        return next(line.split(":")[1].split("@")[0].strip() for line in ip("-o", "link").splitlines()
                    if line.startswith(index + ":"))

    def works(self):
        """From the wire, from the host, from another container, and by name."""
        answers = self.neighbour.ask([("tcp", HOST, PORT)], wait=0.5)
        answers += self.peer.ask([("tcp", self.address(), 80)], wait=0.5)
        return all(answers) and self.inside.ask("server")[0] == 0

    def await_repair(self):
        """How long it took until everything worked again."""
        started = time.monotonic()
        while not self.works():
            assert time.monotonic() - started < _PATIENCE, f"not healed:\n{self.engine.log_tail()}"
        return time.monotonic() - started

    def repairs(self):
        return self.engine.log_text().count("repaired after a foreign change")


class Closing:
    def __init__(self, process):
        self.process = process

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def opened():
    made = []
    yield made
    for each in reversed(made):
        each.remove() if isinstance(each, Neighbour) else each.close()


def run(command):
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


_DAMAGE = [
    "nft flush ruleset",
    "nft delete table ip gantry; true",
    "iptables-legacy -F; iptables-legacy -t nat -F; iptables-nft -F; iptables-nft -t nat -F",
    "ip link del br-blue",
    "ip link set {veth} nomaster",
    "ip link set {veth} down",
    "ip addr flush dev br-blue",
    "ip link set br-blue down",
    "ip link set br-blue address 02:00:00:00:00:99",
    "sysctl -qw net.ipv4.ip_forward=0",
    "sysctl -qw net.ipv6.conf.br-blue.disable_ipv6=1",
]


@pytest.mark.slow
def test_whatever_somebody_breaks_is_repaired(fresh, opened):
    world = World(fresh, opened)
    times = {}
    for damage in _DAMAGE:
        run(damage.format(veth=world.veth()))
        times[damage] = world.await_repair()
        assert world.transfer.goes_on(_PATIENCE), f"the transfer ended after: {damage}"
    assert sorted(times.values())[len(times) // 2] < _HEALED_WITHIN, times
    end = time.monotonic() + _PATIENCE
    while "inet6 fd" not in ip("addr", "show", "dev", "br-blue"):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert world.repairs() >= len(_DAMAGE) - 3  # others cannot touch our tables in the first place


def test_a_repair_is_an_event(fresh, opened):
    world = World(fresh, opened)
    with world.api.events(type={"network": True}) as events:
        run("ip addr flush dev br-blue")
        event = events.until("heal", "network")
    assert event["Actor"]["Attributes"]["name"] == "blue"
    assert "gave bridge br-blue its address" in event["Actor"]["Attributes"]["detail"]


def test_who_fights_back_is_left_alone_and_reported(fresh):
    engine = fresh()
    api = engine.api()
    make_ok(api, "blue", Options={"com.docker.network.bridge.name": "br-blue"})
    end = time.monotonic() + _PATIENCE
    while "bridge br-blue was changed 5 times within a minute" not in engine.log_text():
        assert time.monotonic() < end, engine.log_tail()
        if ",UP" in ip("link", "show", "br-blue"):
            run("ip link set br-blue down")
        time.sleep(0.01)
    assert engine.log_text().count("set bridge br-blue up") <= 6
    assert any("bridge br-blue is changed by something else" in w for w in api.ok("GET", "/info").json()["Warnings"])
    # Others are still looked after.
    run("ip link set gantry0 down")
    end = time.monotonic() + _PATIENCE
    while "<NO-CARRIER,BROADCAST,MULTICAST,UP>" not in ip("link", "show", "gantry0"):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killing_the_daemon_loses_nothing(fresh, opened):
    """A published port answers and names resolve all the time, while the daemon is killed and started again."""
    world = World(fresh, opened)
    lost = []
    stop = threading.Event()

    def ask_all_the_time():
        while not stop.is_set():
            if world.neighbour.ask([("tcp", HOST, PORT)], wait=20) == [None]:
                lost.append("port")
            time.sleep(0.02)  # or the kernel runs out of fresh ports, and connections meet the remains of former ones

    def resolve_all_the_time():
        while not stop.is_set():
            if world.inside.ask("server")[0] != 0:
                lost.append("name")

    threads = [threading.Thread(target=ask_all_the_time), threading.Thread(target=resolve_all_the_time)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(int(os.environ.get("GANTRY_TEST_KILLS", "20"))):
            world.engine.kill()
            world.engine.start()
            assert world.transfer.goes_on(_PATIENCE)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not lost


@pytest.mark.parametrize("kind", ["legacy", "nft"])
def test_a_way_through_others_rules_is_made_again(fresh, opened, kind):
    programs = [f"iptables-{kind}", f"ip6tables-{kind}"]
    for program in programs:
        run(f"{program} -P FORWARD DROP")
    try:
        world = World(fresh, opened, config={"firewall-compat": "insert"})
        for _ in range(2):
            for program in programs:
                run(f"{program} -F; {program} -t nat -F")
            world.await_repair()
            assert world.transfer.goes_on(_PATIENCE)
        rules = subprocess.run([programs[0], "-S", "FORWARD"], capture_output=True, text=True).stdout
        assert rules.count("ACCEPT") == 1 and "0x4000000/0x4000000" in rules
    finally:
        for program in programs:
            run(f"{program} -P FORWARD ACCEPT; {program} -F FORWARD")
