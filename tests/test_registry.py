"""docker pull: how a registry is reached, how it lets us in, and what it may do on the way."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import load
from harness.fake_registry import Authority, FakeRegistry, Image, Proxy, Stall

# Of this run's network namespace, and of documentation (RFC 5737): not loopback, which is always insecure.
OUTSIDE = "198.51.100.10"
HUB = "198.51.100.11"
CERTIFICATES = Path("/etc/docker/certs.d")


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """Addresses and names of registries, and an empty /etc/docker; in the namespaces of this run only."""
    directory = Path(tempfile.mkdtemp(prefix="gt-names-"))
    hosts = directory / "hosts"
    hosts.write_text(Path("/etc/hosts").read_text() + f"\n{OUTSIDE} named.test direct.test other.test\n"
                     f"{HUB} registry-1.docker.io index.docker.io auth.docker.io\n")
    for address in (OUTSIDE, HUB):
        subprocess.run(["ip", "address", "add", address + "/32", "dev", "lo"], check=True)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/docker"], check=True)
    yield
    subprocess.run(["umount", "/etc/docker"], check=True)
    subprocess.run(["umount", "/etc/hosts"], check=True)
    for address in (OUTSIDE, HUB):
        subprocess.run(["ip", "address", "del", address + "/32", "dev", "lo"], check=True)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def authority(surroundings):
    directory = Path(tempfile.mkdtemp(prefix="gt-ca-"))
    yield Authority(directory)
    shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def no_certificates():
    yield
    shutil.rmtree(CERTIFICATES, ignore_errors=True)


@pytest.fixture(autouse=True)
def only_busybox(engine, clean, busybox_tar):
    """Every test ends with busybox:latest alone, so that none finds a layer of another's."""
    yield
    api = engine.api()
    for image in api.ok("GET", "/images/json", {"all": 1}).json():
        if image["RepoTags"] != ["busybox:latest"]:
            api.delete(f"/images/{image['Id']}", {"force": 1})
    if names(api) != ["busybox:latest"]:
        load(engine, busybox_tar)


@pytest.fixture
def configured(engine):
    """configured(config=…, environment=…) restarts the shared engine with these until the test ends."""
    def restart(config=None, environment=None):
        engine.write_config(config or {})
        engine.environment = environment or {}
        return engine.restart()

    yield restart
    if engine.process is None:
        engine.start()
    restart()


