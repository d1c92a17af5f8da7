"""docker buildx, Debian 13's 0.13, against the engine's own builder."""

import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time

import pytest

from harness import clients

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks half of what this client asks for


class Buildx:
    def __init__(self, engine, directory):
        self.engine = engine
        self.directory = directory
        self.env = {**engine.client_env(), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

    def __call__(self, *args, code=0, input=b"", cwd=None, env=None):
        result = subprocess.run([str(clients.buildx()), *map(str, args)], env={**self.env, **(env or {})}, input=input,
                                capture_output=True, timeout=200, cwd=cwd or self.directory)
        out, err = result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
        assert code is None or result.returncode == code, f"{args} gave {result.returncode}:\n{out}\n{err}"
        result.out, result.err = out, err
        return result

    def context(self, files, name="context"):
        root = self.directory / name
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        root.mkdir(exist_ok=True)
        return root

    def build(self, files, *args, name="context", **options):
        return self("build", "--progress=plain", *args, self.context(files, name), **options)


@pytest.fixture
def buildx(engine, clean, scratch):
    yield Buildx(engine, scratch)
    # buildx falls back to a builder in a container, without a word, if the engine's own does not answer it.
    assert "buildx" not in engine.docker("ps", "-a").stdout


def cat(engine, image, path):
    return engine.docker("run", "--rm", image, "cat", path, check=True).stdout


def test_looks_at_the_builder(buildx):
    assert "running" in buildx("ls").out
    inspected = buildx("inspect", "default").out
    assert "Driver: docker" in " ".join(inspected.split()) and "linux/" in inspected


def test_builds_an_image_and_says_what_it_does(buildx, engine):
    files = {"Dockerfile": "FROM busybox\nWORKDIR /w\nCOPY a.txt b.txt ./\nRUN cat a.txt b.txt > c.txt && echo said\n"
                           "ENV K=v\nCMD [\"cat\", \"c.txt\"]\n", "a.txt": "A", "b.txt": "B"}
    result = buildx.build(files, "-t", "one", "-t", "localhost:5000/two:tag")
    assert engine.docker("run", "--rm", "one", check=True).stdout == "AB"
    for line in ("[internal] load build definition from Dockerfile", "[internal] load metadata for docker.io/library/busybox",
                 "[internal] load build context", "[3/4] COPY a.txt b.txt ./", "[4/4] RUN cat a.txt b.txt", "said",
                 "exporting to image", "naming to docker.io/library/one", "naming to localhost:5000/two:tag"):
        assert line in result.err, result.err
    image = engine.api().ok("GET", "/images/localhost:5000/two:tag/json").json()
    assert "K=v" in image["Config"]["Env"] and image["Config"]["WorkingDir"] == "/w"
    again = buildx.build(files, "-t", "one")
    assert again.err.count("CACHED") >= 3


def test_only_what_changed_is_sent_again(buildx):
    files = {"Dockerfile": "FROM scratch\nCOPY . /\n", "big": "x" * 3_000_000, "small": "1"}
    buildx.build(files)
    second = buildx.build({"small": "2"})  # the others stay as they are
    sent = [line for line in second.err.splitlines() if "transferring context:" in line]
    assert sent and not any("MB" in line for line in sent), second.err


def test_ignores_what_dockerignore_says(buildx, engine):
    files = {"Dockerfile": "FROM busybox\nCOPY . /c/\n", ".dockerignore": "*.log\n!keep.log\n", "a.log": "", "keep.log": "",
             "b": ""}
    buildx.build(files, "-t", "ignoring")
    assert engine.docker("run", "--rm", "ignoring", "ls", "/c", check=True).stdout.split() == ["Dockerfile", "b", "keep.log"]


def test_writes_ids_and_metadata(buildx, engine):
    files = {"Dockerfile": "FROM busybox\nLABEL a=b\n"}
    iid, metadata = buildx.directory / "iid", buildx.directory / "metadata.json"
    buildx.build(files, "-t", "known", "--iidfile", iid, "--metadata-file", metadata)
    image = engine.api().ok("GET", "/images/known/json").json()
    assert iid.read_text() == image["Id"]
    written = json.loads(metadata.read_text())
    assert written["containerimage.config.digest"] == image["Id"]
    assert written["image.name"] == "docker.io/library/known:latest"
    quiet = buildx("build", "-q", buildx.directory / "context")
    assert quiet.out.strip() == image["Id"]


def test_progress_as_json(buildx):
    result = buildx("build", "--progress=rawjson", buildx.context({"Dockerfile": "FROM busybox\nRUN echo raw\n"}))
    messages, rest = [], result.err[result.err.index("{"):]
    while rest := rest.lstrip():
        message, end = json.JSONDecoder().raw_decode(rest)
        messages.append(message)
        rest = rest[end:]
    names = {vertex["name"] for message in messages for vertex in message.get("vertexes") or []}
    assert "[2/2] RUN echo raw" in names


def test_exports_to_a_directory_and_to_a_tarball(buildx):
    files = {"Dockerfile": "FROM busybox AS base\nRUN mkdir /o && echo x > /o/f && ln -s f /o/l && chmod 600 /o/f\n"
                           "FROM scratch\nCOPY --from=base /o /out/\n"}
    place = buildx.directory / "result"
    buildx.build(files, "-o", f"type=local,dest={place}")
    assert (place / "out/f").read_text() == "x\n" and os.readlink(place / "out/l") == "f"
    assert (place / "out/f").stat().st_mode & 0o777 == 0o600
    buildx.build(files, "-o", f"type=tar,dest={place}.tar")
    with tarfile.open(f"{place}.tar") as archive:
        assert sorted(archive.getnames()) == ["out", "out/f", "out/l"]
    streamed = buildx("build", "-o", "-", buildx.directory / "context")
    with tarfile.open(fileobj=io.BytesIO(streamed.stdout)) as archive:
        assert archive.extractfile("out/f").read() == b"x\n"


def test_two_outputs_of_one_build(buildx, engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo both > /f\n"}
    place = buildx.directory / "both"
    buildx.build(files, "-o", "type=docker,name=both", "-o", f"type=local,dest={place}")
    assert cat(engine, "both", "/f") == (place / "f").read_text() == "both\n"


def test_a_failure_shows_the_lines(buildx):
    result = buildx.build({"Dockerfile": "FROM busybox\nRUN echo about to fail >&2; exit 7\n"}, code=1)
    assert 'process "/bin/sh -c echo about to fail >&2; exit 7" did not complete successfully: exit code: 7' in result.err
    assert "Dockerfile:2" in result.err and ">>> RUN echo about to fail" in result.err
    missing = buildx.build({"Dockerfile": "FROM busybox\nCOPY nothing /\n"}, code=1)
    assert '"/nothing": not found' in missing.err
    parse = buildx.build({"Dockerfile": "FROM busybox\nBAD\n"}, code=1)
    assert "unknown instruction: BAD" in parse.err
    target = buildx.build({"Dockerfile": "FROM busybox AS build\n"}, "--target", "bulid", code=1)
    assert "could not be found" in target.err


def test_arguments_labels_and_targets(buildx, engine):
    files = {"Dockerfile": "ARG base=nothing\nFROM ${base} AS one\nARG word\nRUN echo $word > /word\nFROM one AS two\n"
                           "RUN false\n"}
    buildx.build(files, "-t", "args", "--build-arg", "base=busybox", "--build-arg", "word=said", "--label", "l=1",
                 "--target", "one")
    assert cat(engine, "args", "/word") == "said\n"
    assert engine.api().ok("GET", "/images/args/json").json()["Config"]["Labels"]["l"] == "1"


def test_secrets_reach_the_step_and_nothing_else(buildx, engine):
    files = {"Dockerfile": "FROM busybox\n"
                           "RUN --mount=type=secret,id=file cat /run/secrets/file | tr a-z A-Z > /seen\n"
                           "RUN --mount=type=secret,id=env,target=/elsewhere cat /elsewhere >> /seen\n"
                           "RUN --mount=type=secret,id=none ls /run/secrets >> /seen 2>/dev/null || true\n"}
    (buildx.directory / "secret").write_text("whisper\n")
    buildx.build(files, "-t", "secretive", "--secret", f"id=file,src={buildx.directory / 'secret'}", "--secret",
                 "id=env,env=TOKEN", env={"TOKEN": "token\n"})
    assert cat(engine, "secretive", "/seen") == "WHISPER\ntoken\n"
    assert engine.docker("run", "--rm", "secretive", "sh", "-c", "ls -d /run/secrets /elsewhere 2>/dev/null; true",
                         check=True).stdout == ""
    missing = buildx.build({"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=gone,required=true true\n"}, code=1)
    assert "secret gone: not found" in missing.err


def test_an_agent_is_forwarded(buildx, engine):
    """The bytes are the business of the unit tests of session/: busybox has nobody to talk to a unix socket."""
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.bind(str(buildx.directory / "agent"))
    agent.listen()
    files = {"Dockerfile": "FROM busybox\nRUN --mount=type=ssh,uid=7,gid=8,mode=0620 "
                           "test -S $SSH_AUTH_SOCK && ls -ln $SSH_AUTH_SOCK > /answer\n"}
    buildx.build(files, "-t", "agent", "--ssh", f"default={buildx.directory / 'agent'}")
    agent.close()
    kind, _, uid, gid = cat(engine, "agent", "/answer").split()[:4]
    assert (kind, uid, gid) == ("srw--w----", "7", "8")
    missing = buildx.build({"Dockerfile": "FROM busybox\nRUN --mount=type=ssh,required=true true\n"}, code=1)
    assert "no SSH key" in missing.err


def test_cache_mounts_last_from_build_to_build(buildx, engine):
    files = "FROM busybox\nARG run\nRUN --mount=type=cache,target=/c echo $run >> /c/log && cp /c/log /log\n"
    for run in ("1", "2", "3"):
        buildx.build({"Dockerfile": files}, "-t", "cached", "--build-arg", f"run={run}")
    assert cat(engine, "cached", "/log") == "1\n2\n3\n"
    assert "c" not in engine.docker("run", "--rm", "cached", "ls", "/", check=True).stdout.split()
    assert "exec.cachemount" in buildx("du", "--verbose").out


def test_usage_and_prune(buildx):
    buildx.build({"Dockerfile": "FROM busybox\nRUN echo usage > /u\n"})
    assert "Total:" in buildx("du").out
    buildx("prune", "-f", "--filter", "type=source.local")
    buildx("prune", "-af")
    left = buildx("du", "--verbose").out
    assert "exec /bin/sh -c echo usage" not in left


def test_contexts_with_names(buildx, engine):
    other = buildx.context({"f": "from elsewhere"}, "other")
    files = {"Dockerfile": "FROM base\nCOPY --from=other f /f\n"}
    buildx.build(files, "-t", "named", "--build-context", f"other={other}", "--build-context", "base=docker-image://busybox")
    assert cat(engine, "named", "/f") == "from elsewhere"


def test_a_dockerfile_and_a_context_on_standard_input(buildx, engine):
    buildx("build", "-t", "stdin", "-f", "-", buildx.context({"a": "A"}), input=b"FROM busybox\nCOPY a /\n")
    assert cat(engine, "stdin", "/a") == "A"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in {"Dockerfile": b"FROM busybox\nCOPY b /\n", "b": b"B"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    buildx("build", "-t", "tarred", "-", input=archive.getvalue())
    assert cat(engine, "tarred", "/b") == "B"
    buildx("build", "-t", "only", "-", input=b"FROM busybox\nRUN echo only > /o\n")
    assert cat(engine, "only", "/o") == "only\n"


def test_bake_builds_targets_that_need_each_other(buildx, engine):
    bake = {"group": {"default": {"targets": ["base", "app"]}},
            "target": {"base": {"context": "base", "tags": ["bake-base"]},
                       "app": {"context": "app", "contexts": {"parent": "target:base"}, "tags": ["bake-app"]}}}
    buildx.context({"Dockerfile": "FROM busybox\nRUN echo base > /base\nENV FROM_BASE=yes\n"}, "base")
    buildx.context({"Dockerfile": "FROM parent\nRUN echo $FROM_BASE > /app\n"}, "app")
    (buildx.directory / "docker-bake.json").write_text(json.dumps(bake))
    buildx("bake", "--progress=plain")
    assert cat(engine, "bake-app", "/app") == "yes\n" and cat(engine, "bake-app", "/base") == "base\n"


def test_bake_shares_a_directory(buildx, engine):
    bake = {"group": {"default": {"targets": ["x", "y"]}},
            "target": {name: {"context": "shared", "args": {"who": name}, "tags": [f"bake-{name}"]} for name in "xy"}}
    buildx.context({"Dockerfile": "FROM busybox\nARG who\nCOPY f /f\nRUN echo $who > /who\n", "f": "shared"}, "shared")
    (buildx.directory / "docker-bake.json").write_text(json.dumps(bake))
    buildx("bake", "--progress=plain")
    for name in "xy":
        assert cat(engine, f"bake-{name}", "/who") == f"{name}\n" and cat(engine, f"bake-{name}", "/f") == "shared"


def test_no_cache_runs_the_steps_again(buildx, engine):
    files = {"Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n"}
    seen = set()
    for extra in ((), (), ("--no-cache",)):
        buildx.build(files, "-t", "again", *extra)
        seen.add(cat(engine, "again", "/id"))
    assert len(seen) == 2


def test_the_docker_client_builds_with_the_plugin(buildx, engine):
    plugins = buildx.directory / "config/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(clients.buildx())
    env = {**engine.client_env(), "DOCKER_CONFIG": str(plugins.parent), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    context = buildx.context({"Dockerfile": "FROM busybox\nRUN echo cli > /f\n"})

    def docker(*args):
        result = subprocess.run([clients.newer_docker(), *map(str, args)], env=env, capture_output=True, text=True, timeout=200,
                                input="")
        assert result.returncode == 0, result.stderr
        return result

    assert "exporting to image" in docker("build", "--progress=plain", "-t", "by-cli", context).stderr
    assert cat(engine, "by-cli", "/f") == "cli\n"
    assert "Total" in docker("builder", "prune", "-af").stdout
    assert docker("buildx", "ls").stdout.count("running") == 1


def test_compose_builds_services_that_share_a_directory(buildx, engine):
    command, environment = clients.compose_2()
    buildx.context({"Dockerfile": "FROM busybox\nARG who\nCOPY f /f\nRUN echo $who > /who\n", "f": "shared",
                    "compose.yaml": "".join(["services:\n", *(f"  {name}:\n    image: composed-{name}\n    build:\n"
                                                              f"      context: .\n      args: {{who: {name}}}\n"
                                                              for name in ("one", "two"))])})
    result = subprocess.run([*command, "--progress=plain", "build"], env={**buildx.env, **environment}, capture_output=True,
                            text=True, timeout=200, cwd=buildx.directory / "context", input="")
    assert result.returncode == 0, result.stderr
    for name in ("one", "two"):
        assert cat(engine, f"composed-{name}", "/who") == f"{name}\n"


def test_an_interrupted_client_ends_the_step(buildx, engine):
    context = buildx.context({"Dockerfile": "FROM busybox\nRUN echo begun; sleep 12347\n"})
    process = subprocess.Popen([str(clients.buildx()), "build", "--progress=plain", str(context)], env=buildx.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for line in process.stderr:
        if b" begun" in line and b"RUN" not in line:
            break
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and sleeps(pid)]
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    assert process.wait(60) != 0
    deadline = time.monotonic() + 60
    while [pid for pid in os.listdir("/proc") if pid.isdigit() and sleeps(pid)]:
        assert time.monotonic() < deadline, "the step still runs"
        time.sleep(0.1)
    buildx.build({"Dockerfile": "FROM busybox\nRUN echo begun again\n"})


def sleeps(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read() == b"sleep\x0012347\x00"
    except OSError:
        return False
