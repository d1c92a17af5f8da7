"""Images that lie, are absurd or are bombs: a clear error, in bounded time and memory, and nothing stays behind."""

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from harness import images
from harness.fake_registry import INDEX, MANIFEST, Authority, FakeRegistry, Image, digest_of

MB = 1 << 20
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def registry():
    with FakeRegistry() as one:
        yield one


def files(engine):
    """What there is of images and layers; the database has no room for surprises."""
    parts = ("content", "layers", "tmp") if engine.kind == "gantry" else ("tmp",)
    return {each for part in parts for each in (engine.data_root / part).rglob("*")
            if "partial" not in each.parts and len(each.relative_to(engine.data_root).parts) < 5}


def serve(registry, document, media_type=MANIFEST):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    registry.manifests["hostile", "1"] = registry.manifests["hostile", digest_of(data)] = (media_type, data)


def pull(engine, registry):
    """The error of a pull that must fail."""
    reply = engine.api(timeout=60).post("/images/create", {"fromImage": f"{registry.host}/hostile", "tag": "1"})
    text = reply.message if reply.status >= 400 else "".join(line.get("error", "") for line in reply.lines())
    assert text, reply.body
    return text


def memory(engine):
    """Resident bytes at the most, so far."""
    line = next(each for each in Path(f"/proc/{engine.process.pid}/status").read_text().splitlines() if "VmHWM" in each)
    return int(line.split()[1]) * 1024


def good():
    return Image({"file": b"x" * 5000}, {"more": b"y" * 5000})


def changed(**members):
    """The manifest of a good image with other members."""
    image = good()
    return image, {**json.loads(image.manifest), **members}


def descriptor(data, media_type="application/vnd.docker.image.rootfs.diff.tar.gzip", **other):
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **other}


def manifests():
    """name: (image whose blobs are served, document)"""
    image = good()
    layers = json.loads(image.manifest)["layers"]
    config = json.loads(image.manifest)["config"]
    yield "1000 layers", *changed(layers=layers * 500)
    yield "a layer too few", *changed(layers=layers[:1])
    yield "a layer is larger than it says", *changed(layers=[layers[0], {**layers[1], "size": layers[1]["size"] - 7}])
    yield "a negative size", *changed(layers=[layers[0], {**layers[1], "size": -1}])
    yield "a size beyond 64 bits", *changed(layers=[layers[0], {**layers[1], "size": 1 << 70}])
    yield "a config of a gigabyte", *changed(config={**config, "size": 1 << 30})
    yield "a config that is larger than it says", *changed(config={**config, "size": config["size"] - 1})
    yield "a config that is a layer", *changed(config={**config, "digest": layers[0]["digest"], "size": layers[0]["size"]})
    yield "a digest that climbs", *changed(layers=[layers[0], {**layers[1], "digest": "sha256:../../../../etc/passwd"}])
    yield "a digest of an unknown kind", *changed(layers=[layers[0], {**layers[1], "digest": "md5:" + "0" * 32}])
    yield "no digest", *changed(layers=[layers[0], {}])
    yield "layers that are no list", *changed(layers={"0": layers[0]})
    yield "a layer of a kind that is no tar", *changed(layers=[layers[0], {**layers[1], "mediaType": "text/plain"}])
    yield "an artifact", *changed(config={**config, "mediaType": "application/vnd.cncf.helm.config.v1+json"})
    yield "schema 3", *changed(schemaVersion=3)
    yield "schema 1", image, {"schemaVersion": 1, "name": "hostile", "tag": "1", "fsLayers": [], "history": []}
    yield "both kinds at once", *changed(manifests=[])
    yield "a list", image, [1, 2, 3]
    yield "deep nesting", image, b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    yield "cut off", image, image.manifest[:-20]
    yield "no JSON", image, b"\0\xff" * 100


ABSURD = {name: (image, document) for name, image, document in manifests()}


