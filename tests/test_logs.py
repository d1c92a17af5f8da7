"""docker logs."""

import json
import re

import pytest

from harness.api import parse_frames, text_of


def frames(api, container, **query):
    return parse_frames(api.ok("GET", f"/containers/{container}/logs", {"stdout": 1, "stderr": 1, **query}).body)


def test_streams_keep_their_numbers(api):
    container = api.run("echo out; echo err >&2")
    api.wait(container)
    got = frames(api, container)
    assert (text_of(got, 1), text_of(got, 2)) == (b"out\n", b"err\n")
    assert [kind for kind, _ in frames(api, container, stderr=0)] == [1]


def test_one_stream_must_be_chosen(api):
    container = api.run("echo x")
    reply = api.get(f"/containers/{container}/logs")
    assert reply.status == 400


def test_tail_gives_the_last_lines(api):
    container = api.run("seq 1 1000")
    api.wait(container)
    assert api.logs(container, tail=3) == b"998\n999\n1000\n"
    assert api.logs(container, tail=0) == b""
    assert api.logs(container, tail="all").count(b"\n") == 1000


def test_timestamps_have_nine_digits(api):
    container = api.run("echo stamped")
    api.wait(container)
    line = api.logs(container, timestamps=1).decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stamped\n", line)


def test_since_and_until_cut(api):
    container = api.run("echo early; sleep 1.2; echo late")
    api.wait(container)
    stamps = api.logs(container, timestamps=1).decode().splitlines()
    early, late = (line.split(" ")[0] for line in stamps)
    middle = (_seconds(early) + _seconds(late)) / 2
    assert api.logs(container, since=f"{middle:.3f}") == b"late\n"
    assert api.logs(container, until=f"{middle:.3f}") == b"early\n"


def _seconds(stamp):
    from datetime import datetime, timezone

    return datetime.strptime(stamp[:26], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=timezone.utc).timestamp()


def test_follow_ends_with_the_container(api):
    container = api.run("for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert api.logs(container, follow=1) == b"1\n2\n3\n"


def test_follow_of_a_stopped_container_returns(api):
    container = api.run("echo done")
    api.wait(container)
    assert api.logs(container, follow=1) == b"done\n"


def test_follow_sees_lines_as_they_come(api):
    container = api.run("echo first; read x; sleep 100", OpenStdin=True)
    connection, response = api.open("GET", f"/containers/{container}/logs", {"stdout": 1, "follow": 1})
    assert response.status == 200
    assert response.read(8 + 6)[8:] == b"first\n"
    connection.close()


def test_a_long_line_arrives_whole(api):
    container = api.run("head -c 100000 /dev/zero | tr '\\0' a; echo")
    api.wait(container)
    assert api.logs(container) == b"a" * 100000 + b"\n"


def test_output_without_a_newline_is_kept(api):
    container = api.run("printf 'no newline'")
    api.wait(container)
    assert api.logs(container) == b"no newline"


def test_bytes_that_are_not_text_become_replacement_marks_or_stay(api):
    container = api.run("printf '\\377\\376ok\\n'")
    api.wait(container)
    assert api.logs(container).endswith(b"ok\n")


def test_a_terminals_log_is_raw(api):
    container = api.run("echo tty", Tty=True)
    api.wait(container)
    assert api.ok("GET", f"/containers/{container}/logs", {"stdout": 1}).body == b"tty\r\n"


def test_the_file_is_json_lines(engine, api):
    container = api.run("echo one; echo two >&2")
    api.wait(container)
    path = api.inspect(container)["LogPath"]
    assert path.endswith(f"/{container}/{container}-json.log")
    lines = [json.loads(line) for line in open(path)]
    assert {(line["log"], line["stream"]) for line in lines} == {("one\n", "stdout"), ("two\n", "stderr")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", line["time"]) for line in lines)


def test_rotation_keeps_the_number_of_files(api):
    config = {"Type": "json-file", "Config": {"max-size": "20k", "max-file": "3"}}
    container = api.run("seq 1 5000", host={"LogConfig": config})
    api.wait(container)
    import glob
    import os

    path = api.inspect(container)["LogPath"]
    files = sorted(glob.glob(path + "*"))
    assert len(files) == 3
    assert all(os.path.getsize(file) < 24_000 for file in files)
    lines = api.logs(container).split()
    assert lines[-1] == b"5000" and lines == sorted(lines, key=int)


def test_the_driver_none_keeps_nothing(api):
    container = api.run("echo x", host={"LogConfig": {"Type": "none"}})
    api.wait(container)
    reply = api.get(f"/containers/{container}/logs", {"stdout": 1})
    assert reply.status in (500, 501) and "configured logging driver does not support reading" in reply.message


def test_the_client_prints_both_streams(docker):
    docker("run", "--name", "talk", "busybox", "sh", "-c", "echo out; echo err >&2")
    result = docker("logs", "talk", check=True)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.gantry_only
def test_logs_are_bounded_without_being_asked(api):
    """The default is 5 files of 20 MB: an endless program cannot fill the disk."""
    container = api.run("timeout 3 yes 0123456789012345678901234567890123456789012345678901234567890123456789 ; true")
    api.wait(container, timeout=120)
    import glob
    import os

    files = glob.glob(api.inspect(container)["LogPath"] + "*")
    assert sum(os.path.getsize(file) for file in files) <= 5 * 21_000_000
