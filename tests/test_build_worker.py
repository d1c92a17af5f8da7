"""gantry-build, the process that builds: started when it is needed, ended when it is not, and nothing of it stays
whatever becomes of it."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from conftest import load
from harness import images, leaks, memory
from harness.builds import build, built, context

pytestmark = pytest.mark.gantry_only

SLEEPER = "FROM busybox\nRUN echo begun; sleep 1000\n"


def begin(api, dockerfile, until):
    """Starts a build and returns its connection and stream when `until` was printed."""
    connection, response = api.open("POST", "/build", {"nocache": 1}, data=context(dockerfile),
                                    headers={"Content-Type": "application/x-tar"})
    assert response.status == 200
    seen = b""
    while f'{until}\\n"'.encode() not in seen:
        line = response.readline()
        assert line, f"the build ended: {seen}"
        seen += line
    return connection, response


def workers(engine):
    return [pid for pid, command in leaks.processes(engine).items() if command.split(" ")[0].endswith("gantry-build")]


def await_true(what, condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not after {timeout} s"
        time.sleep(0.05)
    return value


def assert_nothing_runs(engine):
    """No worker and nothing that one has started or mounted."""
    await_true("the worker's end", lambda: not workers(engine))
    assert not leaks.report(engine, leaks.mounts(engine))


def directories(engine):
    """Layers, and what is unfinished."""
    return sorted(os.listdir(engine.data_root / "layers")), os.listdir(engine.data_root / "tmp")


def test_it_is_started_on_demand_and_ends_when_idle(engine, api):
    assert not workers(engine)
    built(api, "FROM busybox\nRUN echo hello > /greeting\n", t="greeting")
    assert len(workers(engine)) == 1
    container = api.run("cat /greeting", image="greeting")
    api.wait(container)
    assert api.logs(container) == b"hello\n"
    assert_nothing_runs(engine)
    usage = api.ok("GET", "/system/df").json()["BuildCache"]
    assert any(record["Type"] == "regular" and "echo hello" in record["Description"] for record in usage), usage
    assert not workers(engine)  # reading what it left starts none
    lines = build(api, "FROM busybox\nRUN echo hello > /greeting\n")
    assert any("Using cache" in line.get("stream", "") for line in lines), lines


def test_a_killed_worker_leaves_nothing(engine, api):
    built(api, "FROM busybox\nRUN true\n")
    before = directories(engine)
    connection, response = begin(api, SLEEPER, "begun")
    (worker,) = workers(engine)
    os.kill(worker, signal.SIGKILL)
    last = json.loads(response.read().splitlines()[-1])
    assert "the builder ended unexpectedly" in last["error"], last
    connection.close()
    assert_nothing_runs(engine)
    assert directories(engine) == before
    built(api, "FROM busybox\nRUN echo next\n")


def test_killing_what_the_worker_runs_fails_the_build_only(engine, api):
    connection, response = begin(api, SLEEPER, "begun")
    (worker,) = workers(engine)
    (sleeper,) = [pid for pid, command in leaks.processes(engine).items() if command == "sleep 1000"]
    os.kill(sleeper, signal.SIGKILL)
    last = json.loads(response.read().splitlines()[-1])
    assert last["errorDetail"]["code"] == 137, last
    connection.close()
    assert workers(engine) == [worker]


def test_a_client_that_goes_away_ends_its_build(engine, api):
    connection, response = begin(api, SLEEPER, "begun")
    response.close()
    connection.close()
    await_true("the end of the step",
               lambda: not [c for c in leaks.processes(engine).values() if c == "sleep 1000"])


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_daemon_that_ends_takes_its_builds_along(fresh, how):
    engine = fresh()
    api = engine.api()
    built(api, "FROM busybox\nRUN true\n", t="kept")
    connection, response = begin(api, SLEEPER, "begun")
    getattr(engine, how)()
    connection.close()
    response.close()
    engine.start()
    assert_nothing_runs(engine)
    assert engine.api().get("/images/kept/json").status == 200
    lines = build(engine.api(), "FROM busybox\nRUN true\n")
    assert any("Using cache" in line.get("stream", "") for line in lines), lines


@pytest.mark.parametrize("place", ["build.worker.before_start", "build.network.after_attach", "build.layer.after_blob",
                                   "build.layer.after_promise", "layer.adopt.after_take", "layer.adopt.after_row",
                                   "build.image.before_commit"])
def test_a_daemon_that_is_killed_in_the_middle(fresh, place):
    engine = fresh(start=False, environment={"GANTRY_FAILPOINTS": f"{place}=kill"})
    engine.start()
    load(engine, images.busybox_archive())
    with pytest.raises(Exception):
        build(engine.api(), "FROM busybox\nRUN echo x > /x\n", t="made")
    engine.process.wait(60)
    engine.process = None
    engine.environment = {}
    engine.start()
    assert_nothing_runs(engine)
    api = engine.api()
    assert api.get("/images/made/json").status == 404
    built(api, "FROM busybox\nRUN echo x > /x\n", t="made")
    container = api.run("cat /x", image="made")
    api.wait(container)
    assert api.logs(container) == b"x\n"
    api.remove(container)
    assert_nothing_runs(engine)
    engine.stop()
    engine.start()
    assert not os.listdir(engine.data_root / "tmp")


def upgrade(engine, path="/grpc", headers=("Connection: Upgrade", "Upgrade: h2c")):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(engine.socket))
    sock.sendall("\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "Content-Length: 0", "", ""]).encode())
    return sock, sock.recv(65536)


def test_looking_whether_it_builds_starts_nothing(fresh):
    engine = fresh()
    for _ in range(20):
        sock, head = upgrade(engine)
        assert head == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        sock.close()
    assert not workers(engine)
    assert not (engine.data_root / "buildkit").exists()


@pytest.mark.parametrize("path,headers,text", [
    ("/grpc", (), "no upgrade proto in request"),
    ("/grpc", ("Connection: Upgrade", "Upgrade: tcp"), "protocol tcp not supported"),
    ("/session", ("Connection: Upgrade", "Upgrade: h2c"), "no session uuid in request"),
])
def test_upgrades_that_are_refused(engine, path, headers, text):
    sock, head = upgrade(engine, path, headers)
    assert head.startswith(b"HTTP/1.1 400 ") and text.encode() in head, head
    sock.close()


def test_two_daemons_have_a_worker_each(fresh):
    one, two = fresh(), fresh()
    for engine in (one, two):
        built(engine.api(), f"FROM busybox\nRUN echo {engine.name}\n", t="own")
        assert len(workers(engine)) == 1
    assert one.api().get("/images/own/json").json()["Id"] != two.api().get("/images/own/json").json()["Id"]


def test_its_memory_is_limited(fresh):
    engine = fresh(config={"builder": {"memory": 300 << 20, "idle": 3}})
    built(engine.api(), "FROM busybox\nRUN true\n")
    (worker,) = workers(engine)
    for line in Path(f"/proc/{worker}/cgroup").read_text().splitlines():
        number, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):
            limit = Path("/sys/fs/cgroup/memory" + group) / "memory.limit_in_bytes"
        elif number == "0" and not controllers and Path("/sys/fs/cgroup" + group, "memory.max").exists():
            limit = Path("/sys/fs/cgroup" + group) / "memory.max"
        else:
            continue
        assert int(limit.read_text()) == 300 << 20


def test_prune_and_its_event(fresh):
    engine = fresh()
    api = engine.api()
    assert api.ok("POST", "/build/prune").json() == {"CachesDeleted": None, "SpaceReclaimed": 0}
    assert not workers(engine)
    since = time.time()
    built(api, "FROM busybox\nRUN echo 1234567 > /file\n")
    reply = api.ok("POST", "/build/prune", {"all": 1}).json()
    assert reply["CachesDeleted"] and reply["SpaceReclaimed"] >= 0
    events = api.ok("GET", "/events", {"since": f"{since:.9f}", "until": f"{time.time():.9f}"}).lines()
    assert [e["Action"] for e in events if e["Type"] == "builder"] == ["prune"]
    await_true("the report of an empty cache", lambda: not api.ok("GET", "/system/df").json()["BuildCache"])
    assert api.post("/build/prune", {"filters": {"nonsense": ["1"]}}).status == 400


def test_cancel_without_an_id(api):
    reply = api.post("/build/cancel")
    assert (reply.status, reply.message) == (400, "build ID not provided")
    assert api.post("/build/cancel", {"id": "unknown"}).status == 200


@pytest.mark.slow
@pytest.mark.deadline(900)
def test_a_hundred_builds_leave_the_daemon_as_it_was(engine, api):
    built(api, "FROM busybox\nRUN echo warm\n")
    pids = [engine.process.pid]
    idle = [memory.descriptors(pid) for pid in pids]
    numbers = iter(range(1000))

    def seventeen_builds():
        for _ in range(17):
            image = built(api, f"FROM busybox\nRUN echo {next(numbers)} > /number\n")
            api.delete(f"/images/{image}", {"force": 1})

    memory.assert_bounded(pids, seventeen_builds, [400])
    api.ok("POST", "/build/prune", {"all": 1})
    assert_nothing_runs(engine)
    memory.assert_descriptors(pids, idle)
    assert not [entry for entry in directories(engine)[1]]
