"""Reading logs back: from every driver, across rotation and compression, and with readers that are too slow."""

import glob
import json
import os
import re
import time
from pathlib import Path

import pytest

from harness.api import read_frame
from harness.log_servers import Server
from test_log_drivers import logging


@pytest.fixture
def sink():
    """A syslog server that nobody looks at."""
    with Server("udp") as server:
        yield server


@pytest.fixture(params=["json-file", "local", "syslog"])
def driver(request, sink):
    """A HostConfig with the driver, and options of one's own."""
    def make(**options):
        address = {"syslog_address": f"udp://{sink.address}"} if request.param == "syslog" else {}
        return logging(request.param, **address, **options)

    return make


# ---- every driver


def test_all_that_a_reader_can_ask_for(api, driver):
    container = api.run("echo one; echo two >&2; sleep 1.2; echo three; printf four", host=driver())
    api.wait(container)
    assert api.logs(container).replace(b"two\n", b"") == b"one\nthree\nfour"
    assert api.logs(container, tail=1) == b"four"
    assert api.logs(container, stdout=0) == b"two\n"
    stamped = api.logs(container, timestamps=1, stderr=0).decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)
    from test_logs import _seconds
    first, second, third, _ = sorted(_seconds(line.split(" ")[0]) for line in api.logs(container, timestamps=1).decode().splitlines())
    middle = f"{(second + third) / 2:.3f}"
    assert api.logs(container, since=middle) == b"three\nfour"
    assert b"three" not in api.logs(container, until=middle)


@pytest.mark.gantry_only  # dockerd 20.10 knows no labels in the driver local, nor in its cache
def test_details_are_kept_by_every_driver(api, driver):
    container = api.run("echo x", Labels={"role": "db"}, host=driver(labels="role"))
    api.wait(container)
    assert api.logs(container, details=1) == b"role=db x\n"


def test_a_follower_sees_the_end(api, driver):
    container = api.run("for i in 1 2 3; do echo $i; sleep 0.2; done", host=driver())
    assert api.logs(container, follow=1) == b"1\n2\n3\n"


def test_attach_replays(api, driver):
    container = api.run("echo before; sleep 30", host=driver())
    api.wait_for_log(container, "before\n")
    with api.hijack(f"/containers/{container}/attach", {"logs": 1, "stdout": 1}) as stream:
        assert stream.read_all().endswith(b"before\n")
    api.remove(container)


def test_only_json_file_shows_its_path(api, driver):
    host = driver()
    container = api.create(host=host, Cmd=["true"])
    api.start(container)
    assert bool(api.inspect(container)["LogPath"]) == (host["LogConfig"]["Type"] == "json-file")


def test_without_a_cache_there_is_nothing_to_read(api, sink):
    container = api.run("echo x", host=logging("syslog", syslog_address=f"udp://{sink.address}", cache_disabled="true"))
    api.wait(container)
    reply = api.get(f"/containers/{container}/logs", {"stdout": 1})
    assert reply.status in (500, 501) and "configured logging driver does not support reading" in reply.message


@pytest.mark.gantry_only  # dockerd 20.10 does not look at the size of its cache
def test_the_cache_is_bounded(engine, api, sink):
    container = api.run("seq 1 30000", host=logging("syslog", syslog_address=f"udp://{sink.address}", cache_max_size="100k",
                                                    cache_max_file="3", cache_compress="false"))
    api.wait(container)
    files = glob.glob(str(engine.data_root / f"containers/{container}/container-cached.log*"))
    assert len(files) == 3 and all(os.path.getsize(file) < 110_000 for file in files)
    assert api.logs(container).endswith(b"\n30000\n")


def test_attributes_are_in_the_json_file(api):
    container = api.run("echo x", name="attrs", Labels={"a.b": "<1>", "c": "2"}, Env=["V=3", "W=4"],
                        host=logging("json-file", labels="c,none", labels_regex="^a", env="V", env_regex="^W", tag="{{.Name}}"))
    api.wait(container)
    entry = json.loads(Path(api.inspect(container)["LogPath"]).read_text())
    assert entry["attrs"] == {"a.b": "<1>", "c": "2", "V": "3", "W": "4", "tag": "attrs"}
    assert api.logs(container, details=1) == b"V=3,W=4,a.b=%3C1%3E,c=2,tag=attrs x\n"


@pytest.mark.gantry_only
def test_json_lines_from_1_54_on(api):
    container = api.run("echo one; printf '\\033[1m<&>'", Labels={"a": "b"}, host=logging("json-file", labels="a"))
    api.wait(container)
    query = {"stdout": 1, "format": "json"}
    reply = api.at("1.54").ok("GET", f"/containers/{container}/logs", query)
    assert reply.headers["Content-Type"] == "application/jsonl"
    first, second = reply.lines()
    assert (first["Line"], first["Source"], second["Line"]) == ("one\n", "stdout", "\x1b[1m<&>")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}(\.\d{1,9})?Z", first["Timestamp"]) and "Attrs" not in first
    detailed = api.at("1.54").ok("GET", f"/containers/{container}/logs", {**query, "details": 1}).lines()
    assert detailed[0]["Attrs"] == [{"Key": "a", "Value": "b"}]
    by_header = api.at("1.54").ok("GET", f"/containers/{container}/logs", {"stdout": 1},
                                  headers={"Accept": "text/html, application/x-ndjson"})
    assert by_header.headers["Content-Type"] == "application/x-ndjson" and by_header.lines() == [first, second]
    assert api.at("1.53").ok("GET", f"/containers/{container}/logs", query).body[:8] == b"\1\0\0\0\0\0\0\4"


