"""Builds and the ends of the daemon; daemons with settings of their own for builds."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from conftest import load
from harness import images
from harness.builds import build, built
from harness.build_worker import SLEEPER, assert_nothing_runs, await_true, begin, directories, upgrade, workers

pytestmark = pytest.mark.gantry_only


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


def test_looking_whether_it_builds_starts_nothing(fresh):
    engine = fresh()
    for _ in range(20):
        sock, head = upgrade(engine)
        assert head == b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        sock.close()
    assert not workers(engine)
    assert not (engine.data_root / "buildkit").exists()


def doctor(engine):
    command = [each for each in engine.command() if each != "-D"]
    return subprocess.run([*command, "doctor"], capture_output=True, text=True, env=engine.env()).stdout


def test_the_doctor_knows_what_builds_keep(fresh):
    engine = fresh()
    built(engine.api(), "FROM busybox\nRUN echo x > /x\n", t="made")
    connection, response = begin(engine.api(), SLEEPER, "begun")
    report = doctor(engine)
    assert "build cache: keeps 1 layers; a builder is running" in report and "0 problems" in report, report
    response.close()
    connection.close()
    assert_nothing_runs(engine)
    report = doctor(engine)
    assert "build cache: keeps 1 layers; a builder is not running" in report and "0 problems" in report, report


def test_two_daemons_have_a_worker_each(fresh):
    one = fresh()
    two = fresh(config={"bridge": "gantry7", "default-address-pools": [{"base": "10.90.0.0/23", "size": 24}],
                        "builder": {"idle": 3}})
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
