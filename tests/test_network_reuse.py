"""An address that has a new owner: whoever talked to the old one reaches the new one at once."""

import subprocess
import time

import pytest

from harness.wire import Client, Server, enter_container
from test_network_kinds import make_ok, sleeper

V4, V6 = "10.88.0.77", "fd88::77"


@pytest.fixture
def opened():
    made = []
    yield made
    for each in reversed(made):
        each.close()


def owner(api, opened, name, **config):
    """Answers on both addresses."""
    container = sleeper(api, name, "blue", {"IPAMConfig": {"IPv4Address": V4, "IPv6Address": V6}, **config})
    opened.append(Server(enter_container(api, container)))
    return container


def believe_for_long(interface, enter=()):
    """What is known of neighbours stays so for an hour instead of half a minute, so that a test need not be quick."""
    for version in (4, 6):
        subprocess.run([*enter, "sysctl", "-qw", f"net.ipv{version}.neigh.{interface}.base_reachable_time_ms=3600000"], check=True)


def all_reached(peer, questions):
    end = time.monotonic() + 20  # dockerd's bridge checks for a second that its address is nobody else's
    while not (reached := all(peer.ask(questions))) and time.monotonic() < end:
        time.sleep(0.1)
    return reached


@pytest.mark.parametrize("how", ["start", "connect"])
def test_the_new_owner_of_an_address_is_reached_at_once(engine, clean, opened, how):
    api = engine.api()
    make_ok(api, "blue", EnableIPv6=True, IPAM={"Config": [{"Subnet": "10.88.0.0/24"}, {"Subnet": "fd88::/64"}]},
            Options={"com.docker.network.bridge.name": "br-blue"})
    enter = enter_container(api, sleeper(api, "peer", "blue"))
    believe_for_long("br-blue")
    believe_for_long("eth0", enter)
    peers = [Client(), Client(enter)]
    opened.extend(peers)
    questions = [("tcp", V4, 80), ("tcp", V6, 80)]
    first = owner(api, opened, "first")
    for peer in peers:
        assert all_reached(peer, questions)
    opened.pop().close()
    api.remove(first)
    if how == "start":
        owner(api, opened, "second")
    else:
        second = sleeper(api, "second", "bridge")
        api.ok("POST", "/networks/blue/connect", body={"Container": second, "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": V4, "IPv6Address": V6}}})
        opened.append(Server(enter_container(api, second)))
    for peer in peers:
        assert all_reached(peer, questions)