# ---- rotation with compression


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize("then", ["exec sleep 1000", "true"])
def test_rotated_files_are_compressed_and_read(api, then):
    """Those too that are not compressed yet when the container ends."""
    container = api.run(f"seq 1 20000; {then}",
                        host=logging("json-file", max_size="200k", max_file="20", compress="true"))
    wait_for(lambda: api.logs(container, tail=1) == b"20000\n")  # a follower of dockerd 20.10 may miss it
    path = api.inspect(container)["LogPath"]
    wait_for(lambda: len(glob.glob(path + ".*.gz")) == len(glob.glob(path + ".*")) > 3)
    assert api.logs(container).split() == [b"%d" % n for n in range(1, 20001)]
    for tail in (3, 5000, 15000):
        assert api.logs(container, tail=tail).split() == [b"%d" % n for n in range(20001 - tail, 20001)]


@pytest.mark.gantry_only  # dockerd 20.10 skips and repeats lines here
def test_a_follower_sees_every_line_once_across_compressing_rotations(api):
    container = api.run("for i in 1 2 3 4 5 6 7 8; do seq ${i}00000 ${i}02000; sleep 0.3; done",
                        host=logging("json-file", max_size="100k", max_file="40", compress="true"))
    lines = api.logs(container, follow=1).split()
    assert lines == [b"%d" % (i * 100000 + n) for i in range(1, 9) for n in range(2001)]


@pytest.mark.gantry_only  # dockerd's local driver has its own format
def test_local_compresses_by_itself(engine, api):
    container = api.run("seq 1 25000; exec sleep 1000", host=logging("local", max_size="500k"))
    api.wait_for_log(container, "25000")
    directory = engine.data_root / "containers" / container
    wait_for(lambda: glob.glob(f"{directory}/container.log.*.gz") and not glob.glob(f"{directory}/container.log.[0-9]"))
    assert api.logs(container).split() == [b"%d" % n for n in range(1, 25001)]


# ---- what must be seen: nothing grows, nobody waits


def private_memory(pid):
    """Kilobytes of memory that are not a file's: what a process allocates."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def shim_of(engine, container):
    return int((engine.exec_root / "shims" / container / "pid").read_text())


@pytest.mark.gantry_only
@pytest.mark.slow
def test_a_line_of_200_mb_without_a_newline(engine, api):
    container = api.run("read x; head -c 200000000 /dev/zero | tr '\\0' a; sleep 60", OpenStdin=True)
    shim = shim_of(engine, container)
    daemon_before = private_memory(engine.process.pid)
    connection, response = api.open("GET", f"/containers/{container}/logs", {"stdout": 1, "follow": 1})
    with api.hijack(f"/containers/{container}/attach", {"stdin": 1, "stream": 1}) as stdin:
        stdin.send(b"go\n")
        seen = most = 0
        while seen < 200_000_000 - 16384:  # the rest is held until its end is known
            kind, payload = read_frame(response)
            assert kind == 1 and len(payload) <= 16384 and payload.strip(b"a") == b""
            seen += len(payload)
            if seen % 50 == 0:
                most = max(most, private_memory(shim))
    connection.close()
    assert most < 4096, f"the shim grew to {most} kB"
    wait_for(lambda: private_memory(shim) < 1024)
    assert private_memory(engine.process.pid) < daemon_before + 8192
    api.remove(container)


@pytest.mark.gantry_only
@pytest.mark.slow
def test_a_gigabyte_with_a_slow_follower_and_a_reader_that_stops(engine, api):
    """Neither makes the container wait, nor anything grow."""
    line = "x" * 3999
    container = api.run(f"read x; yes {line} | head -c 1000000000; sleep 60", OpenStdin=True)
    shim = shim_of(engine, container)
    followers = [api.open("GET", f"/containers/{container}/logs", {"stdout": 1, "follow": 1}) for _ in range(2)]
    daemon_before = private_memory(engine.process.pid)
    path = api.inspect(container)["LogPath"]
    started = time.monotonic()
    slow = followers[0][1]
    daemon = shims = 0
    with api.hijack(f"/containers/{container}/attach", {"stdin": 1, "stream": 1}) as stdin:
        stdin.send(b"go\n")
        while not _is_asleep(api, container):
            slow.read(65536)
            daemon = max(daemon, private_memory(engine.process.pid))
            shims = max(shims, private_memory(shim))
            time.sleep(0.05)
    took = time.monotonic() - started
    for connection, _ in followers:
        connection.close()
    assert took < 150, f"{took:.0f} s for a gigabyte"
    assert daemon < daemon_before + 8192, f"the daemon grew from {daemon_before} to {daemon} kB"
    assert shims < 4096, f"the shim grew to {shims} kB"
    assert sum(os.path.getsize(file) for file in glob.glob(path + "*")) <= 5 * 21_000_000
    api.remove(container)


def _is_asleep(api, container):
    processes = api.ok("GET", f"/containers/{container}/top").json()["Processes"]
    return any("sleep 60" == row[-1] for row in processes)
