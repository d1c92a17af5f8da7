"""A container that was disconnected from the network of its own NetworkMode."""

import pytest

from test_network_kinds import inside, make_ok


def networks(api, container):
    return sorted(api.inspect(container)["NetworkSettings"]["Networks"])


def interfaces(api, container):
    lines = inside(api, container, "ip", "-o", "link").stdout.splitlines()
    return [line for line in lines if ": eth" in line]


def disconnect(api, network, container):
    api.ok("POST", f"/networks/{network}/disconnect", body={"Container": container})


def connect(api, network, container):
    api.ok("POST", f"/networks/{network}/connect", body={"Container": container})


@pytest.mark.parametrize("mode", ["bridge", "own"])
def test_it_stays_out_until_it_is_connected_again(api, mode):
    make_ok(api, "own")
    container = api.run(["sleep", "1000"], host={"NetworkMode": mode})
    disconnect(api, mode, container)
    assert networks(api, container) == [] and interfaces(api, container) == []
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert networks(api, container) == [] and interfaces(api, container) == []
    connect(api, mode, container)
    assert networks(api, container) == [mode] and len(interfaces(api, container)) == 1
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert networks(api, container) == [mode] and len(interfaces(api, container)) == 1


def test_it_stays_out_of_it_in_another(api):
    make_ok(api, "own")
    make_ok(api, "other")
    container = api.create(Cmd=["sleep", "1000"], host={"NetworkMode": "own"})
    connect(api, "other", container)
    disconnect(api, "own", container)
    assert networks(api, container) == ["other"]
    api.start(container)
    assert networks(api, container) == ["other"] and len(interfaces(api, container)) == 1
    api.ok("DELETE", "/networks/own")
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert networks(api, container) == ["other"]
    make_ok(api, "own")


@pytest.mark.gantry_only  # dockerd that dies takes its containers along
def test_a_daemon_that_comes_after_knows_it(engine, api):
    container = api.run(["sleep", "1000"])
    disconnect(api, "bridge", container)
    engine.kill()
    engine.start()
    assert networks(api, container) == []
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert networks(api, container) == [] and interfaces(api, container) == []
