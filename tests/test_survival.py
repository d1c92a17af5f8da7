"""Containers do not need the daemon: kill -9, adoption, what happens meanwhile, and failpoints."""

import http.client
import os
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest

from harness import leaks
from harness.api import EventStream
from harness.engine import EngineFailed

pytestmark = pytest.mark.gantry_only
REPO = Path(__file__).resolve().parents[1]


def await_end(pid, timeout=60):
    """Waits for a process that is not our child. One that is gone already has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], timeout)[0], f"process {pid} did not end"
    finally:
        os.close(pidfd)


def test_a_container_runs_on_when_the_daemon_is_killed(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done", name="steady")
    api.wait_for_log(container, "5\n")
    before = api.state(container)
    engine.kill()
    os.kill(before["Pid"], 0)
    engine.start()
    after = api.state(container)
    assert (after["Pid"], after["StartedAt"], after["Running"]) == (before["Pid"], before["StartedAt"], True)
    last = int(api.logs(container).split()[-1])
    api.wait_for_log(container, f"\n{last + 20}\n")
    numbers = [int(line) for line in api.logs(container).split()]
    assert numbers == list(range(1, len(numbers) + 1)), "a line is missing or doubled"
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})


def test_an_exit_while_the_daemon_is_down_keeps_its_code(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("echo ready; trap 'exit 17' USR1; while :; do sleep 0.05; done")
    api.wait_for_log(container, "ready")
    pid = api.state(container)["Pid"]
    engine.kill()
    os.kill(pid, 10)
    await_end(pid)
    engine.start()
    state = api.state(container)
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 17, False)
    assert api.wait(container) == 17


def test_auto_remove_is_carried_out_afterwards(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"AutoRemove": True, "Binds": ["/anon"]})
    pid = api.state(container)["Pid"]
    engine.kill()
    os.kill(pid, 9)
    await_end(pid)
    engine.start()
    reply = api.post(f"/containers/{container}/wait", {"condition": "removed"})
    assert reply.status in (200, 404)
    assert api.get(f"/containers/{container}/json").status == 404
    assert not (engine.data_root / "containers" / container).exists()


def test_a_restart_policy_is_carried_out_afterwards(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("echo run; exec sleep 1000", host={"RestartPolicy": {"Name": "always"}})
    api.wait_for_log(container, "run")
    pid = api.state(container)["Pid"]
    engine.kill()
    os.kill(pid, 9)
    await_end(pid)
    engine.start()
    # The start may be over or may come: the history has it either way.
    with EventStream(api, {"container": [container]}, since="1") as events:
        events.until("die")
        events.until("start")
    api.wait_for_log(container, "run\nrun\n")
    state = api.state(container)
    assert state["Running"] and state["Pid"] != pid


def test_what_the_user_stopped_stays_stopped(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"RestartPolicy": {"Name": "unless-stopped"}})
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})
    engine.kill()
    engine.start()
    assert api.state(container)["Status"] == "exited"


def test_published_ports_and_names_go_on_without_the_daemon(fresh):
    engine = fresh()
    api = engine.api()
    api.ok("POST", "/networks/create", body={"Name": "web"})
    server = api.create(Cmd=["sh", "-c", "httpd -p 80 -h /var/www; echo up; sleep 1000"], name="server",
                        ExposedPorts={"80/tcp": {}},
                        host={"NetworkMode": "web", "PortBindings": {"80/tcp": [{"HostPort": "19090"}]}})
    api.start(server)
    api.wait_for_log(server, "up")
    client = api.run("echo up; read x; while :; do wget -qO- http://server/ >/dev/null && echo got; sleep 0.2; done",
                     OpenStdin=True, host={"NetworkMode": "web"})
    api.wait_for_log(client, "up")
    log = api.inspect(client)["LogPath"]
    with api.hijack(f"/containers/{client}/attach", {"stream": 1, "stdin": 1}) as stream:
        stream.send(b"\n")
        api.wait_for_log(client, "got")
    engine.kill()
    connection = http.client.HTTPConnection("127.0.0.1", 19090, timeout=60)
    connection.request("GET", "/")
    assert b"It works" in connection.getresponse().read()
    connection.close()
    size = os.path.getsize(log)
    _await_growth(log, size)
    engine.start()
    assert api.state(server)["Running"] and api.state(client)["Running"]


def _await_growth(path, size, timeout=60):
    """The kernel tells when the file was written to (inotify through tail)."""
    tail = subprocess.Popen(["tail", "-c", f"+{size + 1}", "-f", path], stdout=subprocess.PIPE)
    try:
        assert select.select([tail.stdout], [], [], timeout)[0], f"{path} does not grow"
    finally:
        tail.kill()
        tail.wait()
        tail.stdout.close()


def test_rows_outlive_a_kill(fresh):
    engine = fresh()
    api = engine.api()
    api.ok("POST", "/volumes/create", body={"Name": "vol", "Labels": {"a": "b"}})
    network = api.ok("POST", "/networks/create", body={"Name": "net"}).json()["Id"]
    container = api.create(name="created", Labels={"x": "y"}, host={"NetworkMode": "net", "Binds": ["vol:/v"]})
    before = api.inspect(container)
    engine.kill()
    engine.start()
    assert api.ok("GET", "/volumes/vol").json()["Labels"] == {"a": "b"}
    assert api.ok("GET", "/networks/net").json()["Id"] == network
    after = api.inspect(container)
    assert after == before
    api.start(container)


def test_an_attached_client_can_come_back(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("while read x; do echo got $x; done", OpenStdin=True)
    engine.kill()
    engine.start()
    with api.hijack(f"/containers/{container}/attach", {"stream": 1, "stdin": 1, "stdout": 1}) as stream:
        stream.send(b"again\n")
        assert b"got again\n" in stream.read(8 + 10)


def test_exec_works_in_an_adopted_container(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"])
    engine.kill()
    engine.start()
    result = engine.docker("exec", container, "sh", "-c", "echo in; exit 4")
    assert (result.returncode, result.stdout) == (4, "in\n")


def test_a_graceful_stop_leaves_containers_running(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"])
    pid = api.state(container)["Pid"]
    engine.stop()
    os.kill(pid, 0)
    engine.start()
    assert api.state(container)["Pid"] == pid


def test_a_lost_shim_is_told_as_an_exit(fresh):
    """Not even a dead shim leaves a container that cannot be removed."""
    engine = fresh()
    api = engine.api()
    container = api.run(["sleep", "1000"])
    for pid, command in leaks.processes(engine).items():
        if "gantry-shim" in command:
            os.kill(pid, 9)
    assert api.wait(container) is not None
    assert api.state(container)["Running"] is False
    assert api.remove(container).status == 204
    assert not leaks.report(engine, leaks.mounts(engine))


def test_twenty_kills_in_a_row_lose_nothing(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    pid = api.state(container)["Pid"]
    for _ in range(20):
        engine.kill()
        engine.start()
    assert api.state(container)["Pid"] == pid
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})
    numbers = [int(line) for line in api.logs(container).split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_stop_in_the_moment_of_the_start_is_a_stop(fresh):
    engine = fresh()
    for _ in range(8):
        engine.signal(signal.SIGTERM)
        assert engine.process.wait(60) == 0, engine.log_tail()
        engine.start()


def failpoints():
    """Every FAILPOINT in the sources of the daemon."""
    names = set()
    for source in (REPO / "src").rglob("*.cpp"):
        if source.name.endswith("_test.cpp") or source.parent.name == "shim":
            continue
        names |= set(re.findall(r'FAILPOINT\("([^"]+)"\)', source.read_text()))
    return sorted(names)


def scenario(engine):
    """Uses every verb that makes durable or kernel state. Stops where the engine dies."""
    api = engine.api()
    api.ok("POST", "/volumes/create", body={"Name": "vol"})
    api.ok("POST", "/networks/create", body={"Name": "net"})
    container = api.create(name="box", Cmd=["sleep", "1000"], ExposedPorts={"80/tcp": {}},
                           host={"NetworkMode": "net", "Binds": ["vol:/v", "/anon"],
                                 "PortBindings": {"80/tcp": [{"HostPort": "18888"}]}})
    api.start(container)
    made = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["true"]}).json()["Id"]
    api.ok("POST", f"/exec/{made}/start", body={"Detach": True})
    api.ok("POST", "/networks/create", body={"Name": "net2"})
    api.ok("POST", "/networks/net2/connect", body={"Container": container})
    api.ok("POST", "/networks/net2/disconnect", body={"Container": container})
    api.ok("POST", f"/containers/{container}/rename", {"name": "box2"})
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})
    image = api.ok("POST", "/commit", {"container": container, "repo": "made", "tag": "1"}).json()["Id"]
    api.ok("DELETE", f"/containers/{container}", {"v": 1})
    api.ok("DELETE", f"/images/{image}", {"force": 1})
    api.ok("DELETE", "/networks/net2")
    api.ok("DELETE", "/networks/net")
    api.ok("DELETE", "/volumes/vol")


def wipe_everything(engine):
    """What a user would do after a crash: everything must be removable by its name, and the names usable again."""
    api = engine.api()
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        reply = api.remove(container["Id"])
        assert reply.status in (204, 404), reply
    for network in api.ok("GET", "/networks").json():
        if network["Name"] not in ("bridge", "host", "none"):
            api.ok("DELETE", f"/networks/{network['Id']}")
    for volume in api.ok("GET", "/volumes").json()["Volumes"] or []:
        api.ok("DELETE", f"/volumes/{volume['Name']}")
    for image in api.ok("GET", "/images/json").json():
        if image["RepoTags"] != ["busybox:latest"]:
            api.ok("DELETE", f"/images/{image['Id']}", {"force": 1})


def has_ended(engine, patience=2):
    """The last request can fail a moment before the process is gone."""
    try:
        engine.process.wait(patience if engine.process.poll() is None else 0)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", failpoints())
def test_death_at_a_failpoint_leaves_nothing_half_made(fresh, busybox_tar, name):
    import conftest

    engine = fresh(start=False)
    engine.start()
    idle = leaks.mounts(engine)
    conftest.load(engine, busybox_tar)
    engine.stop()
    engine.environment = {"GANTRY_FAILPOINTS": f"{name}=kill"}
    try:
        engine.start()
        scenario(engine)
    except EngineFailed:
        pass  # it died while it started
    except (OSError, http.client.HTTPException, AssertionError):
        if not has_ended(engine):
            raise  # the scenario itself is wrong
    if not has_ended(engine, patience=0):
        return  # the scenario does not pass here; unit tests of the module do
    engine.process = None
    engine.environment = {}
    engine.start()
    wipe_everything(engine)
    assert not leaks.report(engine, idle)
    scenario(engine)
    assert not leaks.report(engine, idle)
