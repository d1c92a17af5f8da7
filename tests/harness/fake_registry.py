"""A registry that misbehaves on demand, a proxy that keeps a record, and what is needed to reach them by name."""

import contextlib
import gzip
import hashlib
import json
import re
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import images

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """An image as a registry holds it. `files`: as for images.layer(); each mapping is a layer."""

    def __init__(self, *files, architecture=None):
        tars = [images.layer(each) for each in files]
        self.layers = [gzip.compress(tar, 1, mtime=0) for tar in tars]
        self.architecture = architecture or images._architecture()
        self.config = json.dumps({
            "architecture": self.architecture, "os": "linux", "created": "2023-01-01T00:00:00Z",
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created": "2023-01-01T00:00:00Z", "created_by": "test"} for _ in tars]}).encode()
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(self.config),
                       "digest": digest_of(self.config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer),
                        "digest": digest_of(layer)} for layer in self.layers]}).encode()
        self.digest = digest_of(self.manifest)

    def layer_digest(self, number=0):
        return digest_of(self.layers[number])

    def short(self, number=0):
        """As progress lines call a layer."""
        return self.layer_digest(number)[7:19]


class _Server:
    """An HTTP server on threads of its own; close() also ends the connections that are open."""

    def __init__(self, handler, ip="127.0.0.1", port=0, tls=None):
        owner = self
        self._open, self._lock = set(), threading.Lock()

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def finish_request(self, request, address):
                if tls is not None:
                    request.settimeout(60)
                    try:
                        request = tls.wrap_socket(request, server_side=True)
                    except OSError:
                        return  # the client does not trust us, speaks no TLS, or has no certificate
                with owner._lock:
                    owner._open.add(request)
                try:
                    super().finish_request(request, address)
                finally:
                    with owner._lock:
                        owner._open.discard(request)
                    if tls is not None:
                        request.close()

            def handle_error(self, request, address):
                pass  # the client went away

        self._listener = Listener((ip, port), handler)
        self._listener.owner = self
        self.port = self._listener.server_address[1]
        self.ip = ip
        self.host = f"{ip}:{self.port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self):
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class FakeRegistry(_Server):
    """Serves images read-only. `intercept(request)` may answer instead, and then returns True."""

    def __init__(self, **options):
        self.blobs, self.manifests, self.requests = {}, {}, []
        self.intercept = None
        super().__init__(_RegistryHandler, **options)

    def serve(self, repository, tag, image):
        for blob in (image.config, *image.layers):
            self.blobs[digest_of(blob)] = blob
        self.manifests[repository, tag] = self.manifests[repository, image.digest] = (MANIFEST, image.manifest)

    def serve_index(self, repository, tag, *all_images):
        for image in all_images:
            self.serve(repository, image.digest, image)
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": MANIFEST, "size": len(image.manifest), "digest": image.digest,
             "platform": {"os": "linux", "architecture": image.architecture}} for image in all_images]}).encode()
        self.manifests[repository, tag] = self.manifests[repository, digest_of(index)] = (INDEX, index)
        return digest_of(index)

    def paths(self, part=""):
        return [path for _, path, _ in self.requests if part in path]

    def headers(self, part=""):
        return [headers for _, path, headers in self.requests if part in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        """Names of headers with _ for -."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def reply_partly(self, body, sent, status=200, **headers):
        """Announces all of `body`, sends its first bytes only and leaves the connection open."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        self.wfile.flush()

    def hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def await_client_gone(self, timeout=60):
        """Whether the client closed its end in that time."""
        self.connection.settimeout(timeout)
        self.close_connection = True
        try:
            return self.connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


class _RegistryHandler(_Handler):
    def do_GET(self):
        registry = self.server.owner
        registry.requests.append((self.command, self.path, dict(self.headers)))
        if registry.intercept is not None and registry.intercept(self):
            return
        if self.path == "/v2/":
            self.reply(200, b"{}", Content_Type="application/json")
        elif found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
            self._manifest(registry.manifests.get((found[1], found[2])))
        elif found := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", self.path):
            self._blob(registry.blobs.get(found[2]))
        else:
            self.reply(404)

    do_HEAD = do_GET

    def _manifest(self, found):
        if found is None:
            self.reply(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]},
                       Content_Type="application/json")
        else:
            self.reply(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1]))

    def _blob(self, data):
        if data is None:
            self.reply(404, {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]})
        elif span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(span[1])
            self.reply(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.reply(200, data, Content_Type="application/octet-stream")


class Stall:
    """Lets a registry send half of a layer, and no more until the client has gone."""

    def __init__(self, registry, image):
        self.gone = threading.Event()
        self._image = image
        registry.intercept = self._answer

    def _answer(self, request):
        layer = self._image.layers[0]
        if not request.path.endswith(self._image.layer_digest()):
            return False
        request.reply_partly(layer, len(layer) // 2)
        if request.await_client_gone():
            self.gone.set()
        return True


class Proxy(_Server):
    """An HTTP proxy that takes every name to the same address and keeps the request lines."""

    def __init__(self, target_ip):
        self.target_ip, self.seen = target_ip, []
        super().__init__(_ProxyHandler)
        self.url = f"http://{self.host}"


class _ProxyHandler(_Handler):
    def _connect_to(self, authority):
        return socket.create_connection((self.server.owner.target_ip, int(authority.rsplit(":", 1)[1])), timeout=60)

    def do_CONNECT(self):
        self.server.owner.seen.append(f"CONNECT {self.path}")
        self.close_connection = True
        try:
            upstream = self._connect_to(self.path)
        except OSError:
            self.reply(502)
            return
        self.send_response(200)
        self.end_headers()
        with upstream:
            back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
            back.start()
            _copy(self.connection, upstream)
            back.join()

    def do_GET(self):
        self.server.owner.seen.append(f"{self.command} {self.path}")
        self.close_connection = True
        authority, path = re.fullmatch(r"http://([^/]+)(/.*)", self.path).groups()
        with self._connect_to(authority) as upstream:
            kept = [(name, value) for name, value in self.headers.items()
                    if name.lower() not in ("connection", "proxy-connection")]
            head = [f"{self.command} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept), "Connection: close"]
            upstream.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
            _copy(upstream, self.connection)

    do_HEAD = do_GET


def _copy(source, target):
    """Until `source` ends; then `target` learns of it."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        self._openssl("req", "-x509", *self._new_key(self._key), "-days", "30", "-subj", "/CN=tests", "-out",
                      str(self.certificate))

    @staticmethod
    def _new_key(path):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path)]

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def issue(self, name, alternatives):
        """(certificate, key) for e.g. "DNS:a.test,IP:127.0.0.1"."""
        request, key, out, extra = (self.directory / f"{name}.{end}" for end in ("csr", "key", "cert", "ext"))
        self._openssl("req", *self._new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        extra.write_text(f"subjectAltName={alternatives}\n")
        self._openssl("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
                      "-CAcreateserial", "-days", "30", "-extfile", str(extra), "-out", str(out))
        return out, key

    def server_context(self, name, alternatives, ask_clients=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, alternatives))
        if ask_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.certificate)
        return context