@pytest.mark.gantry_only  # 20.10 believes more of it, as long as the digests are right
@pytest.mark.parametrize("name", ABSURD)
def test_a_manifest_that_makes_no_sense_is_refused(engine, registry, name):
    image, document = ABSURD[name]
    before = files(engine)
    registry.serve("hostile", "good", image)
    if name != "schema 1":
        serve(registry, document)
    else:
        serve(registry, document, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    assert len(pull(engine, registry)) < 1000
    assert files(engine) == before


@pytest.mark.gantry_only  # 20.10 knows of indexes in indexes only that they are of no platform
@pytest.mark.parametrize("kind", ["itself", "a ring", "a chain", "a lie", "10000"])
def test_an_index_that_goes_round_is_refused(engine, registry, kind):
    """None can really name itself: the digest would have to be known. A registry can pretend."""
    before = files(engine)
    platform = {"os": "linux", "architecture": images._architecture()}
    if kind == "10000":
        entry = {"mediaType": MANIFEST, "digest": "sha256:" + "0" * 64, "size": 10, "platform": platform}
        serve(registry, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] * 10_000}, INDEX)
    else:
        other = "sha256:" + hashlib.sha256(kind.encode()).hexdigest()
        media_type = MANIFEST if kind == "a lie" else OCI_INDEX
        document = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": media_type, "digest": other, "size": 500, "platform": platform}]}).encode()
        serve(registry, document, OCI_INDEX)
        registry.manifests["hostile", other] = (OCI_INDEX, document)
        if kind == "a chain":
            for number in range(50):
                inner = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "n": number, "manifests": [
                    {"mediaType": OCI_INDEX, "digest": digest_of(document), "size": len(document),
                     "platform": platform}]}).encode()
                registry.manifests["hostile", digest_of(inner)] = (OCI_INDEX, inner)
                document = inner
            serve(registry, document, OCI_INDEX)
    assert len(pull(engine, registry)) < 1000
    assert len(registry.requests) < 20
    assert files(engine) == before


@pytest.mark.gantry_only  # 20.10 reads 4 MB too, but says so only in its log
@pytest.mark.parametrize("announced", [True, False])
def test_a_manifest_of_100_megabytes_is_not_read(engine, registry, announced):
    before, most = files(engine), memory(engine)
    image = good()
    registry.serve("hostile", "good", image)
    sent = []

    def huge(request):
        if "/manifests/" not in request.path or request.command == "HEAD":
            return False
        request.send_response(200)
        request.send_header("Content-Type", MANIFEST)
        request.send_header("Content-Length", str(100 * MB)) if announced else request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        try:
            request.wfile.write(b'{"schemaVersion": 2, "x": "')
            for _ in range(100):
                request.wfile.write(b"x" * MB)
                sent.append(MB)
        except OSError:
            pass
        return True

    serve(registry, image.manifest)
    registry.intercept = huge
    assert len(pull(engine, registry)) < 1000
    assert sum(sent) < 60 * MB and memory(engine) < most + 64 * MB
    assert files(engine) == before


