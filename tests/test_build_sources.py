"""What builds fetch: files of the web, repositories, contexts from elsewhere. With docker buildx."""

import functools
import hashlib
import http.server
import io
import os
import re
import subprocess
import tarfile
import threading

import pytest

from harness import clients

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks half of what this client asks for


class Web(http.server.BaseHTTPRequestHandler):
    """Files from a table, repositories by git's own backend."""

    def answer(self):
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/git/"):
            return self.answer_git()
        body, headers = self.server.files.get(self.path, (None, {}))
        status = 404 if body is None else 200
        if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
            status = 304
        body = body if status == 200 else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_git(self):
        path, _, query = self.path[len("/git"):].partition("?")
        if self.server.token and self.headers.get("Authorization") != self.server.token:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=git")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.repositories), "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_CONFIG_COUNT": "1",
               "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, body = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def web(scratch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.files, server.requests, server.token, server.repositories = {}, [], None, scratch
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.1), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Trees:
    def __init__(self, engine, directory):
        self.directory = directory
        self.env = {**engine.client_env(), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        self.root = directory / "context"
        self.root.mkdir()

    def build(self, dockerfile, *args, context=None, code=0, input=None):
        """path -> "mode uid:gid content" and times; what was printed if it is to fail."""
        if dockerfile is not None:
            (self.root / "Dockerfile").write_text(dockerfile)
        command = [str(clients.buildx()), "build", "--progress=plain", "--output=type=tar,dest=-", *map(str, args),
                   str(context or self.root)]
        result = subprocess.run(command, env=self.env, input=input, capture_output=True, timeout=200, cwd=self.directory)
        shown = result.stderr.decode(errors="replace")
        assert result.returncode == code, f"{result.returncode}:\n{shown}"
        self.shown = shown
        if code:
            return shown
        self.times, made = {}, {}
        with tarfile.open(fileobj=io.BytesIO(result.stdout)) as archive:
            for entry in archive:
                self.times[entry.name.strip("/")] = entry.mtime
                if entry.isfile():
                    text = archive.extractfile(entry).read().decode(errors="replace")
                    made[entry.name.strip("/")] = f"{entry.mode & 0o7777:04o} {entry.uid}:{entry.gid} {text}"
        return made


@pytest.fixture
def trees(engine, clean, scratch):
    return Trees(engine, scratch)


def git(directory, *args):
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
           "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    return subprocess.run(["git", "-c", "protocol.file.allow=always", *map(str, args)], cwd=directory, env=env, check=True,
                          capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(scratch):
    """<scratch>/repo.git with the tag v1 and the branch main."""
    work = scratch / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY one /one\n")
    (work / "one").write_text("1")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "-a", "v1", "-m", "v1")
    (work / "sub").mkdir()
    (work / "one").write_text("2")
    (work / "sub/Dockerfile").write_text("FROM scratch\nCOPY deep /deep\n")
    (work / "sub/deep").write_text("d")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "second")
    git(scratch, "clone", "-q", "--bare", work, "repo.git")
    return scratch / "repo.git"


def test_files_of_the_web(trees, web):
    web.files["/dir/file.txt"] = b"content", {"ETag": '"v1"', "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
    web.files["/"] = b"root", {}
    dockerfile = f"FROM scratch\nADD {web.url}/dir/file.txt /a/\nADD --chmod=0755 --chown=5:6 {web.url}/dir/file.txt /named\nADD {web.url}/ /b/\n"
    made = trees.build(dockerfile)
    assert made["a/file.txt"] == "0600 0:0 content" and made["named"] == "0755 5:6 content"
    assert made["b/__unnamed__"] == "0600 0:0 root"
    assert trees.times["a/file.txt"] == 784111777
    assert all(re.match("buildkit/v", headers["User-Agent"]) for _, _, headers in web.requests)
    del web.requests[:]
    assert trees.build(dockerfile) == made
    assert [method for method, path, _ in web.requests if path == "/dir/file.txt"] == ["HEAD"]
    web.files["/dir/file.txt"] = b"changed", {"ETag": '"v2"'}
    assert trees.build(dockerfile)["a/file.txt"] == "0600 0:0 changed"


def test_an_archive_of_the_web_stays_one(trees, web):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("inside"), io.BytesIO(b""))
    web.files["/t.tar"] = buffer.getvalue(), {}
    made = trees.build(f"FROM scratch\nADD {web.url}/t.tar /a/\nADD --unpack {web.url}/t.tar /b/\n")
    assert "a/t.tar" in made and "b/inside" in made and "a/inside" not in made


def test_checksums(trees, web):
    web.files["/f"] = b"content", {}
    right = "sha256:" + hashlib.sha256(b"content").hexdigest()
    line = "FROM scratch\nADD --checksum={} " + web.url + "/f /f\n"
    assert trees.build(line.format(right))["f"] == "0600 0:0 content"
    assert "digest mismatch" in trees.build(line.format("sha256:" + "0" * 64), code=1)
    assert "unsupported digest algorithm" in trees.build(line.format("md5:" + "0" * 32), code=1)
    assert "invalid checksum digest format" in trees.build(line.format("sha256"), code=1)
    (trees.root / "f").write_text("")
    assert "checksum requires HTTP(S) or Git sources" in trees.build(f"FROM scratch\nADD --checksum={right} f /f\n", code=1)


