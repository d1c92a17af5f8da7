"""Many containers ask at once, of servers that are dead, fail or are good."""

import json
import subprocess
import sys

import pytest

from harness.dns import Upstream, make_network, sleeper

pytestmark = [pytest.mark.gantry_only, pytest.mark.slow]

CONTAINERS, LOOKUPS = 20, 100

# Sends all questions at once and counts the answers as they come.
_FLOOD = """
import json, select, socket, struct, sys, time
count, own = int(sys.argv[1]), sys.argv[2]
started = time.monotonic()
sockets, waiting = [], {}
for n in range(count):
    name = own if n % 4 == 0 else f"x{n}.example.org"
    packet = struct.pack("!6H", n, 0x100, 1, 0, 0, 0)
    packet += b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack("!2H", 1, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("127.0.0.11", 53))
    s.send(packet)
    waiting[s] = packet
answered, failed, last, longest = 0, 0, time.monotonic(), 0
while waiting and time.monotonic() - started < 100:
    ready, _, _ = select.select(list(waiting), [], [], 5)
    for s in ready:
        reply = s.recv(4096)
        if reply[3] & 15 == 0 and reply[6:8] == b"\\0\\1": answered += 1
        else: failed += 1
        del waiting[s]
        longest = time.monotonic() - started
    if not ready:  # as any client does
        for s, packet in waiting.items(): s.send(packet)
print(json.dumps({"answered": answered, "failed": failed, "took": longest}))
"""


@pytest.fixture
def servers():
    made = [Upstream("127.0.0.22", code=2), Upstream("127.0.0.23", "192.0.2.23")]
    yield made
    for each in made:
        each.close()


def test_two_thousand_lookups_are_all_answered_and_nobody_starves(fresh, scratch, servers):
    resolv_conf = scratch / "resolv.conf"
    # The first is dead: nobody listens there.
    resolv_conf.write_text("nameserver 127.0.0.21\nnameserver 127.0.0.22\nnameserver 127.0.0.23\n")
    api = fresh(config={"resolv-conf": str(resolv_conf)}).api()
    make_network(api, "blue")
    clients = []
    for n in range(CONTAINERS):
        container = sleeper(api, f"client-{n}", "blue")
        enter = ["nsenter", "-t", str(api.state(container)["Pid"]), "-n"]
        clients.append([*enter, sys.executable, "-c", _FLOOD, str(LOOKUPS), f"client-{n}"])
    running = [subprocess.Popen(client, stdout=subprocess.PIPE, text=True) for client in clients]
    results = [json.loads(process.communicate(timeout=200)[0]) for process in running]
    assert [r for r in results if r["answered"] != LOOKUPS or r["failed"]] == []
    times = sorted(result["took"] for result in results)
    # Everybody is served at the same time: the last is not made to wait for all the others.
    assert times[-1] < 5 * times[0] + 10, times
