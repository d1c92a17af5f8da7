"""The classic builder: `POST /build` without BuildKit, as `docker build` without buildx and every SDK use it."""

import gzip
import json
import re
import subprocess

import pytest

from harness.builds import build, built, context, masked, text


@pytest.fixture(autouse=True)
def without_images(engine):
    yield
    api = engine.api()
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"])
    for image in api.ok("GET", "/images/json").json():
        if "busybox:latest" not in (image["RepoTags"] or []):
            api.delete(f"/images/{image['Id']}", {"force": 1})


def run(api, image, script):
    container = api.create(image=image, Cmd=["sh", "-c", script], Entrypoint=[])
    api.start(container)
    code = api.wait(container)
    return code, api.logs(container).decode()


def failure(api, dockerfile, files=(), **query):
    last = build(api, dockerfile, files, **query)[-1]
    assert "errorDetail" in last, last
    return last["errorDetail"].get("code"), last["errorDetail"]["message"]


def test_the_stream_tells_every_step(api):
    lines = build(api, "ARG V=1\nFROM busybox AS base\nENV A=$V\nRUN echo hello\n"
                       "RUN echo bad >&2\nCOPY f /f\nCMD [\"true\"]\n",
                  {"f": "x"}, t="made:one", rm=1)
    assert masked(lines) == (
        "Step 1/7 : ARG V=1\nStep 2/7 : FROM busybox AS base\n ---> ID\n"
        "Step 3/7 : ENV A=$V\n ---> Running in ID\nRemoving intermediate container ID\n ---> ID\n"
        "Step 4/7 : RUN echo hello\n ---> Running in ID\nhello\nRemoving intermediate container ID\n ---> ID\n"
        "Step 5/7 : RUN echo bad >&2\n ---> Running in ID\n\x1b[91mbad\n\x1b[0m"
        "Removing intermediate container ID\n ---> ID\n"
        "Step 6/7 : COPY f /f\n ---> ID\n"
        "Step 7/7 : CMD [\"true\"]\n ---> Running in ID\nRemoving intermediate container ID\n ---> ID\n"
        "Successfully built ID\nSuccessfully tagged made:one\n")
    shown = api.ok("GET", "/images/made:one/json").json()
    assert [line["aux"]["ID"] for line in lines if "aux" in line][-1] == shown["Id"]
    assert shown["Config"]["Cmd"] == ["true"]


def test_a_second_build_is_cached_and_the_same(api):
    dockerfile = "FROM busybox\nENV A=1\nRUN echo x > /x\nCOPY f /f\nLABEL l=1\n"
    first = built(api, dockerfile, {"f": "1"})
    lines = build(api, dockerfile, {"f": "1"})
    assert text(lines).count(" ---> Using cache") == 4
    assert [line["aux"]["ID"] for line in lines if "aux" in line][-1] == first
    changed = build(api, dockerfile, {"f": "2"})
    assert text(changed).count(" ---> Using cache") == 2
    assert " ---> Using cache" not in text(build(api, dockerfile, {"f": "1"}, nocache=1))


def test_what_is_built_runs(api):
    image = built(api, "FROM busybox\nARG WHO=me\nENV GREETING=hi\nWORKDIR /w/x\nRUN echo $GREETING $WHO > said\n"
                       "ADD --chown=1:2 d /d/\nUSER 5\nENTRYPOINT [\"cat\"]\nCMD [\"said\"]\n",
                  {"d/a": "A", "d/b/c": "C"}, buildargs=json.dumps({"WHO": "you"}))
    assert run(api, image, "cat said; stat -c '%u %g' /d/a; cat /d/b/c; id -u; pwd") == (0, "hi you\n1 2\nC5\n/w/x\n")
    container = api.create(image=image, Cmd=None)
    api.start(container)
    assert api.wait(container) == 0 and api.logs(container) == b"hi you\n"


def test_stages_share_files_and_targets_stop(api):
    dockerfile = ("FROM busybox AS one\nRUN echo 1 > /one\nFROM busybox AS two\nCOPY --from=one /one /copied\n"
                  "COPY --from=0 /one /again\nFROM two\nRUN false\n")
    image = built(api, dockerfile, target="two")
    assert run(api, image, "cat /copied /again") == (0, "1\n1\n")
    reply = api.post("/build", {"target": "nope"}, data=context(dockerfile))
    assert reply.status == 400 and "nope" in reply.json()["message"]


def test_a_failed_command_has_its_exit_code(api):
    assert failure(api, "FROM busybox\nRUN exit 3\n") == (
        3, "The command '/bin/sh -c exit 3' returned a non-zero code: 3")
    code, message = failure(api, "FROM busybox\nRUN [\"/bin/sh\",\"-c\",\"exit 4\"]\n")
    assert (code, message) == (4, "The command '/bin/sh -c exit 4' returned a non-zero code: 4")


def test_a_missing_file_is_named(api):
    code, message = failure(api, "FROM busybox\nCOPY nope /x\n")
    assert message == ("COPY failed: file not found in build context or excluded by .dockerignore: stat nope: "
                       "file does not exist")


@pytest.mark.parametrize("dockerfile, text", [
    ("FROM busybox\nBAD x\n", "line 2: unknown instruction: BAD"),
    ("FROM busybox\nRUN --foo=1 x\n", "unknown flag"),
    ("RUN x\n", "no build stage in current context"),
])
def test_errors_of_the_file_come_before_the_stream(api, dockerfile, text):
    reply = api.post("/build", {}, data=context(dockerfile))
    assert reply.status == 400, reply
    assert text.lower() in reply.json()["message"].lower()


