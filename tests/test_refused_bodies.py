"""What a client is told about an upload that is refused, even if it looks for the answer only when it has sent it all."""

import http.client
import json
import socket
import subprocess

import pytest

from harness import images

# dockerd closes the connection after 256 KiB; whether the client then sees the answer or EPIPE is chance.
pytestmark = pytest.mark.gantry_only
MB = 1 << 20


@pytest.fixture(scope="module")
def junk(tmp_path_factory):
    path = tmp_path_factory.mktemp("junk") / "junk.tar"
    path.write_bytes(b"this is no archive " * (40 * MB // 19))
    return path


@pytest.fixture(scope="module")
def liar(tmp_path_factory):
    """An archive that begins well, with an image whose layer is not what it says, and goes on for long."""
    good = images.archive(["liar:1"], [images.layer({"file": b"x" * 5000})])
    broken = bytearray(good)
    broken[broken.index(b"x" * 5000)] ^= 1
    path = tmp_path_factory.mktemp("liar") / "liar.tar"
    path.write_bytes(bytes(broken) + bytes(40 * MB))
    return path


def send_all(engine, path, body, headers):
    """Sends everything before it looks at the answer, as simple clients do."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(engine.socket))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        connection.sendall(head.encode())
        connection.sendall(body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def test_docker_load_tells_why_an_archive_is_refused(engine, junk):
    for _ in range(5):
        result = engine.docker("load", "-i", str(junk))
        assert result.returncode == 1
        assert "broken pipe" not in result.stderr and "reset" not in result.stderr, result.stderr
        assert "tar" in result.stderr or "archive" in result.stderr, result.stderr


def test_docker_load_tells_why_an_image_is_refused(engine, liar):
    result = engine.docker("load", "-i", str(liar))
    assert result.returncode == 1
    assert "broken pipe" not in result.stderr and "diffID" in result.stderr, result.stderr


def test_docker_import_tells_why_it_is_refused(engine, junk):
    result = engine.docker("import", str(junk), "Not:A:Name")
    assert result.returncode == 1 and "broken pipe" not in result.stderr and "invalid" in result.stderr, result.stderr


def test_a_client_that_sends_everything_first_gets_the_answer(engine, junk):
    body = junk.read_bytes()
    for close in ({}, {"Connection": "close"}):
        status, text = send_all(engine, "/v1.41/images/load", body,
                                {"Content-Type": "application/x-tar", "Content-Length": len(body), **close})
        assert b"errorDetail" in text or status >= 400, text
        status, text = send_all(engine, "/v1.41/nowhere", body, {"Content-Length": len(body), **close})
        assert (status, json.loads(text)) == (404, {"message": "page not found"})
        status, text = send_all(engine, "/v1.41/containers/nobody/start", body, {"Content-Length": len(body), **close})
        assert status in (400, 404) and "message" in json.loads(text)


def test_a_client_that_waited_to_be_asked_gets_the_answer(engine, junk):
    """curl asks before it sends much; here it is told to go on, and refused in the middle."""
    result = subprocess.run(["curl", "-sS", "--unix-socket", engine.socket, "-H", "Expect: 100-continue", "-H",
                             "Content-Type: application/x-tar", "-T", str(junk), "-X", "POST", "-w", "\n%{http_code}",
                             "http://x/v1.41/images/load"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    text, status = result.stdout.rsplit("\n", 1)
    assert "errorDetail" in text or int(status) >= 400, text


def test_an_endless_body_is_cut_off(engine):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(engine.socket))
        connection.sendall(b"POST /v1.41/nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n" % MB + bytes(MB) + b"\r\n"
        with pytest.raises(OSError):
            for _ in range(1 << 14):
                connection.sendall(chunk)


def test_a_daemon_stops_although_a_refused_client_goes_on_sending(engine):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine.socket))
        connection.sendall(b"POST /v1.41/nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000))
        assert b"404" in connection.recv(100)
        engine.restart()
    engine.api().ok("GET", "/_ping")
