"""Who reaches whom: every kind of network and every way to publish a port, from every place, in both families.

One row of `_cases` is a packet's way: from where, to what, and whom the server sees (None: it is not reached). What a
neighbour must not reach it does not reach whatever the policy of the FORWARD chain is.
"""

import subprocess

import pytest

from harness.wire import HOST, HOST6, HOST_SECOND, NEIGHBOUR, NEIGHBOUR6, Client, Neighbour, Server, enter_container

pytestmark = [pytest.mark.gantry_only, pytest.mark.slow]

_MODE4, _MODE6 = "com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"


def both(mode):
    return {_MODE4: mode, _MODE6: mode}


# name: (number of its subnets, settings)
_NETWORKS = {
    "nat": (0, {}),
    "other": (1, {}),
    "inside": (2, {"Internal": True}),
    "open": (3, {"Options": both("nat-unprotected")}),
    "routed": (4, {"Options": both("routed")}),
    "apart": (5, {"Internal": True, "Options": both("isolated")}),
    "noicc": (6, {"Options": {"com.docker.network.bridge.enable_icc": "false"}}),
}


def bind(**ports):
    return {key.replace("_", "/"): [{"HostIp": ip, "HostPort": port} for ip, port in places]
            for key, places in ports.items()}


_PUBLISHED = {"PortBindings": {
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"},
               {"HostIp": HOST_SECOND, "HostPort": "8082"}, {"HostIp": "::", "HostPort": "8083"},
               {"HostIp": "", "HostPort": "8084"}, {"HostIp": "::1", "HostPort": "8085"},
               {"HostIp": HOST6, "HostPort": "8086"}, {"HostIp": "127.0.0.1", "HostPort": "8090-8099"}],
    "80/udp": [{"HostIp": "", "HostPort": "8080"}],
    "82/tcp": [{"HostIp": "", "HostPort": "8200-8203"}],
}}

# container: (network, last part of its addresses, host configuration)
_CONTAINERS = {
    "a": ("nat", 2, _PUBLISHED),
    "b": ("nat", 3, {}),
    "c": ("other", 2, {}),
    "i": ("inside", 2, {"PortBindings": bind(**{"80_tcp": [("", "8300")]})}),
    "i2": ("inside", 3, {}),
    "u": ("open", 2, {"PortBindings": bind(**{"80_tcp": [("", "8301")]})}),
    "r": ("routed", 2, {"PortBindings": bind(**{"80_tcp": [("", "")], "80_udp": [("", "")]})}),
    "x": ("apart", 2, {}),
    "y": ("apart", 3, {}),
    "n": ("noicc", 2, {"PortBindings": bind(**{"80_tcp": [("", "8302")]})}),
    "m": ("noicc", 3, {}),
}


def v4(container):
    network, last, _ = _CONTAINERS[container]
    return f"172.30.{_NETWORKS[network][0]}.{last}"


def v6(container):
    network, last, _ = _CONTAINERS[container]
    return f"fd00:30:{_NETWORKS[network][0] + 1}::{last}"


def gate4(network):
    return f"172.30.{_NETWORKS[network][0]}.1"


def gate6(network):
    return f"fd00:30:{_NETWORKS[network][0] + 1}::1"


ANY = "anybody"
LO, LO6 = "127.0.0.1", "::1"


