"""Networks, names and ports."""

import http.client
import socket
import subprocess

import pytest


def fetch(port, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/")
    body = connection.getresponse().read()
    connection.close()
    return body


def web(api, name=None, **options):
    """A web server that listens when this returns."""
    container = api.create(Cmd=["sh", "-c", "httpd -p 80 -h /var/www; echo up; sleep 1000"], name=name, **options)
    api.start(container)
    api.wait_for_log(container, "up")
    return container


def address(api, container, network="bridge"):
    return api.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]


def port_of(api, container, port="80/tcp"):
    return int(api.inspect(container)["NetworkSettings"]["Ports"][port][0]["HostPort"])


def make_network(api, name, **config):
    return api.ok("POST", "/networks/create", body={"Name": name, **config}).json()["Id"]


def run_in(api, network, script, **options):
    container = api.run(script, host={"NetworkMode": network, **options.pop("host", {})}, **options)
    code = api.wait(container)
    return code, api.logs(container).decode()


PUBLISH = {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}}


def test_the_three_networks_are_there(api):
    networks = {n["Name"]: n["Driver"] for n in api.ok("GET", "/networks").json()}
    assert networks == {"bridge": "bridge", "host": "host", "none": "null"}


def test_a_container_reaches_the_host_and_another_container(api):
    server = web(api)
    code, output = run_in(api, "bridge", f"wget -qO- http://{address(api, server)}/")
    assert (code, output) == (0, "It works: a container answers.\n")


def test_a_port_is_chosen_and_told_when_start_returns(api):
    container = web(api, host=PUBLISH, ExposedPorts={"80/tcp": {}})
    port = port_of(api, container)
    assert port >= 1024
    assert b"It works" in fetch(port)
    listed = api.ok("GET", "/containers/json").json()[0]["Ports"]
    assert {"PrivatePort": 80, "PublicPort": port, "Type": "tcp"}.items() <= listed[0].items()


def test_a_port_on_loopback_is_not_on_other_addresses(api):
    container = web(api, ExposedPorts={"80/tcp": {}},
                    host={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18081"}]}})
    assert b"It works" in fetch(18081)
    with pytest.raises(OSError):
        socket.create_connection((_gateway(api, container), 18081), timeout=3)
    api.remove(container)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 18081), timeout=3)


def _gateway(api, container):
    """The host's address on the container's network."""
    return api.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]


def test_publish_all_publishes_exposed_ports(api):
    container = web(api, host={"PublishAllPorts": True}, ExposedPorts={"80/tcp": {}, "81/udp": {}})
    ports = api.inspect(container)["NetworkSettings"]["Ports"]
    assert b"It works" in fetch(int(ports["80/tcp"][0]["HostPort"]))
    assert ports["81/udp"]


