"""Clients that send too much, stop in the middle or vanish: the engine stays well and nothing of them is left."""

import json
import socket
import time

import pytest

from harness import leaks

pytestmark = pytest.mark.gantry_only  # dockerd reads on, and leaves some of it

MEGABYTE = 1 << 20


def connect(api):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(60)
    stream.connect(api.socket_path)
    return stream


def head(api, method, path, *fields):
    return "\r\n".join([f"{method} {api.url(path)} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def containers(api):
    return api.ok("GET", "/containers/json", {"all": 1}).json()


def resident(engine):
    with open(f"/proc/{engine.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


JSON_BODIES = ["/containers/create", "/networks/create", "/volumes/create", "/containers/{id}/exec", "/containers/{id}/update",
               "/networks/bridge/connect", "/auth"]


@pytest.mark.parametrize("path", JSON_BODIES)
def test_a_body_that_never_ends_is_refused(api, engine, path):
    container = api.create(name="victim")
    before = resident(engine)
    with connect(api) as stream:
        stream.sendall(head(api, "POST", path.replace("{id}", container), "Content-Type: application/json",
                            "Transfer-Encoding: chunked") + b'10\r\n{"Labels":{"a":"\r\n')
        chunk = b"100000\r\n" + b"x" * MEGABYTE + b"\r\n"
        sent = 0
        try:
            while sent < 200:
                stream.sendall(chunk)
                sent += 1
        except OSError:
            pass
        reply = b""
        try:
            reply = stream.recv(65536)
        except OSError:
            pass
    assert sent < 200, "it read all of it"
    assert not reply or reply.split()[1] in (b"400", b"413"), reply[:200]
    assert resident(engine) - before < 64 * MEGABYTE
    assert len(containers(api)) == 1


def test_ten_megabytes_of_labels(api):
    labels = {f"key-{number}": "v" * 1000 for number in range(10_000)}
    reply = api.post("/containers/create", body={"Image": "busybox", "Labels": labels})
    if reply.status == 201:
        container = reply.json()["Id"]
        assert api.inspect(container)["Config"]["Labels"] == labels
        api.ok("DELETE", f"/containers/{container}")
    else:
        assert reply.status in (400, 413) and reply.message
    assert containers(api) == []


@pytest.mark.parametrize("document", [
    {"Image": "busybox", "Cmd": [["nested"]]}, {"Image": "busybox", "Env": "A=1"}, {"Image": "busybox", "Labels": []},
    {"Image": "busybox", "ExposedPorts": ["80"]}, {"Image": "busybox", "StopTimeout": "soon"},
    {"Image": "busybox", "HostConfig": []}, {"Image": "busybox", "HostConfig": {"Memory": "1g"}},
    {"Image": "busybox", "HostConfig": {"Memory": 1e300}}, {"Image": "busybox", "HostConfig": {"Binds": {"a": "b"}}},
    {"Image": "busybox", "NetworkingConfig": 7}, {"Image": ["busybox"]}, {"Image": "busybox", "Tty": "yes"},
    {"Image": "busybox", "Healthcheck": {"Interval": "1s"}}, {"Image": "busybox", "Env": ["A\0=1"]},
    {"Image": "busybox", "Cmd": ["a\0b"]}, {"Image": "busybox", "WorkingDir": "/a\0b"},
    {"Image": "busybox", "HostConfig": {"Binds": ["/a\0b:/c"]}}], ids=json.dumps)
def test_wrong_types_name_their_field(api, document):
    reply = api.post("/containers/create", body=document)
    if reply.status == 201:
        # What is accepted must be harmless: it starts, or says why not.
        started = api.post(f"/containers/{reply.json()['Id']}/start")
        assert started.status in (204, 400, 500) and (started.status == 204 or started.message)
    else:
        assert reply.status == 400 and reply.message, reply
        assert containers(api) == []


def test_a_document_that_is_deeply_nested(api):
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"Labels":' * 20_000 + "{}" + "}" * 20_000):
        reply = api.post("/containers/create", data=text.encode(), headers={"Content-Type": "application/json"})
        assert reply.status == 400 and reply.message
    assert containers(api) == []


@pytest.mark.parametrize("path", ["/containers/json", "/containers/{id}/logs", "/containers/{id}/top", "/events", "/images/json",
                                  "/containers/{id}/archive", "/networks", "/volumes"])
@pytest.mark.parametrize("value", ["%00", "%ff%fe", "\u202e", "a" * 30_000, "-1", "99999999999999999999", "../../..", "(a+)+$",
                                   "{}", "[", "'; drop table containers; --"])
def test_parameters_of_every_kind(api, path, value):
    container = api.create(Cmd=["true"])
    query = {key: value for key in ("filters", "limit", "since", "until", "tail", "ps_args", "path", "all", "stdout", "before")}
    if path == "/events":
        query.pop("until")
        query["until"] = "1"
    reply = api.get(path.replace("{id}", container), query)
    assert reply.status != 500 or reply.message
    assert api.get("/_ping").status == 200


def test_names_as_expressions_are_not_evaluated_for_ever(api):
    api.create(name="a" * 100)
    started = time.monotonic()
    api.get("/containers/json", {"all": 1, "filters": {"name": ["(a+)+$x", "(a|aa)+b", "(.*)*c"]}})
    assert time.monotonic() - started < 30


STEPS = [
    ("POST", "/containers/create", b'{"Image":"busybox","Cmd":["sleep","1000"]}'),
    ("POST", "/containers/{id}/start", b""), ("POST", "/containers/{id}/stop", b""), ("POST", "/containers/{id}/restart", b""),
    ("POST", "/containers/{id}/kill", b""), ("POST", "/containers/{id}/wait", b""), ("GET", "/containers/{id}/export", b""),
    ("GET", "/containers/{id}/archive?path=/", b""), ("PUT", "/containers/{id}/archive?path=/tmp", b"x" * 100_000),
    ("POST", "/commit?container={id}&repo=vanished", b""), ("GET", "/containers/{id}/stats", b""),
    ("GET", "/containers/{id}/logs?stdout=1&follow=1", b""), ("POST", "/containers/{id}/exec", b'{"Cmd":["sleep","1000"]}'),
    ("POST", "/networks/create", b'{"Name":"vanishing"}'), ("POST", "/volumes/create", b'{"Name":"vanishing"}'),
    ("POST", "/images/load", b"x" * 100_000), ("GET", "/images/busybox/get", b""),
    ("POST", "/images/create?fromSrc=-&repo=vanished", b"x" * 100_000), ("DELETE", "/containers/{id}?force=1", b""),
]


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
@pytest.mark.parametrize("method,path,body", STEPS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_client_that_vanishes_at_each_step(api, engine, method, path, body, running):
    container = api.create(Cmd=["sleep", "1000"])
    if running:
        api.start(container)
    request = head(api, method, path.replace("{id}", container), f"Content-Length: {len(body)}",
                   "Content-Type: application/json" if body.startswith(b"{") else "Content-Type: application/x-tar") + body
    for share in (0.3, 0.9, 1.0):
        with connect(api) as stream:
            stream.sendall(request[:int(len(request) * share)])
            if share == 1.0:
                # Gone as soon as the engine has begun to answer, or after a moment.
                stream.settimeout(0.05)
                try:
                    stream.recv(1)
                except OSError:
                    pass
    # Whoever comes next finds everything in order: what was begun is done or undone.
    assert api.get("/_ping").status == 200
    for each in containers(api):
        assert api.remove(each["Id"]).status in (204, 404, 409)
    cgroups = lambda: [path for path in leaks.cgroups(engine) if path.name != engine.name]
    deadline = time.monotonic() + 60
    while containers(api) or cgroups():
        assert time.monotonic() < deadline, (containers(api), cgroups())
        time.sleep(0.05)
    for repository in ("vanished:latest",):
        api.delete(f"/images/{repository}", {"force": 1})
