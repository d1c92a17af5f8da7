"""What the daemon's options let through to containers, and networks with several subnets."""

import subprocess

import pytest

from harness.wire import HOST, NEIGHBOUR, NEIGHBOUR6, Client, Neighbour, Server, enter_container
from test_network_endpoints import network_of
from test_network_kinds import inside, make, make_ok, parent, run_in, sleeper  # noqa: F401


@pytest.fixture
def opened():
    made = []
    yield made
    for each in reversed(made):
        each.remove() if isinstance(each, Neighbour) else each.close()


def world(api, opened):
    """A container that publishes port 80 and not 81, a host beyond, and the container's addresses."""
    opened.append(neighbour := Neighbour())
    make_ok(api, "blue", EnableIPv6=True)
    container = sleeper(api, "server", "blue", ExposedPorts={"80/tcp": {}}, host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    opened.append(Server(enter_container(api, container)))
    opened.append(client := Client(neighbour.enter()))
    place = network_of(api, container, "blue")
    return client, place["IPAddress"], place["GlobalIPv6Address"]


@pytest.mark.gantry_only
@pytest.mark.parametrize("allowed", [False, True])
def test_direct_routing_leads_to_published_ports_only_where_it_is_allowed(fresh, opened, allowed):
    client, v4, v6 = world(fresh(config={"allow-direct-routing": allowed}).api("1.48"), opened)
    direct = [NEIGHBOUR, NEIGHBOUR6] if allowed else [None, None]
    answers = client.ask([("tcp", v4, 80), ("tcp", v6, 80), ("tcp", v4, 81), ("tcp", v6, 81), ("tcp", HOST, 8080)])
    assert answers == [*direct, None, None, NEIGHBOUR]


@pytest.mark.gantry_only
def test_what_an_administrator_has_marked_passes(fresh, opened):
    client, v4, v6 = world(fresh(config={"bridge-accept-fwmark": "0x10/0xf0"}).api("1.48"), opened)
    questions = [("tcp", v4, 81), ("tcp", v6, 81)]
    assert client.ask(questions) == [None, None]

    def mark(value):
        table = "flush table inet own\n" if value is None else (
            "table inet own {\nchain pre {\ntype filter hook prerouting priority -150\niifname wire0 meta mark set %s\n}\n}\n" % value)
        subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)

    try:
        mark("0x25")
        assert client.ask(questions) == [None, None]
        mark(None)
        mark("0x1f")
        assert client.ask(questions) == [NEIGHBOUR, NEIGHBOUR6]
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "own"], check=True)


def test_the_default_route_of_ipv6_goes_where_the_option_says(fresh):
    config = {"ipv6": True, "fixed-cidr-v6": "fd63::/64", "default-gateway-v6": "fd63::9"}
    api = fresh(config=config).api()
    container = api.run(["sleep", "1000"])
    assert "default via fd63::9 dev eth0" in inside(api, container, "ip", "-6", "route").stdout
    assert network_of(api, container, "bridge")["IPv6Gateway"] == "fd63::9"


TWO = {"Config": [{"Subnet": "10.66.0.0/24", "Gateway": "10.66.0.1"}, {"Subnet": "10.67.0.0/24", "Gateway": "10.67.0.1"},
                  {"Subnet": "fd66::/64", "Gateway": "fd66::1"}, {"Subnet": "fd67::/64", "Gateway": "fd67::1"}]}


def test_a_macvlan_with_several_subnets(api, parent):  # noqa: F811
    make_ok(api, "lan", Driver="macvlan", EnableIPv6=True, IPAM=TWO, Options={"parent": parent})
    for v4, v6 in (("10.66.0.20", "fd66::20"), ("10.67.0.20", "fd67::20")):
        container = sleeper(api, f"with-{v4}", "lan", {"IPAMConfig": {"IPv4Address": v4, "IPv6Address": v6}})
        place = network_of(api, container, "lan")
        assert (place["IPAddress"], place["GlobalIPv6Address"]) == (v4, v6)
        net4, net6 = v4.rpartition(".")[0], v6.partition("::")[0]
        assert (place["Gateway"], place["IPv6Gateway"]) == (f"{net4}.1", f"{net6}::1")
        assert f"default via {net4}.1 dev eth0" in inside(api, container, "ip", "route").stdout
        assert f"default via {net6}::1 dev eth0" in inside(api, container, "ip", "-6", "route").stdout
    code, shown = run_in(api, "lan", "ip addr show eth0")
    assert code == 0 and "10.66.0." in shown and "fd66::" in shown


def test_a_bridge_has_one_subnet_per_family(api):
    reply = make(api, "two", IPAM={"Config": TWO["Config"][:2]})
    assert reply.status in (400, 403, 500) and "multiple" in reply.body.decode()
