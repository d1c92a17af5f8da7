"""A random mix of pull, load, tag, commit, rm, prune and run; kill -9 at a random moment; the store is whole after it.

GANTRY_STORE_ROUNDS=200 is the long run; GANTRY_STORE_SEED another mix.
"""

import http.client
import os
import random
import sqlite3
import subprocess
import threading

import pytest

from harness import images, leaks
from harness.fake_registry import FakeRegistry, Image

pytestmark = [pytest.mark.gantry_only, pytest.mark.slow]  # dockerd does not survive it
ROUNDS = int(os.environ.get("GANTRY_STORE_ROUNDS", "20"))
SEED = int(os.environ.get("GANTRY_STORE_SEED", "1"))


class Mix:
    """Verbs on one engine, and what the engine has acknowledged of them."""

    def __init__(self, engine, registry, seed):
        self.engine, self.registry, self.rng = engine, registry, random.Random(seed)
        self.tags = {"busybox:latest"}  # acknowledged
        self.doubtful = set()  # begun, and not answered: there or not
        self.containers, self.doubtful_containers = set(), set()
        self.number = 0
        self.layers = [{f"shared-{n}": random.Random(n).randbytes(200_000)} for n in range(4)]
        for n in range(4):
            registry.serve("mix", str(n), Image(images.busybox_files(), *self.layers[: n + 1]))

    def api(self):
        return self.engine.api(timeout=20)

    def name(self, kind):
        self.number += 1
        return f"{kind}-{self.number}:1"

    def made(self, tag, verb):
        self.doubtful.add(tag)
        if verb():
            self.doubtful.discard(tag)
            self.tags.add(tag)

    def gone(self, tag, verb):
        self.tags.discard(tag)
        self.doubtful.add(tag)
        if verb():
            self.doubtful.discard(tag)

    # The verbs. Each says whether it was acknowledged.

    def pull(self):
        tag = f"{self.registry.host}/mix:{self.rng.randrange(4)}"
        self.made(tag, lambda: "Status" in str(self.api().post("/images/create", {"fromImage": tag}).lines()[-1]))

    def load(self):
        tag = self.name("load")
        layers = [images.layer(each) for each in self.rng.sample(self.layers, 2)]
        layers.append(images.layer({f"own-{self.number}": self.rng.randbytes(100_000)}))
        data = images.archive([tag], layers)
        self.made(tag, lambda: b"Loaded image: " in self.api().post(
            "/images/load", data=data, headers={"Content-Type": "application/x-tar"}).body)

    def tag(self):
        tag = self.name("tag")
        source = self.rng.choice(sorted(self.tags))
        self.made(tag, lambda: self.api().post(f"/images/{source}/tag", {"repo": tag[:-2], "tag": "1"}).status == 201)

    def commit(self):
        tag = self.name("commit")
        if self.containers:
            container = self.rng.choice(sorted(self.containers))
            self.made(tag, lambda: self.api().post("/commit", {"container": container, "repo": tag[:-2], "tag": "1"},
                                                   body={}).status == 201)

    def remove(self):
        doomed = sorted(self.tags - {"busybox:latest"})
        if doomed:
            tag = self.rng.choice(doomed)
            self.gone(tag, lambda: self.api().delete(f"/images/{tag}", {"force": 1}).status == 200)

    def prune(self):
        self.api().post("/images/prune", {"filters": '{"dangling":["true"]}'})

    def run(self):
        name = f"run-{self.number}-{self.rng.randrange(10 ** 9)}"
        self.doubtful_containers.add(name)
        api = self.api()
        container = api.create(Cmd=["sh", "-c", f"dd if=/dev/urandom of=/file bs=1k count=50; echo {name}"], name=name)
        self.doubtful_containers.discard(name)
        self.containers.add(name)
        api.start(container)
        api.wait(container, timeout=20)

    def remove_container(self):
        if self.containers:
            name = self.rng.choice(sorted(self.containers))
            self.containers.discard(name)
            self.doubtful_containers.add(name)
            if self.api().delete(f"/containers/{name}", {"force": 1, "v": 1}).status == 204:
                self.doubtful_containers.discard(name)

    def act_until(self, over):
        verbs = [self.pull, self.load, self.load, self.tag, self.commit, self.remove, self.remove, self.prune, self.run,
                 self.remove_container]
        while not over.is_set():
            try:
                self.rng.choice(verbs)()
            except (OSError, ValueError, AssertionError, http.client.HTTPException):
                if not over.is_set() and self.engine.process is None:
                    return


