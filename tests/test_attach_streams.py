"""Attach where clients differ: web sockets, several at once, readers that are slow, ends in every order."""

import socket
import threading

import pytest
import websocket

from harness import memory
from harness.api import read_frame, text_of

STREAMS = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}


def web_socket(api, container, version="1.41", **query):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(60)
    stream.connect(api.socket_path)
    url = "ws://localhost" + api.at(version).url(f"/containers/{container}/attach/ws", query or {"stream": 1})
    return websocket.create_connection(url, socket=stream, timeout=60)


def test_a_web_socket_carries_both_ways(api):
    container = api.run(["cat"], OpenStdin=True)
    ws = web_socket(api, container)
    ws.send(b"over the web\n")
    opcode, data = ws.recv_data()
    assert (opcode, data) == (websocket.ABNF.OPCODE_BINARY, b"over the web\n")
    ws.close()
    assert api.state(container)["Running"]


def test_a_web_socket_of_an_old_client_is_text(api):
    container = api.run(["cat"], OpenStdin=True)
    ws = web_socket(api, container, "1.24", stream=1, stdin=1, stdout=1)
    ws.send("as text\n")
    opcode, data = ws.recv_data()
    assert (opcode, data) == (websocket.ABNF.OPCODE_TEXT, b"as text\n")
    ws.close()


def test_a_web_socket_is_not_multiplexed_and_ends_with_the_container(api):
    container = api.create(Cmd=["sh", "-c", "read x; echo out; echo err >&2"], OpenStdin=True)
    ws = web_socket(api, container)
    api.start(container)
    ws.send(b"\n")
    seen = b""
    while True:
        try:
            data = ws.recv()
        except websocket.WebSocketConnectionClosedException:
            break
        if not data:
            break
        seen += data if isinstance(data, bytes) else data.encode()
    assert sorted(seen.split()) == [b"err", b"out"]


def test_a_web_socket_replays_the_log(api):
    container = api.run("echo old; read x; echo new", OpenStdin=True)
    api.wait_for_log(container, "old")
    ws = web_socket(api, container, stream=1, logs=1, stdin=1, stdout=1)
    assert ws.recv() in (b"old\n", "old\n")
    ws.send(b"\n")
    assert ws.recv() in (b"new\n", "new\n")
    ws.close()