def test_what_the_web_does_not_have(trees, web):
    assert "invalid response status 404" in trees.build(f"FROM scratch\nADD {web.url}/none /f\n", code=1)
    web.files["/to-file"] = b"", {"Location": "file:///etc/passwd"}
    assert "passwd" not in trees.build(f"FROM scratch\nADD {web.url}/to-file /f\n").get("f", "")


def test_a_context_of_the_web(trees, web):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in {"Dockerfile": "FROM scratch\nCOPY x /x\n", "x": "from tar"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    web.files["/context.tgz"] = buffer.getvalue(), {}
    web.files["/Dockerfile"] = b"FROM scratch\nCOPY <<E /inline\ntext\nE\n", {"Content-Type": "text/plain"}
    assert trees.build(None, context=web.url + "/context.tgz") == {"x": "0644 0:0 from tar"}
    assert trees.build(None, context=web.url + "/Dockerfile") == {"inline": "0644 0:0 text\n"}


def test_a_context_from_standard_input(trees):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in {"Dockerfile": "FROM scratch\nCOPY x /x\n", "x": "from stdin"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    assert trees.build(None, context="-", input=buffer.getvalue()) == {"x": "0644 0:0 from stdin"}
    assert trees.build(None, context="-", input=b"FROM scratch\nCOPY <<E /y\ny\nE\n") == {"y": "0644 0:0 y\n"}


def test_a_context_of_a_repository(trees, web, repository):
    url = web.url + "/git/repo.git"
    assert trees.build(None, context=url) == {"one": "0644 0:0 2"}
    assert trees.build(None, context=url + "#v1") == {"one": "0644 0:0 1"}
    assert trees.build(None, context=url + "#main:sub") == {"deep": "0644 0:0 d"}
    assert trees.build(None, context=url + "#" + git(repository, "rev-parse", "HEAD")) == {"one": "0644 0:0 2"}
    assert "does not contain ref none" in trees.build(None, context=url + "#none", code=1)


def test_repositories_are_added(trees, web, repository):
    url = web.url + "/git/repo.git"
    head = git(repository, "rev-parse", "HEAD")
    made = trees.build(f"# syntax=docker/dockerfile:1-labs\nFROM scratch\nADD {url} /latest\nADD {url}#v1 /first\n"
                       f"ADD --keep-git-dir {url}#main /kept\nADD --checksum={head} {url}#main /checked\n")
    assert made["latest/one"].endswith(" 2") and made["first/one"].endswith(" 1") and made["checked/one"].endswith(" 2")
    assert "latest/.git/HEAD" not in made and "kept/.git/HEAD" in made and made["kept/one"].endswith(" 2")
    assert "expected checksum to match" in trees.build(
        f"# syntax=docker/dockerfile:1-labs\nFROM scratch\nADD --checksum={'0' * 40} {url}#main /x\n", code=1)


def test_a_repository_that_wants_an_account(trees, web, repository):
    web.token = "basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l"  # x-access-token:sesame
    url = web.url + "/git/repo.git"
    assert "sesame" not in trees.build(None, context=url, code=1)
    (trees.directory / "token").write_text("sesame")
    assert trees.build(None, f"--secret=id=GIT_AUTH_TOKEN,src={trees.directory / 'token'}", context=url) == {"one": "0644 0:0 2"}


def test_submodules(trees, web, repository, scratch):
    work = scratch / "outer"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    git(work, "submodule", "--quiet", "add", repository, "inner")
    text = (work / ".gitmodules").read_text()
    (work / ".gitmodules").write_text(re.sub(r"url = .*", f"url = {web.url}/git/repo.git", text))
    (work / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "outer")
    git(scratch, "clone", "-q", "--bare", work, "outer.git")
    made = trees.build(None, context=web.url + "/git/outer.git")
    assert made["inner/one"] == "0644 0:0 2" and not any(".git/" in path or path.endswith(".git") for path in made)


@pytest.mark.parametrize("kind", ["directory", "image", "other stage"])
def test_named_contexts(trees, kind):
    other = trees.directory / "other"
    other.mkdir()
    (other / "file").write_text("named")
    if kind == "directory":
        made = trees.build("FROM scratch\nCOPY --from=more /file /f\n", f"--build-context=more={other}")
        assert made["f"] == "0644 0:0 named"
    elif kind == "image":
        made = trees.build("FROM scratch\nCOPY --from=more /bin/busybox /b\n", "--build-context=more=docker-image://busybox")
        assert "b" in made
    else:
        made = trees.build("FROM busybox AS base\nRUN echo stage > /file\nFROM scratch\nCOPY --from=base /file /f\n",
                           f"--build-context=base={other}")
        assert made["f"] == "0644 0:0 named"
