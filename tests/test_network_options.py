"""What the daemon's options do to networks."""

import subprocess

import pytest

from harness.wire import ip
from test_network_endpoints import fetch, network_of, web
from test_network_kinds import inside, inspect, make_ok, ping, run_in


def test_without_icc_links_are_the_only_way(fresh):
    engine = fresh(config={"icc": False})
    api = engine.api()
    target = web(api, "target", ExposedPorts={"80/tcp": {}})
    ip = network_of(api, target, "bridge")["IPAddress"]
    linked = api.run("timeout 30 wget -qO- http://$(grep db /etc/hosts | cut -f1)/; exit $?", name="linked", host={"Links": ["target:db"]})
    assert api.wait(linked) == 0
    stranger = api.run(f"timeout 2 wget -qO- http://{ip}/; exit $?", name="stranger")
    assert api.wait(stranger) != 0
    # Only the ports that the target exposes.
    other = api.run(f"timeout 2 nc {ip} 81 </dev/null; exit $?", name="other", host={"Links": ["target:db"]})
    assert api.wait(other) != 0


DEFAULT = "bridge"


def test_the_default_network_is_what_the_options_say(fresh):
    api = fresh(config={"bip": "10.61.0.1/16", "fixed-cidr": "10.61.5.0/24", "default-gateway": "10.61.0.9", "ipv6": True,
                        "fixed-cidr-v6": "fd61::/64", "mtu": 1400}).api()
    container = api.run(["sleep", "1000"])
    endpoint = network_of(api, container, DEFAULT)
    assert endpoint["IPAddress"].startswith("10.61.5.")
    assert endpoint["GlobalIPv6Address"].startswith("fd61::") and endpoint["GlobalIPv6PrefixLen"] == 64
    assert "default via 10.61.0.9 dev eth0" in inside(api, container, "ip", "route").stdout
    assert "default via fd61::" in inside(api, container, "ip", "-6", "route").stdout
    assert "mtu 1400" in inside(api, container, "ip", "link", "show", "eth0").stdout
    assert inside(api, container, "busybox", "sh", "-c", ping(endpoint["IPv6Gateway"])).returncode == 0


@pytest.mark.gantry_only
def test_the_default_networks_addresses_can_change(fresh):
    engine = fresh(config={"ipv6": True})
    first = inspect(engine.api(), DEFAULT)["IPAM"]["Config"]
    assert first[1]["Subnet"].startswith("fd") and first[1]["Subnet"].endswith("/64")
    engine.stop()
    engine.write_config({"ipv6": True, "bip6": "fd62::1/80", "bip": "10.62.0.1/24"})
    engine.start()
    second = inspect(engine.api(), DEFAULT)["IPAM"]["Config"]
    assert [(c["Subnet"], c["Gateway"]) for c in second] == [("10.62.0.0/24", "10.62.0.1"), ("fd62::/80", "fd62::1")]
    shown = ip("-o", "addr", "show", "dev", "gantry0")
    assert "fd62::1/80" in shown and "10.62.0.1/24" in shown
    assert first[0]["Gateway"] not in shown and first[1]["Gateway"] not in shown


@pytest.mark.gantry_only
def test_networks_have_default_options(fresh):
    api = fresh(config={"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1350",
                                                            "com.docker.network.enable_ipv6": "true"}}}).api()
    make_ok(api, "plain")
    shown = inspect(api, "plain")
    assert shown["Options"]["com.docker.network.driver.mtu"] == "1350" and shown["EnableIPv6"]
    assert run_in(api, "plain", "cat /sys/class/net/eth0/mtu") == (0, "1350\n")
    make_ok(api, "own", Options={"com.docker.network.driver.mtu": "1450"}, EnableIPv6=False)
    shown = inspect(api, "own")
    assert shown["Options"] == {"com.docker.network.driver.mtu": "1450"} and not shown["EnableIPv6"]


@pytest.mark.gantry_only
def test_without_iptables_there_are_no_rules_and_ports_are_relayed(fresh):
    engine = fresh(config={"iptables": False, "ip6tables": False})
    api = engine.api()
    assert "table ip gantry\n" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    container = web(api, "server", ExposedPorts={"80/tcp": {}}, host={"PortBindings": {"80/tcp": [{"HostPort": "28090"}]}})
    for host in ("127.0.0.1", network_of(api, container, DEFAULT)["Gateway"]):
        assert fetch(host, 28090) == "It works: a container answers.\n"
    engine.stop()
    engine.write_config({})
    engine.start()
    assert "table ip gantry\n" in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout


@pytest.mark.gantry_only
def test_without_the_proxy_loopback_still_leads_to_published_ports(fresh):
    api = fresh(config={"userland-proxy": False}).api()
    web(api, "server", ExposedPorts={"80/tcp": {}}, host={"PortBindings": {"80/tcp": [{"HostPort": "28091"}]}})
    assert fetch("127.0.0.1", 28091) == "It works: a container answers.\n"