def check(engine, mix):
    """Rows, blobs, directories, mounts and names agree, and nothing that was acknowledged is lost."""
    api = engine.api()
    listed = api.ok("GET", "/images/json", {"all": 1}).json()
    # A removal that was cut short may have taken the names only.
    tags = {tag for each in listed for tag in each["RepoTags"]} - {"<none>:<none>"}
    assert mix.tags <= tags, f"lost: {mix.tags - tags}"
    assert tags <= mix.tags | mix.doubtful, f"from nowhere: {tags - mix.tags - mix.doubtful}"
    mix.tags, mix.doubtful = tags, set()
    names = {name[1:] for each in api.ok("GET", "/containers/json", {"all": 1}).json() for name in each["Names"]}
    assert mix.containers <= names <= mix.containers | mix.doubtful_containers
    doubtful = mix.doubtful_containers
    mix.containers, mix.doubtful_containers = names - doubtful, names & doubtful

    with sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True) as db:
        rows = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in (
            "images", "image_manifests", "image_names", "blobs", "layers", "containers")}
    blobs = {row[0][7:]: row[1] for row in rows["blobs"]}
    files = {each.name: each.stat().st_size for each in (engine.data_root / "content/blobs/sha256").iterdir()}
    assert blobs == files
    ids = {row[0] for row in rows["images"]}
    assert {row[0] for row in rows["image_manifests"]} <= ids and {row[1] for row in rows["image_names"]} <= ids
    assert {each["Id"] for each in listed} == ids and {each[7:] for each in ids} <= set(blobs)
    assert {row[0][7:] for row in rows["layers"]} == {each.name for each in (engine.data_root / "layers").iterdir()}
    # A creation or a removal that was cut short may have left the row alone.
    directories = {each.name for each in (engine.data_root / "containers").iterdir()}
    assert directories <= {row[0] for row in rows["containers"]}
    assert {row[1] for row in rows["containers"] if row[0] not in directories} <= doubtful
    assert not list((engine.data_root / "tmp").iterdir())


def settle(engine):
    """What a start sweeps goes in the background."""
    for _ in range(1000):
        if not list((engine.data_root / "tmp").iterdir()):
            return
        threading.Event().wait(0.01)


def doctor(engine):
    command = [each for each in engine.command() if each != "-D"]
    return subprocess.run([*command, "doctor"], capture_output=True, text=True, env=engine.env()).stdout


def files_of(engine):
    own = "state.db"  # and what goes with it
    return sorted(str(each.relative_to(engine.data_root)) for each in engine.data_root.rglob("*")
                  if not each.name.startswith(own) and "init" not in each.parts)


@pytest.mark.deadline(60 + 12 * ROUNDS)
def test_the_store_is_whole_after_every_kill(fresh, busybox_tar):
    engine = fresh(start=False)
    engine.start()
    empty = files_of(engine)
    with FakeRegistry() as registry:
        from conftest import load

        load(engine, busybox_tar)
        mix = Mix(engine, registry, SEED)
        for round_ in range(ROUNDS):
            over = threading.Event()
            thread = threading.Thread(target=mix.act_until, args=(over,))
            thread.start()
            threading.Event().wait(mix.rng.uniform(0.05, 1.5))
            process, over_now = engine.process, over.set
            over_now()
            process.kill()
            process.wait()
            engine.process = None
            thread.join()
            engine.start()
            settle(engine)
            check(engine, mix)
        assert "PROBLEM" not in doctor(engine), doctor(engine)
        api = engine.api()
        container = api.run("echo fine")
        assert api.wait(container) == 0
        for each in api.ok("GET", "/containers/json", {"all": 1}).json():
            api.remove(each["Id"])  # one may still run
        for path, query in (("/containers/prune", {}), ("/images/prune", {"filters": '{"dangling":["false"]}'}),
                            ("/volumes/prune", {"filters": '{"all":["true"]}'})):
            api.ok("POST", path, query)
        assert api.ok("GET", "/images/json").json() == []
        settle(engine)
        left = set(files_of(engine)) - set(empty)
        assert not left, left
        assert not leaks.report(engine, leaks.mounts(engine)), leaks.report(engine)


def rows_of(engine):
    with sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True) as db:
        return {table: set(db.execute(f"SELECT * FROM {table}")) for table in (
            "images", "image_manifests", "image_names", "blobs", "layers")}


@pytest.mark.parametrize("verb", ["rm", "prune"])
def test_a_removal_is_one_transaction(fresh, verb):
    """Names, images, layers and blobs go at once; the files after that."""
    engine = fresh()
    sound = rows_of(engine)
    for number in range(3):
        archive = images.archive(["gone:1"], [images.layer({"number": bytes([number])})])
        engine.api().ok("POST", "/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    engine.stop()
    engine.environment = {"GANTRY_FAILPOINTS": "image.remove.after_rows@2=kill"}  # the first is the sweep of the start
    engine.start()
    with pytest.raises((OSError, http.client.HTTPException)):
        if verb == "rm":
            for each in engine.api().ok("GET", "/images/json").json():
                if each["RepoTags"] != ["busybox:latest"]:
                    engine.api().delete(f"/images/{each['Id']}", {"force": 1})
                    break
        else:
            engine.api().post("/images/prune", {"filters": '{"dangling":["true"]}'})
    engine.process.wait()
    engine.process = None
    left = rows_of(engine)
    assert len(left["images"] - sound["images"]) == (2 if verb == "rm" else 1)
    files = {each.name for each in (engine.data_root / "content/blobs/sha256").iterdir()}
    assert len(files) > len(left["blobs"])
    engine.environment = {}
    engine.start()
    settle(engine)
    assert rows_of(engine) == left
    assert {row[0][7:] for row in left["blobs"]} == {each.name for each in (engine.data_root / "content/blobs/sha256").iterdir()}
    assert {row[0][7:] for row in left["layers"]} == {each.name for each in (engine.data_root / "layers").iterdir()}
    configs = 2 * len(left["images"])
    assert len(left["blobs"]) == configs + len(left["layers"])
