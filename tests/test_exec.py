"""docker exec: further processes in a running container."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.api import ApiError, read_frame, text_of

SLEEP = ["sleep", "1000"]


def make(api, container, cmd, **options):
    """Made, not started; with its output attached unless told otherwise."""
    body = {"Cmd": cmd if isinstance(cmd, list) else ["sh", "-c", cmd], "AttachStdout": True, "AttachStderr": True, **options}
    return api.ok("POST", f"/containers/{container}/exec", body=body).json()["Id"]


def inspect(api, exec_id):
    return api.ok("GET", f"/exec/{exec_id}/json").json()


def begin(api, exec_id, **body):
    return api.hijack(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False, **body})


def output(api, container, cmd, **options):
    """What the command prints on stdout, and its exit code."""
    exec_id = make(api, container, cmd, **options)
    with begin(api, exec_id) as stream:
        text = text_of(stream.frames())
    return text.decode(), inspect(api, exec_id)["ExitCode"]


def ended(api, exec_id, timeout=60):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (seen := inspect(api, exec_id))["ExitCode"] is not None and not seen["Running"]:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"exec {exec_id} did not end")


# Making.


def test_the_id_is_64_digits_and_inspect_tells_all(api):
    container = api.run(SLEEP)
    reply = api.post(f"/containers/{container}/exec", body={
        "Cmd": ["sh", "-c", "exit 3"], "AttachStdin": True, "AttachStdout": True, "User": "alice", "Tty": True})
    assert reply.status == 201 and len(reply.json()["Id"]) == 64
    seen = inspect(api, reply.json()["Id"])
    assert seen == {
        "ID": reply.json()["Id"], "Running": False, "ExitCode": None, "OpenStdin": True, "OpenStdout": True, "OpenStderr": False,
        "ProcessConfig": {"tty": True, "entrypoint": "sh", "arguments": ["-c", "exit 3"], "privileged": False, "user": "alice"},
        "CanRemove": False, "ContainerID": container, "DetachKeys": seen["DetachKeys"], "Pid": 0}


def test_detach_keys_are_shown_as_base64(api):
    container = api.run(SLEEP)
    assert inspect(api, make(api, container, ["true"], DetachKeys="ctrl-x,y"))["DetachKeys"] == "GHk="
    reply = api.post(f"/containers/{container}/exec", body={"Cmd": ["true"], "DetachKeys": "ctrl-1"})
    assert reply.status in (400, 500), reply  # 20.10: 500


def test_without_a_command_it_is_refused(api):
    container = api.run(SLEEP)
    reply = api.post(f"/containers/{container}/exec", body={"Cmd": []})
    assert (reply.status, reply.message) == (400, "No exec command specified")


def test_what_does_not_run_is_refused(api):
    assert api.post("/containers/nope/exec", body={"Cmd": ["true"]}).status == 404
    created = api.create()
    reply = api.post(f"/containers/{created}/exec", body={"Cmd": ["true"]})
    assert reply.status == 409 and reply.message.lower() == f"container {created} is not running"


def test_a_paused_container_is_refused(api):
    container = api.run(SLEEP, name="sleeper")
    made_before = make(api, container, ["true"])
    api.ok("POST", f"/containers/{container}/pause")
    reply = api.post("/containers/sleeper/exec", body={"Cmd": ["true"]})
    assert (reply.status, reply.message) == (409, "Container sleeper is paused, unpause the container before exec")
    assert api.post(f"/exec/{made_before}/start", body={}).status == 409
    api.ok("POST", f"/containers/{container}/unpause")
    assert output(api, container, "echo again")[0] == "again\n"


@pytest.mark.gantry_only
def test_an_unknown_user_is_refused_when_it_is_made(api):
    container = api.run(SLEEP)
    reply = api.post(f"/containers/{container}/exec", body={"Cmd": ["true"], "User": "foo"})
    assert (reply.status, reply.message) == (400, "unable to find user foo: no matching entries in passwd file")


def test_an_exec_that_is_not_there(api):
    for reply in (api.get("/exec/nope/json"), api.post("/exec/nope/start", body={}), api.post("/exec/nope/resize", {"h": 1, "w": 1})):
        assert (reply.status, reply.message) == (404, "No such exec instance: nope")


# What the process gets.


def test_environment_is_the_containers_and_the_requests(api):
    container = api.run(SLEEP, Env=["A=1", "B=1"], Hostname="box")
    lines = output(api, container, ["env"], Env=["B=2", "C=3"])[0].splitlines()
    assert {"A=1", "B=2", "C=3", "HOSTNAME=box", "HOME=/root"} <= set(lines)
    assert any(line.startswith("PATH=") for line in lines) and not any(line.startswith("TERM=") for line in lines)


def test_working_directory(api):
    container = api.run(SLEEP, WorkingDir="/tmp")
    assert output(api, container, ["pwd"])[0] == "/tmp\n"
    assert output(api, container, ["pwd"], WorkingDir="/var")[0] == "/var\n"


def test_user(api):
    container = api.run(SLEEP, User="daemon")
    assert output(api, container, "id -u; id -g")[0] == "1\n1\n"
    assert output(api, container, "id -u; id -G", User="alice")[0] == "1000\n1000 50\n"
    assert output(api, container, "id -u; id -g", User="7:8")[0] == "7\n8\n"
    assert output(api, container, "id -u", User="0")[0] == "0\n"


@pytest.mark.gantry_only  # dockerd asks for all there are, and fails where it lacks one itself
def test_privileged_adds_every_capability(api):
    container = api.run(SLEEP)
    show = "grep CapBnd /proc/self/status | tr -d 'CapBnd:\\t\\n'"
    usual, all_ = output(api, container, show)[0], output(api, container, show, Privileged=True)[0]
    assert usual == output(api, container, "grep CapBnd /proc/1/status | tr -d 'CapBnd:\\t\\n'")[0]
    assert int(all_, 16) > int(usual, 16)


# Streams.


def test_the_head_of_the_reply(api):
    container = api.run(SLEEP)
    with begin(api, make(api, container, ["true"])) as stream:
        assert stream.head.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
                                      b"Connection: Upgrade\r\nUpgrade: tcp\r\n")
        for name in ("Api-Version", "Docker-Experimental", "Ostype", "Server"):
            assert stream.header(name), name
    with api.hijack(f"/exec/{make(api, container, ['true'])}/start", body={}, upgrade=False) as stream:
        assert stream.head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
        assert stream.header("Content-Length") is None


@pytest.mark.gantry_only
def test_the_head_is_a_segment_of_its_own(api):
    """docker-py loses what arrives together with it."""
    container = api.run(SLEEP)
    for _ in range(20):
        with begin(api, make(api, container, ["echo", "hi"])) as stream:
            assert stream.first_segment == stream.head
            assert text_of(stream.frames()) == b"hi\n"


@pytest.mark.gantry_only
def test_a_client_that_is_slow_to_read_gets_the_head_alone(api):
    """An exec is faster than a client on a busy machine."""
    container = api.run(SLEEP)
    exec_id = make(api, container, ["echo", "hi"])
    with api.hijack(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False}, read_after=0.05) as stream:
        assert stream.first_segment == stream.head
        assert text_of(stream.frames()) == b"hi\n"


@pytest.mark.gantry_only
def test_newer_clients_are_told_that_the_stream_is_multiplexed(api):
    container = api.run(SLEEP)
    for tty, kind in ((False, "multiplexed"), (True, "raw")):
        with begin(api.at("1.42"), make(api, container, ["true"], Tty=tty), Tty=tty) as stream:
            assert stream.header("Content-Type") == f"application/vnd.docker.{kind}-stream"


def test_only_the_wanted_streams_come(api):
    container = api.run(SLEEP)
    for out in (True, False):
        exec_id = make(api, container, "echo o; echo e >&2", AttachStdout=out, AttachStderr=not out)
        with begin(api, exec_id) as stream:
            frames = stream.frames()
        assert (text_of(frames, 1), text_of(frames, 2)) == ((b"o\n", b"") if out else (b"", b"e\n"))


def test_input_comes_back_and_its_end_ends_the_process(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["cat"], AttachStdin=True)
    with begin(api, exec_id) as stream:
        stream.send(b"one\n")
        assert read_frame(stream) == (1, b"one\n")
        stream.close_write()
        assert stream.read_all() == b""
    assert inspect(api, exec_id)["ExitCode"] == 0


def test_large_output_is_complete(api):
    container = api.run(SLEEP)
    with begin(api, make(api, container, "head -c 20000000 /dev/zero")) as stream:
        assert len(text_of(stream.frames())) == 20_000_000


def test_the_exit_code_is_there_when_the_stream_ends(api):
    container = api.run(SLEEP)

    def one(number):
        text, code = output(api, container, f"echo {number}; exit 7")
        return text, code

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(60)))
    assert results == [(f"{number}\n", 7) for number in range(60)]


def test_a_signal_is_told_as_128_and_its_number(api):
    container = api.run(SLEEP)
    assert output(api, container, "kill -9 $$")[1] == 137


def test_a_child_that_keeps_the_output_does_not_keep_the_client(api):
    container = api.run(SLEEP)
    began = time.monotonic()
    text, code = output(api, container, "sleep 100 & echo left; exit 4")
    assert (text, code) == ("left\n", 4)
    assert time.monotonic() - began < 60


# Terminals.


def test_a_terminal_has_the_size_it_is_given(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, "read x; stty size; echo $TERM", AttachStdin=True, Tty=True)
    with begin(api, exec_id, Tty=True) as stream:
        api.ok("POST", f"/exec/{exec_id}/resize", {"h": 33, "w": 77})
        stream.send(b"\n")
        assert b"33 77\r\nxterm\r\n" in stream.read_all()


@pytest.mark.gantry_only
def test_a_terminal_begins_with_its_size(api):
    container = api.run(SLEEP)
    newer = api.at("1.42")
    with begin(newer, make(newer, container, ["stty", "size"], Tty=True, ConsoleSize=[21, 43]), Tty=True) as stream:
        assert stream.read_all() == b"21 43\r\n"
    with begin(newer, make(newer, container, ["stty", "size"], Tty=True), Tty=True, ConsoleSize=[22, 44]) as stream:
        assert stream.read_all() == b"22 44\r\n"


def test_a_resize_needs_numbers(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["cat"], AttachStdin=True, Tty=True)
    with begin(api, exec_id, Tty=True):
        assert api.post(f"/exec/{exec_id}/resize", {"h": "", "w": 1}).status == 400
        assert api.post(f"/exec/{exec_id}/resize", {"h": 1, "w": "x"}).status == 400


@pytest.mark.gantry_only  # in 20.10 the process ends
def test_detach_keys_leave_it_running(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["cat"], AttachStdin=True, Tty=True, DetachKeys="ctrl-x,y")
    with begin(api, exec_id, Tty=True) as stream:
        stream.send(b"a\n")
        stream.read_until(b"a\r\n")
        stream.send(b"\x18y")
        stream.read_all()
    assert inspect(api, exec_id)["Running"]


@pytest.mark.gantry_only  # 20.10 does not tell it
def test_detaching_is_told(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["cat"], AttachStdin=True, Tty=True)
    with api.events() as events:
        with begin(api, exec_id, Tty=True) as stream:
            stream.send(b"\x10\x11")
            stream.read_all()
        assert events.until("exec_detach")["Actor"]["Attributes"]["execID"] == exec_id


def test_frames_follow_what_the_start_says(api):
    container = api.run(SLEEP)
    with begin(api, make(api, container, ["echo", "hi"], Tty=True), Tty=False) as stream:
        assert text_of(stream.frames()) == b"hi\r\n"
    with begin(api, make(api, container, ["echo", "hi"], Tty=False), Tty=True) as stream:
        assert stream.read_all() == b"hi\n"


# Errors.


NOT_STARTED = [(["nosuch"], b"executable file not found in $PATH", {126, 127}), (["/etc/passwd"], b"permission denied", {126})]


@pytest.mark.parametrize("cmd, text, codes", NOT_STARTED)
def test_a_failed_start_is_text_in_the_stream(api, cmd, text, codes):
    container = api.run(SLEEP)
    exec_id = make(api, container, cmd)
    with begin(api, exec_id) as stream:
        assert stream.status == 101
        frames = stream.frames()
    assert text in text_of(frames) and text_of(frames).endswith(b"\r\n")
    seen = inspect(api, exec_id)
    assert seen["ExitCode"] in codes and not seen["Running"]


def test_a_failed_detached_start_is_an_http_error(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["nosuch"])
    reply = api.post(f"/exec/{exec_id}/start", body={"Detach": True})
    assert reply.status == 400 and "executable file not found in $PATH" in reply.message
    assert inspect(api, exec_id)["ExitCode"] in (126, 127)


def test_a_second_start(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, ["cat"], AttachStdin=True)
    with begin(api, exec_id) as first:
        first.send(b"x\n")
        assert read_frame(first) == (1, b"x\n")
        with begin(api, exec_id) as second:
            assert second.status == 101
            assert b"is already running" in text_of(second.frames())
        reply = api.post(f"/exec/{exec_id}/start", body={"Detach": True})
        assert reply.status == 409 and "is already running" in reply.message
        first.close_write()
        first.read_all()
    reply = api.post(f"/exec/{exec_id}/start", body={"Detach": True})
    assert reply.status == 409 and "has already run" in reply.message


# Life and death.


def test_events(api):
    container = api.run(SLEEP)
    since = int(time.time())
    exec_id = make(api, container, ["true"])
    api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
    ended(api, exec_id)
    query = {"since": since, "until": int(time.time()) + 1, "filters": {"container": [container]}}
    told = [e for e in api.ok("GET", "/events", query).lines() if e["Action"].startswith("exec_")]
    assert [e["Action"] for e in told] == ["exec_create: true ", "exec_start: true ", "exec_die"]
    died = told[-1]
    assert died["Actor"]["ID"] == container
    attributes = died["Actor"]["Attributes"]
    assert (attributes["execID"], attributes["exitCode"]) == (exec_id, "0")


def test_running_execs_are_listed(api):
    container = api.run(SLEEP)
    assert api.inspect(container)["ExecIDs"] is None
    exec_id = make(api, container, SLEEP)
    api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
    assert api.inspect(container)["ExecIDs"] == [exec_id]
    seen = inspect(api, exec_id)
    assert seen["Running"] and seen["ExitCode"] is None
    os.kill(seen["Pid"], signal.SIGKILL)
    assert ended(api, exec_id)["ExitCode"] == 137
    assert api.inspect(container)["ExecIDs"] is None


def test_the_containers_end_ends_it(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, "echo up; sleep 1000")
    with begin(api, exec_id) as stream:
        assert read_frame(stream) == (1, b"up\n")
        api.ok("POST", f"/containers/{container}/kill")
        assert stream.read_all() == b""
    assert ended(api, exec_id)["ExitCode"] == 137
    assert api.post(f"/exec/{exec_id}/start", body={}).status in (409, 500)  # 20.10: 500


def test_it_goes_with_its_container(api):
    container = api.run(SLEEP)
    exec_id = make(api, container, "echo up; sleep 1000")
    with begin(api, exec_id) as stream:
        assert read_frame(stream) == (1, b"up\n")
        api.remove(container)
        assert stream.read_all() == b""
    assert api.get(f"/exec/{exec_id}/json").status == 404
    assert api.post(f"/exec/{exec_id}/start", body={}).status == 404


def test_a_container_that_dies_in_the_middle_breaks_nothing(api):
    """Execs that begin while the container ends get an answer, each of them."""
    for _ in range(5):
        container = api.run(SLEEP)

        def one(number, container=container):
            try:
                exec_id = make(api, container, f"echo {number}")
                reply = api.post(f"/exec/{exec_id}/start", body={"Detach": number % 2 == 0})
                return reply.status
            except ApiError:
                return 409

        with ThreadPoolExecutor(8) as pool:
            results = [pool.submit(one, number) for number in range(8)]
            api.ok("POST", f"/containers/{container}/kill")
            assert {result.result(timeout=60) for result in results} <= {200, 404, 409, 400, 500}
        api.remove(container)


def test_the_client_program(api, docker):
    container = api.run(SLEEP)
    assert docker("exec", container, "echo", "hi").stdout == "hi\n"
    assert docker("exec", container, "sh", "-c", "exit 7").returncode == 7
    assert docker("exec", "-i", container, "cat", input="through").stdout == "through"
    assert docker("exec", "-e", "X=1", "-w", "/tmp", "-u", "alice", container, "sh", "-c", "echo $X $PWD $(id -u)").stdout == "1 /tmp 1000\n"
    assert docker("exec", container, "nosuch").returncode in (126, 127)
    assert docker("exec", "-d", container, "touch", "/tmp/made").returncode == 0


def test_the_client_program_on_a_terminal(api, terminal):
    container = api.run(SLEEP)
    client = terminal("exec", "-it", container, "sh", rows=31, columns=99)
    client.read_until("# ")
    client.type("stty size\n")
    client.read_until("31 99")
    client.type("exit 5\n")
    client.read_to_end()
    assert client.wait() == 5


def test_json_names_of_fields_may_be_in_any_case(api):
    container = api.run(SLEEP)
    data = json.dumps({"cmd": ["true"], "attachstdout": True}).encode()
    reply = api.post(f"/containers/{container}/exec", data=data, headers={"Content-Type": "application/json"})
    assert reply.status == 201
