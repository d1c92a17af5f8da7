"""Kinds of networks and what may be said about them: options, drivers, configurations, addresses."""

import subprocess

import pytest

from harness.wire import ip


def make(api, name, **config):
    return api.post("/networks/create", body={"Name": name, **config})


def make_ok(api, name, **config):
    reply = make(api, name, **config)
    assert reply.status == 201, reply
    return reply.json()["Id"]


def inspect(api, name):
    return api.ok("GET", f"/networks/{name}").json()


def run_in(api, network, script, endpoint=None, **options):
    container = api.run(script, host={"NetworkMode": network, **options.pop("host", {})},
                        NetworkingConfig={"EndpointsConfig": {network: endpoint or {}}}, **options)
    code = api.wait(container)
    return code, api.logs(container).decode()


def sleeper(api, name, network, endpoint=None, **options):
    return api.run(["sleep", "1000"], name=name, host={"NetworkMode": network, **options.pop("host", {})},
                   NetworkingConfig={"EndpointsConfig": {network: endpoint or {}}}, **options)


def ping(to):
    """A script: whether it answers. One packet can be lost."""
    return f"for n in 1 2 3 4 5; do ping -c1 -W2 {to} && exit; done; exit 1"


def inside(api, container, *command):
    pid = str(api.state(container)["Pid"])
    return subprocess.run(["nsenter", "-t", pid, "-n", *command], capture_output=True, text=True)


MTU = "com.docker.network.driver.mtu"
ICC = "com.docker.network.bridge.enable_icc"


@pytest.mark.parametrize("options, text", [
    ({MTU: "big"}, f'failed to parse {MTU} value: big (strconv.Atoi: parsing "big": invalid syntax)'),
    ({ICC: "perhaps"}, f'failed to parse {ICC} value: perhaps (strconv.ParseBool: parsing "perhaps": invalid syntax)'),
    ({"com.docker.network.bridge.host_binding_ipv4": "here"},
     "failed to parse com.docker.network.bridge.host_binding_ipv4 value: here (nil ip)"),
])
def test_options_that_nobody_understands_are_refused(api, options, text):
    reply = make(api, "odd", Options=options)
    assert reply.status in (400, 500) and reply.message == text  # 500 in Docker 20.10
    assert api.get("/networks/odd").status == 404


@pytest.mark.gantry_only
@pytest.mark.parametrize("options, text", [
    ({"com.docker.network.bridge.gateway_mode_ipv4": "open"}, "unknown gateway mode open"),
    ({"com.docker.network.bridge.gateway_mode_ipv6": "isolated"},
     "gateway mode 'isolated' can only be used for an internal network"),
    ({MTU: "-5"}, "invalid MTU number: -5"),
    ({"com.docker.network.bridge.name": "much-too-long-for-a-name"}, 'invalid bridge name: "much-too-long-for-a-name"'),
])
def test_newer_options_are_checked_too(api, options, text):
    reply = make(api, "odd", Options=options)
    assert (reply.status, reply.message) == (400, text)


def test_the_mtu_of_a_network_is_its_containers(api):
    make_ok(api, "small", Options={MTU: "1380"})
    assert run_in(api, "small", "cat /sys/class/net/eth0/mtu") == (0, "1380\n")


def test_a_bridge_has_the_name_that_was_chosen(api):
    make_ok(api, "named", Options={"com.docker.network.bridge.name": "mybridge0"})
    assert "mybridge0" in ip("-o", "link", "show", "type", "bridge")
    reply = make(api, "again", Options={"com.docker.network.bridge.name": "mybridge0"})
    assert reply.status == 403 and "networks have same bridge name" in reply.message
    api.ok("DELETE", "/networks/named")
    assert "mybridge0" not in ip("-o", "link", "show", "type", "bridge")


def test_a_bridge_that_was_there_stays(api):
    ip("link", "add", "theirs0", "type", "bridge")
    try:
        make_ok(api, "guest", Options={"com.docker.network.bridge.name": "theirs0"})
        api.ok("DELETE", "/networks/guest")
        assert "theirs0" in ip("-o", "link", "show", "type", "bridge")
    finally:
        ip("link", "del", "theirs0")


