"""How questions and answers travel between a container, its name server and the ones beyond: search domains, ndots, TCP,
EDNS, and servers that answer nonsense."""

import json
import socket
import struct
import subprocess
import sys
import threading

import pytest

from harness.dns import sleeper
from harness.wire import ip

ANSWER = "192.0.2.80"


def name_of(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels), at + 5


def reply_to(query, addresses=(ANSWER,), code=0, flags=0):
    """An answer with these addresses; what follows the question is left out."""
    _, end = name_of(query)
    out = query[:2] + bytes([0x81 | flags, 0x80 | code]) + struct.pack("!4H", 1, len(addresses), 0, 0) + query[12:end]
    for address in addresses:
        out += struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
    return out


class Resolver:
    """Answers over UDP what `udp` makes of a query (a list of datagrams), and over TCP what `tcp` does."""

    def __init__(self, ip, udp=lambda query: [reply_to(query)], tcp=reply_to):
        self.udp, self.tcp, self.asked, self.over = udp, tcp, [], False
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((ip, 53))
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((ip, 53))
        self.listener.listen()
        for each in (self.datagrams, self.listener):
            each.settimeout(0.1)
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self.threads:
            thread.start()

    def names(self, kind):
        return [name_of(query)[0] for way, query in self.asked if way == kind]

    def _serve_udp(self):
        while not self.over:
            try:
                query, peer = self.datagrams.recvfrom(65536)
            except TimeoutError:
                continue
            self.asked.append(("udp", query))
            for answer in self.udp(query):
                self.datagrams.sendto(answer, peer)

    def _serve_tcp(self):
        while not self.over:
            try:
                peer, _ = self.listener.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(30)
                data = b""
                while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                    data += peer.recv(65536)
                self.asked.append(("tcp", data[2:]))
                answer = self.tcp(data[2:])
                peer.sendall(struct.pack("!H", len(answer)) + answer)

    def close(self):
        self.over = True
        for thread in self.threads:
            thread.join()
        self.datagrams.close()
        self.listener.close()


# One question with EDNS or without; tells the code, whether the answer was cut, and how many answers there are.
_ASK = """
import json, socket, struct, sys
name, size, tcp = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tcp"
packet = struct.pack("!6H", 77, 0x100, 1, 0, 0, 1 if size else 0)
packet += b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + bytes(1) + struct.pack("!2H", 1, 1)
if size: packet += struct.pack("!B2HIH", 0, 41, size, 0, 0)
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
s.settimeout(30); s.connect(("127.0.0.11", 53))
s.sendall((struct.pack("!H", len(packet)) if tcp else b"") + packet)
reply = s.recv(65536)
if tcp:
    while len(reply) < 2 or len(reply) < 2 + struct.unpack("!H", reply[:2])[0]: reply += s.recv(65536)
    reply = reply[2:]
assert reply[:2] == packet[:2]
print(json.dumps({"code": reply[3] & 15, "cut": bool(reply[2] & 2), "answers": struct.unpack("!H", reply[6:8])[0], "size": len(reply)}))
"""


def ask(api, container, name, size=0, way="udp"):
    command = ["nsenter", "-t", str(api.state(container)["Pid"]), "-n", sys.executable, "-c", _ASK, name, str(size), way]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.fixture
def second():
    """Another address of the host's."""
    ip("addr", "add", "10.89.9.1/32", "dev", "lo")
    yield "10.89.9.1"
    ip("addr", "del", "10.89.9.1/32", "dev", "lo")


