"""A container's places in networks: interfaces, addresses, gateways, links, and what happens as they come and go."""

import http.client

import pytest

from test_network_kinds import inside, inspect, make_ok, ping, run_in, sleeper

IFNAME, SYSCTLS = "com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"


def network_of(api, container, network):
    return api.inspect(container)["NetworkSettings"]["Networks"][network]


def fetch(host, port):
    """What a web server says; the connection is the host's."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def web(api, name, **options):
    """Serves IPv4 only: whoever asks over IPv6 gets nothing."""
    container = api.create(Cmd=["sh", "-c", "httpd -p 0.0.0.0:80 -h /var/www; echo up; sleep 1000"], name=name, **options)
    api.start(container)
    api.wait_for_log(container, "up")
    return container


def test_a_chosen_mac_address_is_kept(api):
    container = api.run(["sleep", "1000"], MacAddress="02:11:22:33:44:55")
    assert "02:11:22:33:44:55" in inside(api, container, "ip", "link", "show", "eth0").stdout
    assert network_of(api, container, "bridge")["MacAddress"] == "02:11:22:33:44:55"
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert network_of(api, container, "bridge")["MacAddress"] == "02:11:22:33:44:55"


def test_link_local_addresses_come_on_top(api):
    make_ok(api, "web")
    container = sleeper(api, "server", "web", {"IPAMConfig": {"LinkLocalIPs": ["169.254.34.68"]}})
    shown = inside(api, container, "ip", "addr", "show", "eth0").stdout
    assert "169.254.34.68/" in shown and network_of(api, container, "web")["IPAddress"] in shown


@pytest.mark.gantry_only
def test_interfaces_have_the_names_that_were_chosen(engine, clean):
    api = engine.api("1.49")
    for name in ("one", "two", "three"):
        make_ok(api, name)
    container = api.run(["sleep", "1000"], host={"NetworkMode": "one"}, NetworkingConfig={"EndpointsConfig": {
        "one": {"DriverOpts": {IFNAME: "front0"}}, "two": {}, "three": {"DriverOpts": {IFNAME: "eth0"}}}})
    names = {network: inside(api, container, "ip", "-o", "addr", "show", "to",
                             network_of(api, container, network)["IPAddress"]).stdout.split()[1]
             for network in ("one", "two", "three")}
    assert names == {"one": "front0", "two": "eth1", "three": "eth0"}
    make_ok(api, "four")
    api.ok("POST", "/networks/four/connect", body={"Container": container})
    assert "eth2" in inside(api, container, "ip", "-o", "link").stdout


@pytest.mark.gantry_only
def test_an_interface_has_sysctls_of_its_own(engine, clean):
    api = engine.api("1.49")
    make_ok(api, "web")
    container = sleeper(api, "server", "web", {"DriverOpts": {
        SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"}})
    shown = inside(api, container, "sysctl", "net.ipv4.conf.eth0.log_martians", "net.ipv4.conf.eth0.forwarding").stdout
    assert shown.split("\n")[:2] == ["net.ipv4.conf.eth0.log_martians = 1", "net.ipv4.conf.eth0.forwarding = 0"]
    reply = api.post("/containers/create", body={
        "Image": "busybox", "HostConfig": {"NetworkMode": "web"},
        "NetworkingConfig": {"EndpointsConfig": {"web": {"DriverOpts": {SYSCTLS: "net.ipv4.ip_forward=1"}}}}})
    assert reply.status == 400 and reply.message.endswith(
        "invalid endpoint settings:\nunrecognised network interface sysctl 'net.ipv4.ip_forward=1'; represent "
        "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'")


@pytest.mark.gantry_only
def test_the_default_route_goes_where_the_priority_is_highest(engine, clean):
    api = engine.api("1.48")
    for number, name in enumerate(("aaa", "bbb", "ccc")):
        make_ok(api, name, IPAM={"Config": [{"Subnet": f"10.71.{number}.0/24"}]})
    container = api.run(["sleep", "1000"], host={"NetworkMode": "aaa"},
                        NetworkingConfig={"EndpointsConfig": {"aaa": {}, "bbb": {"GwPriority": 5}}})

    def route():
        return inside(api, container, "ip", "route", "show", "default").stdout.split()[2]

    assert route() == "10.71.1.1"
    assert network_of(api, container, "bbb")["GwPriority"] == 5
    api.ok("POST", "/networks/ccc/connect", body={"Container": container, "EndpointConfig": {"GwPriority": 9}})
    assert route() == "10.71.2.1"
    api.ok("POST", "/networks/ccc/disconnect", body={"Container": container})
    assert route() == "10.71.1.1"
    api.ok("POST", "/networks/bbb/disconnect", body={"Container": container})
    assert route() == "10.71.0.1"


def test_published_ports_follow_the_container_from_network_to_network(api):
    for name in ("first", "second"):
        make_ok(api, name)
    container = web(api, "server", ExposedPorts={"80/tcp": {}},
                    host={"NetworkMode": "first", "PortBindings": {"80/tcp": [{"HostPort": "28080"}]}})
    expected = "It works: a container answers.\n"
    gateway = inspect(api, "second")["IPAM"]["Config"][0].get("Gateway", "").split("/")[0]
    assert fetch("127.0.0.1", 28080) == expected
    api.ok("POST", "/networks/second/connect", body={"Container": container})
    api.ok("POST", "/networks/first/disconnect", body={"Container": container})
    assert api.inspect(container)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "28080"
    assert fetch("127.0.0.1", 28080) == expected
    assert fetch(gateway, 28080) == expected
    api.ok("POST", "/networks/first/connect", body={"Container": container})
    assert fetch("127.0.0.1", 28080) == expected


@pytest.mark.gantry_only
def test_loopback_leads_to_servers_of_one_family(engine, clean):
    api = engine.api("1.48")
    make_ok(api, "dual", EnableIPv6=True)
    web(api, "server", ExposedPorts={"80/tcp": {}},
        host={"NetworkMode": "dual", "PortBindings": {"80/tcp": [{"HostPort": "28081"}]}})
    assert fetch("127.0.0.1", 28081) == "It works: a container answers.\n"


def test_connected_while_stopped_means_at_the_next_start(api):
    make_ok(api, "later", IPAM={"Config": [{"Subnet": "10.72.0.0/24"}]})
    container = api.create(Cmd=["sleep", "1000"])
    api.ok("POST", "/networks/later/connect", body={
        "Container": container, "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.72.0.9"}, "Aliases": ["also"]}})
    assert set(api.inspect(container)["NetworkSettings"]["Networks"]) == {"bridge", "later"}
    api.start(container)
    assert network_of(api, container, "later")["IPAddress"] == "10.72.0.9"
    assert run_in(api, "later", ping("also"))[0] == 0
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})
    api.ok("POST", "/networks/later/disconnect", body={"Container": container})
    api.start(container)
    assert set(api.inspect(container)["NetworkSettings"]["Networks"]) == {"bridge"}


@pytest.mark.parametrize("body, status, text", [
    ({"Container": "nosuch"}, 404, "No such container: nosuch"),
    ({"Container": "alone", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.99.0.5"}}}, 400,
     "no configured subnet"),
])
def test_what_cannot_be_connected(api, body, status, text):
    make_ok(api, "web", IPAM={"Config": [{"Subnet": "10.73.0.0/24"}]})
    api.run(["sleep", "1000"], name="alone")
    reply = api.post("/networks/web/connect", body=body)
    if "10.99" in str(body) and reply.status == 500:  # Docker 20.10
        status, text = 500, "Invalid address 10.99.0.5"
    assert reply.status == status and text in reply.message


def test_an_address_in_use_is_refused(api):
    make_ok(api, "web", IPAM={"Config": [{"Subnet": "10.74.0.0/24"}]})
    sleeper(api, "first", "web", {"IPAMConfig": {"IPv4Address": "10.74.0.7"}})
    second = api.create(Cmd=["true"], host={"NetworkMode": "web"}, NetworkingConfig={
        "EndpointsConfig": {"web": {"IPAMConfig": {"IPv4Address": "10.74.0.7"}}}})
    reply = api.post(f"/containers/{second}/start")
    assert reply.status == 403 and reply.message.endswith("Address already in use")


def test_disconnecting_by_force_needs_no_container(api):
    make_ok(api, "web")
    container = sleeper(api, "server", "web")
    api.ok("POST", "/networks/web/disconnect", body={"Container": "server", "Force": True})
    assert api.inspect(container)["NetworkSettings"]["Networks"] == {}
    api.ok("DELETE", "/networks/web")


def test_networks_are_listed_by_what_they_are(engine, api):
    make_ok(api, "blue", Labels={"colour": "blue"})
    make_ok(api, "red", Labels={"colour": "red"}, Internal=True)
    sleeper(api, "server", "blue")

    def names(**filters):
        wanted = {key.replace("_", ""): [value] for key, value in filters.items()}
        return {n["Name"] for n in api.ok("GET", "/networks", {"filters": wanted}).json()}

    assert names(label="colour") == {"blue", "red"}
    assert names(label="colour=red") == {"red"}
    assert names(name="blu") == {"blue"}
    assert names(driver="null") == {"none"}
    assert names(type="custom") == {"blue", "red"}
    assert engine.kind == "docker" or names(dangling="true") == {"red"}  # 20.10 tells all that are not predefined
    assert names(scope="local") == {"blue", "red", "bridge", "host", "none"}
    assert names(id=inspect(api, "red")["Id"]) == {"red"}
    assert api.get("/networks", {"filters": {"colour": ["x"]}}).status == 400


def test_prune_takes_what_nobody_uses_and_passes_the_filter(api):
    make_ok(api, "keep", Labels={"keep": ""})
    make_ok(api, "drop")
    assert api.ok("POST", "/networks/prune", {"filters": {"label!": ["keep"]}}).json()["NetworksDeleted"] == ["drop"]
    assert inspect(api, "keep")["Labels"] == {"keep": ""}


def test_events_tell_of_networks(api):
    with api.events(type={"network": True}) as events:
        network = make_ok(api, "seen")
        container = sleeper(api, "server", "seen")
        api.remove(container)
        api.ok("DELETE", "/networks/seen")
        seen = []
        while not seen or seen[-1][0] != "destroy":
            event = events.next()
            seen.append((event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"].get("container")))
    assert seen == [("create", network, None), ("connect", network, container), ("disconnect", network, container),
                    ("destroy", network, None)]


# Legacy links.


def test_a_link_finds_its_target_after_it_has_moved(api):
    target = api.run(["sleep", "1000"], name="target")
    api.run(["sleep", "1000"], name="client", host={"Links": ["target:db"]})
    before = network_of(api, target, "bridge")["IPAddress"]
    api.ok("POST", f"/containers/{target}/stop", {"t": 0})
    api.run(["sleep", "1000"], name="squatter")  # takes the address
    api.start(target)
    after = network_of(api, target, "bridge")["IPAddress"]
    assert after != before
    hosts = cat_hosts(api, "client")
    assert [line.split()[0] for line in hosts.splitlines() if "db" in line.split()] == [after]


def cat_hosts(api, container):
    exec_id = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["cat", "/etc/hosts"], "AttachStdout": True,
                                                                    "Tty": True}).json()["Id"]
    with api.hijack(f"/exec/{exec_id}/start", body={"Tty": True}) as stream:
        return stream.read_all().decode()
