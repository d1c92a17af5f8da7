"""Restart policies and health checks while the daemon comes and goes."""

import os
import signal
import time

import pytest

from conftest import load
from harness import images
from test_survival import await_end

pytestmark = pytest.mark.gantry_only  # a dockerd takes its containers along

SECOND = 10**9


def until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
    return result


def test_the_back_off_is_remembered(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("exit 1", host={"RestartPolicy": {"Name": "always"}})
    # 100, 200, 400, 800, 1600 ms: after five the next wait is 3.2 s, a new one would be 100 ms.
    until(lambda: api.inspect(container)["RestartCount"] >= 5)
    until(lambda: api.state(container)["Restarting"])
    before = api.inspect(container)["RestartCount"]
    engine.kill()
    engine.start()
    state = api.inspect(container)
    assert state["RestartCount"] >= before - 1  # a try that was cut short is made again
    started = time.monotonic()
    count = state["RestartCount"]
    until(lambda: api.inspect(container)["RestartCount"] >= count + 2, 120)
    assert time.monotonic() - started > 1.5, "the delays began anew"


def test_on_failure_counts_over_a_restart(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("sleep 0.3; exit 1", host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}})
    until(lambda: api.inspect(container)["RestartCount"] >= 1)
    engine.kill()
    engine.start()
    until(lambda: api.inspect(container)["RestartCount"] == 3)
    until(lambda: api.state(container)["Status"] == "exited")
    time.sleep(1)
    assert (api.inspect(container)["RestartCount"], api.state(container)["Status"]) == (3, "exited")


@pytest.mark.parametrize("policy", ["on-failure", "always", "unless-stopped"])
def test_a_try_that_is_cut_short_is_made_again(fresh, policy):
    engine = fresh(start=False)
    engine.start()
    load(engine, images.busybox_archive())
    engine.stop()
    engine.environment = {"GANTRY_FAILPOINTS": "start.after_row@2=kill"}
    engine.start()
    api = engine.api()
    most = 2 if policy == "on-failure" else 0
    container = api.run("exit 1", host={"RestartPolicy": {"Name": policy, "MaximumRetryCount": most}})
    engine.process.wait(60)
    engine.process = None
    engine.environment = {}
    engine.start()
    until(lambda: api.inspect(container)["RestartCount"] >= 2)
    if policy == "on-failure":
        until(lambda: api.state(container)["Status"] == "exited")
        assert api.inspect(container)["RestartCount"] == 2


@pytest.mark.parametrize("policy,comes_back", [("always", True), ("unless-stopped", False), ("on-failure", False), ("no", False)])
def test_after_a_users_stop_and_a_restart_of_the_daemon(fresh, policy, comes_back):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"RestartPolicy": {"Name": policy}})
    api.ok("POST", f"/containers/{container}/kill")
    until(lambda: not api.state(container)["Running"])
    engine.restart()
    if comes_back:
        until(lambda: api.state(container)["Running"])
        engine.stop()  # perhaps before its start is over
        assert "leaving at once" not in engine.log_text()
    else:
        time.sleep(0.5)
        assert api.state(container)["Status"] == "exited"


def test_what_was_only_made_is_not_started(fresh):
    engine = fresh()
    api = engine.api()
    container = api.create(Cmd=["sleep", "1000"], host={"RestartPolicy": {"Name": "always"}})
    engine.restart()
    time.sleep(0.5)
    assert api.state(container)["Status"] == "created"


def test_a_stop_while_it_waits_for_its_restart(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("exit 1", host={"RestartPolicy": {"Name": "unless-stopped"}})
    until(lambda: api.inspect(container)["RestartCount"] >= 3)
    with api.events(container=[container]) as events:
        until(lambda: api.state(container)["Restarting"])
        api.ok("POST", f"/containers/{container}/stop")
        events.until("stop")
    engine.kill()
    engine.start()
    time.sleep(0.5)
    assert api.state(container)["Status"] == "exited"


def test_probes_go_on_and_their_log_is_kept(fresh):
    engine = fresh()
    api = engine.api()
    check = {"Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": SECOND // 5, "Retries": 2}
    container = api.run(["sleep", "1000"], Healthcheck=check)
    health = lambda: api.state(container)["Health"]
    until(lambda: health()["Status"] == "unhealthy")
    streak = health()["FailingStreak"]
    engine.kill()
    engine.start()
    assert health()["Status"] == "unhealthy"
    assert health()["FailingStreak"] >= streak and health()["Log"]
    until(lambda: health()["FailingStreak"] > streak + 1)
    with api.events(container=[container], event=["health_status"]) as events:
        exec_id = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["touch", "/tmp/ok"]}).json()["Id"]
        api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
        assert events.next()["Action"] == "health_status: healthy"
    assert health()["FailingStreak"] == 0