@pytest.mark.gantry_only  # dockerd 20.10 breaks the connection off
def test_a_file_without_stages(api):
    reply = api.post("/build", {}, data=context("ARG x\n"))
    assert (reply.status, reply.json()["message"]) == (400, "dockerfile contains no stages to build")


def test_a_dockerfile_that_is_not_there(api):
    reply = api.post("/build", {"dockerfile": "other"}, data=context("FROM busybox\n"))
    assert reply.status >= 400 and "Cannot locate specified Dockerfile: other" in reply.json()["message"]
    reply = api.post("/build", {"dockerfile": "../x"}, data=context("FROM busybox\n"))
    assert reply.status >= 400


@pytest.mark.parametrize("owner", ["nobody-here", "0:nobody-here"])
def test_an_unknown_owner_is_refused(api, owner):
    message = failure(api, f"FROM busybox\nCOPY --chown={owner} f /f\n", {"f": "x"})[1]
    assert "nobody-here" in message and "no such" in message


def test_labels_and_unused_arguments(api):
    lines = build(api, "FROM busybox\n", labels=json.dumps({"b": "2", "a": "1"}), buildargs=json.dumps({"X": "1"}), t="made")
    assert "Step 2/3 : LABEL a=1\n" in text(lines) and "Step 3/3 : LABEL b=2\n" in text(lines)
    assert "[Warning] One or more build-args [X] were not consumed" in text(lines)
    assert api.ok("GET", "/images/made/json").json()["Config"]["Labels"] == {"a": "1", "b": "2"}


def test_quiet_builds_say_the_image_only(api):
    lines = build(api, "FROM busybox\nRUN echo loud\n", q=1)
    assert len(lines) == 1 and re.fullmatch(r"sha256:[0-9a-f]{64}\n", lines[0]["stream"])
    failed = build(api, "FROM busybox\nRUN echo loud; false\n", q=1)
    assert "loud" in text(failed) and failed[-1]["errorDetail"]["code"] == 1


def test_compressed_contexts_and_other_names(api):
    reply = api.post("/build", {"dockerfile": "sub/D", "t": "made"},
                     data=gzip.compress(context("FROM busybox\nCOPY sub/D /D\n", name="sub/D")))
    assert reply.status == 200 and "errorDetail" not in reply.lines()[-1]
    assert run(api, "made", "cat /D")[1] == "FROM busybox\nCOPY sub/D /D\n"


def test_ignored_files_that_were_sent_for_the_daemon_are_not_copied(api):
    image = built(api, "FROM busybox\nCOPY . /c/\n", {".dockerignore": "Dockerfile\n.dockerignore\n", "f": "1"})
    assert run(api, image, "ls -A /c") == (0, "f\n")


def test_networks_hosts_and_limits(api):
    assert "lo" in text(build(api, "FROM busybox\nRUN ls /sys/class/net\n", networkmode="none"))
    assert "eth0" not in text(build(api, "FROM busybox\nRUN ls /sys/class/net\n", networkmode="none", nocache=1))
    out = text(build(api, "FROM busybox\nRUN grep own /etc/hosts; df -k /dev/shm | tail -n1; ulimit -n\n",
                     extrahosts="own:1.2.3.4", shmsize=8 << 20,
                     ulimits=json.dumps([{"Name": "nofile", "Soft": 77, "Hard": 88}])))
    assert "1.2.3.4" in out and "8192" in out and "77\n" in out


def test_onbuild_triggers_run_in_the_child(api):
    built(api, "FROM busybox\nONBUILD RUN echo triggered > /t\nONBUILD ENV O=1\n", t="parent")
    lines = build(api, "FROM parent\nRUN cat /t\n", t="child")
    assert "# Executing 2 build triggers\n" in text(lines) and "triggered\n" in text(lines)
    config = api.ok("GET", "/images/child/json").json()["Config"]
    assert "O=1" in config["Env"] and not config.get("OnBuild")


def test_history_reads_as_the_classic_builder_writes_it(api):
    built(api, "FROM busybox\nENV A=1\nRUN true\nLABEL a=b\nCMD [\"x\"]\n", t="made")
    history = [item["CreatedBy"] for item in api.ok("GET", "/images/made/history").json()]
    assert history[:4] == ["/bin/sh -c #(nop)  CMD [\"x\"]", "/bin/sh -c #(nop)  LABEL a=b", "/bin/sh -c true",
                           "/bin/sh -c #(nop)  ENV A=1"]


def test_what_needs_buildkit_says_so(api):
    message = failure(api, "FROM busybox\nRUN --mount=type=tmpfs,target=/x true\n")[1]
    assert message.startswith("the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/")


def test_squash_is_experimental(api):
    reply = api.post("/build", {"squash": 1}, data=context("FROM busybox\n"))
    assert (reply.status, reply.json()["message"]) == (400, "squash is only supported with experimental mode")


def test_the_command_line_client_builds(engine, api, scratch):
    directory = scratch / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN cat /f; exit 7\n")
    (directory / "f").write_text("content\n")
    env = {**engine.client_env(), "DOCKER_BUILDKIT": "0"}
    failed = subprocess.run(["docker", "build", "-t", "made", str(directory)], env=env, capture_output=True, text=True)
    assert failed.returncode == 7 and "returned a non-zero code: 7" in failed.stderr
    (directory / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN cat /f\n")
    done = subprocess.run(["docker", "build", "-t", "made", "--iidfile", str(scratch / "id"), str(directory)], env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "content" in done.stdout and "Successfully tagged made:latest" in done.stdout
    assert (scratch / "id").read_text() == api.ok("GET", "/images/made/json").json()["Id"]
