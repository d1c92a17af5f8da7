"""Attach and exec streams, byte by byte."""

import pytest

from harness.api import read_frame, text_of

STREAMS = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}


def cat(api, **config):
    return api.create(Cmd=["cat"], OpenStdin=True, StdinOnce=True, AttachStdin=True, **config)


def test_the_head_of_an_upgraded_reply_is_exactly_dockers(api):
    container = cat(api)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        assert stream.head == (b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
                               b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")


def test_without_an_upgrade_the_reply_is_200(api):
    container = cat(api)
    with api.hijack(f"/containers/{container}/attach", STREAMS, upgrade=False) as stream:
        assert stream.head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


def test_attach_before_start_gets_everything(api):
    container = api.create(Cmd=["sh", "-c", "echo out; echo err >&2"])
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        assert stream.is_silent_for(0.3)
        api.start(container)
        frames = stream.frames()
    assert (text_of(frames, 1), text_of(frames, 2)) == (b"out\n", b"err\n")


@pytest.mark.gantry_only
def test_input_that_comes_with_the_request_is_not_lost(api):
    container = cat(api)
    with api.hijack(f"/containers/{container}/attach", STREAMS, extra=b"early\n") as stream:
        api.start(container)
        assert read_frame(stream) == (1, b"early\n")
        stream.close_write()
        assert stream.read_all() == b""
    assert api.wait(container) == 0


def test_half_close_is_the_end_of_input(api):
    container = cat(api)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        stream.send(b"all of it")
        stream.close_write()
        assert text_of(stream.frames()) == b"all of it"
    assert api.wait(container) == 0


def test_two_clients_get_the_same_output(api):
    container = api.create(Cmd=["sh", "-c", "read x; echo both"], OpenStdin=True)
    first = api.hijack(f"/containers/{container}/attach", STREAMS)
    second = api.hijack(f"/containers/{container}/attach", {**STREAMS, "stdin": 0})
    api.start(container)
    first.send(b"\n")
    assert text_of(first.frames()) == text_of(second.frames()) == b"both\n"
    first.close()
    second.close()


def test_logs_come_before_the_stream(api):
    container = api.run("echo old; read x; echo new", OpenStdin=True)
    api.wait_for_log(container, "old")
    with api.hijack(f"/containers/{container}/attach", {**STREAMS, "logs": 1}) as stream:
        assert read_frame(stream) == (1, b"old\n")
        stream.send(b"\n")
        assert text_of(stream.frames()) == b"new\n"


def test_logs_alone_end_by_themselves(api):
    container = api.run("echo old; sleep 100")
    api.wait_for_log(container, "old")
    with api.hijack(f"/containers/{container}/attach", {"logs": 1, "stdout": 1, "stderr": 1}) as stream:
        assert text_of(stream.frames()) == b"old\n"


def test_a_terminal_is_raw(api):
    container = api.create(Cmd=["sh", "-c", "read x; echo got $x"], OpenStdin=True, Tty=True)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        stream.send(b"it\n")
        assert stream.read_until(b"got it\r\n")


def test_detach_keys_end_the_connection_only(api):
    container = api.create(Cmd=["sh"], OpenStdin=True, Tty=True)
    with api.events() as events:
        with api.hijack(f"/containers/{container}/attach", {**STREAMS, "detachKeys": "ctrl-x,y"}) as stream:
            api.start(container)
            stream.read_until(b"# ")
            stream.send(b"\x18y")
            stream.read_all()
        events.until("detach")
    assert api.state(container)["Running"]


def test_errors_come_on_the_taken_over_connection(api):
    with api.hijack("/containers/nope/attach", STREAMS) as stream:
        assert stream.status == 404
        assert b"No such container: nope" in stream.read_all()


def exec_create(api, container, cmd, **options):
    body = {"Cmd": cmd, "AttachStdout": True, "AttachStderr": True, **options}
    return api.ok("POST", f"/containers/{container}/exec", body=body).json()["Id"]


def test_exec_streams_and_the_code_is_there_at_the_end(api):
    container = api.run(["sleep", "1000"])
    for _ in range(10):
        exec_id = exec_create(api, container, ["sh", "-c", "echo o; echo e >&2; exit 7"])
        with api.hijack(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False}) as stream:
            assert stream.status == 101
            frames = stream.frames()
            inspected = api.ok("GET", f"/exec/{exec_id}/json").json()
        assert (text_of(frames, 1), text_of(frames, 2)) == (b"o\n", b"e\n")
        assert (inspected["ExitCode"], inspected["Running"]) == (7, False)


def test_exec_reads_input(api):
    container = api.run(["sleep", "1000"])
    exec_id = exec_create(api, container, ["cat"], AttachStdin=True)
    with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
        stream.send(b"x" * 200_000)
        stream.close_write()
        assert text_of(stream.frames()) == b"x" * 200_000


def test_exec_detached_answers_at_once(api):
    container = api.run(["sleep", "1000"])
    exec_id = exec_create(api, container, ["sleep", "100"])
    reply = api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
    assert (reply.status, reply.body) == (200, b"")
    assert api.ok("GET", f"/exec/{exec_id}/json").json()["Running"]


def test_exec_in_a_stopped_container_is_refused(api):
    container = api.run("exit 0")
    api.wait(container)
    reply = api.post(f"/containers/{container}/exec", body={"Cmd": ["true"]})
    assert reply.status == 409 and reply.message.endswith("is not running")
    assert api.post(f"/containers/{container}/exec", body={"Cmd": []}).status == 400
    assert api.get("/exec/nope/json").message == "No such exec instance: nope"


def test_resize_sets_the_terminals_size(api):
    container = api.run("trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done", Tty=True)
    with api.hijack(f"/containers/{container}/attach", {**STREAMS, "logs": 1}) as stream:
        stream.read_until(b"up\r\n")
        api.ok("POST", f"/containers/{container}/resize", {"h": 33, "w": 77})
        assert stream.read_until(b"33 77")


@pytest.mark.gantry_only
def test_newer_clients_are_told_that_the_stream_is_multiplexed(api):
    container = cat(api)
    with api.at("1.42").hijack(f"/containers/{container}/attach", STREAMS) as stream:
        assert stream.header("Content-Type") == "application/vnd.docker.multiplexed-stream"
    terminal = cat(api, Tty=True)
    with api.at("1.42").hijack(f"/containers/{terminal}/attach", STREAMS) as stream:
        assert stream.header("Content-Type") == "application/vnd.docker.raw-stream"


@pytest.mark.gantry_only
def test_a_second_start_of_an_exec_says_so_inside_the_stream(api):
    container = api.run(["sleep", "1000"])
    exec_id = exec_create(api, container, ["true"])
    with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
        stream.read_all()
    with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
        assert stream.status == 101
        assert b"has already run" in stream.read_all()
