"""The same deeds give the same events in dockerd and here: order, actions and attributes."""

import json

import pytest

from conftest import on_both_engines, wipe
from harness import differential, images
from harness.engine import Docker, Gantry

pytestmark = pytest.mark.gantry_only  # it starts dockerd itself

STREAMS = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
# Since 20.10: how long the program ran; how a resize of an exec is told.
NEWER_ATTRIBUTES = {"execDuration"}


def scenario(function):
    """Makes a probe of it: the events from the call's begin to its end."""
    def probe(engine):
        api = engine.api()
        with api.events() as stream:
            function(api)
            await_ends(api, stream)
            api.ok("POST", "/volumes/create", body={"Name": "the-end"})
            told, seen = [], iter(stream.seen)
            while not ((event := next(seen, None) or stream.next())["Type"] == "volume" and event["Actor"]["ID"] == "the-end"):
                attributes = {key: value for key, value in event["Actor"]["Attributes"].items() if key not in NEWER_ATTRIBUTES}
                told.append([event["Type"], event["Action"].rstrip(), event["Actor"]["ID"], dict(sorted(attributes.items()))])
            return told

    SCENARIOS[function.__name__] = probe
    return function


def await_ends(api, stream):
    """dockerd answers when a container has ended, and tells of that, and of the networks that it leaves, a bit later."""
    def told(container, action):
        return sum(each["Action"].split(":")[0] == action and container in (
            each["Actor"]["ID"], each["Actor"]["Attributes"].get("container")) for each in stream.seen)

    for each in api.ok("GET", "/containers/json", {"all": 1}).json():
        if each["State"] == "exited":
            container = each["Id"]
            while told(container, "die") < told(container, "start") or told(container, "disconnect") < told(container, "connect"):
                stream.next()


SCENARIOS = {}


def until_gone(api, container):
    api.wait(container, "removed")


@scenario
def run_and_remove(api):
    container = api.run("exit 3", name="one", Labels={"team": "a", "empty": ""})
    api.wait(container)
    api.remove(container, force=False)


@scenario
def auto_remove(api):
    container = api.create(Cmd=["sleep", "0.3"], name="two", host={"AutoRemove": True})
    connection, response = api.open("POST", f"/containers/{container}/wait", {"condition": "removed"})
    api.start(container)
    response.read()
    connection.close()


@scenario
def stop(api):
    container = api.run(["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"], name="three")
    api.wait_for_log(container, "ready")
    api.ok("POST", f"/containers/{container}/stop")


@scenario
def stop_with_a_kill(api):
    container = api.run(["sleep", "1000"], name="four")
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})


@scenario
def kill(api):
    container = api.run(["sleep", "1000"], name="five")
    api.ok("POST", f"/containers/{container}/kill", {"signal": "SIGUSR1"})
    api.ok("POST", f"/containers/{container}/kill")


@scenario
def restart(api):
    container = api.run(["sleep", "1000"], name="six")
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    api.ok("POST", f"/containers/{container}/kill")


@scenario
def remove_by_force(api):
    container = api.run(["sleep", "1000"], name="seven")
    api.remove(container)


@scenario
def pause_rename_update(api):
    container = api.run(["sleep", "1000"], name="eight")
    api.ok("POST", f"/containers/{container}/pause")
    api.ok("POST", f"/containers/{container}/unpause")
    api.ok("POST", f"/containers/{container}/rename", {"name": "ninth"})
    api.ok("POST", f"/containers/{container}/update", body={"CpuShares": 512})
    api.ok("GET", f"/containers/{container}/top")


@scenario
def terminal(api):
    container = api.create(Cmd=["sh"], OpenStdin=True, Tty=True, name="ten")
    with api.hijack(f"/containers/{container}/attach", {**STREAMS, "detachKeys": "ctrl-x,y"}) as stream:
        api.start(container)
        api.ok("POST", f"/containers/{container}/resize", {"h": 20, "w": 60})
        stream.read_until(b"# ")
        stream.send(b"\x18y")
        stream.read_all()


@scenario
def attach(api):
    container = api.create(Cmd=["echo", "x"], name="eleven")
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        stream.read_all()
    api.wait(container)


@scenario
def execute(api):
    container = api.run(["sleep", "1000"], name="twelve", Labels={"l": "v"})
    for cmd in (["sh", "-c", "exit 4"], ["true"]):
        exec_id = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": cmd, "AttachStdout": True}).json()["Id"]
        with api.events(container=[container], event=["exec_die"]) as ends, api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
            stream.read_all()
            ends.next()  # dockerd tells of it some time later


@scenario
def archives(api):
    container = api.create(name="thirteen")
    api.ok("GET", f"/containers/{container}/archive", {"path": "/etc/passwd"})
    api.ok("HEAD", f"/containers/{container}/archive", {"path": "/etc/passwd"})
    api.ok("PUT", f"/containers/{container}/archive", {"path": "/tmp"}, data=images.layer({"a": b"1"}),
           headers={"Content-Type": "application/x-tar"})
    api.ok("GET", f"/containers/{container}/export")
    api.ok("GET", f"/containers/{container}/changes")


@scenario
def commit(api):
    container = api.create(name="fourteen")
    api.ok("POST", "/commit", {"container": container, "repo": "made", "tag": "v1", "comment": "why"})
    api.ok("DELETE", "/images/made:v1")


