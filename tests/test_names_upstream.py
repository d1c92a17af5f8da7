"""Whom a container's name server asks, and that it needs no daemon."""

import pytest

from harness.dns import AAAA, HTTPS, TXT, Inside, Upstream, address, make_network, sleeper

pytestmark = pytest.mark.gantry_only


@pytest.fixture
def upstreams():
    made = []

    def make(*args, **options):
        made.append(Upstream(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def resolv_conf(scratch, *servers):
    path = scratch / "resolv.conf"
    path.write_text("".join(f"nameserver {server}\n" for server in servers))
    return str(path)


def test_nothing_about_a_known_name_is_passed_on(fresh, upstreams, scratch):
    upstream = upstreams("127.0.0.1", "192.0.2.1")
    api = fresh(config={"resolv-conf": resolv_conf(scratch, "127.0.0.1")}).api()
    make_network(api, "blue")
    client = Inside(api, sleeper(api, "server", "blue"))
    for kind in (TXT, HTTPS, AAAA, 15, 33, 255):
        assert client.ask("server", kind) == (0, []), kind
    assert not upstream.asked
    assert client.ask("example.org") == (0, ["192.0.2.1"])
    assert len(upstream.asked) == 1
    client.close()


def test_a_server_that_fails_is_followed_by_the_next(fresh, upstreams, scratch):
    failing, good = upstreams("127.0.0.2", code=2), upstreams("127.0.0.3", "192.0.2.3")
    engine = fresh(config={"resolv-conf": resolv_conf(scratch, "127.0.0.2", "127.0.0.3")})
    api = engine.api()
    make_network(api, "blue")
    make_network(api, "inner", Internal=True)
    client = Inside(api, sleeper(api, "client", "blue"))
    assert client.ask("example.org") == (0, ["192.0.2.3"])
    assert failing.asked and good.asked
    # Other ids than the client's, and a port for each question.
    for n in range(20):
        client.ask(f"x{n}.example.org")
    assert len({query[:2] for query in good.asked}) > 15
    # The host moves to another network.
    third = upstreams("127.0.0.4", "192.0.2.4")
    resolv_conf(scratch, "127.0.0.4")
    assert client.ask("example.com") == (0, ["192.0.2.4"])
    # A container without a way out does not ask at all.
    asked = len(third.asked)
    closed = Inside(api, sleeper(api, "closed", "inner"))
    assert closed.ask("example.net") == (2, [])
    assert closed.ask("closed")[0] == 0 and len(third.asked) == asked
    # Until it is connected to a network that has one.
    api.ok("POST", "/networks/blue/connect", body={"Container": "closed"})
    assert closed.ask("example.net") == (0, ["192.0.2.4"])
    client.close()
    closed.close()


def test_names_change_with_the_daemon_away_and_back(fresh):
    engine = fresh()
    api = engine.api()
    make_network(api, "blue")
    server = sleeper(api, "server", "blue", endpoint={"Aliases": ["other"]})
    ip = address(api, server, "blue")
    client = Inside(api, sleeper(api, "client", "blue", endpoint={"Links": ["server:db"]}))
    engine.kill()
    for name in ("server", "other", "db"):
        assert client.ask(name) == (0, [ip]), name
    engine.start()
    for name in ("server", "other", "db"):
        assert client.ask(name) == (0, [ip]), name
    api.remove(server)
    assert client.ask("server")[1] == []
    client.close()
