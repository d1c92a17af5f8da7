"""`mode=non-blocking`: whatever the log's disk does, the container goes on, and whole lines are lost instead."""

import contextlib
import os
import select
import threading
from pathlib import Path

import pytest

from test_log_drivers import logging

# dockerd behaves so, too, but refuses a log file in which it cannot seek.
pytestmark = pytest.mark.gantry_only

_LINE = 100
_PRINT_10_MB = f"yes {'x' * (_LINE - 1)} | head -n 100000; echo done"


@contextlib.contextmanager
def disk_that_takes_nothing(path):
    """In place of the log file: a pipe that nobody reads. Yields what begins to read it, and then gives what came."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    came, stop = bytearray(), threading.Event()

    def drain():
        while not stop.is_set():
            if select.select([end], [], [], 0.1)[0]:
                came.extend(os.read(end, 1 << 20))

    reader = threading.Thread(target=drain)

    def begin():
        reader.start()
        return came

    yield begin
    stop.set()
    if reader.ident:
        reader.join()
    while select.select([end], [], [], 1)[0]:  # whoever still writes into it ends
        os.read(end, 1 << 20)
    os.close(end)


def test_a_disk_that_takes_nothing_does_not_hold_the_container_up(api):
    container = api.create(Cmd=["sh", "-c", _PRINT_10_MB + "; exec sleep 1000"],
                           host=logging("json-file", mode="non-blocking", max_buffer_size="300k"))
    path = Path(api.inspect(container)["LogPath"])
    with disk_that_takes_nothing(path) as begin_to_read:
        with api.hijack(f"/containers/{container}/attach", {"stdout": 1, "stream": 1}) as output:
            api.start(container)
            output.read_until(b"done\n")
        # The daemon's questions are answered meanwhile, too.
        assert api.state(container)["Running"]
        came = begin_to_read()
        api.ok("POST", f"/containers/{container}/kill")
        assert api.wait(container) == 137
    lines = bytes(came).splitlines()
    # What had room is all there, in whole lines; the rest is not.
    assert 1000 < len(lines) < 50_000
    assert {line.split(b'"stream"')[0] for line in lines[:-1]} <= {b'{"log":"' + b"x" * (_LINE - 1) + b'\\n",',
                                                                  b'{"log":"done\\n",'}
    api.remove(container)


def test_the_end_does_not_wait_for_ever(api):
    container = api.create(Cmd=["sh", "-c", _PRINT_10_MB], host=logging("json-file", mode="non-blocking"))
    path = Path(api.inspect(container)["LogPath"])
    with disk_that_takes_nothing(path):
        api.start(container)
        assert api.wait(container) == 0
        api.remove(container)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_disk_that_keeps_up_loses_nothing(api, driver):
    """The end of the container is the end of its log; rotation and compression go on as without it."""
    container = api.run("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line-$i; done",
                        host=logging(driver, mode="non-blocking", max_size="20k", max_file="50", compress="true"))
    assert api.wait(container) == 0
    assert api.logs(container).split() == [b"line-%d" % n for n in range(1, 3001)]
    api.start(container)
    assert api.wait(container) == 0
    assert len(api.logs(container).split()) == 6000
    api.remove(container)


def test_its_writer_is_started_again(engine, api):
    container = api.run("i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.05; done",
                        host=logging("json-file", mode="non-blocking"))
    path = api.inspect(container)["LogPath"]
    api.wait_for_log(container, "line-3\n")
    killed = _writer_of(path)
    os.kill(killed, 9)
    api.wait_for_log(container, "line-60\n")
    assert _writer_of(path) != killed
    api.remove(container)


def _writer_of(path):
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "exe").resolve().name == "gantry-log" and any(
                    os.readlink(fd) == path for fd in (process / "fd").iterdir()):
                return int(process.name)
    raise AssertionError(f"no process writes {path}")