@pytest.fixture
def resolver(network, second):
    made = []

    def make(*args, **options):
        made.append(Resolver(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def network(api):
    """A network whose gateway's address servers of the test listen on: they are asked from inside the container."""
    api.ok("POST", "/networks/create", body={"Name": "blue", "IPAM": {"Config": [
        {"Subnet": "10.89.0.0/24", "Gateway": "10.89.0.1"}]}})
    return "10.89.0.1"


MANY = ["192.0.2.%d" % n for n in range(1, 101)]  # 1,600 bytes and more


def test_long_answers_travel_as_the_client_can_take_them(api, network, resolver):
    def udp(query):
        """A server that keeps to what it was told."""
        _, end = name_of(query)
        room = struct.unpack("!H", query[end + 3:end + 5])[0] if len(query) > end else 512
        whole = reply_to(query, MANY)
        return [whole if len(whole) <= room else reply_to(query, (), flags=2)]

    upstream = resolver(network, udp=udp, tcp=lambda query: reply_to(query, MANY))
    client = sleeper(api, "client", "blue", host={"Dns": [network]})
    answer = ask(api, client, "long.example.org")
    assert answer["cut"] and answer["code"] == 0 and answer["size"] <= 512
    assert upstream.names("tcp") == []
    assert ask(api, client, "long.example.org", way="tcp")["answers"] == 100
    assert upstream.names("tcp") == ["long.example.org"]
    answer = ask(api, client, "long.example.org", size=4096)
    assert (answer["answers"], answer["cut"]) == (100, False)


@pytest.mark.gantry_only
def test_more_than_the_client_can_take_is_cut_on_the_way(api, network, resolver):
    resolver(network, udp=lambda query: [reply_to(query, MANY)])
    client = sleeper(api, "client", "blue", host={"Dns": [network]})
    for size, room in ((0, 512), (1232, 1232)):
        answer = ask(api, client, "long.example.org", size=size)
        assert answer["cut"] and answer["size"] <= room
    answer = ask(api, client, "long.example.org", size=4096)
    assert (answer["answers"], answer["cut"]) == (100, False)


def _other(query):
    """The same length, another name."""
    return query[:13] + bytes([query[13] ^ 1]) + query[14:]


@pytest.mark.gantry_only
def test_nonsense_is_no_answer(api, network, second, resolver):
    """What is no answer to the question is passed over, whether the true answer follows or another server has to be asked."""
    nonsense = [lambda query: b"", lambda query: b"\0" * 5, lambda query: b"\xff" * 700, lambda query: query,
                lambda query: bytes([query[0] ^ 1]) + reply_to(query, ["192.0.2.66"])[1:],
                lambda query: reply_to(_other(query), ["192.0.2.66"])]
    resolver(network, udp=lambda query: [make(query) for make in nonsense] + [reply_to(query)])
    client = sleeper(api, "client", "blue", host={"Dns": [network]})
    assert ask(api, client, "one.example.org") == {"code": 0, "cut": False, "answers": 1, "size": 49}
    api.remove(client)
    useless = resolver(second, udp=lambda query: [make(query) for make in nonsense])
    client = sleeper(api, "other", "blue", host={"Dns": [second, network]})
    assert ask(api, client, "two.example.org")["answers"] == 1
    assert useless.names("udp") == ["two.example.org"]


@pytest.mark.parametrize("code", [2, 5])
def test_a_server_that_cannot_or_will_not_is_followed_by_the_next(api, network, second, resolver, code):
    bad = resolver(second, udp=lambda query: [reply_to(query, (), code)], tcp=lambda query: reply_to(query, (), code))
    resolver(network)
    client = sleeper(api, "client", "blue", host={"Dns": [second, network]})
    for way in ("udp", "tcp"):
        assert ask(api, client, f"{way}.example.org", way=way)["answers"] == 1
        assert bad.names(way) == [f"{way}.example.org"]


@pytest.mark.gantry_only  # 20.10 asks the next server
def test_that_there_is_no_such_name_is_an_answer(api, network, resolver):
    first = resolver(network, udp=lambda query: [reply_to(query, (), 3)])
    client = sleeper(api, "client", "blue", host={"Dns": [network, "10.89.0.250"]})
    assert ask(api, client, "nobody.example.org") == {"code": 3, "cut": False, "answers": 0, "size": 36}
    assert first.names("udp") == ["nobody.example.org"]


def settings(text):
    """What counts of a resolv.conf."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("host, lines", [
    ({}, ["options ndots:0"]),
    ({"DnsSearch": ["corp.test", "lab.test"]}, ["search corp.test lab.test", "options ndots:0"]),
    ({"DnsOptions": ["ndots:2", "timeout:3"]}, ["options ndots:2 timeout:3"]),
    ({"DnsOptions": ["timeout:3"], "DnsSearch": ["."]}, ["options timeout:3 ndots:0"]),
])
def test_resolv_conf_says_what_was_asked_for(api, docker, network, host, lines):
    sleeper(api, "client", "blue", host={"Dns": [network], **host})
    shown = settings(docker("exec", "client", "cat", "/etc/resolv.conf", check=True).stdout)
    if "DnsSearch" not in host:
        shown = [line for line in shown if not line.startswith("search ")]  # the machine's own
    assert sorted(shown) == sorted(["nameserver 127.0.0.11", *lines])


def look_up(api, scratch, container, name):
    """As a program in the container would: glibc with the container's resolv.conf."""
    pid = api.state(container)["Pid"]
    copy = scratch / "resolv.conf"
    with open(f"/proc/{pid}/root/etc/resolv.conf") as conf:
        copy.write_text(conf.read())
    program = f"import socket; print(socket.getaddrinfo('{name}', 1, socket.AF_INET)[0][4][0])"
    script = f'mount --bind {copy} /etc/resolv.conf && exec nsenter -t {pid} -n {sys.executable} -c "{program}"'
    result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("options, name, passed_on", [
    ([], "elsewhere", ["elsewhere", "elsewhere.corp.test"]),
    (["ndots:1"], "elsewhere", ["elsewhere.corp.test"]),
    (["ndots:1"], "else.where", ["else.where", "else.where.corp.test"]),
    (["ndots:2"], "else.where", ["else.where.corp.test"]),
    (["ndots:2"], "elsewhere", ["elsewhere.corp.test"]),
])
def test_search_domains_complete_what_nobody_here_is_called(api, scratch, network, resolver, options, name, passed_on):
    def udp(query):
        asked, _ = name_of(query)
        return [reply_to(query) if asked == f"{name}.corp.test" else reply_to(query, (), 3)]

    upstream = resolver(network, udp=udp)
    server = sleeper(api, "server", "blue")
    client = sleeper(api, "client", "blue", host={"Dns": [network], "DnsSearch": ["corp.test"], "DnsOptions": options})
    assert look_up(api, scratch, client, "server") == api.inspect(server)["NetworkSettings"]["Networks"]["blue"]["IPAddress"]
    upstream.asked.clear()
    assert look_up(api, scratch, client, name) == ANSWER
    assert upstream.names("udp") == passed_on
