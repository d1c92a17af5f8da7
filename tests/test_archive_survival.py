"""Transfers of files, and what becomes of the engine meanwhile."""

import os
import time

import pytest

from harness import leaks
from test_archive import get, head, put, silent_reader, tar_of

pytestmark = pytest.mark.gantry_only


def test_the_engine_stops_and_crashes_in_the_middle_of_transfers(fresh):
    engine = fresh()
    api = engine.api()
    container = api.create(host={"Binds": ["vol:/vol"]})
    put(api, container, "/", tar_of([("big", b"x" * (32 << 20))]))
    idle = leaks.mounts(engine)
    for end in (engine.stop, engine.kill):
        readers = [silent_reader(engine, container, "/big") for _ in range(3)]
        begin = time.monotonic()
        end()
        assert time.monotonic() - begin < 60
        for reader in readers:
            reader.close()
        engine.start()
        assert leaks.mounts(engine) == idle
        assert head(api, container, "/big")[0] == 200
    api.start(container)
    api.wait(container)
    assert api.remove(container).status == 204
    assert leaks.mounts(engine) == idle


def test_memory_stays_flat(fresh):
    engine = fresh()
    api = engine.api()
    container = api.create()
    put(api, container, "/", tar_of([("warm", b"x" * (8 << 20))]))
    get(api, container, "/warm")
    before = resident(engine)
    docker = engine.docker
    blob = engine.root / "blob"
    blob.write_bytes(os.urandom(1 << 20) * 256)
    docker("cp", str(blob), f"{container}:/blob", check=True)
    docker("cp", f"{container}:/blob", str(engine.root / "back"), check=True)
    assert resident(engine) - before < 48 << 20


def resident(engine):
    """The engine's own memory in bytes, at its peak."""
    status = open(f"/proc/{engine.process.pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) << 10