def bomb(compression):
    """A layer with one file of zeros, as small as the compression makes it."""
    size = 600 * MB
    entry = tarfile.TarInfo("zeros")
    entry.size = size
    command = {"zstd": ["zstd", "-q", "-19", "--long=27"], "gzip": ["gzip", "-9"], "xz": ["xz", "-1"], "bzip2": ["bzip2"]}
    with tempfile.TemporaryFile() as out:
        with subprocess.Popen(command[compression], stdin=subprocess.PIPE, stdout=out) as process:
            process.stdin.write(entry.tobuf())
            for _ in range(size // MB):
                process.stdin.write(bytes(MB))
            process.stdin.write(bytes(1024))
            process.stdin.close()
        out.seek(0)
        return out.read(), entry.tobuf()


@pytest.fixture(scope="module")
def zstd_bomb():
    return bomb("zstd")[0]


@pytest.mark.slow
@pytest.mark.gantry_only  # 20.10 has no zstd, and no bounds
def test_a_layer_that_is_a_bomb_is_refused(engine, registry, zstd_bomb):
    before, most = files(engine), memory(engine)
    image = good()
    layers = json.loads(image.manifest)["layers"]
    layers[1] = descriptor(zstd_bomb, "application/vnd.oci.image.layer.v1.tar+zstd")
    registry.serve("hostile", "good", image)
    registry.blobs[digest_of(zstd_bomb)] = zstd_bomb
    document = {**json.loads(image.manifest), "mediaType": OCI_MANIFEST, "layers": layers}
    document["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    serve(registry, document, OCI_MANIFEST)
    text = pull(engine, registry)
    assert "times" in text or "ratio" in text or "larger" in text, text
    assert memory(engine) < most + 256 * MB
    assert files(engine) == before


@pytest.mark.slow
@pytest.mark.gantry_only
def test_an_archive_that_is_a_bomb_is_refused(engine, zstd_bomb):
    before, most = files(engine), memory(engine)
    for path, query in (("/images/load", {}), ("/images/create", {"fromSrc": "-"})):
        reply = engine.api(timeout=60).post(path, query, data=zstd_bomb, headers={"Content-Type": "application/x-tar"})
        assert reply.status >= 400 or b"errorDetail" in reply.body, reply.body
    assert memory(engine) < most + 256 * MB
    assert files(engine) == before


def layout(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
                continue
            entry = tarfile.TarInfo(name)
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return name, entry


def archives():
    image = good()
    config = "config.json", image.config
    layers = [("a.tar", gzip.decompress(image.layers[0])), ("b.tar", gzip.decompress(image.layers[1]))]
    row = {"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": ["a.tar", "b.tar"]}
    blob = lambda data: ("blobs/sha256/" + digest_of(data)[7:], data)  # noqa: E731
    yield "a layer that leads out", [config, layers[0], link("b.tar", "/etc/passwd"), ("manifest.json", [row])]
    yield "a layer that climbs out", [config, layers[0], ("manifest.json", [{**row, "Layers": ["a.tar", "../../etc/passwd"]}])]
    yield "links in a ring", [config, layers[0], link("b.tar", "c.tar"), link("c.tar", "b.tar"), ("manifest.json", [row])]
    yield "10000 images", [config, *layers, ("manifest.json", [row] * 10_000)]
    yield "a layer too few", [config, *layers, ("manifest.json", [{**row, "Layers": ["a.tar"]}])]
    yield "layers in the wrong order", [config, *layers, ("manifest.json", [{**row, "Layers": ["b.tar", "a.tar"]}])]
    yield "a config that is missing", [*layers, ("manifest.json", [row])]
    yield "a config that is no JSON", [("config.json", b"{"), *layers, ("manifest.json", [row])]
    yield "a manifest.json that is no list", [config, *layers, ("manifest.json", row)]
    yield "deep nesting", [config, *layers, ("manifest.json", b"[" * 100_000)]
    yield "no image at all", [("hello", b"world")]
    index = {"schemaVersion": 2, "manifests": [descriptor(image.manifest, MANIFEST)]}
    marker = "oci-layout", {"imageLayoutVersion": "1.0.0"}
    yield "a layout that lacks its layers", [marker, blob(image.manifest), blob(image.config), ("index.json", index)]
    wrong = [("blobs/sha256/" + image.layer_digest(number)[7:], b"something else") for number in (0, 1)]
    yield "a layout with other layers", [marker, blob(image.manifest), blob(image.config), *wrong, ("index.json", index)]
    yield "a layout whose index lies about a size", [
        marker, blob(image.manifest), blob(image.config), *map(blob, image.layers),
        ("index.json", {"schemaVersion": 2, "manifests": [{**descriptor(image.manifest, MANIFEST), "size": 5}]})]
    ring = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    for _ in range(200):
        ring = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(ring, OCI_INDEX)]}).encode()
    yield "a layout of indexes only", [
        marker, blob(ring), ("index.json", {"schemaVersion": 2, "manifests": [descriptor(ring, OCI_INDEX)]})]


ARCHIVES = dict(archives())


# 20.10 knows no OCI layouts, and takes the same image any number of times.
STRICTER = [pytest.param(name, marks=pytest.mark.gantry_only) for name in ARCHIVES if "layout" in name or "10000" in name]


@pytest.mark.parametrize("name", [name for name in ARCHIVES if "layout" not in name and "10000" not in name] + STRICTER)
def test_an_archive_that_makes_no_sense_is_refused(engine, name):
    before = files(engine)
    reply = engine.api(timeout=60).post("/images/load", data=layout(ARCHIVES[name]),
                                        headers={"Content-Type": "application/x-tar"})
    assert reply.status >= 400 or b"errorDetail" in reply.body, reply.body
    assert len(reply.body) < 2000
    assert engine.api().get("/images/hostile:1/json").status == 404
    assert files(engine) == before


def test_an_artifact_is_told_as_one(engine, registry):
    image, document = ABSURD["an artifact"]
    registry.serve("hostile", "good", image)
    serve(registry, document)
    assert 'application/vnd.cncf.helm.config.v1+json' in pull(engine, registry)


# Searching and logging in.


