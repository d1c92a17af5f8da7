"""A data root filled to the last byte: what is refused leaves nothing, the rest goes on, space makes it well again."""

import contextlib
import json
import os
import random
import subprocess
import threading

import pytest

from conftest import load
from harness import images

pytestmark = [pytest.mark.gantry_only, pytest.mark.slow]  # dockerd does not promise any of it
SIZE = 400 << 20


@contextlib.contextmanager
def small_disk(directory, image, size=SIZE, kind="ext4", options="loop", features=""):
    directory.mkdir(parents=True, exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run([f"mkfs.{kind}", "-q", *(["-O", features] if features else []), image], check=True)
    subprocess.run(["mount", "-o", options, image, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=False)


@pytest.fixture
def engine(fresh, scratch, busybox_tar):
    engine = fresh(start=False)
    with small_disk(engine.data_root, scratch / "disk.img"):
        engine.start()
        load(engine, busybox_tar)
        yield engine
        engine.destroy()


def fill(engine, name="ballast"):
    """To the last byte, for root too; again, while the engine gives back what it could not finish."""
    file = engine.data_root / name
    for _ in range(100):
        for piece in (1 << 20, 512):
            with contextlib.suppress(OSError), open(file, "ab", buffering=0) as handle:
                while True:
                    handle.write(bytes(piece))
        more = file.with_name("more")
        try:
            more.write_bytes(bytes(4096))
        except OSError:
            return file
        finally:
            more.unlink(missing_ok=True)
    raise AssertionError("the disk does not stay full")


def try_load(api, archive):
    """True if the engine acknowledges it. One that refuses may not read it to its end."""
    try:
        reply = api.post("/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    except OSError:
        return False
    assert (b"Loaded image: " in reply.body) != (b"errorDetail" in reply.body or reply.status >= 400), reply.body
    return b"Loaded image: " in reply.body


def kept(engine):
    """What is there apart from the filling and the database's own files."""
    return {str(each.relative_to(engine.data_root)) for part in ("content", "layers", "containers", "volumes", "tmp")
            for each in (engine.data_root / part).glob("*" if part != "content" else "**/*")}


def await_kept(engine, wanted):
    for _ in range(6000):
        if kept(engine) == wanted:
            return
        threading.Event().wait(0.01)
    assert kept(engine) == wanted


def test_what_a_full_disk_refuses_leaves_nothing_and_the_rest_goes_on(engine):
    api = engine.api()
    running = api.run("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done", name="running")
    stopped = api.run("true", name="stopped")
    api.wait(stopped)
    api.wait_for_log(running, "3\n")
    before, known = kept(engine), api.ok("GET", "/images/json").json()
    ballast = fill(engine)

    archive = images.archive(["big:1"], [images.layer({"noise": random.Random(5).randbytes(5 << 20)})])
    assert not try_load(api, archive)
    # Each is refused and leaves nothing, or needs so little that it is done.
    created = api.post("/containers/create", {"name": "new"}, body={"Image": "busybox", "Cmd": ["true"]})
    volume = api.post("/volumes/create", body={"Name": "volume"})
    committed = api.post("/commit", {"container": running, "repo": "committed"}, body={})
    for reply, undo in ((created, "/containers/new"), (volume, "/volumes/volume"), (committed, "/images/committed")):
        assert api.delete(undo).status == (404 if reply.status >= 400 else 204 if "images" not in undo else 200), reply
    await_kept(engine, before)
    assert api.ok("GET", "/images/json").json() == known

    # Reads, and what makes room or stops.
    assert api.state(running)["Running"] and api.logs(running)
    assert {each["Names"][0] for each in api.ok("GET", "/containers/json", {"all": 1}).json()} == {"/running", "/stopped"}
    api.ok("GET", "/info")
    api.ok("GET", "/system/df")
    api.ok("POST", f"/containers/{running}/stop", {"t": 0})
    assert not api.state(running)["Running"]
    assert api.delete(f"/containers/{stopped}").status == 204
    api.ok("POST", "/containers/prune")
    api.ok("POST", "/images/prune", {"filters": json.dumps({"dangling": ["false"]})})
    assert api.ok("GET", "/containers/json", {"all": 1}).json() == []

    ballast.unlink()
    load(engine, images.busybox_archive())
    again = api.run("echo well")
    assert api.wait(again) == 0 and b"well" in api.logs(again)


def test_a_daemon_that_starts_on_a_full_disk_serves_and_recovers(engine):
    api = engine.api()
    container = api.run("sleep 1000", name="running")
    ballast = fill(engine)
    engine.kill()
    engine.start()
    assert api.state(container)["Running"]
    api.ok("POST", f"/containers/{container}/kill")
    api.wait(container)
    assert api.delete(f"/containers/{container}").status == 204
    ballast.unlink()
    again = api.run("echo well")
    assert api.wait(again) == 0


def test_under_load_nothing_is_lost_when_the_disk_fills_and_empties(engine):
    """Loads, runs and removals go on while the disk is filled and emptied; what was acknowledged is there at the end."""
    stop, acknowledged, failures = threading.Event(), set(), []

    def work(number):
        api, rng, round_ = engine.api(), random.Random(number), 0
        while not stop.is_set():
            round_ += 1
            tag = f"load-{number}-{round_}:1"
            archive = images.archive([tag], [images.layer({"noise": rng.randbytes(2 << 20)})])
            try:
                if try_load(api, archive):
                    acknowledged.add(tag)
                if acknowledged and rng.random() < 0.4:
                    doomed = rng.choice(sorted(acknowledged))
                    if doomed.startswith(f"load-{number}-"):
                        acknowledged.discard(doomed)
                        api.delete(f"/images/{doomed}", {"force": 1})
            except (OSError, AssertionError) as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            threading.Event().wait(1)
            ballast = fill(engine)
            threading.Event().wait(1)
            ballast.unlink()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    api = engine.api()
    tags = {tag for each in api.ok("GET", "/images/json").json() for tag in each["RepoTags"]}
    assert acknowledged <= tags, acknowledged - tags
    engine.restart()
    assert {tag for each in api.ok("GET", "/images/json").json() for tag in each["RepoTags"]} == tags
    assert acknowledged, "nothing was loaded at all"


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_a_data_root_that_cannot_be_used_is_explained(fresh, scratch, how):
    from harness.engine import EngineFailed

    engine = fresh(start=False)
    with small_disk(engine.data_root, scratch / "disk.img", 32 << 20):
        if how == "full":
            fill(engine)
        else:
            subprocess.run(["mount", "-o", "remount,ro", engine.data_root], check=True)
        with pytest.raises(EngineFailed):
            engine.start()
        wanted = "full" if how == "full" else "read-only"
        assert wanted in engine.log_tail() and str(engine.data_root) in engine.log_tail(), engine.log_tail()
        engine.process = None


@pytest.mark.parametrize("what", ["without d_type", "an overlay itself"])
def test_a_file_system_that_overlayfs_cannot_use_is_explained(fresh, scratch, what):
    from harness.engine import EngineFailed

    engine = fresh(start=False)
    with contextlib.ExitStack() as stack:
        if what == "without d_type":
            stack.enter_context(small_disk(engine.data_root, scratch / "disk.img", 64 << 20, "ext4", "loop", "^filetype"))
        else:
            engine.data_root.mkdir()
            parts = [scratch / each for each in ("lower", "upper", "work")]
            for part in parts:
                part.mkdir()
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir={},upperdir={},workdir={}".format(*parts),
                            engine.data_root], check=True)
            stack.callback(subprocess.run, ["umount", "-l", engine.data_root])
        with pytest.raises(EngineFailed):
            engine.start()
        assert f"containers cannot be stored in {engine.data_root}" in engine.log_tail(), engine.log_tail()
        engine.process = None