def _cases():
    """(from, protocol, address, port, whom the server sees)"""
    out = []

    def row(place, proto, address, port, seen):
        out.append((place, proto, address, port, seen))

    # A neighbour and the published ports, each at the addresses it was published on and at no other.
    for proto in ("tcp", "udp"):
        row("neighbour", proto, HOST, 8080, NEIGHBOUR)
    row("neighbour", "tcp", HOST6, 8080, None)
    row("neighbour", "udp", HOST6, 8080, NEIGHBOUR6)
    row("neighbour", "tcp", HOST_SECOND, 8082, NEIGHBOUR)
    row("neighbour", "tcp", HOST, 8082, None)
    row("neighbour", "tcp", HOST6, 8083, NEIGHBOUR6)
    row("neighbour", "tcp", HOST, 8083, None)
    row("neighbour", "tcp", HOST, 8084, NEIGHBOUR)
    row("neighbour", "tcp", HOST6, 8084, NEIGHBOUR6)
    row("neighbour", "tcp", HOST6, 8086, NEIGHBOUR6)
    row("neighbour", "tcp", HOST, 8200, NEIGHBOUR)
    row("neighbour", "tcp", HOST, 8201, None)
    row("neighbour", "tcp", HOST, 8301, NEIGHBOUR)
    row("neighbour", "tcp", HOST, 8302, NEIGHBOUR)
    # Loopback ports are the host's own, also for who addresses a packet to 127.0.0.1.
    for address in (HOST, HOST6, LO, gate4("nat"), v4("a")):
        for port in (8081, 8085, 8090):
            row("neighbour", "tcp", address, port, None)
    row("neighbour", "tcp", LO, 8080, None)
    # Containers' own addresses.
    for container in ("a", "b", "c", "n", "i", "x"):
        for address in (v4(container), v6(container)):
            row("neighbour", "tcp", address, 80, None)
            row("neighbour", "tcp", address, 81, None)
    row("neighbour", "udp", v4("a"), 80, None)
    row("neighbour", "tcp", HOST, 8300, None)
    for address, seen in ((v4("u"), NEIGHBOUR), (v6("u"), NEIGHBOUR6)):
        row("neighbour", "tcp", address, 80, seen)
        row("neighbour", "tcp", address, 81, seen)
    for address, seen in ((v4("r"), NEIGHBOUR), (v6("r"), NEIGHBOUR6)):
        row("neighbour", "tcp", address, 80, seen)
        row("neighbour", "udp", address, 80, seen)
        row("neighbour", "tcp", address, 81, None)

    # The host itself.
    for address, port in ((HOST, 8080), (LO, 8080), (LO, 8081), (HOST_SECOND, 8082), (HOST6, 8083), (LO6, 8083),
                          (LO, 8084), (LO6, 8084), (LO6, 8085), (HOST6, 8086), (LO, 8090), (LO, 8200), (LO, 8301),
                          (LO, 8302)):
        row("host", "tcp", address, port, ANY)
    for address, port in ((HOST, 8081), (LO, 8082), (LO, 8083), (LO6, 8080), (LO, 8085), (LO, 8300), (LO, 8091)):
        row("host", "tcp", address, port, None)
    for address in (HOST, LO, LO6, HOST6):
        row("host", "udp", address, 8080, ANY)
    for container in ("a", "u", "r", "i", "n"):
        network = _CONTAINERS[container][0]
        row("host", "tcp", v4(container), 81, gate4(network))
        row("host", "tcp", v6(container), 81, gate6(network))
    row("host", "tcp", v4("x"), 80, None)
    row("host", "tcp", v6("x"), 80, None)

    # Containers: their own published port, a neighbour's on the same bridge, another network's, the world.
    row("a", "tcp", HOST, 8080, ANY)
    row("a", "tcp", HOST6, 8083, ANY)
    row("a", "udp", HOST, 8080, ANY)
    row("b", "tcp", HOST, 8080, ANY)
    row("b", "tcp", gate4("nat"), 8080, ANY)
    row("b", "tcp", HOST6, 8083, ANY)
    row("b", "tcp", v4("a"), 81, v4("b"))
    row("b", "tcp", v6("a"), 81, v6("b"))
    row("c", "tcp", HOST, 8080, v4("c"))
    row("c", "tcp", HOST6, 8083, v6("c"))
    row("c", "udp", HOST, 8080, v4("c"))
    for container in ("a", "i", "x", "n"):
        row("c", "tcp", v4(container), 80, None)
        row("c", "tcp", v6(container), 80, None)
    row("c", "tcp", v4("r"), 80, v4("c"))
    row("c", "tcp", v6("r"), 80, v6("c"))
    row("c", "tcp", v4("r"), 81, None)
    row("c", "tcp", v4("u"), 81, v4("c"))
    row("c", "tcp", HOST, 8302, v4("c"))
    row("r", "tcp", v4("a"), 80, None)
    row("r", "tcp", HOST, 8080, v4("r"))
    row("a", "tcp", NEIGHBOUR, 80, HOST)
    row("a", "udp", NEIGHBOUR, 80, HOST)
    row("a", "tcp", NEIGHBOUR6, 80, HOST6)
    row("u", "tcp", NEIGHBOUR, 80, HOST)
    row("r", "tcp", NEIGHBOUR, 80, v4("r"))
    row("r", "tcp", NEIGHBOUR6, 80, v6("r"))
    # Internal networks: among themselves and the host's side, nothing else; isolated ones not even that.
    row("i2", "tcp", v4("i"), 81, v4("i2"))
    row("i2", "tcp", v6("i"), 81, v6("i2"))
    row("i", "tcp", NEIGHBOUR, 80, None)
    row("i", "tcp", NEIGHBOUR6, 80, None)
    row("i", "tcp", v4("a"), 80, None)
    row("y", "tcp", v4("x"), 81, v4("y"))
    row("y", "tcp", v6("x"), 81, v6("y"))
    row("x", "tcp", NEIGHBOUR, 80, None)
    # Without communication among containers only what is published counts.
    row("m", "tcp", v4("n"), 80, None)
    row("m", "tcp", v6("n"), 80, None)
    row("m", "tcp", HOST, 8302, ANY)
    row("m", "tcp", NEIGHBOUR, 80, HOST)
    return out


@pytest.fixture
def opened():
    made = []
    yield made
    for each in reversed(made):
        each.remove() if isinstance(each, Neighbour) else each.close()


