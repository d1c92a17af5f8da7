"""The Engine API over a unix socket, close enough to the wire to see every byte."""

import http.client
import json
import select
import socket
import struct
import time
from urllib.parse import quote, urlencode


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def lines(self):
        """A stream of JSON objects, one per line."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    @property
    def message(self):
        return self.json()["message"]

    def __repr__(self):
        return f"<{self.status} {self.body[:200]!r}>"


class ApiError(AssertionError):
    pass


class Api:
    """`version` is the prefix of every path; None sends none."""

    def __init__(self, socket_path, version="1.41", timeout=120):
        self.socket_path = str(socket_path)
        self.version = version
        self.timeout = timeout

    def at(self, version):
        return Api(self.socket_path, version, self.timeout)

    def url(self, path, query=None):
        prefix = f"/v{self.version}" if self.version else ""
        pairs = {k: json.dumps(v) if isinstance(v, (dict, list)) and k == "filters" else v for k, v in (query or {}).items()}
        return prefix + path + ("?" + urlencode(pairs, doseq=True, quote_via=quote) if pairs else "")

    def open(self, method, path, query=None, body=None, data=None, headers=None, timeout=None):
        """Sends a request and returns (connection, response) with the body unread."""
        connection = _UnixConnection(self.socket_path, timeout or self.timeout)
        headers = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, self.url(path, query), body=data, headers=headers)
        return connection, connection.getresponse()

    def request(self, method, path, query=None, **options):
        connection, response = self.open(method, path, query, **options)
        try:
            return Reply(response)
        finally:
            connection.close()

    def get(self, path, query=None, **options):
        return self.request("GET", path, query, **options)

    def post(self, path, query=None, **options):
        return self.request("POST", path, query, **options)

    def delete(self, path, query=None, **options):
        return self.request("DELETE", path, query, **options)

    def ok(self, method, path, query=None, **options):
        """As request, but anything from 400 on is a failure of the test."""
        reply = self.request(method, path, query, **options)
        if reply.status >= 400:
            raise ApiError(f"{method} {path}: {reply.status} {reply.body.decode(errors='replace')}")
        return reply

    # Verbs that most tests need.

    def create(self, image="busybox", name=None, host=None, **config):
        body = {"Image": image, **config}
        if host is not None:
            body["HostConfig"] = host
        return self.ok("POST", "/containers/create", {"name": name} if name else None, body=body).json()["Id"]

    def start(self, container):
        self.ok("POST", f"/containers/{container}/start")

    def run(self, cmd, **options):
        """Creates and starts; returns the id."""
        container = self.create(Cmd=cmd if isinstance(cmd, list) else ["sh", "-c", cmd], **options)
        self.start(container)
        return container

    def wait(self, container, condition=None, timeout=None):
        query = {"condition": condition} if condition else None
        return self.ok("POST", f"/containers/{container}/wait", query, timeout=timeout).json()["StatusCode"]

    def inspect(self, container):
        return self.ok("GET", f"/containers/{container}/json").json()

    def state(self, container):
        return self.inspect(container)["State"]

    def remove(self, container, force=True, volumes=True):
        return self.delete(f"/containers/{container}", {"force": int(force), "v": int(volumes)})

    def logs(self, container, **query):
        reply = self.ok("GET", f"/containers/{container}/logs", {"stdout": 1, "stderr": 1, **query})
        return b"".join(payload for _, payload in parse_frames(reply.body))

    def wait_for_log(self, container, text, timeout=60):
        """Follows the log until `text` shows up; returns all that was read."""
        wanted = text.encode() if isinstance(text, str) else text
        connection, response = self.open("GET", f"/containers/{container}/logs", {"stdout": 1, "stderr": 1, "follow": 1},
                                         timeout=timeout)
        seen = b""
        try:
            while wanted not in seen:
                frame = read_frame(response)
                if frame is None:
                    raise ApiError(f"the log of {container} ended without {text!r}: {seen!r}")
                seen += frame[1]
        finally:
            connection.close()
        return seen

    def events(self, **filters):
        return EventStream(self, filters)

    def hijack(self, path, query=None, body=None, upgrade=True, extra=b"", timeout=60, read_after=0):
        """POSTs and takes the connection over. Returns a Hijacked. `read_after`: seconds before the client reads."""
        data = json.dumps(body).encode() if body is not None else b""
        head = f"POST {self.url(path, query)} HTTP/1.1\r\nHost: localhost\r\n"
        if upgrade:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        kind = "application/json" if body is not None else "text/plain"
        head += f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        return Hijacked(self.socket_path, head.encode() + data + extra, timeout, read_after)

    def raw(self, request, timeout=60):
        return Hijacked(self.socket_path, request, timeout)


class Hijacked:
    """A connection after its request was sent: the reply's head as bytes, then a raw stream."""

    def __init__(self, path, request, timeout, read_after=0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.socket.sendall(request)
        time.sleep(read_after)
        self.head = b""
        self.first_segment = b""
        while b"\r\n\r\n" not in self.head:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ApiError(f"the connection was closed in the head of the reply: {self.head!r}")
            self.first_segment = self.first_segment or chunk
            self.head += chunk
        self.head, self._rest = self.head.split(b"\r\n\r\n", 1)
        self.head += b"\r\n\r\n"

    @property
    def status(self):
        return int(self.head.split(b" ")[1])

    def header(self, name):
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def send(self, data):
        self.socket.sendall(data)

    def close_write(self):
        self.socket.shutdown(socket.SHUT_WR)

    def read(self, size):
        """Like a file's read: short only at the end."""
        while len(self._rest) < size:
            chunk = self.socket.recv(65536)
            if not chunk:
                break
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read_all(self):
        return self.read(1 << 62)

    def read_until(self, wanted):
        while wanted not in self._rest:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ApiError(f"the stream ended without {wanted!r}: {self._rest!r}")
            self._rest += chunk
        end = self._rest.index(wanted) + len(wanted)
        data, self._rest = self._rest[:end], self._rest[end:]
        return data

    def frames(self):
        return parse_frames(self.read_all())

    def is_silent_for(self, seconds):
        """Whether nothing arrives and nobody closes for that long."""
        return not self._rest and not select.select([self.socket], [], [], seconds)[0]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class EventStream:
    """Events from the moment of construction on (or from `since`)."""

    def __init__(self, api, filters, **query):
        self._connection, self.response = api.open("GET", "/events", {"filters": filters, **query} if filters else query)
        self.seen = []

    def next(self):
        line = self.response.readline()
        if not line:
            raise ApiError(f"the event stream ended after {self.seen}")
        event = json.loads(line)
        self.seen.append(event)
        return event

    def until(self, action, type_="container", timeout=60):
        """Reads up to the first event of that kind; returns it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            event = self.next()
            if event["Type"] == type_ and event["Action"].split(":")[0] == action:
                return event
        raise ApiError(f"no {type_} {action} within {timeout} s: {self.actions()}")

    def actions(self, type_="container"):
        return [event["Action"] for event in self.seen if event["Type"] == type_]

    def close(self):
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_frame(stream):
    """One frame of the multiplexed stream as (stream number, payload); None at the end."""
    head = stream.read(8)
    if not head:
        return None
    if len(head) < 8:
        raise ApiError(f"a frame's head is cut off: {head!r}")
    kind, size = struct.unpack(">B3xI", head)
    payload = stream.read(size)
    if len(payload) < size:
        raise ApiError("a frame's payload is cut off")
    return kind, payload


def parse_frames(data):
    import io

    stream, frames = io.BytesIO(data), []
    while (frame := read_frame(stream)) is not None:
        frames.append(frame)
    return frames


def text_of(frames, kind=1):
    return b"".join(payload for stream, payload in frames if stream == kind)
