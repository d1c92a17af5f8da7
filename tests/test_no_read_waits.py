"""Reads never wait: whatever a client, a shim or a registry does not do, `ps` and the others answer."""

import os
import signal
import socket
import time

import pytest

from harness import leaks
from harness.registry import SilentServer

pytestmark = pytest.mark.gantry_only
LIMIT = 1.0  # seconds; the promise is 0.1, a loaded test machine gets the rest


def assert_reads_answer(api, *containers):
    paths = ["/_ping", "/version", "/info", "/containers/json?all=1", "/images/json", "/networks", "/volumes", "/system/df"]
    paths += [f"/containers/{container}/json" for container in containers]
    slow = {}
    for path in paths:
        for _ in range(5):  # what waits for something waits every time
            started = time.monotonic()
            reply = api.get(path)
            took = time.monotonic() - started
            assert reply.status == 200, (path, reply)
            if took <= LIMIT:
                break
        else:
            slow[path] = took
    assert not slow


def shim_pids(engine):
    return [pid for pid, command in leaks.processes(engine).items() if "gantry-shim" in command]


def test_a_client_that_attaches_and_does_not_read(api):
    container = api.create(Cmd=["yes", "0123456789" * 10], name="loud")
    stuck = api.hijack(f"/containers/{container}/attach", {"stream": 1, "stdout": 1, "stderr": 1})
    api.start(container)
    assert_reads_answer(api, container)
    # The container goes on and others see its output.
    api.wait_for_log(container, "0123456789")
    assert api.logs(container, tail=5)
    api.ok("POST", f"/containers/{container}/stop", {"t": 0})
    stuck.close()


def test_clients_that_follow_logs_and_do_not_read(api):
    container = api.run(["yes", "0123456789" * 10])
    stuck = [api.open("GET", f"/containers/{container}/logs", {"follow": 1, "stdout": 1})[0] for _ in range(5)]
    assert_reads_answer(api, container)
    api.ok("POST", f"/containers/{container}/kill")
    api.wait(container)
    for connection in stuck:
        connection.close()


def test_a_client_that_takes_events_and_does_not_read(api):
    connection, response = api.open("GET", "/events")
    for _ in range(100):
        api.remove(api.create(Labels={"filler": "x" * 2000}))
    assert_reads_answer(api)
    connection.close()


def test_a_client_that_exports_and_does_not_read(api):
    container = api.create()
    connection, response = api.open("GET", f"/containers/{container}/export")
    assert response.status == 200
    assert_reads_answer(api, container)
    started = time.monotonic()
    connection.close()
    assert api.remove(container).status == 204
    assert time.monotonic() - started < 60


def test_a_client_that_sends_half_a_request(api, engine):
    half = []
    for head in (b"GET /contai", b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 100000\r\n\r\n{\"Image\"", b"POST /v1.41/images/load HTTP/1.1\r\nHost: x\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\n100000\r\nabc"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(engine.socket))
        client.send(head)
        half.append(client)
    assert_reads_answer(api)
    for client in half:
        client.close()


def test_a_shim_that_is_stopped(engine, api):
    container = api.run(["sleep", "1000"], name="frozen")
    other = api.run(["sleep", "1000"])
    pid = api.state(container)["Pid"]
    shim = next(p for p in shim_pids(engine) if _parent(pid) == p)
    os.kill(shim, signal.SIGSTOP)
    try:
        assert_reads_answer(api, container, other)
        assert api.get(f"/containers/{container}/logs", {"stdout": 1}).status == 200
        # Verbs on others go on; a verb on this one ends or says what it waits for.
        api.ok("POST", f"/containers/{other}/stop", {"t": 0})
        api.ok("DELETE", f"/containers/{other}")
        third = api.run("true")
        assert api.wait(third) == 0
    finally:
        os.kill(shim, signal.SIGCONT)
    assert api.remove(container).status == 204


def _parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])


def test_a_container_that_is_frozen(api):
    container = api.run(["sleep", "1000"])
    api.ok("POST", f"/containers/{container}/pause")
    assert_reads_answer(api, container)
    assert api.remove(container).status == 204


def test_a_registry_that_hangs(api):
    server = SilentServer()
    connection, held = None, None
    try:
        import threading

        result = {}

        def pull():
            try:
                result["reply"] = api.post("/images/create", {"fromImage": f"{server.host}/app", "tag": "1"}, timeout=120)
            except OSError as error:
                result["error"] = error

        thread = threading.Thread(target=pull, daemon=True)
        thread.start()
        held = server.accept()
        assert_reads_answer(api)
        assert api.wait(api.run("true")) == 0
    finally:
        if held is not None:
            held.close()
        server.close()
        thread.join(120)
    assert not thread.is_alive(), "the pull did not end when the registry went away"


def test_a_client_that_leaves_ends_its_pull(api):
    server = SilentServer()
    client = socket.socket(socket.AF_UNIX)
    client.connect(api.socket_path)
    client.sendall(f"POST /v1.41/images/create?fromImage={server.host}/app&tag=1 HTTP/1.1\r\nHost: x\r\n"
                   "Content-Length: 0\r\n\r\n".encode())
    held = server.accept()
    held.settimeout(60)
    held.recv(65536)
    client.close()
    # The engine hangs up on the registry: everything that it sent is followed by the end.
    while held.recv(65536):
        pass
    held.close()
    server.close()


def test_many_idle_connections(api, engine):
    idle = []
    for _ in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(engine.socket))
        idle.append(client)
    assert_reads_answer(api)
    for client in idle:
        client.close()


def test_reads_answer_while_containers_start_and_stop(api):
    import threading

    errors = []

    def churn():
        try:
            for _ in range(5):
                container = api.run("exit 0")
                api.wait(container)
                api.remove(container)
        except Exception as error:  # a thread must hand its failure over
            errors.append(error)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert_reads_answer(api)
    assert not errors
