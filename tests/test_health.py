"""Health checks: Docker's arithmetic, seen from outside."""

import time

import pytest

MS = 1_000_000
SECOND = 1_000_000_000


def check(test, interval=200 * MS, timeout=60 * SECOND, **more):
    return {"Test": ["CMD-SHELL", test] if isinstance(test, str) else test, "Interval": interval, "Timeout": timeout, **more}


def health(api, container):
    return api.state(container).get("Health")


def until(api, container, wanted, timeout=60):
    """Waits for a status, or for what a function says of the health."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        seen = health(api, container)
        if wanted(seen) if callable(wanted) else seen["Status"] == wanted:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"not {wanted}: {seen}")


def listed(api, container, **query):
    return next(c for c in api.ok("GET", "/containers/json", {"all": 1, **query}).json() if c["Id"] == container)


def test_it_starts_and_becomes_healthy(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("test -e /tmp/up && echo fine", StartPeriod=3600 * SECOND))
    seen = health(api, container)
    assert (seen["Status"], seen["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in listed(api, container)["Status"]
    touch(api, container, "/tmp/up")
    seen = until(api, container, "healthy")
    assert seen["FailingStreak"] == 0
    last = seen["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "fine\n")
    assert last["Start"] < last["End"]
    assert listed(api, container)["Status"].endswith("(healthy)")


def test_without_a_check_there_is_no_health(api):
    container = api.run(["sleep", "1000"])
    assert health(api, container) is None
    none = api.run(["sleep", "1000"], Healthcheck={"Test": ["NONE"]})
    assert health(api, none) is None
    assert "health" not in listed(api, none)["Status"]


def test_retries_failures_in_a_row_make_unhealthy(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("echo bad >&2; exit 3", Retries=3))
    seen = until(api, container, "unhealthy")
    assert seen["FailingStreak"] >= 3
    assert (seen["Log"][0]["ExitCode"], seen["Log"][0]["Output"]) == (3, "bad\n")
    api.ok("GET", f"/containers/{container}/json")
    assert listed(api, container)["Status"].endswith("(unhealthy)")


def test_events_tell_the_changes_only(api):
    container = api.create(Cmd=["sleep", "1000"], Healthcheck=check("test ! -e /tmp/bad", Retries=2))
    with api.events(container=[container]) as events:
        api.start(container)
        first = events.until("health_status")
        assert first["Action"] == "health_status: healthy"
        touch(api, container, "/tmp/bad")
        assert events.until("health_status")["Action"] == "health_status: unhealthy"
    probes = [action for action in events.actions() if "/tmp/bad" in action and "test" in action]
    assert "exec_create: /bin/sh -c test ! -e /tmp/bad" in probes
    assert "exec_start: /bin/sh -c test ! -e /tmp/bad" in probes
    assert "exec_die" in events.actions()
    assert [a for a in events.actions() if a.startswith("health_status")] == ["health_status: healthy", "health_status: unhealthy"]


def touch(api, container, path):
    made = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["touch", path]}).json()["Id"]
    api.ok("POST", f"/exec/{made}/start", body={"Detach": True})


def test_failures_in_the_start_period_do_not_count(api):
    long, short = (api.run(["sleep", "1000"], Healthcheck=check("exit 1", Retries=1, StartPeriod=period * SECOND, interval=100 * MS))
                   for period in (3600, 1))
    seen = until(api, long, lambda h: len(h["Log"]) >= 4)
    assert (seen["Status"], seen["FailingStreak"]) == ("starting", 0)
    until(api, short, "unhealthy")


def test_the_log_keeps_five_results(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("date +%s%N", interval=50 * MS))
    first = until(api, container, lambda h: len(h["Log"]) >= 1)["Log"][0]
    until(api, container, lambda h: first not in h["Log"])
    assert len(health(api, container)["Log"]) == 5


def test_output_is_cut_at_4096_bytes(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("head -c 10000 /dev/zero | tr '\\0' x"))
    seen = until(api, container, "healthy")
    assert seen["Log"][0]["Output"] == "x" * 4096 + "..."


def test_output_that_is_no_text_is_shown_all_the_same(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("printf 'a\\377b'"))
    assert until(api, container, "healthy")["Log"][0]["Output"] == "a\ufffdb"


def test_a_check_that_takes_too_long_is_killed(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("echo begun; sleep 100", timeout=SECOND, Retries=1))
    seen = until(api, container, "unhealthy")
    assert seen["Log"][0]["ExitCode"] == -1
    assert seen["Log"][0]["Output"].startswith("Health check exceeded timeout (1s)")


@pytest.mark.gantry_only
def test_the_whole_tree_of_a_late_check_is_killed(api):
    command = "echo begun; sleep 4321 & setsid sleep 4322 & (sleep 4323 &) ; sleep 4324"
    container = api.run(["sleep", "1000"], Healthcheck=check(command, timeout=3 * SECOND, interval=600 * SECOND,
                                                             StartInterval=100 * MS, StartPeriod=2 * SECOND, Retries=1))
    seen = until(api.at("1.44"), container, lambda h: h["Log"])
    assert seen["Log"][0]["Output"] == "Health check exceeded timeout (3s): begun\n"
    top = api.ok("GET", f"/containers/{container}/top", {"ps_args": "-o pid,stat,args"}).json()["Processes"]
    alive = [row for row in top if "432" in row[2] and not row[1].startswith("Z")]
    assert not alive, alive


def test_a_check_that_cannot_be_run(api):
    container = api.run(["sleep", "1000"], Healthcheck=check(["CMD", "nosuch"], Retries=1))
    seen = until(api, container, "unhealthy")
    assert seen["Log"][0]["ExitCode"] == -1
    assert "executable file not found" in seen["Log"][0]["Output"]


def test_it_runs_as_the_containers_user_in_its_directory(api):
    container = api.run(["sleep", "1000"], User="alice", WorkingDir="/tmp", Env=["WHAT=ever"],
                        Healthcheck=check("echo $(id -u) $PWD $WHAT"))
    assert until(api, container, "healthy")["Log"][0]["Output"] == "1000 /tmp ever\n"


def test_pausing_suspends_it(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("true", interval=100 * MS))
    until(api, container, "healthy")
    api.ok("POST", f"/containers/{container}/pause")
    time.sleep(1.5)
    before = health(api, container)["Log"]
    time.sleep(0.6)
    assert health(api, container)["Log"] == before
    api.ok("POST", f"/containers/{container}/unpause")
    until(api, container, lambda h: h["Log"] != before and h["Status"] == "healthy")


def test_a_restart_begins_anew(api):
    container = api.run(["sleep", "1000"], host={"Tmpfs": {"/mnt": ""}},
                        Healthcheck=check("test -e /mnt/up", StartPeriod=3600 * SECOND))
    touch(api, container, "/mnt/up")
    until(api, container, "healthy")
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    assert (health(api, container)["Status"], health(api, container)["FailingStreak"]) == ("starting", 0)
    touch(api, container, "/mnt/up")
    until(api, container, "healthy")


def test_a_container_that_has_ended_is_not_healthy(api):
    container = api.run("until [ -e /tmp/over ]; do sleep 0.1; done", Healthcheck=check("true", interval=100 * MS))
    until(api, container, "healthy")
    touch(api, container, "/tmp/over")
    assert api.wait(container) == 0
    until(api, container, "unhealthy")
    assert listed(api, container)["Status"].startswith("Exited (0)")


def test_lists_filter_by_health(api):
    good = api.run(["sleep", "1000"], Healthcheck=check("true"))
    bad = api.run(["sleep", "1000"], Healthcheck=check("false", Retries=1))
    none = api.run(["sleep", "1000"])
    until(api, good, "healthy")
    until(api, bad, "unhealthy")
    for status, wanted in (("healthy", good), ("unhealthy", bad), ("none", none)):
        found = api.ok("GET", "/containers/json", {"filters": {"health": [status]}}).json()
        assert [c["Id"] for c in found] == [wanted]


@pytest.mark.gantry_only
def test_newer_lists_have_the_health(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("true"))
    until(api, container, "healthy")
    assert listed(api.at("1.52"), container)["Health"] == {"Status": "healthy", "FailingStreak": 0}
    assert "Health" not in listed(api.at("1.51"), container)


@pytest.mark.gantry_only
def test_the_start_interval_holds_until_it_is_healthy(api):
    newer = api.at("1.44")
    container = newer.run(["sleep", "1000"], Healthcheck=check("true", interval=3600 * SECOND, StartPeriod=3600 * SECOND,
                                                               StartInterval=200 * MS))
    until(newer, container, "healthy")


@pytest.mark.gantry_only
def test_checks_are_not_among_the_users_execs(api):
    container = api.run(["sleep", "1000"], Healthcheck=check("sleep 2", interval=50 * MS))
    with api.events(container=[container]) as events:
        events.until("exec_start")
        assert api.inspect(container)["ExecIDs"] is None
