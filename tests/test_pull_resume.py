"""A pull that the daemon's end interrupts goes on where it was; one that its client gives up leaves nothing."""

import json
import random
import sqlite3
import threading

import pytest

from harness.fake_registry import FakeRegistry, Image, digest_of

pytestmark = pytest.mark.gantry_only  # dockerd forgets what it has downloaded when it is killed
SIZE = 8 << 20
HALF = SIZE // 2


class Slow:
    """Serves an image of one large layer, and stops in its middle until it is told to go on."""

    def __init__(self, registry):
        self.image = Image({"noise": random.Random(1).randbytes(SIZE)})
        self.registry, self.halfway, self.go_on = registry, threading.Event(), threading.Event()
        registry.serve("slow", "1", self.image)
        registry.intercept = self._intercept
        self.name = f"{registry.host}/slow:1"

    def _intercept(self, request):
        if self.go_on.is_set() or not request.path.endswith(self.image.layer_digest()) or request.command != "GET":
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.image.layers[0])))
        request.end_headers()
        request.wfile.write(self.image.layers[0][:HALF])
        request.wfile.flush()
        self.halfway.set()
        self.go_on.wait(120)
        raise ConnectionError

    def ranges(self):
        return [headers.get("Range") for headers in self.registry.headers(self.image.layer_digest())]


@pytest.fixture
def slow():
    with FakeRegistry() as registry:
        slow = Slow(registry)
        yield slow
        slow.go_on.set()


def begin_pull(engine, slow):
    def run():
        try:
            engine.api().post("/images/create", {"fromImage": slow.name})
        except (OSError, ValueError):
            pass  # the daemon went away

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert slow.halfway.wait(60)
    return thread


def partial(engine):
    return [each.stat().st_size for each in (engine.data_root / "content/partial").iterdir()]


def await_partial(engine, size):
    """The daemon has written what the registry has sent."""
    for _ in range(6000):
        if partial(engine) == [size]:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{partial(engine)} instead of {size}")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_an_interrupted_pull_goes_on_where_it_was(fresh, slow, end):
    engine = fresh()
    thread = begin_pull(engine, slow)
    await_partial(engine, HALF)
    getattr(engine, end)()
    thread.join()
    slow.go_on.set()
    engine.start()
    lines = engine.api().ok("POST", "/images/create", {"fromImage": slow.name}).lines()
    assert "Downloaded newer image" in lines[-1]["status"]
    assert slow.ranges() == [None, f"bytes={HALF}-"]
    assert partial(engine) == []


def test_what_was_left_and_is_damaged_is_fetched_anew(fresh, slow):
    engine = fresh()
    thread = begin_pull(engine, slow)
    await_partial(engine, HALF)
    engine.kill()
    thread.join()
    file, = (engine.data_root / "content/partial").iterdir()
    file.write_bytes(b"x" * HALF)
    slow.go_on.set()
    engine.start()
    assert "Downloaded newer image" in engine.api().ok("POST", "/images/create", {"fromImage": slow.name}).lines()[-1]["status"]
    assert slow.ranges()[-1] is None and partial(engine) == []


def test_a_pull_that_its_client_gives_up_leaves_nothing(fresh, slow):
    engine = fresh()
    api = engine.api()
    connection, reply = api.open("POST", "/images/create", {"fromImage": slow.name})
    assert slow.halfway.wait(60)
    await_partial(engine, HALF)
    reply.close()
    connection.close()
    await_nothing(engine)
    assert [image["RepoTags"] for image in api.ok("GET", "/images/json").json()] == [["busybox:latest"]]


def row_is_there(engine, digest):
    with sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True) as db:
        return db.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone() is not None


def await_nothing(engine):
    for _ in range(6000):
        if partial(engine) == [] and not list((engine.data_root / "tmp").iterdir()):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"left: {partial(engine)} {list((engine.data_root / 'tmp').iterdir())}")


def test_prune_removes_what_nobody_resumes(fresh, slow):
    engine = fresh()
    thread = begin_pull(engine, slow)
    await_partial(engine, HALF)
    engine.kill()
    thread.join()
    engine.start()
    report = engine.api().ok("POST", "/images/prune", {"filters": json.dumps({"dangling": ["true"]})}).json()
    assert report["SpaceReclaimed"] >= HALF and partial(engine) == []


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_layers_that_were_complete_are_not_fetched_again(fresh, end):
    engine = fresh()
    with FakeRegistry() as registry:
        slow = Slow(registry)
        complete = {"first": random.Random(2).randbytes(1 << 20)}
        slow.image = Image(complete, {"noise": random.Random(1).randbytes(SIZE)})
        slow.image.layers.reverse()  # the one that stops is to be layers[0] of Slow
        slow.image.layer_digest = lambda number=0: digest_of(slow.image.layers[number])
        registry.serve("slow", "1", slow.image)
        thread = begin_pull(engine, slow)
        await_partial(engine, HALF)
        first = slow.image.layers[1]
        stored = engine.data_root / "content/blobs/sha256" / digest_of(first)[7:]
        for _ in range(6000):
            if row_is_there(engine, digest_of(first)):
                break
            threading.Event().wait(0.01)
        assert stored.exists()
        getattr(engine, end)()
        thread.join()
        slow.go_on.set()
        engine.start()
        assert sorted(partial(engine)) == sorted([len(first), HALF])
        lines = engine.api().ok("POST", "/images/create", {"fromImage": slow.name}).lines()
        assert "Downloaded newer image" in lines[-1]["status"]
        assert slow.ranges() == [None, f"bytes={HALF}-"] and len(registry.headers(digest_of(first))) == 1
        assert partial(engine) == []