def test_health_of_who_died_meanwhile(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], Healthcheck={"Test": ["CMD", "true"], "Interval": SECOND // 5})
    until(lambda: api.state(container)["Health"]["Status"] == "healthy")
    pid = api.state(container)["Pid"]
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    engine.start()
    until(lambda: api.state(container)["Status"] == "exited")
    assert api.state(container)["Health"]["Status"] == "unhealthy"


def test_updates_outlive_the_daemon(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"Memory": 64 << 20, "MemorySwap": 128 << 20})
    changes = {"Memory": 32 << 20, "MemorySwap": 96 << 20, "MemoryReservation": 16 << 20, "CpuShares": 512,
               "CpuPeriod": 50_000, "CpuQuota": 25_000, "CpusetCpus": "0", "PidsLimit": 77, "BlkioWeight": 300,
               "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}
    # A kernel without the controller says so, as Docker does.
    reply = api.post(f"/containers/{container}/update", body=changes)
    if reply.status >= 400 or reply.json()["Warnings"]:
        changes.pop("BlkioWeight")
        api.ok("POST", f"/containers/{container}/update", body=changes)
    host = api.inspect(container)["HostConfig"]
    assert {key: host[key] for key in changes} == changes
    limits = api.ok("GET", f"/containers/{container}/stats", {"stream": 0, "one-shot": 1}).json()
    assert (limits["memory_stats"]["limit"], limits["pids_stats"]["limit"]) == (32 << 20, 77)
    engine.kill()
    engine.start()
    host = api.inspect(container)["HostConfig"]
    assert {key: host[key] for key in changes} == changes
    # And the policy is in force.
    api.ok("POST", f"/containers/{container}/update", body={"PidsLimit": 0})
    assert api.inspect(container)["HostConfig"]["PidsLimit"] in (None, 0)


def test_a_new_name_outlives_the_daemon(fresh):
    engine = fresh()
    api = engine.api()
    api.ok("POST", "/networks/create", body={"Name": "names"})
    one = api.run(["sleep", "1000"], name="old", host={"NetworkMode": "names"})
    other = api.run(["sleep", "1000"], host={"NetworkMode": "names"})

    def resolves(name):
        exec_id = api.ok("POST", f"/containers/{other}/exec", body={"Cmd": ["nslookup", name, "127.0.0.11"],
                                                                  "AttachStdout": True}).json()["Id"]
        with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
            stream.read_all()
        return api.ok("GET", f"/exec/{exec_id}/json").json()["ExitCode"] == 0

    assert resolves("old")
    api.ok("POST", f"/containers/{one}/rename", {"name": "new"})
    assert resolves("new") and not resolves("old")
    engine.kill()
    engine.start()
    assert api.inspect("new")["Id"] == one and api.get("/containers/old/json").status == 404
    assert resolves("new")


def test_events_are_kept_and_bounded(fresh):
    engine = fresh()
    api = engine.api()
    since = time.time() - 1
    for number in range(1100):
        api.ok("POST", "/volumes/create", body={"Name": f"v{number}"})
    container = api.run("true", name="told")
    api.wait(container)
    engine.restart()
    api.ok("POST", "/volumes/create", body={"Name": "last"})
    reply = api.ok("GET", "/events", {"since": f"{since:.6f}", "until": f"{time.time() + 0.2:.6f}"})
    told = [(event["Type"], event["Action"], event["Actor"]["ID"]) for event in reply.lines()]
    assert len(told) <= 1024 + 8
    assert ("container", "die", container) in told and ("volume", "create", "last") in told
    assert ("volume", "create", "v0") not in told and ("volume", "create", "v1099") in told
    assert told.index(("container", "create", container)) < told.index(("container", "die", container))