_UDP_ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 5000))
print("bound", flush=True)
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(data, peer)
"""


def test_a_udp_port_answers(api):
    """The image's busybox has no UDP server, so one of the host's runs in the container's network."""
    container = api.run(["sleep", "1000"], ExposedPorts={"5000/udp": {}},
                        host={"PortBindings": {"5000/udp": [{"HostPort": "15000"}]}})
    pid = str(api.state(container)["Pid"])
    server = subprocess.Popen(["nsenter", "-t", pid, "-n", "/usr/bin/python3", "-c", _UDP_ECHO], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"bound\n"
        for host in ("127.0.0.1", _gateway(api, container)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(60)
                client.connect((host, 15000))
                client.send(b"ping")
                assert client.recv(100) == b"ping", host
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_names_resolve_in_a_user_network(api):
    make_network(api, "web")
    web(api, name="server", host={"NetworkMode": "web"},
        NetworkingConfig={"EndpointsConfig": {"web": {"Aliases": ["alias1"]}}})
    for name in ("server", "alias1"):
        code, output = run_in(api, "web", f"wget -qO- http://{name}/")
        assert (code, output) == (0, "It works: a container answers.\n"), name
    code, _ = run_in(api, "web", "nslookup nosuchname")
    assert code != 0


def test_resolv_conf_names_the_built_in_server(api):
    make_network(api, "web")
    _, output = run_in(api, "web", "cat /etc/resolv.conf")
    assert "nameserver 127.0.0.11" in output


def test_hosts_has_the_container_and_extra_entries(api):
    container = api.run("cat /etc/hosts", Hostname="me", host={"ExtraHosts": ["db:10.9.8.7"]})
    api.wait(container)
    hosts = api.logs(container).decode()
    assert "10.9.8.7\tdb" in hosts and "\tme" in hosts and "127.0.0.1\tlocalhost" in hosts


def test_networks_are_apart(api):
    make_network(api, "one")
    make_network(api, "two")
    server = web(api, host={"NetworkMode": "one"})
    code, _ = run_in(api, "two", f"timeout 2 wget -qO- http://{address(api, server, 'one')}/; exit $?")
    assert code != 0


def test_connect_and_disconnect_while_running(api):
    make_network(api, "late")
    server = web(api, name="srv")
    api.ok("POST", "/networks/late/connect", body={"Container": server, "EndpointConfig": {"Aliases": ["other"]}})
    assert run_in(api, "late", "wget -qO- http://other/")[0] == 0
    assert set(api.inspect(server)["NetworkSettings"]["Networks"]) == {"bridge", "late"}
    api.ok("POST", "/networks/late/disconnect", body={"Container": server})
    assert set(api.inspect(server)["NetworkSettings"]["Networks"]) == {"bridge"}
    assert run_in(api, "late", "timeout 2 wget -qO- http://other/; exit $?")[0] != 0


def test_a_network_in_use_is_not_removed(api):
    network = make_network(api, "busy")
    api.run(["sleep", "1000"], name="user", host={"NetworkMode": "busy"})
    reply = api.delete("/networks/busy")
    assert reply.status == 403 and "has active endpoints" in reply.message
    assert "user" in [c["Name"] for c in api.ok("GET", f"/networks/{network}").json()["Containers"].values()]


def test_predefined_networks_stay(api):
    assert api.delete("/networks/bridge").status == 403
    assert api.post("/networks/create", body={"Name": "host"}).status == 403


def test_a_missing_network_is_404(api):
    reply = api.get("/networks/nope")
    assert reply.status == 404 and "nope" in reply.message


def test_a_chosen_subnet_and_address(api):
    make_network(api, "fixed", IPAM={"Config": [{"Subnet": "10.123.0.0/24", "Gateway": "10.123.0.254"}]})
    container = api.run(["sleep", "1000"], host={"NetworkMode": "fixed"},
                        NetworkingConfig={"EndpointsConfig": {"fixed": {"IPAMConfig": {"IPv4Address": "10.123.0.77"}}}})
    endpoint = api.inspect(container)["NetworkSettings"]["Networks"]["fixed"]
    assert (endpoint["IPAddress"], endpoint["Gateway"], endpoint["IPPrefixLen"]) == ("10.123.0.77", "10.123.0.254", 24)


def test_overlapping_subnets_are_refused(api):
    make_network(api, "a", IPAM={"Config": [{"Subnet": "10.124.0.0/24"}]})
    reply = api.post("/networks/create", body={"Name": "b", "IPAM": {"Config": [{"Subnet": "10.124.0.128/25"}]}})
    assert reply.status == 403 and "Pool overlaps with other one on this address space" in reply.message


@pytest.mark.gantry_only
def test_an_internal_network_has_no_way_out(api):
    make_network(api, "inside", Internal=True)
    _, output = run_in(api, "inside", "ip route")
    assert "default" not in output


def test_host_mode_shares_the_hosts_network(api):
    container = api.run("ip -o link | cut -d: -f2; hostname", host={"NetworkMode": "host"})
    api.wait(container)
    assert "lo" in api.logs(container).decode()
    assert api.inspect(container)["HostConfig"]["NetworkMode"] == "host"


def test_none_mode_has_loopback_only(api):
    container = api.run("ip -o link | grep -c eth", host={"NetworkMode": "none"})
    api.wait(container)
    assert api.logs(container) == b"0\n"


def test_container_mode_shares_anothers_network(api):
    server = web(api)
    container = api.run("wget -qO- http://127.0.0.1/", host={"NetworkMode": f"container:{server}"})
    assert api.wait(container) == 0


def test_links_give_names_in_the_default_network(docker):
    docker("run", "-d", "--name", "target", "busybox", "httpd", "-f", "-p", "80", "-h", "/var/www", check=True)
    result = docker("run", "--rm", "--link", "target:alias", "busybox", "sh", "-c",
                    "for i in 1 2 3 4 5; do wget -qO- http://alias/ && exit; done; exit 1")
    assert "It works" in result.stdout


def test_prune_removes_unused_networks(api):
    make_network(api, "unused")
    make_network(api, "used")
    api.run(["sleep", "1000"], host={"NetworkMode": "used"})
    assert api.ok("POST", "/networks/prune").json()["NetworksDeleted"] == ["unused"]


def test_a_range_of_ports_is_published(docker):
    docker("run", "-d", "--name", "many", "-p", "21000-21009:80-89", "busybox", "httpd", "-f", "-p", "85", "-h", "/var/www",
           check=True)
    assert len(docker("port", "many", check=True).stdout.splitlines()) >= 10


def test_addresses_are_given_back(api):
    first = api.run(["sleep", "1000"])
    used = address(api, first)
    api.remove(first)
    seen = set()
    for _ in range(3):
        container = api.run(["sleep", "1000"])
        seen.add(address(api, container))
        api.remove(container)
    assert len(seen) <= 3 and all(a.rsplit(".", 1)[0] == used.rsplit(".", 1)[0] for a in seen)


@pytest.mark.gantry_only
def test_two_networks_of_one_name_are_refused(api):
    make_network(api, "same")
    reply = api.post("/networks/create", body={"Name": "same"})
    assert (reply.status, reply.message) == (409, "network with name same already exists")


@pytest.mark.gantry_only
def test_the_firewall_is_put_back_when_somebody_flushes_it(engine, api):
    container = web(api, host=PUBLISH, ExposedPorts={"80/tcp": {}})
    port = port_of(api, container)
    subprocess.run(["nft", "flush", "ruleset"], check=False)
    assert b"It works" in _eventually(lambda: fetch(port, _gateway(api, container)))


def _eventually(call, attempts=300):
    """Repairs are asynchronous by nature; the connection attempts themselves pace this."""
    import time

    for attempt in range(attempts):
        try:
            return call()
        except OSError:
            time.sleep(0.1)
    return call()


@pytest.mark.gantry_only
def test_publishing_starts_no_process_per_port(engine, api):
    from harness import leaks

    before = len(leaks.processes(engine))
    exposed = {f"{port}/tcp": {} for port in range(1, 201)}
    bindings = {f"{port}/tcp": [{"HostPort": str(20000 + port)}] for port in range(1, 201)}
    container = api.run(["sleep", "1000"], ExposedPorts=exposed, host={"PortBindings": bindings})
    assert len(leaks.processes(engine)) - before <= 2
    assert len(api.inspect(container)["NetworkSettings"]["Ports"]) == 200


@pytest.mark.gantry_only
def test_more_networks_fit_than_dockers_thirty(api):
    for number in range(40):
        make_network(api, f"n{number}")
    assert len(api.ok("GET", "/networks").json()) == 43
