"""Execs and health checks when the daemon is killed and started again, and what they cost it."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import test_exec as execs
import test_health as health
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
    assert api.inspect(container)["ExecIDs"] == [running]
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

    def resident():
        with open(f"/proc/{engine.process.pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))

    def burst(count):
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: execs.output(api, container, ["true"])[1], range(count))) == {0}

    burst(50)
    before = resident()
    burst(150)
    assert resident() - before < 1500  # KiB: a record each, for five minutes


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
    api.ok("POST", f"/exec/{health.make_bad(api, container)}/start", body={"Detach": True})
    health.until(api, container, "unhealthy")
    time.sleep(1)
    sleepers = subprocess.run(["pgrep", "-fc", "^sleep 5432"], capture_output=True, text=True).stdout.strip()
    assert sleepers == "1", "the check of the former daemon is still there"
