"""gantry-build, the process that builds: started when it is needed, ended when it is not, and nothing of it stays
whatever becomes of it."""

import json
import os
import signal

import pytest

from harness import leaks, memory
from harness.builds import build, built
from harness.build_worker import SLEEPER, assert_nothing_runs, await_true, begin, directories, upgrade, workers

pytestmark = pytest.mark.gantry_only


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


@pytest.mark.parametrize("path,headers,text", [
    ("/grpc", (), "no upgrade proto in request"),
    ("/grpc", ("Connection: Upgrade", "Upgrade: tcp"), "protocol tcp not supported"),
    ("/session", ("Connection: Upgrade", "Upgrade: h2c"), "no session uuid in request"),
])
def test_upgrades_that_are_refused(engine, path, headers, text):
    sock, head = upgrade(engine, path, headers)
    assert head.startswith(b"HTTP/1.1 400 ") and text.encode() in head, head
    sock.close()


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