@scenario
def restart_policy(api):
    container = api.run("exit 1", name="fifteen", host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}})
    with api.events(container=[container], event=["die"]) as stream:
        # Both ends may have been before the stream began.
        if api.inspect(container)["RestartCount"] == 0:
            stream.next()
    while api.state(container)["Running"] or api.state(container)["Restarting"]:
        api.wait(container)


@scenario
def failed_start(api):
    container = api.create(Cmd=["nosuchprogram"], name="sixteen")
    assert api.post(f"/containers/{container}/start").status == 400


@scenario
def failed_start_auto_remove(api):
    container = api.create(Cmd=["nosuchprogram"], name="seventeen", host={"AutoRemove": True})
    assert api.post(f"/containers/{container}/start").status == 400


@scenario
def networks(api):
    api.ok("POST", "/networks/create", body={"Name": "net", "Labels": {"l": "v"}})
    container = api.run(["sleep", "1000"], name="eighteen", host={"NetworkMode": "net"})
    api.ok("POST", "/networks/bridge/connect", body={"Container": container})
    api.ok("POST", "/networks/bridge/disconnect", body={"Container": container})
    api.remove(container)
    api.ok("DELETE", "/networks/net")


@scenario
def connect_what_is_stopped(api):
    api.ok("POST", "/networks/create", body={"Name": "net"})
    container = api.create(name="nineteen")
    api.ok("POST", "/networks/net/connect", body={"Container": container})
    api.ok("POST", "/networks/net/disconnect", body={"Container": container})


@scenario
def volumes(api):
    api.ok("POST", "/volumes/create", body={"Name": "vol", "Labels": {"l": "v"}})
    container = api.create(Cmd=["true"], name="twenty", host={"Binds": ["vol:/data", "vol:/ro:ro"]})
    api.start(container)
    api.wait(container)
    api.remove(container)
    api.ok("DELETE", "/volumes/vol")


@scenario
def anonymous_volumes(api):
    container = api.create(Cmd=["true"], name="twenty-one", Volumes={"/data": {}})
    api.start(container)
    api.wait(container)
    api.remove(container, volumes=True)


@scenario
def images(api):
    api.ok("POST", "/images/busybox/tag", {"repo": "again", "tag": "v1"})
    saved = api.ok("GET", "/images/again:v1/get").body
    api.ok("DELETE", "/images/again:v1")
    api.ok("POST", "/images/load", data=saved, headers={"Content-Type": "application/x-tar"})
    api.ok("DELETE", "/images/again:v1")
    made = api.ok("POST", "/images/create", {"fromSrc": "-", "repo": "imported", "tag": "v1"}, data=images.layer({"a": b"1"}),
                  headers={"Content-Type": "application/x-tar"})
    assert b"errorDetail" not in made.body
    api.ok("DELETE", "/images/imported:v1")


@scenario
def prunes(api):
    api.create(name="twenty-two")
    api.ok("POST", "/networks/create", body={"Name": "unused"})
    api.ok("POST", "/volumes/create", body={"Name": "unused"})
    for what in ("containers", "networks", "volumes", "images"):
        api.ok("POST", f"/{what}/prune")


@scenario
def health(api):
    second = 10**9
    container = api.run(["sleep", "1000"], name="twenty-three",
                        Healthcheck={"Test": ["CMD", "true"], "Interval": 60 * second, "StartPeriod": 0})
    api.remove(container)


@pytest.fixture(scope="module")
def told(busybox_tar):
    return on_both_engines(busybox_tar, lambda engine: differential.record(engine, SCENARIOS, wipe))


def newer(told):
    """What dockerd tells since version 25, from what 20.10 told."""
    told = [list(event) for event in told]
    for at in reversed(range(len(told))):
        # A container's end is told when its networks and volumes were given back, and not before.
        while told[at][1] == "die" and at + 1 < len(told) and told[at + 1][1] in ("disconnect", "unmount"):
            told[at], told[at + 1] = told[at + 1], told[at]
            at += 1
    for at in reversed(range(len(told))):
        kind, action, actor, attributes = told[at]
        again = at > 0 and told[at - 1] == told[at]
        # A volume that is there is not told as made again, nor is leaving a network told twice.
        if again and (kind, action) in (("volume", "create"), ("network", "disconnect")):
            del told[at]
        if (kind, action) == ("image", "untag"):
            attributes["name"] = "the name that was taken"
        # 20.10 tells of the tag of an import, and not of a volume that prune removes.
        if (kind, action) == ("image", "tag") and at + 1 < len(told) and told[at + 1][1] == "import":
            del told[at]
        if (kind, action) == ("volume", "prune") and told[at - 1][:2] != ["volume", "destroy"]:
            told.insert(at, ["volume", "destroy", "unused", {"driver": "local"}])
    # dockerd mounts a container's volumes in no order.
    for at in range(1, len(told)):
        if told[at - 1][1] == told[at][1] == "mount" and told[at - 1][3]["destination"] > told[at][3]["destination"]:
            told[at - 1], told[at] = told[at], told[at - 1]
    return told


def lines(result):
    return [str(result)] if isinstance(result, str) else [json.dumps(each) for each in newer(result)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_events_are_dockers(told, name):
    differential.check(lines(told[Docker][name]), lines(told[Gantry][name]))