class Search(BaseHTTPRequestHandler):
    """The v1 search of a registry."""

    results = [{"name": "tools/hammer", "description": "hits", "star_count": 12, "is_official": False, "is_automated": False},
               {"name": "hammer", "description": "hits harder", "star_count": 40, "is_official": True}]
    status, seen = 200, []

    def do_GET(self):
        Search.seen.append((self.path, self.headers.get("Authorization")))
        body = json.dumps({"num_results": 2, "query": "x", "results": Search.results}).encode()
        self.send_response(Search.status if self.path.startswith("/v1/search") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Docker-Registry-Version", "1")
        self.send_header("X-Docker-Registry-Standalone", "true")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def search_server():
    """A registry with TLS, found on this run's own loopback, and trusted through certs.d."""
    directory = Path(tempfile.mkdtemp(prefix="gt-search-"))
    authority = Authority(directory)
    server = HTTPServer(("127.0.0.1", 0), Search)
    context = authority.server_context("localhost", "DNS:localhost,IP:127.0.0.1")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/docker"], check=True)
    host = f"localhost:{server.server_address[1]}"
    certificates = Path("/etc/docker/certs.d") / host
    certificates.mkdir(parents=True)
    shutil.copy(authority.certificate, certificates / "ca.crt")
    Search.status, Search.seen = 200, []
    yield host
    server.shutdown()
    thread.join()
    server.server_close()
    subprocess.run(["umount", "/etc/docker"], check=True)
    shutil.rmtree(directory)


def test_docker_search_asks_the_registry(engine, search_server):
    api = engine.api()
    found = api.ok("GET", "/images/search", {"term": f"{search_server}/hammer", "limit": 7}).json()
    assert [(each["name"], each["star_count"], each["is_official"], each["description"]) for each in found] == [
        ("tools/hammer", 12, False, "hits"), ("hammer", 40, True, "hits harder")]
    path = next(path for path, _ in Search.seen if path.startswith("/v1/search"))
    assert "q=hammer" in path and "n=7" in path
    for filters, expected in (({"stars": ["20"]}, ["hammer"]), ({"is-official": ["true"]}, ["hammer"]),
                              ({"is-official": ["false"]}, ["tools/hammer"]), ({"stars": ["100"]}, [])):
        reply = api.ok("GET", "/images/search", {"term": f"{search_server}/hammer", "filters": json.dumps(filters)})
        assert [each["name"] for each in reply.json() or []] == expected
    result = engine.docker("search", f"{search_server}/hammer", "--format", "{{.Name}} {{.StarCount}}")
    assert result.stdout.split("\n")[:2] == ["hammer 40", "tools/hammer 12"] or \
        result.stdout.split("\n")[:2] == ["tools/hammer 12", "hammer 40"], result


def test_a_search_that_cannot_be_is_refused(engine, search_server):
    api = engine.api()
    for query in ({"limit": 101}, {"limit": -1}):
        reply = api.get("/images/search", {"term": f"{search_server}/hammer", **query})
        assert reply.status == 400 and "outside the range of [1, 100]" in reply.message, reply
    reply = api.get("/images/search", {"term": f"{search_server}/hammer", "filters": '{"color":["red"]}'})
    assert reply.status == 400 and "invalid filter" in reply.message.lower(), reply
    Search.status = 503
    reply = api.get("/images/search", {"term": f"{search_server}/hammer"})
    assert reply.status == 500 and "503" in reply.message, reply


def guard(user, password):
    """A registry that wants a password."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def check(request):
        if request.headers.get("Authorization") == wanted:
            return False
        return request.reply(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                             WWW_Authenticate='Basic realm="guarded"', Content_Type="application/json")

    return check


def test_auth_checks_the_password_with_the_registry(engine, registry):
    registry.intercept = guard("alice", "secret")
    api = engine.api()
    body = {"username": "alice", "password": "secret", "serveraddress": registry.host}
    reply = api.post("/auth", body=body)
    assert reply.status == 200 and reply.json()["Status"] == "Login Succeeded", reply
    reply = api.post("/auth", body={**body, "password": "wrong"})
    assert reply.status in (401, 500) and "unauthorized" in reply.message.lower(), reply
    assert "secret" not in engine.log_text()


def test_auth_tells_when_nobody_answers(engine, registry):
    host = registry.host
    registry.close()
    reply = engine.api().post("/auth", body={"username": "alice", "password": "secret", "serveraddress": host})
    assert reply.status == 500 and "connection refused" in reply.message, reply
    registry.close = lambda: None
