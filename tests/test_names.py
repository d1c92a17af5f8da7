"""The name server at 127.0.0.11 that each container of a user-defined network has."""

import random
import re
import subprocess
import sys
import time

import pytest

from harness.dns import PTR, Inside, address, make_network, sleeper


@pytest.fixture
def inside(api):
    opened = []

    def start(container):
        opened.append(Inside(api, container))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_every_name_of_a_container(api, inside):
    make_network(api, "blue")
    server = sleeper(api, "server", "blue", Hostname="host1", endpoint={"Aliases": ["other"]})
    client = inside(sleeper(api, "client", "blue"))
    ip = address(api, server, "blue")
    for name in ("server", "SERVER", "other", server[:12], "host1", "server.blue", "other.blue"):
        assert client.ask(name) == (0, [ip]), name
    assert client.ask("server", tcp=True) == (0, [ip])


def test_an_address_has_its_containers_name(api, inside):
    make_network(api, "blue")
    server = sleeper(api, "server", "blue")
    reverse = ".".join(reversed(address(api, server, "blue").split("."))) + ".in-addr.arpa"
    assert inside(server).ask(reverse, PTR) == (0, ["server.blue"])


def test_containers_that_share_an_alias_take_turns(api, inside):
    make_network(api, "blue")
    ips = {address(api, sleeper(api, f"s{n}", "blue", endpoint={"Aliases": ["pool"]}), "blue") for n in range(3)}
    client = inside(sleeper(api, "client", "blue"))
    replies = [client.ask("pool")[1] for _ in range(60)]
    assert all(set(reply) == ips for reply in replies)
    assert {reply[0] for reply in replies} == ips


def test_links_are_names_for_one_container_only(api, inside):
    make_network(api, "blue")
    server = sleeper(api, "server", "blue")
    linked = inside(sleeper(api, "linked", "blue", endpoint={"Links": ["server:db"]}))
    assert linked.ask("db") == (0, [address(api, server, "blue")])
    other = inside(sleeper(api, "other", "blue"))
    assert other.ask("db")[1] == []



def test_a_thousand_questions(api, inside):
    make_network(api, "blue")
    names = [f"c{n}" for n in range(5)]
    ips = {name: address(api, sleeper(api, name, "blue"), "blue") for name in names}
    client = inside("c0")
    begin = time.monotonic()
    for n in range(1000):
        name = random.choice(names)
        assert client.ask(name, tcp=n % 10 == 0) == (0, [ips[name]])
    assert time.monotonic() - begin < 60


def test_a_container_that_ends_is_not_found_any_more(api, inside):
    make_network(api, "blue")
    server = sleeper(api, "server", "blue")
    client = inside(sleeper(api, "client", "blue"))
    assert client.ask("server")[1]
    api.remove(server)
    assert client.ask("server")[1] == []


@pytest.mark.gantry_only
def test_a_rename_is_seen_at_once(api, inside):
    make_network(api, "blue")
    server = sleeper(api, "server", "blue", endpoint={"Aliases": ["stays"]})
    client = inside(sleeper(api, "client", "blue"))
    api.ok("POST", f"/containers/{server}/rename", {"name": "renamed"})
    ip = address(api, server, "blue")
    assert client.ask("renamed") == (0, [ip]) and client.ask("stays") == (0, [ip])
    assert client.ask("server")[1] == []


def test_a_container_of_the_default_network_gets_names_when_it_is_connected(api, docker):
    make_network(api, "blue")
    sleeper(api, "server", "blue")
    late = api.run(["sleep", "1000"], name="late")
    assert "127.0.0.11" not in docker("exec", "late", "cat", "/etc/resolv.conf").stdout
    api.ok("POST", "/networks/blue/connect", body={"Container": late})
    assert "nameserver 127.0.0.11" in docker("exec", "late", "cat", "/etc/resolv.conf").stdout
    assert docker("exec", "late", "nslookup", "server").returncode == 0


@pytest.mark.gantry_only
def test_a_changed_resolv_conf_stays(api, docker):
    make_network(api, "blue")
    late = api.run(["sleep", "1000"], name="late")
    docker("exec", "late", "sh", "-c", "echo nameserver 192.0.2.53 > /etc/resolv.conf", check=True)
    api.ok("POST", "/networks/blue/connect", body={"Container": late})
    assert docker("exec", "late", "cat", "/etc/resolv.conf").stdout == "nameserver 192.0.2.53\n"


def test_the_container_can_have_a_name_server_of_its_own(api, inside):
    make_network(api, "blue")
    container = sleeper(api, "server", "blue")
    script = ("import socket\nfor kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):\n"
              "  s = socket.socket(socket.AF_INET, kind); s.bind(('0.0.0.0', 53))\n"
              "  if kind == socket.SOCK_STREAM: s.listen()\n  globals()[f's{int(kind)}'] = s\n"
              "print('listens', flush=True)\ninput()\n")
    pid = str(api.state(container)["Pid"])
    server = subprocess.Popen(["nsenter", "-t", pid, "-n", sys.executable, "-c", script], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"listens\n"
        client = inside(container)
        for tcp in (False, True):
            assert client.ask("server", tcp=tcp) == (0, [address(api, container, "blue")])
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()



def test_a_link_to_what_does_not_run_is_refused(api, docker):
    result = docker("run", "--rm", "--link", "nobody:alias", "busybox", "true")
    assert result.returncode == 125 and "could not get container for nobody" in result.stderr
    api.create(name="stopped")
    result = docker("run", "--rm", "--link", "stopped:alias", "busybox", "true")
    assert result.returncode != 0 and "Cannot link to a non running container: /stopped AS /" in result.stderr


@pytest.mark.gantry_only
def test_the_name_server_costs_little_memory(engine, api, inside):
    from harness import leaks

    make_network(api, "blue")
    client = inside(sleeper(api, "client", "blue"))
    for _ in range(200):
        client.ask("client")
    pids = [pid for pid, command in leaks.processes(engine).items() if "gantry-shim" in command]
    for pid in pids:
        rollup = open(f"/proc/{pid}/smaps_rollup").read()
        private = int(re.search(r"Private_Dirty:\s+(\d+) kB", rollup).group(1))
        assert private < 1024, rollup
