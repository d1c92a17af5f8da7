"""What a build finds again in the build cache, and how that is listed, limited and removed. With docker buildx."""

import json
import os
import re
import subprocess
import time

import pytest

from harness import clients, memory
from harness.cached_builds import Builds

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks the half of what this client asks for


@pytest.fixture
def builds(engine, clean, scratch):
    made = Builds(engine, scratch)
    made.client("prune", "-a", "-f")
    return made


def identity(engine, image):
    return engine.api().ok("GET", f"/images/{image}/json").json()["Id"]


def test_nothing_changed(builds, engine):
    files = {"Dockerfile": "FROM busybox\nWORKDIR /w\nCOPY a .\nRUN cat a > b\nRUN true\n", "a": "text"}
    assert not any(cached for step, cached in builds.build(files, "-t", "one").items() if not step.startswith("FROM"))
    first = identity(engine, "one")
    again = builds.build(files, "-t", "one")
    assert all(cached for step, cached in again.items() if not step.startswith("FROM")), again
    assert identity(engine, "one") == first
    engine.restart()
    again = builds.build(files, "-t", "one")
    assert all(cached for step, cached in again.items() if not step.startswith("FROM")), again
    assert identity(engine, "one") == first


def test_times_do_not_count_but_modes_and_contents_do(builds):
    files = {"Dockerfile": "FROM busybox\nCOPY d /d/\nRUN echo after\n", "d/a": "text"}
    place = builds.directory / "context/d/a"

    def cached():
        steps = builds.build(files)
        assert steps["COPY d /d/"] == steps["RUN echo after"], steps
        return steps["COPY d /d/"]

    assert not cached()
    os.utime(place, (1, 1))
    assert cached()
    place.chmod(0o755)
    assert not cached()
    place.chmod(0o644)
    assert cached(), "as it was the first time"
    files["d/a"] = "texu"
    assert not cached()
    files["d/b"] = "new"
    assert not cached()


def test_only_what_is_copied_counts(builds):
    files = {"Dockerfile": "FROM busybox\nCOPY *.txt /t/\nCOPY sub /s/\n", "a.txt": "a", "sub/x": "x", "other": "1"}
    builds.build(files)
    files["other"] = "2"
    assert all(cached for step, cached in builds.build(files).items() if step.startswith("COPY"))
    root = builds.directory / "context"
    (root / "a.txt").rename(root / "b.txt")
    del files["a.txt"]
    steps = builds.build(files)
    assert not steps["COPY *.txt /t/"], "the name is another"


def test_a_stage_that_makes_the_same_keeps_its_users(builds):
    def dockerfile(how):
        return {"Dockerfile": f"FROM busybox AS one\nRUN {how} > /out\nFROM busybox AS two\nCOPY --from=one /out /in\n"
                              "RUN cat /in > /out\nFROM busybox\nCOPY --from=two /out /last\nRUN cat /last\n"}

    builds.build(dockerfile("echo same"))
    steps = builds.build(dockerfile("printf 'same\\n'"))
    assert not steps["RUN printf 'same\\n' > /out"]
    assert all(cached for step, cached in steps.items() if step.startswith("COPY") or "cat" in step), steps
    steps = builds.build(dockerfile("echo other"))
    assert not any(cached for step, cached in steps.items() if step.startswith(("COPY", "RUN"))), steps


def test_arguments_count_where_they_are_known(builds):
    files = {"Dockerfile": "FROM busybox\nRUN echo before\nARG which=none\nRUN echo after\n"}
    builds.build(files)
    steps = builds.build(files, "--build-arg", "which=other")
    assert steps["RUN echo before"] and not steps["RUN echo after"]
    steps = builds.build(files, "--build-arg", "http_proxy=http://nowhere", "--build-arg", "NO_PROXY=here")
    assert steps["RUN echo before"] and steps["RUN echo after"], "proxies are nobody's input"


def test_no_cache(builds):
    files = {"Dockerfile": "FROM busybox AS s0\nRUN cat /proc/sys/kernel/random/uuid > /a\n"
                           "FROM busybox AS s1\nRUN cat  /proc/sys/kernel/random/uuid > /b\n"
                           "FROM busybox\nCOPY --from=s0 /a /\nCOPY --from=s1 /b /\n"}

    def contents(*args):
        builds.build(files, "-t", "two", *args)
        return builds.cat("two", "/a"), builds.cat("two", "/b")

    first = contents()
    assert contents() == first
    second = contents("--no-cache-filter", "s1")
    assert second[0] == first[0] and second[1] != first[1]
    third = contents("--no-cache")
    assert third[0] != first[0] and third[1] != second[1]
    assert contents() == third, "what was made without the cache is in it"


