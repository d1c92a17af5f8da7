"""Execs and health checks when the daemon is killed and started again, and what they cost it."""

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import test_exec as execs
import test_exec_native as native
import test_health as health
from harness import memory
from harness.api import text_of

pytestmark = pytest.mark.gantry_only


def test_an_exec_survives_the_daemon(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(execs.SLEEP)
    running = execs.make(api, container, "sleep 3; exit 9")
    api.ok("POST", f"/exec/{running}/start", body={"Detach": True})
    over, never = execs.make(api, container, "exit 4", User="alice"), execs.make(api, container, ["echo", "late"])
    with execs.begin(api, over) as stream:
        stream.read_all()
    pid = execs.inspect(api, running)["Pid"]
    engine.kill()
    engine.start()
    api = engine.api()
    assert set(api.inspect(container)["ExecIDs"]) == {running, never}
    seen = execs.inspect(api, running)
    assert (seen["Running"], seen["Pid"]) == (True, pid)
    seen = execs.inspect(api, over)
    assert (seen["Running"], seen["ExitCode"], seen["ProcessConfig"]["user"]) == (False, 4, "alice")
    with execs.begin(api, never) as stream:
        assert text_of(stream.frames()) == b"late\n"
    assert execs.ended(api, running)["ExitCode"] == 9
    assert api.inspect(container)["ExecIDs"] is None


def test_execs_leave_no_memory_behind(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(execs.SLEEP)

    def burst(count):
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: execs.output(api, container, ["true"])[1], range(count))) == {0}

    burst(50)
    memory.assert_bounded([engine.process.pid], lambda: burst(50), [500])  # a record each, for five minutes


def test_it_goes_on_after_the_daemon_was_killed(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], Healthcheck=health.check("test ! -e /tmp/bad", interval=300 * health.MS, Retries=1))
    health.until(api, container, "healthy")
    late = api.run(["sleep", "1000"], Healthcheck=health.check("sleep 5432", interval=100 * health.MS, timeout=3600 * health.SECOND))
    with api.events(container=[late]) as events:
        events.until("exec_start")
    engine.kill()
    engine.start()
    api = engine.api()
    assert health.health(api, container)["Status"] == "healthy"
    old = health.health(api, container)["Log"][-1]["End"]
    health.until(api, container, lambda h: h["Log"][-1]["End"] > old)
    health.touch(api, container, "/tmp/bad")
    health.until(api, container, "unhealthy")
    time.sleep(1)
    sleepers = subprocess.run(["pgrep", "-fc", "^sleep 5432"], capture_output=True, text=True).stdout.strip()
    assert sleepers == "1", "the check of the former daemon is still there"


def test_an_end_that_nobody_saw_is_told_once(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(execs.SLEEP)
    seen, unseen, failed = (execs.make(api, container, cmd) for cmd in ("exit 3", "read x < /tmp/go; exit 5", ["nosuch"]))
    execs.output(api, container, "mkfifo /tmp/go")
    api.ok("POST", f"/exec/{seen}/start", body={"Detach": True})
    execs.ended(api, seen)
    assert api.post(f"/exec/{failed}/start", body={"Detach": True}).status == 400
    api.ok("POST", f"/exec/{unseen}/start", body={"Detach": True})
    pid = execs.inspect(api, unseen)["Pid"]
    engine.kill()
    Path(f"/proc/{pid}/root/tmp/go").write_text("\n")
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for expected in ([unseen], []):
        since = time.time()
        engine.start()
        api = engine.api()
        query = {"since": int(since), "until": int(time.time()) + 2, "filters": {"event": ["exec_die"]}}
        told = [e["Actor"]["Attributes"] for e in api.ok("GET", "/events", query).lines() if e["timeNano"] >= since * 1e9]
        assert [a["execID"] for a in told] == expected
        assert all(a["exitCode"] == "5" for a in told)
        assert {execs.inspect(api, i)["ExitCode"] for i in (seen, unseen)} == {3, 5}
        engine.kill()
        time.sleep(1.1)  # events are asked for by the second
    engine.start()


def test_the_shims_own_limit_is_not_the_containers(fresh):
    engine = fresh()
    subprocess.run(["prlimit", f"--pid={engine.process.pid}", "--nofile=1500:4000"], check=True)
    api = engine.api()
    show = "ulimit -Sn; ulimit -Hn; echo shown"
    container = api.run(f"{show}; exec sleep 1000")
    api.wait_for_log(container, "shown\n")
    assert api.logs(container).decode() in ("1500\n4000\nshown\n", "4000\n4000\nshown\n")  # Go, in some versions, raises what runc gets
    assert execs.output(api, container, show)[0] == api.logs(container).decode()
    limits = Path(f"/proc/{native.shim_of(engine, container)}/limits").read_text()
    assert re.search(r"Max open files +4000 +4000", limits)


# What they and their clients leave.


@pytest.mark.slow
def test_they_leave_no_memory_in_the_daemon_or_the_shim(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(execs.SLEEP)
    pids = [engine.process.pid, native.shim_of(engine, container)]

    def burst(count):
        for _ in range(count):
            assert execs.output(api, container, ["true"])[1] == 0

    # A record each is kept for five minutes; the newest 128 also by the shim.
    idle = [memory.descriptors(pid) for pid in pids]
    burst(300)
    count = int(os.environ.get("GANTRY_EXECS", "300"))
    memory.assert_bounded(pids, lambda: burst(count), [count, 50])
    memory.assert_descriptors(pids, idle)


@pytest.mark.slow
def test_clients_that_vanish_leave_nothing(fresh):
    """200 each that attach, follow a log and watch events, and are gone without a word."""
    engine = fresh()
    api = engine.api()
    container = api.run("while :; do echo tick; sleep 0.2; done")
    pids = [engine.process.pid, native.shim_of(engine, container)]

    def crowd(count):
        streams = []
        for _ in range(count):
            streams.append(api.hijack(f"/containers/{container}/attach?stream=1&stdout=1", body=None))
            streams.append(api.open("GET", f"/containers/{container}/logs", {"follow": 1, "stdout": 1, "tail": 1})[0])
            streams.append(api.open("GET", "/events")[0])
        for stream in streams:
            stream.close()

    idle = [memory.descriptors(pid) for pid in pids]

    def round():
        crowd(200)
        memory.assert_descriptors(pids, idle)

    round()  # the first crowd makes lanes' threads and pools
    memory.assert_bounded(pids, round, [200, 50])


def test_a_runtime_that_is_not_known_makes_its_execs_itself(fresh, scratch):
    wrapper = scratch / "wrapped"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {scratch}/calls\nexec runc "$@"\n')
    wrapper.chmod(0o755)
    api = fresh(config={"runtimes": {"other": {"path": str(wrapper)}}}).api()
    container = api.run(execs.SLEEP, host={"Runtime": "other"})
    assert execs.output(api, container, "echo out; exit 3") == ("out\n", 3)
    assert execs.output(api, container, ["tty"], Tty=True) == ("/dev/pts/0\r\n", 0)
    assert execs.output(api, container, ["nosuch"])[1] == 127
    assert (scratch / "calls").read_text().count(" exec --detach ") == 3
    plain = api.run(execs.SLEEP)
    assert execs.output(api, plain, "echo out") == ("out\n", 0)