def test_configurations_are_kept_apart_from_networks(api):
    config = {"Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.254"}]}
    make_ok(api, "settings", ConfigOnly=True, IPAM=config, Options={MTU: "1400"}, Labels={"of": "settings"})
    shown = inspect(api, "settings")
    assert (shown["ConfigOnly"], shown["Driver"], shown["Scope"]) == (True, "null", "local")
    assert shown["IPAM"]["Config"] == config["Config"]

    # It is no network: the subnet is free until somebody uses it.
    make_ok(api, "real", ConfigFrom={"Network": "settings"})
    shown = inspect(api, "real")
    assert (shown["ConfigFrom"], shown["ConfigOnly"], shown["Driver"]) == ({"Network": "settings"}, False, "bridge")
    assert shown["Options"][MTU] == "1400" and shown["Labels"] == {"of": "settings"}
    assert run_in(api, "real", "ip route | head -1; cat /sys/class/net/eth0/mtu") == (
        0, "default via 10.77.0.254 dev eth0 \n1400\n")

    container = api.create(Cmd=["true"], host={"NetworkMode": "settings"})
    reply = api.post(f"/containers/{container}/start")
    assert reply.status == 403 and "cannot create endpoint on configuration-only network" in reply.message
    reply = api.delete("/networks/settings")
    assert reply.status == 403 and reply.message.endswith('configuration network "settings" is in use')
    api.ok("DELETE", "/networks/real")
    api.ok("DELETE", "/networks/settings")


@pytest.mark.parametrize("body, status, text", [
    ({"ConfigOnly": True, "Internal": True}, 403,
     "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal "
     "| attachable | scope ] are not supported."),
    ({"ConfigOnly": True, "ConfigFrom": {"Network": "settings"}}, 403,
     "a configuration network cannot depend on another configuration network"),
    ({"ConfigFrom": {"Network": "settings"}, "Labels": {"a": "b"}}, 403,
     "user specified configurations are not supported if the network depends on a configuration network"),
    ({"ConfigFrom": {"Network": "settings"}, "Options": {MTU: "1400"}}, 403,
     "network driver options are not supported if the network depends on a configuration network"),
    ({"ConfigFrom": {"Network": "bridge"}}, 404, 'configuration network "bridge" does not exist'),
])
def test_what_configurations_exclude(api, body, status, text):
    make_ok(api, "settings", ConfigOnly=True)
    reply = make(api, "wrong", **body)
    assert (reply.status, reply.message) == (status, text)


@pytest.fixture
def parent():
    """An interface of the host with a neighbour at its other end."""
    ip("netns", "add", "lan")
    ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1", "netns", "lan")
    ip("link", "set", "lan0", "up")
    ip("addr", "add", "10.66.0.1/24", "dev", "lan1", namespace="lan")
    ip("link", "set", "lan1", "up", namespace="lan")
    yield "lan0"
    ip("link", "del", "lan0")
    ip("netns", "del", "lan")


LAN = {"Config": [{"Subnet": "10.66.0.0/24", "Gateway": "10.66.0.1", "IPRange": "10.66.0.128/25"}]}


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_macvlan_containers_are_on_the_hosts_wire(api, parent, mode):
    make_ok(api, "lan", Driver="macvlan", IPAM=LAN, Options={"parent": parent, "macvlan_mode": mode})
    first = sleeper(api, "first", "lan", {"IPAMConfig": {"IPv4Address": "10.66.0.200"}})
    endpoint = api.inspect(first)["NetworkSettings"]["Networks"]["lan"]
    assert (endpoint["IPAddress"], endpoint["Gateway"]) == ("10.66.0.200", "10.66.0.1")
    shown = inside(api, first, "ip", "-d", "link", "show", "eth0").stdout
    assert f"macvlan mode {mode}" in shown
    assert mode == "passthru" or endpoint["MacAddress"] in shown
    assert "default via 10.66.0.1" in inside(api, first, "ip", "route").stdout
    assert inside(api, first, "busybox", "sh", "-c", ping("10.66.0.1")).returncode == 0
    if mode in ("bridge", "private"):
        second = sleeper(api, "second", "lan")
        reached = inside(api, second, "busybox", "sh", "-c", ping("10.66.0.200")).returncode == 0
        assert reached == (mode == "bridge")
    api.remove(first)
    assert "lan0" in ip("link")


def test_macvlan_containers_find_each_other_by_name(api, parent):
    make_ok(api, "lan", Driver="macvlan", IPAM=LAN, Options={"parent": parent})
    sleeper(api, "server", "lan")
    assert run_in(api, "lan", ping("server"))[0] == 0