def test_a_web_socket_to_nobody_is_an_http_error(api):
    reply = api.get("/containers/nope/attach/ws", headers={
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert (reply.status, reply.message) == (404, "No such container: nope")


def test_ten_clients_see_the_same(api):
    container = api.create(Cmd=["sh", "-c", "read x; for n in 1 2 3; do echo $n; done; echo e >&2"], OpenStdin=True)
    streams = [api.hijack(f"/containers/{container}/attach", STREAMS) for _ in range(10)]
    api.start(container)
    streams[7].send(b"\n")
    for stream in streams:
        frames = stream.frames()
        assert (text_of(frames, 1), text_of(frames, 2)) == (b"1\n2\n3\n", b"e\n")
        stream.close()


def test_only_the_streams_that_were_asked_for(api):
    container = api.create(Cmd=["sh", "-c", "echo o; echo e >&2"])
    only = {name: api.hijack(f"/containers/{container}/attach", {"stream": 1, name: 1}) for name in ("stdout", "stderr")}
    api.start(container)
    assert {kind for kind, _ in only["stdout"].frames()} == {1}
    assert {kind for kind, _ in only["stderr"].frames()} == {2}
    for stream in only.values():
        stream.close()


@pytest.mark.gantry_only  # with dockerd the container waits for as long as somebody does not read
def test_who_does_not_read_is_in_nobodys_way(api):
    container = api.create(Cmd=["sh", "-c", "dd if=/dev/zero bs=1M count=30 2>/dev/null; echo; echo done >&2"])
    lazy = api.hijack(f"/containers/{container}/attach", STREAMS)
    eager = api.hijack(f"/containers/{container}/attach", STREAMS)
    api.start(container)
    frames = eager.frames()
    assert len(text_of(frames, 1)) == (30 << 20) + 1 and text_of(frames, 2) == b"done\n"
    assert api.wait(container) == 0
    lazy.close()
    eager.close()


def test_output_at_the_very_end_is_complete(api):
    container = api.create(Cmd=["sh", "-c", "dd if=/dev/zero bs=1k count=1000 2>/dev/null | tr '\\0' x"])
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        assert text_of(stream.frames()) == b"x" * 1_024_000


def test_attached_to_the_past_is_attached_to_the_next_start(api):
    container = api.run("echo again")
    api.wait(container)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        assert stream.is_silent_for(0.3)
        api.start(container)
        assert text_of(stream.frames()) == b"again\n"


def test_the_end_of_input_without_stdin_once_only_detaches(api):
    container = api.run(["cat"], OpenStdin=True)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as first:
        first.send(b"one\n")
        assert read_frame(first) == (1, b"one\n")
        first.close_write()
        first.read_all()
    assert api.state(container)["Running"]
    with api.hijack(f"/containers/{container}/attach", STREAMS) as second:
        second.send(b"two\n")
        assert read_frame(second) == (1, b"two\n")


def test_input_of_a_client_that_vanishes_stays(api):
    container = api.create(Cmd=["sh", "-c", "while read x; do echo got $x; done; echo closed"], OpenStdin=True)
    api.start(container)
    stream = api.hijack(f"/containers/{container}/attach", STREAMS)
    stream.send(b"one\n")
    assert read_frame(stream) == (1, b"got one\n")
    stream.close()
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        stream.send(b"two\n")
        assert read_frame(stream) == (1, b"got two\n")


def test_stdin_that_was_not_opened_is_not_wired(api):
    container = api.create(Cmd=["sh", "-c", "cat; echo end"])
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        assert text_of(stream.frames()) == b"end\n"


@pytest.mark.parametrize("keys,sent", [(None, b"\x10\x11"), ("ctrl-a", b"\x01"), ("a,b,c", b"abc"), ("ctrl-@,q", b"\0q")])
def test_detach_keys(api, keys, sent):
    container = api.create(Cmd=["cat"], OpenStdin=True, Tty=True)
    query = {**STREAMS, **({"detachKeys": keys} if keys else {})}
    with api.hijack(f"/containers/{container}/attach", query) as stream:
        api.start(container)
        stream.send(b"hello\n")
        stream.read_until(b"hello\r\nhello\r\n")
        stream.send(sent)
        stream.read_all()
    assert api.state(container)["Running"]


def test_half_of_the_keys_is_passed_on(api):
    container = api.create(Cmd=["sh", "-c", "stty raw -echo; echo ready; dd bs=1 count=3 2>/dev/null | od -An -tx1"],
                           OpenStdin=True, Tty=True)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        stream.read_until(b"ready")
        stream.send(b"\x10xy")
        stream.read_until(b"10 78 79")


def test_without_a_terminal_the_keys_are_bytes(api):
    container = api.create(Cmd=["cat"], OpenStdin=True, StdinOnce=True)
    with api.hijack(f"/containers/{container}/attach", STREAMS) as stream:
        api.start(container)
        stream.send(b"\x10\x11")
        stream.close_write()
        assert text_of(stream.frames()) == b"\x10\x11"


def test_bad_detach_keys_are_named(api):
    container = api.create()
    with api.hijack(f"/containers/{container}/attach", {**STREAMS, "detachKeys": "nonsense"}) as stream:
        assert stream.status == 400
        assert b"Invalid detach keys (nonsense) provided" in stream.read_all()


def test_a_paused_container_says_so(api):
    container = api.run(["sleep", "1000"], name="frozen")
    api.ok("POST", f"/containers/{container}/pause")
    with api.hijack("/containers/frozen/attach", STREAMS) as stream:
        assert stream.status == 409
        assert b"container frozen is paused" in stream.read_all().lower()
    api.ok("POST", f"/containers/{container}/unpause")


@pytest.mark.gantry_only
def test_clients_that_vanish_leave_nothing(api, engine):
    container = api.run(["sh", "-c", "while :; do echo x; sleep 0.01; done"])
    api.wait_for_log(container, "x")
    before = memory.descriptors(engine.process.pid)

    def come_and_go():
        for _ in range(10):
            streams = [api.hijack(f"/containers/{container}/attach", STREAMS),
                       api.raw(f"GET {api.url(f'/containers/{container}/logs', {'stdout': 1, 'follow': 1})} HTTP/1.1\r\n"
                               "Host: x\r\n\r\n".encode()),
                       api.raw(f"GET {api.url('/events')} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
                       api.raw(f"GET {api.url(f'/containers/{container}/stats')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())]
            for stream in streams:
                stream.close()

    threads = [threading.Thread(target=come_and_go) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The engine sees a closed connection when the kernel tells it, which is soon but not now.
    memory.assert_descriptors([engine.process.pid], [before])