def build(engine, opened):
    """The networks, containers, servers and clients; returns the clients by place."""
    api = engine.api("1.48")
    opened.append(neighbour := Neighbour())
    for name, (number, settings) in _NETWORKS.items():
        config = [{"Subnet": f"172.30.{number}.0/24"}, {"Subnet": f"fd00:30:{number + 1}::/64"}]
        api.ok("POST", "/networks/create", body={"Name": name, "EnableIPv6": True, "IPAM": {"Config": config}, **settings})
    places = {"host": Client(), "neighbour": Client(neighbour.enter())}
    opened.append(Server(neighbour.enter()))
    for name, (network, _, host) in _CONTAINERS.items():
        exposed = {port: {} for port in host.get("PortBindings", {})}
        endpoint = {"IPAMConfig": {"IPv4Address": v4(name), "IPv6Address": v6(name)}}
        container = api.run(["sleep", "1000"], name=f"box-{name}", ExposedPorts=exposed,
                            host={"NetworkMode": network, **host},
                            NetworkingConfig={"EndpointsConfig": {network: endpoint}})
        enter = enter_container(api, container)
        opened.append(Server(enter))
        places[name] = Client(enter)
    opened.extend(places.values())
    return places


def check(places, cases):
    wrong = []
    for place, client in places.items():
        mine = [case for case in cases if case[0] == place]
        answers = client.ask([case[1:4] for case in mine])
        for (_, proto, address, port, seen), answer in zip(mine, answers):
            if answer is None and seen is not None:  # a loaded machine loses packets
                answer, = client.ask([(proto, address, port)], wait=20)
            if answer != seen and not (seen == ANY and answer):
                wrong.append(f"{place} -> {proto} {address} {port}: {answer} instead of {seen}")
    assert not wrong, "\n".join(wrong)


def test_with_forward_policy_accept(fresh, opened):
    places = build(fresh(), opened)
    check(places, _cases())
    # Another program's setting must not open the host's loopback to the wire, nor to containers.
    for device in ("all", "wire0"):
        subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{device}.route_localnet=1"], check=True)
    try:
        check(places, [case for case in _cases() if case[0] == "neighbour" and case[2] == LO])
    finally:
        for device in ("all", "wire0"):
            subprocess.run(["sysctl", "-qw", f"net.ipv4.conf.{device}.route_localnet=0"], check=True)


@pytest.mark.parametrize("mode", ["nat", "routed"])
def test_who_has_not_spoken_yet_is_reached_from_elsewhere(fresh, opened, mode):
    """The first packet of all is a neighbour's: the host has to find out where the container is."""
    engine = fresh()
    api = engine.api("1.48")
    opened.append(neighbour := Neighbour())
    api.ok("POST", "/networks/create", body={"Name": "quiet", "EnableIPv6": True, "Options": both(mode), "IPAM": {"Config": [
        {"Subnet": "172.30.9.0/24"}, {"Subnet": "fd00:30:9::/64"}]}})
    container = api.run(["sleep", "1000"], ExposedPorts={"80/tcp": {}},
                        host={"NetworkMode": "quiet", **_publish_one("80/tcp", "8080" if mode == "nat" else "")})
    opened.append(Server(enter_container(api, container)))
    opened.append(client := Client(neighbour.enter()))
    place = api.inspect(container)["NetworkSettings"]["Networks"]["quiet"]
    targets = [(HOST6, 8080), (HOST, 8080)] if mode == "nat" else [(place["GlobalIPv6Address"], 80), (place["IPAddress"], 80)]
    for (address, port), seen in zip(targets, (NEIGHBOUR6, NEIGHBOUR)):
        assert client.ask([("tcp", address, port)], wait=20) == [seen]


def _publish_one(port, host_port):
    return {"PortBindings": {port: [{"HostIp": "", "HostPort": host_port}]}}


_POLICY = {"legacy": ("iptables-legacy", "ip6tables-legacy"), "nft": ("iptables-nft", "ip6tables-nft")}


@pytest.fixture
def forward_drop():
    """forward_drop(kind) is what ufw, an administrator or another engine does."""
    used = []

    def drop(kind):
        for program in _POLICY[kind]:
            subprocess.run([program, "-P", "FORWARD", "DROP"], check=True)
            used.append(program)

    yield drop
    for program in used:
        subprocess.run([program, "-P", "FORWARD", "ACCEPT"], check=True)
        subprocess.run([program, "-F", "FORWARD"], check=True)


@pytest.mark.parametrize("kind", sorted(_POLICY))
def test_with_forward_policy_drop_where_the_administrator_lets_us_through(fresh, opened, forward_drop, kind):
    forward_drop(kind)
    engine = fresh(config={"firewall-compat": "insert"})
    assert not any("FORWARD" in warning for warning in engine.api().ok("GET", "/info").json().get("Warnings") or [])
    check(build(engine, opened), _cases())


@pytest.mark.parametrize("kind", sorted(_POLICY))
def test_with_forward_policy_drop_that_is_only_reported(fresh, opened, forward_drop, kind):
    forward_drop(kind)
    engine = fresh()
    warnings = [w for w in engine.api().ok("GET", "/info").json()["Warnings"] if "drops what containers' bridges forward" in w]
    assert len(warnings) == 2 and all("FORWARD" in warning for warning in warnings)
    places = build(engine, opened)
    check(places, [case for case in _cases() if case[0] == "neighbour" and case[4] is None])
    check(places, [("neighbour", "tcp", HOST, 8080, None), ("host", "tcp", LO, 8080, ANY)])