def test_equal_steps_of_two_builds_run_once(builds):
    files = {"Dockerfile": "FROM busybox\nRUN sleep 5; cat /proc/sys/kernel/random/uuid > /id\n"}
    one, two = builds.context(files, "one"), builds.context(files, "two")
    started = [subprocess.Popen([str(clients.buildx()), "build", "-q", "-t", place.name, str(place)], env=builds.env,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for place in (one, two)]
    for each in started:
        output = each.communicate(timeout=200)[0]
        assert each.returncode == 0, output
    assert builds.cat("one", "/id") == builds.cat("two", "/id")


def test_a_build_that_is_cancelled_leaves_nothing(builds):
    seconds = "98765"
    place = builds.context({"Dockerfile": f"FROM busybox\nRUN touch /half && sleep {seconds}\n"})
    client = subprocess.Popen([str(clients.buildx()), "build", "--progress=plain", str(place)], env=builds.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def sleeping():
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")[:2] == [b"sleep", seconds.encode()]:
                    found.append(entry)
            except OSError:
                pass  # it ended while we looked
        return found

    def wait(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait(sleeping)
    client.kill()
    began = time.monotonic()
    client.wait()
    wait(lambda: not sleeping())
    print(f"ended after {time.monotonic() - began:.2f} s")
    wait(lambda: not [record for record in builds.records("type=regular") if "half" in record["Description"]])
    wait(lambda: all(record["Reclaimable"] == "true" for record in builds.records()))


def test_cache_mounts_are_kept(builds):
    def build(number):
        builds.build({"Dockerfile": "FROM busybox\nRUN --mount=type=cache,target=/c,id=kept "
                                    f"echo {number} >> /c/log; cp /c/log /log\n"}, "-t", "kept")
        return builds.cat("kept", "/log").split()

    assert build(1) == ["1"]
    assert build(2) == ["1", "2"]
    [record] = builds.records("type=exec.cachemount")
    assert record["Mutable"] == "true" and "/c" in record["Description"]
    builds.client("prune", "-f", "--filter", "type=exec.cachemount")
    assert not builds.records("type=exec.cachemount")
    assert build(3) == ["3"]


def test_the_cache_is_listed_and_removed(builds, engine):
    builds.build({"Dockerfile": "FROM busybox\nCOPY a /\nRUN head -c 3000000 /dev/zero > /zeros\n", "a": "x"})
    descriptions = [record["Description"] for record in builds.records()]
    assert any("RUN" in each or "head -c" in each for each in descriptions), descriptions
    assert [record["Type"] for record in builds.records("type=source.local")] == ["source.local"] * len(
        builds.records("type=source.local"))
    total = re.search(r"Total:\s+(\S+)", builds.usage())[1]
    assert total.endswith("MB"), builds.usage()
    # A read does not wait for the builder: it shows what that told last, a moment after a build.
    deadline = time.monotonic() + 30
    while not (shown := engine.api().ok("GET", "/system/df").json()["BuildCache"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shown and all(record["ID"] for record in shown)

    reply = engine.api().ok("POST", "/build/prune", {"filters": json.dumps({"id": ["nosuch"]})}).json()
    assert reply["SpaceReclaimed"] == 0 and not reply["CachesDeleted"]
    reply = engine.api().ok("POST", "/build/prune", {"all": 1}).json()
    assert reply["SpaceReclaimed"] >= 3_000_000 and reply["CachesDeleted"]
    assert not builds.records()


def test_prune_leaves_images_and_their_users(builds, engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo 1 > /f\n"}
    builds.build(files, "-t", "made")
    builds.client("prune", "-a", "-f")
    assert builds.cat("made", "/f") == "1\n"
    builds.build(files, "-t", "made")
    engine.docker("rmi", "made", check=True)
    steps = builds.build(files, "-t", "made")
    assert steps["RUN echo 1 > /f"], "the cache keeps what the image had"
    assert builds.cat("made", "/f") == "1\n"


@pytest.mark.slow
def test_many_builds_leave_nothing_behind(builds, engine):
    files = {"Dockerfile": "FROM busybox\nARG n\nCOPY . /c/\nRUN echo $n > /n\n", "a": "text"}
    builds.build(files, "--build-arg", "n=0", "-t", "many")

    def worker():
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = open(f"/proc/{entry}/cmdline", "rb").read()
                except OSError:
                    continue
                if b"gantry-build" in command and str(engine.root).encode() in command:
                    return int(entry)
        return None

    def act():
        for number in range(10):
            builds.build(files, "--build-arg", f"n={number}", "-t", "many")
        builds.client("prune", "-a", "-f")

    pids = [engine.process.pid] + ([worker()] if worker() else [])
    memory.assert_bounded(pids, act, [1024] * len(pids))
    engine.docker("rmi", "many", check=True)
    builds.client("prune", "-a", "-f")
    assert not builds.records()
    assert not list((engine.data_root / "buildkit/trees").iterdir())
