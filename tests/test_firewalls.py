"""Beside firewalld and ufw: what they reload, containers keep."""

import time

import pytest

from harness.firewalls import Firewalld, Ufw
from harness.wire import HOST, HOST6, NEIGHBOUR, NEIGHBOUR6, Client, Neighbour, Server, enter_container
from test_network_kinds import make_ok, sleeper

pytestmark = [pytest.mark.gantry_only, pytest.mark.slow, pytest.mark.deadline(900)]


@pytest.fixture
def opened(scratch):
    made = []
    yield made
    for each in reversed(made):
        each.remove() if isinstance(each, Neighbour) else each.close()


def build(engine, opened):
    """A published port, and a container that goes out: questions and right answers of each."""
    api = engine.api("1.48")
    opened.append(neighbour := Neighbour())
    make_ok(api, "blue", EnableIPv6=True)
    server = sleeper(api, "server", "blue", ExposedPorts={"80/tcp": {}}, host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    opened.append(Server(enter_container(api, server)))
    opened.append(Server(neighbour.enter()))
    opened.append(outside := Client(neighbour.enter()))
    opened.append(inside := Client(enter_container(api, server)))
    return [(outside, ("tcp", HOST, 8080), NEIGHBOUR), (outside, ("tcp", HOST6, 8080), NEIGHBOUR6),
            (outside, ("tcp", HOST, 80), None), (inside, ("tcp", NEIGHBOUR, 80), HOST), (inside, ("tcp", NEIGHBOUR6, 80), HOST6)]


def check(places):
    """Healing may take two seconds: whoever comes earlier asks again."""
    for client, question, right in places:
        end = time.monotonic() + 60
        while (answer := client.ask([question])) != [right] and time.monotonic() < end:
            time.sleep(0.1)
        assert answer == [right], question


def wait_until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def warnings(engine):
    return "".join(engine.api().ok("GET", "/info").json().get("Warnings") or [])


@pytest.mark.parametrize("first", ["firewalld", "gantry"])
def test_ports_and_ways_out_outlive_firewalld_and_its_reloads(fresh, opened, scratch, first):
    if first == "firewalld":
        opened.append(Firewalld(scratch / "firewalld"))
    engine = fresh(config={"firewall-compat": "insert"})
    places = build(engine, opened)
    if first == "gantry":
        check(places)
        opened.append(Firewalld(scratch / "firewalld"))
    firewalld = next(each for each in opened if isinstance(each, Firewalld))
    check(places)
    for how in ("--reload", "--complete-reload"):
        firewalld.command(how)
        check(places)
    assert "firewalld" not in warnings(engine)


def test_ports_and_ways_out_outlive_ufw_and_its_reloads(fresh, opened, scratch):
    opened.append(ufw := Ufw(scratch / "ufw"))
    engine = fresh(config={"firewall-compat": "insert"})
    places = build(engine, opened)
    # ufw lets nobody in from the wire, containers' ports are not the host's.
    check(places)
    ufw.command("reload")
    check(places)
    ufw.command("disable")
    check(places)
    ufw.command("--force", "enable")
    check(places)
    assert "FORWARD" not in warnings(engine)


def test_what_others_stop_is_said(fresh, opened, scratch):
    engine = fresh()
    assert "drops what containers' bridges forward" not in warnings(engine)
    opened.append(Firewalld(scratch / "firewalld"))
    wait_until(lambda: "table inet firewalld drops what containers' bridges forward" in warnings(engine), 60)
    opened.pop().close()
    opened.append(Ufw(scratch / "ufw"))
    wait_until(lambda: "FORWARD" in warnings(engine) and "firewalld" not in warnings(engine), 60)
