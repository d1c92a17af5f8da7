"""An address that has a new owner: whoever talked to the old one reaches the new one at once."""

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


@pytest.mark.parametrize("how", ["start", "connect"])
def test_the_new_owner_of_an_address_is_reached_at_once(engine, clean, opened, how):
    api = engine.api()
    make_ok(api, "blue", EnableIPv6=True, IPAM={"Config": [{"Subnet": "10.88.0.0/24"}, {"Subnet": "fd88::/64"}]})
    peers = [Client(), Client(enter_container(api, sleeper(api, "peer", "blue")))]
    opened.extend(peers)
    questions = [("tcp", V4, 80), ("tcp", V6, 80)]
    first = owner(api, opened, "first")
    for peer in peers:
        assert all(peer.ask(questions, wait=20))
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
        assert all(peer.ask(questions, wait=20)), questions