def test_a_running_container_is_connected_to_a_macvlan(api, parent):
    make_ok(api, "lan", Driver="macvlan", IPAM=LAN, Options={"parent": parent})
    container = api.run(["sleep", "1000"])
    api.ok("POST", "/networks/lan/connect", body={"Container": container})
    assert inside(api, container, "busybox", "sh", "-c", ping("10.66.0.1")).returncode == 0
    api.ok("POST", "/networks/lan/disconnect", body={"Container": container})
    assert "eth1" not in inside(api, container, "ip", "-o", "link").stdout


@pytest.mark.parametrize("options, text", [
    ({"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
    ({"macvlan_mode": "open"}, "requested macvlan mode 'open' is not valid, 'bridge' mode is the macvlan driver default"),
    ({"parent": "nosuch"}, "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
    ({"parent": "nosuch.10"}, "was not found on the host: nosuch"),
])
def test_macvlan_parents_are_checked(api, options, text):
    reply = make(api, "lan", Driver="macvlan", Options=options)
    assert reply.status == 500 and reply.message.endswith(text)
    assert api.get("/networks/lan").status == 404


def test_passthru_has_its_parent_for_itself(api, parent):
    make_ok(api, "lan", Driver="macvlan", Options={"parent": parent, "macvlan_mode": "passthru"})
    reply = make(api, "more", Driver="macvlan", Options={"parent": parent})
    assert reply.status in (403, 500) and "already using parent interface lan0" in reply.message


@pytest.mark.gantry_only
def test_what_this_kernel_lacks_is_named(api, parent):
    """One of them is there or the answer says what is missing."""
    for body, option in (({"Driver": "macvlan"}, "CONFIG_DUMMY"),
                         ({"Driver": "macvlan", "Options": {"parent": "lan0.10"}}, "CONFIG_VLAN_8021Q"),
                         ({"Driver": "ipvlan", "Options": {"parent": parent}}, "CONFIG_IPVLAN")):
        reply = make(api, "odd", **body)
        if reply.status == 201:
            api.ok("DELETE", "/networks/odd")
        else:
            assert reply.status == 501 and option in reply.message, reply
            assert api.get("/networks/odd").status == 404


@pytest.mark.gantry_only
def test_a_network_of_ipv6_only(engine, clean):
    api = engine.api("1.48")
    make_ok(api, "six", EnableIPv4=False, EnableIPv6=True)
    shown = inspect(api, "six")
    assert not shown["EnableIPv4"] and shown["EnableIPv6"] and len(shown["IPAM"]["Config"]) == 1
    server = sleeper(api, "server", "six")
    endpoint = api.inspect(server)["NetworkSettings"]["Networks"]["six"]
    assert endpoint["IPAddress"] == "" and endpoint["GlobalIPv6Address"] and endpoint["IPv6Gateway"]
    assert "inet " not in inside(api, server, "ip", "addr", "show", "eth0").stdout
    assert run_in(api, "six", ping("-6 server"))[0] == 0
    api.ok("POST", "/networks/six/connect", body={"Container": api.run(["sleep", "1000"])})
    reply = make(api, "none-at-all", EnableIPv4=False)
    assert (reply.status, reply.message) == (400, "IPv4 or IPv6 must be enabled")


@pytest.mark.gantry_only
def test_isolated_networks_give_away_every_address(engine, clean):
    api = engine.api("1.48")
    make_ok(api, "pair", Internal=True, IPAM={"Config": [{"Subnet": "10.88.0.0/31"}]},
            Options={"com.docker.network.bridge.gateway_mode_ipv4": "isolated"})
    used = {api.inspect(sleeper(api, name, "pair"))["NetworkSettings"]["Networks"]["pair"]["IPAddress"]
            for name in ("one", "two")}
    assert used == {"10.88.0.0", "10.88.0.1"}
    third = api.create(Cmd=["true"], host={"NetworkMode": "pair"})
    reply = api.post(f"/containers/{third}/start")
    assert reply.status == 500 and "no available IPv4 addresses on this network's address pools: pair" in reply.message


@pytest.mark.gantry_only
def test_when_the_pools_are_used_up_the_holders_are_named(fresh):
    api = fresh(config={"bridge": "gantry7", "default-address-pools": [{"base": "10.90.0.0/23", "size": 24}]}).api()
    make_ok(api, "first")
    reply = make(api, "second")
    assert reply.status == 404 and reply.message == (
        "all predefined address pools have been fully subnetted (default-address-pools: 10.90.0.0/23 in parts of /24; "
        "held by: bridge 10.90.0.0/24, first 10.90.1.0/24)")
