"""How clients reach the builder: upgraded connections of every kind, and the build request of Docker 18.09 to 22."""

import socket
import ssl
import subprocess

import pytest

from harness.build_worker import assert_nothing_runs, workers
from harness.engine import Docker, fetch_oracle

pytestmark = pytest.mark.gantry_only

UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4
PORT = 12377


@pytest.fixture
def certificate(scratch):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
                    "-subj", "/CN=localhost", "-days", "2"], cwd=scratch, check=True, capture_output=True)
    return scratch


def speak(sock, early):
    """What the HTTP/2 server says first. `early`: the client does not wait for the answer to its upgrade."""
    sock.settimeout(60)
    sock.sendall(UPGRADE + PREFACE if early else UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    if not early:
        sock.sendall(PREFACE)
    frame = b""
    while len(frame) < 9:
        piece = sock.recv(9 - len(frame))
        assert piece, f"closed after {frame!r}"
        frame += piece
    sock.close()
    return frame


@pytest.mark.parametrize("early", [False, True], ids=["waiting", "early"])
def test_a_unix_socket(fresh, early):
    engine = fresh()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(engine.socket))
    assert speak(sock, early)[3] == SETTINGS
    assert len(workers(engine)) == 1
    assert_nothing_runs(engine)


@pytest.mark.parametrize("early", [False, True], ids=["waiting", "early"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_tcp(fresh, certificate, tls, early):
    arguments = ["-H", f"tcp://127.0.0.1:{PORT}"]
    if tls:
        arguments += ["--tls", "--tlscert", f"{certificate}/cert.pem", "--tlskey", f"{certificate}/key.pem"]
    engine = fresh(arguments=arguments)
    sock = socket.create_connection(("127.0.0.1", PORT))
    if tls:
        context = ssl.create_default_context(cafile=f"{certificate}/cert.pem")
        sock = context.wrap_socket(sock, server_hostname="localhost")
    assert speak(sock, early)[3] == SETTINGS
    assert_nothing_runs(engine)


@pytest.fixture
def old_docker(fresh, scratch):
    """Debian's client 20.10, whose BuildKit mode posts to /build with version=2."""
    fetch_oracle()
    engine = fresh()

    def run(*args):
        env = {**engine.client_env(), "DOCKER_BUILDKIT": "1", "HOME": str(scratch)}
        return subprocess.run([str(Docker.tree / "usr/bin/docker"), *args], env=env, capture_output=True, text=True,
                              timeout=120)

    run.engine = engine
    return run


def test_a_build_of_version_2(old_docker, scratch):
    context = scratch / "context"
    context.mkdir()
    (context / "file").write_text("content\n")
    (context / "Dockerfile").write_text("FROM busybox\nARG WHO\nCOPY file /f\nRUN echo $WHO >> /f\nCMD [\"cat\", \"/f\"]\n")
    command = ["build", "--progress=plain", "-t", "made", "--build-arg", "WHO=me", "--label", "l=1", "--iidfile",
               str(scratch / "iid"), str(context)]
    first = old_docker(*command)
    assert first.returncode == 0, first.stderr
    assert "RUN echo me >> /f" in first.stderr and "naming to docker.io/library/made" in first.stderr
    identity = (scratch / "iid").read_text()
    image = old_docker.engine.api().ok("GET", "/images/made/json").json()
    assert image["Id"] == identity and image["Config"]["Labels"] == {"l": "1"}
    second = old_docker(*command)
    assert second.stderr.count("CACHED") == 2 and (scratch / "iid").read_text() == identity, second.stderr
    assert old_docker("run", "--rm", "made").stdout == "content\nme\n"


def test_a_build_of_version_2_that_fails(old_docker, scratch):
    (scratch / "Dockerfile").write_text("FROM busybox\nRUN exit 5\n")
    result = old_docker("build", "--progress=plain", str(scratch))
    assert result.returncode != 0
    assert 'process "/bin/sh -c exit 5" did not complete successfully: exit code: 5' in result.stderr


@pytest.mark.parametrize("query,text", [
    ({"version": "3"}, 'invalid version "3"'),
    ({"securityopt": "seccomp=x"}, "the daemon on this platform does not support setting security options on build"),
    ({"squash": "1"}, "squash is only supported with experimental mode"),
])
def test_requests_that_are_refused(fresh, query, text):
    reply = fresh().api().post("/build", query, data=b"")
    assert (reply.status, reply.message) == (400, text)