@pytest.fixture
def fake():
    """fake() is a plain registry on loopback; options as of FakeRegistry."""
    made = []

    def make(**options):
        made.append(FakeRegistry(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def an_image(text="hello", size=0):
    files = {"greeting": text.encode()}
    if size:
        import random

        files["noise"] = random.Random(text).randbytes(size)
    return Image(files)


def pull(api, repository, tag="1", auth=None, **query):
    headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()} if auth else {}
    return api.post("/images/create", {"fromImage": repository, "tag": tag, **query}, headers=headers)


def problem(reply):
    """What went wrong with a pull: the text, whether it came before or after the first progress line."""
    if reply.status >= 400:
        return reply.message
    return "".join(line["error"] for line in reply.lines() if "error" in line)


def pulled(api, repository, tag="1", **options):
    """Pulls, and fails the test unless it went well; returns the statuses."""
    reply = pull(api, repository, tag, **options)
    assert problem(reply) == "", reply
    return [line["status"] for line in reply.lines()]


def names(api):
    return sorted(tag for image in api.ok("GET", "/images/json").json() for tag in image["RepoTags"] or [])


def trust(host, certificate, client=None):
    directory = CERTIFICATES / host
    directory.mkdir(parents=True)
    shutil.copy(certificate, directory / "ca.crt")
    if client is not None:
        shutil.copy(client[0], directory / "client.cert")
        shutil.copy(client[1], directory / "client.key")


# Mirrors of Docker Hub.


def test_a_mirror_serves_the_names_of_docker_hub(configured, engine, registry):
    api = engine.api()
    name = f"{registry.host}/library/mirrored"
    api.ok("POST", "/images/busybox/tag", {"repo": name, "tag": "1"})
    api.ok("POST", f"/images/{name}/push", {"tag": "1"}, headers={"X-Registry-Auth": "e30="})
    api.ok("DELETE", f"/images/{name}:1")
    configured(config={"registry-mirrors": [f"http://{registry.host}"]})
    engine.docker("rmi", "busybox", check=True)
    result = engine.docker("pull", "mirrored:1", check=True)
    lines = result.stdout.splitlines()
    assert lines[0] == "1: Pulling from library/mirrored"
    assert lines[-2:] == ["Status: Downloaded newer image for mirrored:1", "docker.io/library/mirrored:1"]
    image = api.ok("GET", "/images/mirrored:1/json").json()
    assert image["RepoTags"] == ["mirrored:1"]
    assert [digest.split("@")[0] for digest in image["RepoDigests"]] == ["mirrored"]


def test_a_mirror_is_asked_for_nothing_but_docker_hub(configured, fake):
    mirror, own = fake(), fake()
    own.serve("app", "1", an_image())
    pulled(configured(config={"registry-mirrors": [f"http://{mirror.host}"]}).api(), f"{own.host}/app")
    assert mirror.requests == []


def test_the_next_mirror_is_asked_if_one_fails(configured, fake):
    broken, good = fake(), fake()
    broken.intercept = lambda request: request.reply(500)
    good.serve("library/app", "1", an_image())
    mirrors = ["http://127.0.0.1:1", f"http://{broken.host}", f"http://{good.host}"]
    pulled(configured(config={"registry-mirrors": mirrors}).api(), "app")
    assert broken.requests and good.paths("/blobs/")


@pytest.mark.gantry_only  # dockerd takes no certificate authorities for Docker Hub
@pytest.mark.parametrize("mirror_state", ["has it not", "is down"])
def test_docker_hub_is_asked_for_what_the_mirrors_lack(configured, fake, authority, mirror_state):
    mirror = fake()
    hub = fake(ip=HUB, port=443, tls=authority.server_context("hub", "DNS:registry-1.docker.io"))
    hub.serve("library/app", "1", an_image())
    trust("registry-1.docker.io", authority.certificate)
    url = f"http://{mirror.host}" if mirror_state == "has it not" else "http://127.0.0.1:1"
    engine = configured(config={"registry-mirrors": [url]})
    pulled(engine.api(), "app")
    assert hub.paths("/blobs/") and bool(mirror.requests) == (mirror_state == "has it not")
    assert "app:1" in names(engine.api())


@pytest.mark.gantry_only
def test_the_password_of_docker_hub_is_not_for_mirrors(configured, fake):
    mirror, open_to_all = fake(), fake()
    mirror.intercept = lambda request: request.reply(401, WWW_Authenticate='Basic realm="tests"')
    open_to_all.serve("library/app", "1", an_image())
    engine = configured(config={"registry-mirrors": [f"http://{mirror.host}", f"http://{open_to_all.host}"]})
    pulled(engine.api(), "app", auth={"username": "me", "password": "secret"})
    assert mirror.paths("/manifests/")
    assert not [headers for headers in mirror.headers() if "Authorization" in headers]


# Proxies.


def proxied(configured, proxy, through, **config):
    """An engine that is told of a proxy by its file or by its environment."""
    settings = {"http-proxy": proxy.url, "https-proxy": proxy.url, "no-proxy": "direct.test"}
    if through == "file":
        return configured(config={"proxies": settings, **config})
    return configured(config=config, environment={name.upper().replace("-", "_"): url for name, url in settings.items()})


ways = pytest.mark.parametrize("through", [pytest.param("file", marks=pytest.mark.gantry_only), "environment"])


@ways
def test_a_plain_registry_is_reached_through_the_proxy(configured, fake, through):
    registry = fake(ip=OUTSIDE)
    registry.serve("app", "1", an_image())
    host = f"far.test:{registry.port}"  # which only the proxy can resolve
    with Proxy(OUTSIDE) as proxy:
        engine = proxied(configured, proxy, through, **{"insecure-registries": [host]})
        pulled(engine.api(), f"{host}/app")
        seen = proxy.seen
    assert f"GET http://{host}/v2/" in seen
    assert [line for line in seen if line.startswith(f"GET http://{host}/v2/app/blobs/sha256:")]
    assert {headers["Host"] for headers in registry.headers()} == {host}


@ways
def test_a_tls_registry_is_reached_through_a_tunnel(configured, fake, authority, through):
    registry = fake(ip=OUTSIDE, tls=authority.server_context("far", "DNS:far.test"))
    registry.serve("app", "1", an_image())
    host = f"far.test:{registry.port}"
    trust(host, authority.certificate)
    with Proxy(OUTSIDE) as proxy:
        pulled(proxied(configured, proxy, through).api(), f"{host}/app")
        assert set(proxy.seen) == {f"CONNECT {host}"}
    assert registry.paths("/blobs/")


@ways
def test_no_proxy_goes_straight(configured, fake, through):
    registry = fake(ip=OUTSIDE)
    registry.serve("app", "1", an_image())
    host = f"direct.test:{registry.port}"
    with Proxy(OUTSIDE) as proxy:
        pulled(proxied(configured, proxy, through, **{"insecure-registries": [host]}).api(), f"{host}/app")
        assert proxy.seen == []


def test_loopback_is_never_proxied(configured, fake):
    registry = fake()
    registry.serve("app", "1", an_image())
    with Proxy(OUTSIDE) as proxy:
        pulled(proxied(configured, proxy, "environment").api(), f"{registry.host}/app")
        assert proxy.seen == []


# TLS.


def test_an_own_authority_is_trusted_by_certs_d(api, fake, authority):
    registry = fake(ip=OUTSIDE, tls=authority.server_context("named", "DNS:named.test"))
    registry.serve("app", "1", an_image())
    host = f"named.test:{registry.port}"
    refused = pull(api, f"{host}/app")
    assert refused.status == 500 and "x509: " in refused.message
    assert registry.requests == []
    trust(host, authority.certificate)
    pulled(api, f"{host}/app")


def test_an_authority_is_for_its_host_only(api, fake, authority):
    context = authority.server_context("both", "DNS:named.test,DNS:other.test")
    registry = fake(ip=OUTSIDE, tls=context)
    registry.serve("app", "1", an_image())
    trust(f"named.test:{registry.port}", authority.certificate)
    assert "x509: " in problem(pull(api, f"other.test:{registry.port}/app"))


def test_a_certificate_must_bear_the_name(api, fake, authority):
    registry = fake(ip=OUTSIDE, tls=authority.server_context("wrong", "DNS:elsewhere.test"))
    host = f"named.test:{registry.port}"
    trust(host, authority.certificate)
    assert "x509: " in problem(pull(api, f"{host}/app")) and registry.requests == []


def test_a_client_certificate_is_presented(api, fake, authority):
    registry = fake(ip=OUTSIDE, tls=authority.server_context("mutual", "DNS:named.test", ask_clients=True))
    registry.serve("app", "1", an_image())
    host = f"named.test:{registry.port}"
    trust(host, authority.certificate)
    assert problem(pull(api, f"{host}/app")) and registry.requests == []
    shutil.rmtree(CERTIFICATES)
    trust(host, authority.certificate, authority.issue("client", "DNS:client.test"))
    pulled(api, f"{host}/app")


def test_a_client_certificate_needs_its_key(api, authority):
    trust("named.test:5000", authority.certificate, authority.issue("lonely", "DNS:client.test"))
    (CERTIFICATES / "named.test:5000" / "client.key").unlink()
    assert "missing key client.key for client certificate client.cert" in problem(pull(api, "named.test:5000/app"))


# Insecure registries.


@pytest.mark.parametrize("entry", ["name", "network", "network of a name"])
@pytest.mark.parametrize("kind", ["plain", "self-signed"])
def test_an_insecure_registry_is_accepted(configured, fake, authority, kind, entry):
    tls = authority.server_context("self", "DNS:elsewhere.test") if kind == "self-signed" else None
    registry = fake(ip=OUTSIDE, tls=tls)
    registry.serve("app", "1", an_image())
    host = registry.host if entry == "network" else f"named.test:{registry.port}"
    pulled(configured(config={"insecure-registries": [host if entry == "name" else "198.51.100.0/28"]}).api(), f"{host}/app")


def test_a_plain_registry_that_is_not_listed_is_refused(configured, fake):
    registry = fake(ip=OUTSIDE)
    registry.serve("app", "1", an_image())
    engine = configured(config={"insecure-registries": ["198.51.100.0/29", f"named.test:{registry.port}"]})
    reply = pull(engine.api(), f"{registry.host}/app")
    assert reply.status == 500 and "server gave HTTP response to HTTPS client" in reply.message
    assert registry.requests == []


def test_the_list_of_insecure_registries_is_reloaded(configured, engine, fake):
    registry = fake(ip=OUTSIDE)
    registry.serve("app", "1", an_image())
    assert problem(pull(engine.api(), f"{registry.host}/app"))
    with engine.api().events(type=["daemon"]) as events:
        engine.write_config({"insecure-registries": [registry.host]})
        engine.signal(signal.SIGHUP)
        events.until("reload", "daemon")
    pulled(engine.api(), f"{registry.host}/app")


# Tokens.


class TokenServer:
    """Makes a registry demand tokens for one scope, which only alice gets."""

    def __init__(self, registry, scope):
        self.registry, self.scope, self.asked = registry, scope, []
        registry.intercept = self._answer

    def _answer(self, request):
        if not request.path.startswith("/token"):
            if request.headers.get("Authorization") == "Bearer good":
                return False
            challenge = f'Bearer realm="http://{self.registry.host}/token",service="tests"'
            if request.path != "/v2/":
                challenge += f',scope="{self.scope}"'
            return request.reply(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                                 WWW_Authenticate=challenge, Content_Type="application/json")
        query = parse_qs(urlsplit(request.path).query)
        self.asked.append(query)
        if request.headers.get("Authorization") != "Basic " + base64.b64encode(b"alice:s3cret").decode():
            return request.reply(401, {"details": "incorrect username or password"}, Content_Type="application/json")
        granted = query.get("scope") in (None, [self.scope])
        return request.reply(200, {"token": "good" if granted else "narrow", "expires_in": 300},
                             Content_Type="application/json")


def test_a_token_is_fetched_for_the_scope_of_the_pull(api, fake):
    registry = fake()
    registry.serve("team/app", "1", an_image())
    tokens = TokenServer(registry, "repository:team/app:pull")
    pulled(api, f"{registry.host}/team/app", auth={"username": "alice", "password": "s3cret"})
    assert tokens.asked[0]["scope"] == ["repository:team/app:pull"]
    assert tokens.asked[0]["service"] == ["tests"] and tokens.asked[0]["account"] == ["alice"]
    assert {headers.get("Authorization") for headers in registry.headers("/blobs/")} == {"Bearer good"}
    assert not [path for path in registry.paths() if "s3cret" in path]


def test_a_wrong_password_at_the_token_server_is_told(api, fake):
    registry = fake()
    registry.serve("team/app", "1", an_image())
    TokenServer(registry, "repository:team/app:pull")
    reply = pull(api, f"{registry.host}/team/app", auth={"username": "alice", "password": "wrong"})
    assert reply.status in (401, 500) and reply.message.endswith("unauthorized: incorrect username or password")
    assert f"{registry.host}/team/app:1" not in names(api)


def test_docker_login_with_a_token_server(docker, fake):
    registry = fake()
    registry.serve("team/app", "1", an_image())
    TokenServer(registry, "repository:team/app:pull")
    bad = docker("login", "-u", "alice", "--password-stdin", registry.host, input="wrong")
    assert bad.returncode == 1 and "unauthorized: incorrect username or password" in bad.stderr
    good = docker("login", "-u", "alice", "--password-stdin", registry.host, input="s3cret")
    assert "Login Succeeded" in good.stdout, good.stderr
    docker("pull", f"{registry.host}/team/app:1", check=True)
    docker("logout", registry.host, check=True)


# What a registry does on the way.


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_redirect_to_another_host_takes_no_password_along(api, fake, kind):
    registry, storage = fake(), fake(ip="127.0.0.2")
    image = an_image()
    registry.serve("app", "1", image)
    storage.serve("app", "1", image)
    guard = TokenServer(registry, "repository:app:pull")
    expected = "Bearer good" if kind == "bearer" else "Basic " + base64.b64encode(b"alice:s3cret").decode()

    def answer(request):
        if kind == "bearer":
            if guard._answer(request):
                return True
        elif request.headers.get("Authorization") != expected:
            return request.reply(401, WWW_Authenticate='Basic realm="tests"')
        if "/blobs/" in request.path:
            return request.reply(307, Location=f"http://{storage.host}{request.path}")
        return False

    registry.intercept = answer
    pulled(api, f"{registry.host}/app", auth={"username": "alice", "password": "s3cret"})
    assert {headers["Authorization"] for headers in registry.headers("/blobs/")} == {expected}
    assert image.layer_digest() in "".join(storage.paths("/blobs/"))
    assert not [headers for headers in storage.headers() if "Authorization" in headers]


@pytest.mark.parametrize("answer_to_range", ["206", "200"])
def test_a_dropped_connection_is_resumed(api, fake, answer_to_range):
    registry = fake()
    image = an_image("resumed", 2_000_000)
    registry.serve("app", "1", image)
    dropped = []

    def answer(request):
        if not request.path.endswith(image.layer_digest()):
            return False
        if not dropped:
            dropped.append(True)
            request.reply_partly(image.layers[0], 1_000_000)
            return request.hang_up()
        if answer_to_range == "200":
            return request.reply(200, image.layers[0])
        return False

    registry.intercept = answer
    pulled(api, f"{registry.host}/app")
    ranges = [headers.get("Range") for headers in registry.headers(image.layer_digest())]
    assert ranges[0] is None and ranges[1].startswith("bytes=")
    if answer_to_range == "206":
        # What has arrived is not fetched again.
        assert len(ranges) == 2 and 0 < int(ranges[1][6:-1]) <= 1_000_000
    assert api.ok("GET", f"/images/{registry.host}/app:1/json").json()["Size"] > 2_000_000


def contents(engine):
    """Every file with image data; the database is not."""
    found = (os.path.join(at, name) for at, _, files in os.walk(engine.data_root) for name in files)
    unfinished = str(engine.data_root / "tmp") + "/"  # what is removed goes through there, in the background
    return sorted(path for path in found if ".db" not in os.path.basename(path) and not path.startswith(unfinished))


def test_a_pull_from_a_registry_that_stalls_can_be_given_up(configured, fake):
    engine = configured()
    registry = fake()
    image = an_image("stalled", 2_000_000)
    registry.serve("app", "1", image)
    before = contents(engine)
    stall = Stall(registry, image)
    connection, response = engine.api().open("POST", "/images/create", {"fromImage": f"{registry.host}/app", "tag": "1"})
    try:
        while json.loads(response.readline())["status"] != "Downloading":
            pass
    finally:
        response.close()
        connection.close()
    assert stall.gone.wait(120), "the engine went on to wait for the registry"
    assert names(engine.api()) == ["busybox:latest"]
    if engine.kind == "gantry":
        # A daemon that stops keeps what it has for the next one: it must have given the pull up before.
        deadline = time.monotonic() + 60
        while any((engine.data_root / "content/partial").iterdir()):
            assert time.monotonic() < deadline, "the bytes of a pull that was given up are still there"
            time.sleep(0.02)
        engine.stop()
        # Of the layer nothing is left; the image's documents, which had arrived, are there until the next clean-up.
        assert sum(os.path.getsize(path) for path in set(contents(engine)) - set(before)) < 10_000
        engine.start()
        engine.api().ok("POST", "/images/prune")
        assert contents(engine) == before
    registry.intercept = None
    pulled(engine.api(), f"{registry.host}/app")


def test_docker_pull_can_be_interrupted(terminal, engine, fake):
    registry = fake()
    image = an_image("interrupted", 2_000_000)
    registry.serve("app", "1", image)
    stall = Stall(registry, image)
    client = terminal("pull", f"{registry.host}/app:1")
    client.read_until("Downloading [====")
    client.process.send_signal(signal.SIGINT)
    assert client.wait() != 0
    assert stall.gone.wait(120)
    assert names(engine.api()) == ["busybox:latest"]


@pytest.mark.parametrize("part", ["layer", "config"])
def test_other_bytes_than_the_manifest_says_are_refused(configured, fake, part):
    engine = configured(config={"max-download-attempts": 1})
    registry = fake()
    image = an_image()
    registry.serve("app", "1", image)
    good = image.config if part == "config" else image.layers[0]
    digest = next(name for name, blob in registry.blobs.items() if blob == good)
    registry.blobs[digest] = good[:-1] + bytes([good[-1] ^ 1])
    before = contents(engine)
    text = problem(pull(engine.api(), f"{registry.host}/app"))
    assert "verification failed" in text, text
    assert names(engine.api()) == ["busybox:latest"]
    registry.blobs[digest] = good
    pulled(engine.api(), f"{registry.host}/app")
    if engine.kind == "gantry":
        engine.api().ok("DELETE", f"/images/{registry.host}/app:1")
        engine.api().ok("POST", "/images/prune")
        engine.stop()
        assert contents(engine) == before


def test_another_manifest_than_the_digest_says_is_refused(api, fake):
    registry = fake()
    image, other = an_image(), an_image("other")
    registry.serve("app", "1", image)
    registry.serve("app", "2", other)
    registry.manifests["app", image.digest] = registry.manifests["app", "2"]
    text = problem(pull(api, f"{registry.host}/app", image.digest))
    assert "verification failed" in text, text
    assert names(api) == ["busybox:latest"]


# What is picked, and what is shown.


def test_of_an_index_the_platform_is_picked(api, docker, fake):
    registry = fake()
    ours = an_image("ours")
    foreign = Image({"greeting": b"foreign"}, architecture="s390x")
    index = registry.serve_index("app", "1", foreign, ours)
    statuses = pulled(api, f"{registry.host}/app")
    assert f"Digest: {index}" in statuses
    assert api.ok("GET", f"/images/{registry.host}/app:1/json").json()["Architecture"] == ours.architecture
    assert registry.paths(ours.layer_digest()) and not registry.paths(foreign.layer_digest())
    docker("pull", "--platform", "linux/s390x", f"{registry.host}/app:1", check=True)
    assert registry.paths(foreign.layer_digest())
    missing = docker("pull", "--platform", "linux/ppc64le", f"{registry.host}/app:1")
    assert missing.returncode == 1
    assert "no matching manifest for linux/ppc64le in the manifest list entries" in missing.stderr


def test_docker_pull_prints_what_it_does(docker, fake):
    registry = fake()
    image = Image({"one": b"1"}, {"two": b"2"})
    registry.serve("app", "1", image)
    name = f"{registry.host}/app:1"
    lines = docker("pull", name, check=True).stdout.splitlines()
    assert lines[0] == "1: Pulling from app"
    assert lines[-3:] == [f"Digest: {image.digest}", f"Status: Downloaded newer image for {name}", name]
    for number in range(2):
        own = [line.split(": ")[1] for line in lines if line.startswith(image.short(number))]
        assert own == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
    complete = [line for line in lines if line.endswith("Pull complete")]
    assert complete == [f"{image.short(0)}: Pull complete", f"{image.short(1)}: Pull complete"]
    again = docker("pull", name, check=True).stdout.splitlines()
    assert again == ["1: Pulling from app", f"Digest: {image.digest}", f"Status: Image is up to date for {name}", name]
    assert docker("pull", "-q", name, check=True).stdout == name + "\n"


def test_a_layer_that_is_here_is_told(docker, fake):
    registry = fake()
    first = Image({"one": b"1"})
    second = Image({"one": b"1"}, {"two": b"2"})
    registry.serve("app", "1", first)
    registry.serve("app", "2", second)
    docker("pull", f"{registry.host}/app:1", check=True)
    lines = docker("pull", f"{registry.host}/app:2", check=True).stdout.splitlines()
    assert f"{first.short()}: Already exists" in lines and f"{second.short(1)}: Pull complete" in lines
    assert len(registry.paths(first.layer_digest())) == 1
