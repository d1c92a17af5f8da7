"""`docker cp` and the archive operations behind it."""

import base64
import gzip
import http.client
import io
import json
import os
import socket
import tarfile
import time

import pytest

SYMLINK_BIT = 1 << 27
DIRECTORY_BIT = 1 << 31
REFUSED = (400, 500)  # today's dockerd and 20.10


def tar_of(entries):
    """`entries`: list of (name, content) with bytes, None for a directory or ("link", target) / ("hardlink", target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mtime = 1_600_000_000
            entry.mode = 0o644
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, tuple):
                entry.type = tarfile.SYMTYPE if content[0] == "link" else tarfile.LNKTYPE
                entry.linkname = content[1]
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def names_in(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member.name + ("/" if member.isdir() else "") for member in archive]


def get(api, container, path):
    return api.get(f"/containers/{container}/archive", {"path": path})


def put(api, container, path, data, **query):
    return api.request("PUT", f"/containers/{container}/archive", {"path": path, **query}, data=data,
                       headers={"Content-Type": "application/x-tar"})


def head(api, container, path):
    reply = api.request("HEAD", f"/containers/{container}/archive", {"path": path})
    header = reply.headers.get("X-Docker-Container-Path-Stat")
    return reply.status, json.loads(base64.b64decode(header)) if header else None


def read_file(api, container, path):
    reply = get(api, container, path)
    assert reply.status == 200, reply
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as archive:
        return archive.extractfile(archive.next()).read()


STATES = ("created", "running", "exited", "paused")


def container_in(api, state, script="sleep 600", **options):
    container = api.create(Cmd=["sh", "-c", "trap exit TERM; " + script + " & wait" if state != "exited" else "true"], **options)
    if state != "created":
        api.start(container)
    if state == "exited":
        api.wait(container)
    if state == "paused":
        api.ok("POST", f"/containers/{container}/pause")
    return container


# One path's looks.


def test_stat_of_a_file_a_directory_and_a_link(api):
    container = api.create()
    status, stat = head(api, container, "/etc/passwd")
    assert status == 200 and (stat["name"], stat["linkTarget"]) == ("passwd", "")
    assert stat["mode"] == 0o644 and stat["size"] > 100 and stat["mtime"] == "2023-01-01T00:00:00Z"
    assert head(api, container, "/etc")[1]["mode"] == DIRECTORY_BIT | 0o755
    assert head(api, container, "/tmp")[1]["mode"] == DIRECTORY_BIT | 1 << 20 | 0o777
    link = head(api, container, "/bin/sh")[1]
    assert link["mode"] & SYMLINK_BIT and link["linkTarget"] == "/bin/busybox" and link["name"] == "sh"
    assert head(api, container, "etc/group")[1]["name"] == "group"
    assert head(api, container, "/etc/")[1]["name"] == "etc"


def test_the_header_of_get_is_that_of_head(api):
    container = api.create()
    reply = get(api, container, "/bin/sh")
    assert reply.headers["Content-Type"] == "application/x-tar"
    assert json.loads(base64.b64decode(reply.headers["X-Docker-Container-Path-Stat"])) == head(api, container, "/bin/sh")[1]


def test_what_is_missing(api):
    container = api.create(name="poor")
    assert head(api, container, "/nope")[0] == 404
    reply = get(api, "poor", "/nope")
    assert (reply.status, reply.message) == (404, "Could not find the file /nope in container poor")
    assert get(api, "poor", "").status == 400
    assert put(api, "poor", "/nope", tar_of([])).status == 404
    assert get(api, "nobody", "/").message == "No such container: nobody"


def test_a_broken_link_is_a_link(api):
    container = api.create()
    assert put(api, container, "/", tar_of([("broken", ("link", "nowhere/at/all"))])).status == 200
    stat = head(api, container, "/broken")[1]
    assert stat["mode"] & SYMLINK_BIT and stat["linkTarget"] == "/nowhere/at/all"


# Reading.


def test_names_begin_with_the_last_component(api):
    container = api.create()
    assert names_in(get(api, container, "/etc/passwd").body) == ["passwd"]
    assert {"etc/", "etc/passwd", "etc/group"} <= set(names_in(get(api, container, "/etc").body))
    contents = names_in(get(api, container, "/var/www/.").body)
    assert [name.lstrip("./") for name in contents] == ["", "index.html"]


def test_a_link_is_sent_as_it_is_unless_the_path_ends_in_a_slash(api):
    container = api.create()
    put(api, container, "/", tar_of([("linked", ("link", "var/www"))]))
    with tarfile.open(fileobj=io.BytesIO(get(api, container, "/linked").body)) as archive:
        member = archive.next()
        assert (member.name, member.issym(), member.linkname) == ("linked", True, "var/www")
    assert "index.html" in "".join(names_in(get(api, container, "/linked/.").body))


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_container_can_be_read_and_written(api, state):
    container = container_in(api, state)
    assert put(api, container, "/tmp", tar_of([("a", b"in\n"), ("d", None), ("d/b", b"deep\n")])).status == 200
    assert read_file(api, container, "/tmp/d/b") == b"deep\n"
    assert set(names_in(get(api, container, "/tmp/d").body)) == {"d/", "d/b"}
    api.remove(container)


def test_a_process_sees_what_is_copied_in_and_its_files_are_copied_out(api):
    container = api.run("echo from the process > /tmp/out; until [ -e /tmp/in ]; do sleep 0.05; done; cat /tmp/in")
    deadline = time.monotonic() + 60
    while head(api, container, "/tmp/out")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert read_file(api, container, "/tmp/out") == b"from the process\n"
    assert put(api, container, "/tmp", tar_of([("in", b"from the client\n")])).status == 200
    assert api.wait(container) == 0
    assert api.logs(container) == b"from the client\n"


def test_the_files_of_the_engine_are_there(api):
    container = api.run("sleep 600", Hostname="somename")
    assert b"somename" in read_file(api, container, "/etc/hostname")
    assert b"localhost" in read_file(api, container, "/etc/hosts")


# Writing.


def test_compressed_archives(api):
    container = api.create()
    assert put(api, container, "/tmp", gzip.compress(tar_of([("z", b"zipped")]))).status == 200
    assert read_file(api, container, "/tmp/z") == b"zipped"


def test_owners_modes_times_and_links_arrive(api):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("own")
        entry.uid, entry.gid, entry.mode, entry.mtime, entry.size = 1000, 50, 0o4750, 1_500_000_000, 3
        archive.addfile(entry, io.BytesIO(b"abc"))
        entry.name = "once"
        archive.addfile(entry, io.BytesIO(b"abc"))
        hard = tarfile.TarInfo("again")
        hard.type, hard.linkname, hard.uid, hard.gid = tarfile.LNKTYPE, "once", entry.uid, entry.gid
        archive.addfile(hard)
    container = api.create(Cmd=["stat", "-c", "%u %g %a %Y %h", "/tmp/own", "/tmp/once"])
    assert put(api, container, "/tmp", buffer.getvalue()).status == 200
    api.start(container)
    api.wait(container)
    own, once = api.logs(container).decode().splitlines()
    assert own == "1000 50 4750 1500000000 1"
    assert once.startswith("1000 50 ") and once.endswith(" 1500000000 2")


@pytest.mark.gantry_only  # 20.10 looks for the name on the host
def test_copy_uid_gid_gives_everything_to_the_containers_user(api):
    container = api.create(Cmd=["stat", "-c", "%u %g", "/tmp/mine"], User="alice")
    assert put(api, container, "/tmp", tar_of([("mine", b"x")]), copyUIDGID=1).status == 200
    api.start(container)
    api.wait(container)
    assert api.logs(container) == b"1000 1000\n"


def test_a_file_is_no_place_to_unpack(api):
    container = api.create()
    reply = put(api, container, "/etc/passwd", tar_of([("x", b"y")]))
    assert reply.status in REFUSED and reply.message == "extraction point is not a directory"


def test_no_overwrite_dir_non_dir(api):
    container = api.create()
    reply = put(api, container, "/", tar_of([("etc", b"a file")]), noOverwriteDirNonDir="true")
    assert reply.status == 500 and 'cannot overwrite directory "/etc" with non-directory' in reply.message
    reply = put(api, container, "/etc", tar_of([("passwd", None)]), noOverwriteDirNonDir="true")
    assert reply.status == 500 and 'cannot overwrite non-directory "/etc/passwd" with directory' in reply.message
    assert put(api, container, "/etc", tar_of([("passwd", None)])).status == 200
    assert head(api, container, "/etc/passwd")[1]["mode"] & DIRECTORY_BIT


def test_a_read_only_container_is_not_written(api):
    container = api.create(host={"ReadonlyRootfs": True, "Binds": ["writable:/data", "frozen:/frozen:ro"]})
    reply = put(api, container, "/tmp", tar_of([("x", b"y")]))
    assert reply.status in REFUSED and reply.message == "container rootfs is marked read-only"
    reply = put(api, container, "/frozen", tar_of([("x", b"y")]))
    assert reply.status in REFUSED and reply.message == "mounted volume is marked read-only"
    assert put(api, container, "/data", tar_of([("x", b"y")])).status == 200


def test_a_truncated_archive_is_an_error(api):
    container = api.create()
    reply = put(api, container, "/tmp", tar_of([("big", b"x" * 100_000)])[:50_000])
    assert reply.status in (400, 500), reply


@pytest.mark.parametrize("entries", [
    [("../escape", b"x")],
    [("ok/../../escape", b"x")],
    [("hard", ("hardlink", "../../etc/passwd"))],
])
def test_names_that_climb_out_are_refused(api, entries):
    container = api.create()
    assert put(api, container, "/tmp", tar_of(entries)).status in (400, 500)
    assert head(api, container, "/escape")[0] == 404


def test_links_lead_nowhere_but_into_the_container(api, scratch):
    """A link to "/" and to a directory of the host: what is written through it lands inside."""
    container = api.create()
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    entries = [("l", ("link", "/")), ("l/through", b"inside\n")]
    assert put(api, container, "/tmp", tar_of(entries)).status == 200
    assert read_file(api, container, "/through") == b"inside\n"
    put(api, container, "/tmp", tar_of([("host", ("link", str(outside)))]))
    put(api, container, "/tmp", tar_of([("host/planted", b"x")]))
    assert sorted(os.listdir(outside)) == ["secret"]
    assert get(api, container, "/tmp/host/secret").status == 404


def test_a_running_container_that_swaps_links_gains_nothing(api, scratch):
    """A process exchanges a directory and a link to a path of the host all the time while files are copied."""
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "file").write_text("of the host")
    container = api.run(f"""mkdir /tmp/real; echo of the container > /tmp/real/file
        while true; do rm -rf /tmp/way; ln -s {outside} /tmp/way; rm /tmp/way; cp -r /tmp/real /tmp/way; done""")
    for _ in range(60):
        try:
            assert b"of the host" not in get(api, container, "/tmp/way/file").body
        except http.client.IncompleteRead as cut_off:  # it went away after it had been found
            assert b"of the host" not in cut_off.partial
        put(api, container, "/tmp/way", tar_of([("planted", b"x")]))
    assert os.listdir(outside) == ["file"]


# Volumes and mounts.


@pytest.mark.parametrize("state", STATES)
def test_volumes_and_binds_are_seen(api, scratch, state):
    (scratch / "host-file").write_text("bound")
    single = scratch / "single"
    single.write_text("one file")
    binds = [f"{scratch}:/bound", "cpvolume:/volume/deep", f"{single}:/etc/single:ro"]
    container = container_in(api, state, host={"Binds": binds})
    assert read_file(api, container, "/bound/host-file") == b"bound"
    assert read_file(api, container, "/etc/single") == b"one file"
    assert put(api, container, "/volume/deep", tar_of([("kept", b"in the volume")])).status == 200
    assert put(api, container, "/bound", tar_of([("new", b"from cp")])).status == 200
    assert (scratch / "new").read_text() == "from cp"
    other = api.create(host={"Binds": ["cpvolume:/v"]})
    assert read_file(api, other, "/v/kept") == b"in the volume"
    assert "deep/kept" in "".join(names_in(get(api, container, "/volume").body))


def test_a_volume_that_is_mounted_on_use_can_be_copied_to(api):
    api.ok("POST", "/volumes/create", body={"Name": "mem", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})
    container = api.create(host={"Binds": ["mem:/mem"]})
    assert put(api, container, "/mem", tar_of([("x", b"y")])).status == 200
    running = api.run("sleep 600", host={"Binds": ["mem:/mem"]})
    assert put(api, running, "/mem", tar_of([("x", b"y")])).status == 200
    assert read_file(api, running, "/mem/x") == b"y"
    assert b"y" == read_file(api, container, "/mem/x")


@pytest.mark.gantry_only
def test_a_tmpfs_of_a_running_container_is_seen(api):
    container = api.run("echo fleeting > /fleet/in; touch /tmp/ready; until [ -e /fleet/out ]; do sleep 0.05; done; cat /fleet/out",
                        host={"Tmpfs": {"/fleet": ""}})
    deadline = time.monotonic() + 60
    while head(api, container, "/tmp/ready")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert read_file(api, container, "/fleet/in") == b"fleeting\n"
    assert put(api, container, "/fleet", tar_of([("out", b"copied\n")])).status == 200
    assert api.wait(container) == 0
    assert api.logs(container) == b"copied\n"


def test_events(api):
    container = api.create()
    with api.events(container=[container]) as events:
        get(api, container, "/etc/passwd")
        put(api, container, "/tmp", tar_of([("x", b"y")]))
        events.until("archive-path")
        events.until("extract-to-dir")


# The client.


@pytest.fixture
def box(docker):
    docker("run", "-d", "--name", "box", "busybox", "sh", "-c",
           "mkdir -p /src/dir/sub /dst/there; echo one > /src/file; echo two > /src/dir/a; echo three > /src/dir/sub/b;"
           "echo old > /dst/old; ln -s there /dst/link; ln -s old /dst/flink; touch /ready; sleep 600", check=True)
    deadline = time.monotonic() + 60
    while docker("cp", "box:/ready", "-").returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    return docker


def show(docker):
    """What lies below /dst: path -> content; None for directories."""
    listing = docker("cp", "box:/dst", "-", check=True, binary=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(listing)) as archive:
        for member in archive:
            if member.isfile():
                found[member.name] = archive.extractfile(member).read().decode()
            elif member.isdir():
                found[member.name] = None
    return found


TO_CONTAINER = [
    # source, destination, what is new below dst; None: it fails
    ("file", "/dst/new", {"dst/new": "1"}),
    ("file", "/dst/there", {"dst/there/file": "1"}),
    ("file", "/dst/there/", {"dst/there/file": "1"}),
    ("file", "/dst/missing/", None),
    ("file", "/dst/old", {"dst/old": "1"}),
    ("file", "/dst/old/", None),
    ("file", "/dst/link", {"dst/there/file": "1"}),
    ("file", "/dst/link/", {"dst/there/file": "1"}),
    ("file", "/dst/flink", {"dst/old": "1"}),
    ("dir", "/dst/new", {"dst/new": None, "dst/new/a": "2", "dst/new/sub": None, "dst/new/sub/b": "3"}),
    ("dir", "/dst/there", {"dst/there/dir": None, "dst/there/dir/a": "2", "dst/there/dir/sub": None, "dst/there/dir/sub/b": "3"}),
    ("dir", "/dst/link", {"dst/there/dir": None, "dst/there/dir/a": "2", "dst/there/dir/sub": None, "dst/there/dir/sub/b": "3"}),
    ("dir", "/dst/old", None),
    ("dir/.", "/dst/new", {"dst/new": None, "dst/new/a": "2", "dst/new/sub": None, "dst/new/sub/b": "3"}),
    ("dir/.", "/dst/there", {"dst/there/a": "2", "dst/there/sub": None, "dst/there/sub/b": "3"}),
    ("dir/.", "/dst/link/", {"dst/there/a": "2", "dst/there/sub": None, "dst/there/sub/b": "3"}),
    ("dir/.", "/dst/old", None),
]


@pytest.mark.parametrize("source,destination,new", TO_CONTAINER)
def test_cp_into_a_container(box, scratch, source, destination, new):
    (scratch / "file").write_text("1")
    (scratch / "dir" / "sub").mkdir(parents=True)
    (scratch / "dir" / "a").write_text("2")
    (scratch / "dir" / "sub" / "b").write_text("3")
    before = show(box)
    result = box("cp", f"{scratch}/{source}", f"box:{destination}")
    after = show(box)
    if new is None:
        assert result.returncode != 0 and after == before
    else:
        assert result.returncode == 0, result.stderr
        assert {name: content for name, content in after.items() if name not in before or before[name] != content} == new


FROM_CONTAINER = [
    ("/src/file", "new", {"new": "one\n"}),
    ("/src/file", "there", {"there/file": "one\n"}),
    ("/src/file", "there/", {"there/file": "one\n"}),
    ("/src/file", "missing/", None),
    ("/src/file", "old", {"old": "one\n"}),
    ("/src/file", "link", {"there/file": "one\n"}),
    ("/src/dir", "new", {"new": None, "new/a": "two\n", "new/sub": None, "new/sub/b": "three\n"}),
    ("/src/dir", "there", {"there/dir": None, "there/dir/a": "two\n", "there/dir/sub": None, "there/dir/sub/b": "three\n"}),
    ("/src/dir", "old", None),
    ("/src/dir/.", "new", {"new": None, "new/a": "two\n", "new/sub": None, "new/sub/b": "three\n"}),
    ("/src/dir/.", "there", {"there/a": "two\n", "there/sub": None, "there/sub/b": "three\n"}),
    ("/src/dir/.", "old", None),
    ("/src/nope", "new", None),
]


@pytest.mark.parametrize("source,destination,new", FROM_CONTAINER)
def test_cp_out_of_a_container(box, scratch, source, destination, new):
    there = scratch / "there"
    there.mkdir()
    (scratch / "old").write_text("old")
    (scratch / "link").symlink_to("there")

    def look():
        return {str(p.relative_to(scratch)): None if p.is_dir() else p.read_text() for p in scratch.rglob("*") if not p.is_symlink()}

    before = look()
    result = box("cp", f"box:{source}", f"{scratch}/{destination}")
    after = look()
    if new is None:
        assert result.returncode != 0 and after == before
    else:
        assert result.returncode == 0, result.stderr
        assert {name: content for name, content in after.items() if name not in before or before[name] != content} == new


def test_cp_follows_links_when_told(box, scratch):
    assert box("cp", "box:/dst/flink", f"{scratch}/plain").returncode == 0
    assert os.readlink(scratch / "plain") == "old"
    assert box("cp", "-L", "box:/dst/flink", f"{scratch}/followed").returncode == 0
    assert (scratch / "followed").read_text() == "old\n"


def test_cp_with_streams(box):
    assert box("cp", "-", "box:/dst/there", input=tar_of([("streamed", b"in")]), binary=True).returncode == 0
    assert show(box)["dst/there/streamed"] == "in"
    assert names_in(box("cp", "box:/src/dir", "-", binary=True).stdout) == ["dir/", "dir/a", "dir/sub/", "dir/sub/b"]


def test_cp_of_much_data_there_and_back(docker, scratch):
    blob = os.urandom(1 << 20) * 40
    (scratch / "big").write_bytes(blob)
    docker("create", "--name", "big", "busybox", check=True)
    docker("cp", f"{scratch}/big", "big:/big", check=True)
    docker("cp", "big:/big", f"{scratch}/back", check=True)
    assert (scratch / "back").read_bytes() == blob


# Clients and containers that do not behave.


def silent_reader(engine, container, path=None):
    """Asks for an archive, or for the export of everything, and reads nothing of it."""
    target = f"archive?path={path}" if path else "export"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(str(engine.socket))
    connection.sendall(f"GET /v1.41/containers/{container}/{target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    return connection


@pytest.mark.gantry_only
def test_a_client_that_does_not_read_is_in_nobodys_way(engine, api):
    container = api.run("dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null; touch /ready; sleep 600", name="blocked")
    deadline = time.monotonic() + 60
    while head(api, container, "/ready")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    readers = [silent_reader(engine, container, "/big") for _ in range(12)]
    try:
        begin = time.monotonic()
        assert api.inspect(container)["State"]["Running"]
        assert read_file(api, container, "/etc/passwd").startswith(b"root")
        api.ok("POST", f"/containers/{container}/pause")
        api.ok("POST", f"/containers/{container}/unpause")
        api.ok("POST", f"/containers/{container}/stop", {"t": 0})
        api.start(container)
        api.ok("POST", f"/containers/{container}/stop", {"t": 0})
        assert api.remove(container).status == 204
        assert time.monotonic() - begin < 60
        # What was under way ends without the last chunk.
        for reader in readers:
            reader.settimeout(60)
            data = b""
            while chunk := reader.recv(1 << 20):
                data = data[-16:] + chunk
            assert not data.endswith(b"0\r\n\r\n")
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.gantry_only
def test_a_client_that_leaves_ends_its_transfer(engine, api):
    container = api.create()
    put(api, container, "/", tar_of([("big", b"x" * (32 << 20))]))
    for _ in range(5):
        silent_reader(engine, container, "/big").close()
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sender.connect(str(engine.socket))
    sender.sendall(f"PUT /v1.41/containers/{container}/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
    sender.sendall(tar_of([("half", b"y" * 100_000)])[:60_000])
    sender.close()
    assert read_file(api, container, "/etc/passwd").startswith(b"root")
    api.start(container)
    api.wait(container)
    assert api.remove(container).status == 204


@pytest.mark.gantry_only
def test_exports_that_nobody_reads_hold_up_no_other_and_no_commit(engine, api):
    container = api.create()
    put(api, container, "/", tar_of([("big", b"x" * (32 << 20))]))
    readers = [silent_reader(engine, container) for _ in range(12)]
    try:
        assert len(api.ok("GET", f"/containers/{container}/export").body) > 32 << 20
        image = api.ok("POST", "/commit", {"container": container}).json()["Id"]
        api.ok("DELETE", f"/images/{image}")
        assert api.remove(container).status == 204
    finally:
        for reader in readers:
            reader.close()
