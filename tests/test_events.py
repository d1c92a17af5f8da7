"""GET /events."""

import json
import time

import pytest

from harness.api import EventStream


def actions_of(stream, last):
    """Container actions up to and with `last`."""
    stream.until(last)
    return stream.actions()


def test_a_run_gives_its_events_in_order(api):
    with api.events() as events:
        container = api.run("exit 3", name="teller", Labels={"team": "a"})
        api.wait(container)
        api.remove(container)
        assert actions_of(events, "destroy") == ["create", "start", "die", "destroy"]
    die = next(event for event in events.seen if event["Action"] == "die")
    assert die["Actor"]["ID"] == container
    attributes = die["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["name"], attributes["image"], attributes["team"]) == ("3", "teller", "busybox",
                                                                                                  "a")
    assert die["time"] == die["timeNano"] // 10**9
    assert die["scope"] == "local"


def test_old_clients_get_the_old_fields(api):
    with api.events() as events:
        container = api.create()
        event = events.until("create")
    assert (event["status"], event["id"], event["from"]) == ("create", container, "busybox")


def test_stop_and_kill_are_told(api):
    container = api.run(["sleep", "1000"])
    with api.events() as events:
        api.ok("POST", f"/containers/{container}/stop", {"t": 0})
        events.until("stop")
        assert sorted(events.actions()) == sorted(["kill", "kill", "die", "stop"]) or "die" in events.actions()
        assert events.actions()[0] == "kill"


def test_networks_are_told(api):
    with api.events() as events:
        network = api.ok("POST", "/networks/create", body={"Name": "net1"}).json()["Id"]
        created = events.until("create", "network")
        assert created["Actor"]["ID"] == network and created["Actor"]["Attributes"]["name"] == "net1"
        container = api.run("true", host={"NetworkMode": "net1"})
        assert events.until("connect", "network")["Actor"]["Attributes"]["container"] == container
        events.until("disconnect", "network")
        api.wait(container)
        api.remove(container)
        api.ok("DELETE", "/networks/net1")
        events.until("destroy", "network")


def test_volumes_are_told(api):
    with api.events() as events:
        api.ok("POST", "/volumes/create", body={"Name": "v1"})
        assert events.until("create", "volume")["Actor"]["ID"] == "v1"
        api.ok("DELETE", "/volumes/v1")
        events.until("destroy", "volume")


def test_filters_choose(api):
    with api.events(event=["start"], type=["container"]) as events:
        container = api.run("true")
        assert events.next()["Action"] == "start"
        api.wait(container)
    with api.events(container=["only"]) as events:
        api.create(name="other")
        wanted = api.create(name="only")
        assert events.next()["Actor"]["ID"] == wanted
    with api.events(label=["a=b"]) as events:
        api.create(Labels={"a": "c"})
        wanted = api.create(Labels={"a": "b"})
        assert events.next()["Actor"]["ID"] == wanted


def test_the_past_is_replayed(api):
    since = time.time() - 1
    container = api.run("true", name="past")
    api.wait(container)
    api.remove(container)
    stream = EventStream(api, {"container": [container]}, since=f"{since:.6f}", until=f"{time.time() + 0.1:.6f}")
    actions = []
    while line := stream.response.readline():
        actions.append(json.loads(line)["Action"])
    stream.close()
    assert actions[0] == "create" and actions[-1] == "destroy"


def test_until_in_the_future_ends_the_stream(api):
    stream = EventStream(api, {}, until=f"{time.time() + 1:.3f}")
    started = time.monotonic()
    stream.response.read()
    assert time.monotonic() - started < 30
    stream.close()


def test_a_bad_since_is_refused(api):
    assert api.get("/events", {"since": "yesterday"}).status >= 400


def test_exec_is_told(api):
    container = api.run(["sleep", "1000"])
    with api.events() as events:
        exec_id = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["true"]}).json()["Id"]
        api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
        died = events.until("exec_die")
        assert died["Actor"]["Attributes"]["execID"] == exec_id
        assert died["Actor"]["Attributes"]["exitCode"] == "0"
        assert [a.split(":")[0] for a in events.actions()] == ["exec_create", "exec_start", "exec_die"]


def test_out_of_memory_is_told(api):
    with api.events() as events:
        api.run("sleep 0.2; tail /dev/zero", host={"Memory": 16 << 20, "MemorySwap": 16 << 20})
        events.until("oom")
        events.until("die")


def test_a_restart_by_policy_is_die_and_start(api):
    with api.events() as events:
        api.run("exit 1", host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}})
        events.until("die")
        events.until("die")
    assert events.actions() == ["create", "start", "die", "start", "die"]


@pytest.mark.gantry_only
def test_new_clients_get_no_old_fields(api):
    with api.at("1.52").events() as events:
        api.create()
        event = events.until("create")
        assert events.response.headers["Content-Type"] == "application/jsonl"
    assert not {"status", "id", "from"} & event.keys()
