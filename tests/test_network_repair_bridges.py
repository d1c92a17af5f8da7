"""Somebody renames a bridge, or changes what its ports do."""

import json
import os
import subprocess
import time

import pytest

from harness.wire import ip
from test_network_kinds import make_ok, sleeper
from test_network_repair import World, opened, run  # noqa: F401

pytestmark = pytest.mark.gantry_only

_USUAL = {"hairpin": True, "isolated": False, "learning": True, "flood": True, "mcast_flood": True, "bcast_flood": True,
          "locked": False, "state": "forwarding"}


def flags(veth):
    shown = json.loads(subprocess.run(["bridge", "-d", "-j", "link", "show", "dev", veth], capture_output=True, text=True).stdout)
    return {key: value for key, value in shown[0].items() if key in _USUAL}


def await_true(true, engine, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, engine.log_tail()
        time.sleep(0.05)


def test_a_renamed_bridge_gets_its_name_back(fresh, opened):  # noqa: F811
    world = World(fresh, opened)
    before = ip("-o", "link", "show", "br-blue").split(":")[:2]
    run("ip link set br-blue name br-other")
    await_true(lambda: os.path.exists("/sys/class/net/br-blue"), world.engine)
    world.await_repair()
    assert ip("-o", "link", "show", "br-blue").split(":")[:2] == before
    assert "br-other" not in ip("link")
    assert world.transfer.goes_on(20)


@pytest.mark.parametrize("change", ["isolated on", "hairpin off", "learning off", "flood off", "mcast_flood off", "bcast_flood off",
                                    "locked on", "state 0"])
def test_what_a_port_does_is_put_right(fresh, change):
    engine = fresh()
    api = engine.api()
    make_ok(api, "blue", Options={"com.docker.network.bridge.name": "br-blue"})
    sleeper(api, "server", "blue")
    veth = next(iter(os.listdir("/sys/class/net/br-blue/brif")))
    await_true(lambda: flags(veth) == _USUAL, engine)
    run(f"bridge link set dev {veth} {change}")
    await_true(lambda: flags(veth) == _USUAL, engine)
    await_true(lambda: f"connected {veth} to bridge br-blue again" in engine.log_text(), engine)


def test_ports_of_a_network_without_icc_stay_isolated(fresh):
    engine = fresh()
    api = engine.api()
    make_ok(api, "blue", Options={"com.docker.network.bridge.name": "br-blue", "com.docker.network.bridge.enable_icc": "false"})
    sleeper(api, "server", "blue")
    veth = next(iter(os.listdir("/sys/class/net/br-blue/brif")))
    assert flags(veth)["isolated"]
    run(f"bridge link set dev {veth} isolated off")
    await_true(lambda: flags(veth)["isolated"], engine)
