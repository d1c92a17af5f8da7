"""A client of BuildKit's protocol, by hand: gRPC through POST /grpc, and a session that the client serves through
POST /session. Messages are made from src/proto; paths in them are bytes."""

import json
import os
import queue
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402

_SRC = Path(__file__).resolve().parents[2] / "src"
_generated = tempfile.TemporaryDirectory(prefix="gt-proto-")
_CONTROL = "/moby.buildkit.v1.Control/"
_BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
DIRECTORY, SYMLINK = 1 << 31, 1 << 27


def _load():
    names = ("ops", "fsutil", "rpc_status", "worker", "apicaps", "control", "gateway", "filesync", "secrets")
    subprocess.run(["protoc", "-I", _SRC, f"--python_out={_generated.name}",
                    *[str(_SRC / "proto" / f"{name}.proto") for name in names]], check=True)
    sys.path.insert(0, _generated.name)
    try:
        return [__import__(f"proto.{name}_pb2", fromlist=["*"]) for name in names]
    finally:
        sys.path.remove(_generated.name)


ops, fsutil, rpc_status, worker, apicaps, control, gateway, filesync, secrets = _load()
Packet = fsutil.Packet


def upgrade(engine, path, headers=()):
    """A socket behind the 101 of POST `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(engine.socket))
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0"]
    sock.sendall("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise AssertionError(f"{path} was not upgraded: {answer!r}")
        answer += byte
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    sock.settimeout(None)
    return sock


def _pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _join(one, other):
    threads = [threading.Thread(target=_pump, args=pair, daemon=True) for pair in ((one, other), (other, one))]
    for each in threads:
        each.start()


def _call(kind, channel, path, request, response):
    return getattr(channel, kind)(path, request_serializer=request.SerializeToString,
                                  response_deserializer=response.FromString)


class Connection:
    """One connection of POST /grpc."""

    def __init__(self, engine, directory):
        self._directory = Path(tempfile.mkdtemp(dir=directory))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self._directory / "s"
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.upstream = upgrade(engine, "/grpc")
        threading.Thread(target=self._accept, daemon=True).start()
        self.channel = grpc.insecure_channel(f"unix:{path}")

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        _join(client, self.upstream)

    def close(self):
        self.channel.close()
        self._listener.close()
        try:
            self.upstream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.upstream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def control(self, name, request, response, kind="unary_unary", **options):
        return _call(kind, self.channel, _CONTROL + name, type(request), response)(request, timeout=60, **options)

    def bridge(self, build, name, request, response):
        return _call("unary_unary", self.channel, _BRIDGE + name, type(request), response)(
            request, timeout=60, metadata=[("buildkit-controlapi-buildid", build)])

    def solve_later(self, request):
        """Control/Solve as a future."""
        return _call("unary_unary", self.channel, _CONTROL + "Solve", control.SolveRequest, control.SolveResponse).future(
            request, timeout=60)

    def solve(self, request):
        return self.solve_later(request).result()

    def status(self, ref):
        """What Control/Status sends until its end, in a list that a thread fills; join() the thread first."""
        messages = []

        def read():
            stream = self.control("Status", control.StatusRequest(ref=ref), control.StatusResponse, kind="unary_stream")
            messages.extend(stream)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread, messages


class Session:
    """What a client serves: directories by name, secrets, results. `script(name, stream)` may replace the transfer."""

    def __init__(self, engine, directory, session_id, directories=None, given_secrets=None, script=None):
        self.id = session_id
        self.results = {}
        self.asked = []  # (directory, metadata) of each transfer
        self.requested = []  # paths whose content was sent
        self._directories = directories or {}
        self._secrets = given_secrets or {}
        self._script = script
        path = Path(tempfile.mkdtemp(dir=directory)) / "s"
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(str(path))
        self._connect(engine, server)

    def headers(self):
        methods = ["/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy",
                   "/moby.buildkit.secrets.v1.Secrets/GetSecret", "/grpc.health.v1.Health/Check"]
        return [("X-Docker-Expose-Session-Uuid", self.id), ("X-Docker-Expose-Session-Sharedkey", f"ctx:{self.id}"),
                *(("X-Docker-Expose-Session-Grpc-Method", method) for method in methods)]

    def _connect(self, engine, server):
        self.upstream = upgrade(engine, "/session", self.headers())
        _join(server, self.upstream)

    def close(self):
        self._server.stop(None)
        try:
            self.upstream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _handlers(self):
        def bidi(function, message):
            return grpc.stream_stream_rpc_method_handler(function, request_deserializer=message.FromString,
                                                         response_serializer=lambda out: out.SerializeToString())

        secret = grpc.unary_unary_rpc_method_handler(
            self._secret, request_deserializer=secrets.GetSecretRequest.FromString,
            response_serializer=lambda out: out.SerializeToString())
        table = {"/moby.filesync.v1.FileSync/DiffCopy": bidi(self._files, Packet),
                 "/moby.filesync.v1.FileSend/DiffCopy": bidi(self._result, filesync.BytesMessage),
                 "/moby.buildkit.secrets.v1.Secrets/GetSecret": secret}

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                return table.get(details.method)

        return Handler()

    def _secret(self, request, context):
        if request.id not in self._secrets:
            context.abort(grpc.StatusCode.NOT_FOUND, "secret not found")
        return secrets.GetSecretResponse(data=self._secrets[request.id])

    def _result(self, stream, context):
        index = dict(context.invocation_metadata())["buildkit-attachable-exporter-id"]
        self.results[index] = b"".join(message.data for message in stream)
        return iter(())

    def _files(self, stream, context):
        metadata = context.invocation_metadata()
        name = dict(metadata)["dir-name"]
        self.asked.append((name, list(metadata)))
        if self._script is not None:
            yield from self._script(name, stream)
            return
        if name not in self._directories:
            context.abort(grpc.StatusCode.NOT_FOUND, f'no access allowed to dir "{name}"')
        wanted = [value for key, value in metadata if key == "followpaths"]
        yield from self._send_tree(Path(self._directories[name]), wanted, stream)

    def _send_tree(self, root, wanted, stream):
        paths = []
        for path in _sorted_tree(root):
            relative = path.relative_to(root)
            if wanted and not any(str(relative) == each or str(relative).startswith(each + "/")
                                  or each.startswith(str(relative) + "/") for each in wanted):
                continue
            paths.append(path)
            yield Packet(stat=_stat(path, relative))
        yield Packet()
        for packet in stream:
            if packet.type == Packet.PACKET_REQ:
                self.requested.append(str(paths[packet.id].relative_to(root)))
                if data := paths[packet.id].read_bytes():
                    for at in range(0, len(data), 32768):
                        yield Packet(type=Packet.PACKET_DATA, id=packet.id, data=data[at:at + 32768])
                yield Packet(type=Packet.PACKET_DATA, id=packet.id)
            elif packet.type == Packet.PACKET_FIN:
                yield Packet(type=Packet.PACKET_FIN)
                return
            elif packet.type == Packet.PACKET_ERR:
                return


class TunnelledSession(Session):
    """A session whose bytes travel in a call, Control/Session, of a Connection."""

    def _connect(self, engine, server):
        self.upstream, outgoing = server, queue.Queue()
        metadata = [(name.lower(), value) for name, value in self.headers()]
        stream = engine.channel.stream_stream(_CONTROL + "Session",
                                              request_serializer=control.BytesMessage.SerializeToString,
                                              response_deserializer=control.BytesMessage.FromString)(
            iter(outgoing.get, None), metadata=metadata)

        def read():
            while data := server.recv(65536):
                outgoing.put(control.BytesMessage(data=data))
            outgoing.put(None)

        def write():
            try:
                for message in stream:
                    server.sendall(message.data)
            except (grpc.RpcError, OSError):
                pass

        for target in (read, write):
            threading.Thread(target=target, daemon=True).start()


def _sorted_tree(root):
    for path in sorted(Path(root).iterdir(), key=lambda each: each.name.encode()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _sorted_tree(path)


def _stat(path, relative):
    info = path.lstat()
    mode = info.st_mode & 0o777
    link = b""
    if stat.S_ISDIR(info.st_mode):
        mode |= DIRECTORY
    if stat.S_ISLNK(info.st_mode):
        mode, link = mode | SYMLINK, os.fsencode(os.readlink(path))
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    return fsutil.Stat(path=os.fsencode(str(relative)), mode=mode, size=size, mod_time=info.st_mtime_ns, linkname=link)


def details(error):
    """The google.rpc.Status of a failed call, as {type without its path: its JSON}."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            status = rpc_status.Status.FromString(value)
            return {each.type_url.rpartition("/")[2].removesuffix("+json"): json.loads(each.value)
                    for each in status.details}
    return {}


@contextmanager
def solving(connection, request):
    """A Control/Solve that is under way and cancelled at the end if it still is."""
    future = connection.solve_later(request)
    try:
        yield future
    finally:
        future.cancel()
