"""The local driver's options, how long what they name stays mounted, and what becomes of volumes after a crash."""

import sqlite3
import subprocess
from pathlib import Path

import pytest

from harness.hostconfig import run


def make(api, name, labels=None, **options):
    return api.ok("POST", "/volumes/create", body={"Name": name, "DriverOpts": options, "Labels": labels or {}}).json()


def is_mounted(path):
    return any(line.split(" ")[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_tmpfs(api):
    volume = make(api, "ram", type="tmpfs", device="tmpfs", o="size=64k,uid=1000,noexec")
    assert volume["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=64k,uid=1000,noexec"}
    _, output = run(api, "grep ' /v ' /proc/mounts; stat -c %u /v", {"Binds": ["ram:/v"]})
    assert "size=64k" in output and "noexec" in output and output.endswith("\n1000\n")


def test_bind(api, scratch):
    (scratch / "file").write_text("from the host\n")
    make(api, "bound", type="none", device=str(scratch), o="bind")
    assert run(api, "cat /v/file; echo back > /v/new", {"Binds": ["bound:/v"]})[1] == "from the host\n"
    assert (scratch / "new").read_text() == "back\n"
    make(api, "fixed", type="none", device=str(scratch), o="bind,ro")
    assert run(api, "touch /v/x 2>/dev/null || echo refused", {"Binds": ["fixed:/v"]})[1] == "refused\n"


def test_overlay(api, scratch):
    for name in ("lower", "upper", "work"):
        (scratch / name).mkdir()
    (scratch / "lower" / "file").write_text("below\n")
    make(api, "layered", type="overlay", device="overlay",
         o=f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work")
    assert run(api, "cat /v/file; echo above > /v/file", {"Binds": ["layered:/v"]})[1] == "below\n"
    assert (scratch / "upper" / "file").read_text() == "above\n"


def test_it_is_mounted_while_it_is_used(api):
    place = make(api, "ram", type="tmpfs", device="tmpfs")["Mountpoint"]
    assert not is_mounted(place)
    first, second = (api.run(["sleep", "1000"], host={"Binds": ["ram:/v"]}) for _ in range(2))
    assert is_mounted(place)
    api.remove(first)
    assert is_mounted(place)
    api.remove(second)
    assert not is_mounted(place)


@pytest.mark.gantry_only  # dockerd loses the count
def test_the_count_survives_a_crash(api, engine):
    place = make(api, "ram", type="tmpfs", device="tmpfs")["Mountpoint"]
    first, second = (api.run("echo x > /v/file; sleep 1000", host={"Binds": ["ram:/v"]}) for _ in range(2))
    unused = make(api, "unused", type="tmpfs", device="tmpfs")["Mountpoint"]
    subprocess.run(["mount", "-t", "tmpfs", "left", unused], check=True)
    engine.kill()
    engine.start()
    assert not is_mounted(unused)
    api.remove(first)
    assert is_mounted(place)
    assert engine.docker("exec", second, "cat", "/v/file", check=True).stdout == "x\n"
    api.remove(second)
    assert not is_mounted(place)


@pytest.mark.parametrize("options, text", [
    ({"nope": "1"}, 'invalid option'),
    ({"type": "tmpfs"}, 'missing required option: "device"'),
    ({"device": "tmpfs"}, 'missing required option: "type"'),
    ({"size": "10m"}, "quota size requested but no quota support"),
])
def test_options_that_cannot_be(api, options, text):
    reply = api.post("/volumes/create", body={"Name": "bad", "DriverOpts": options})
    assert reply.status in (400, 500) and text in reply.message, reply
    assert api.get("/volumes/bad").status == 404


@pytest.mark.parametrize("options, text", [
    ({"type": "none", "o": "bind", "device": "/no/such/path"}, "flags: 0x1000: no such file or directory"),
    ({"type": "nosuchfs", "device": "x"}, "no such device"),
    ({"type": "tmpfs", "device": "tmpfs", "o": "size=many"}, "data: size=many: invalid argument"),
    ({"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"}, "error resolving passed in network volume address"),
])
def test_a_mount_that_fails_fails_the_start(api, options, text):
    place = make(api, "bad", **options)["Mountpoint"]
    container = api.create(Cmd=["true"], host={"Mounts": [{"Type": "volume", "Source": "bad", "Target": "/v",
                                                           "VolumeOptions": {"NoCopy": True}}]})
    reply = api.post(f"/containers/{container}/start")
    assert reply.status >= 400, reply
    assert f"error while mounting volume '{place}': " in reply.message and text in reply.message, reply
    assert not is_mounted(place)


def test_events_tell_who_mounts_it_where(api):
    with api.events(type=["volume"]) as events:
        container = api.create(Cmd=["true"], host={"Binds": ["vol:/one:ro", "vol:/two"]})
        api.start(container)
        api.wait(container)
        api.remove(container)
        api.ok("DELETE", "/volumes/vol")
        events.until("destroy", "volume")
    seen = [(e["Action"], e["Actor"]["ID"], e["Actor"]["Attributes"]) for e in events.seen]
    # dockerd 20.10 tells of a creation for each mount.
    assert seen[0][0] == "create"
    assert [s[0] for s in seen if s[0] != "create"] == ["mount", "mount", "unmount", "unmount", "destroy"]
    mounts = {s[2]["destination"]: s[2] for s in seen if s[0] == "mount"}
    assert mounts == {
        "/one": {"container": container, "destination": "/one", "driver": "local", "propagation": "", "read/write": "false"},
        "/two": {"container": container, "destination": "/two", "driver": "local", "propagation": "", "read/write": "true"}}
    assert all(s[2] == {"container": container, "driver": "local"} for s in seen if s[0] == "unmount")


def test_filters(api):
    make(api, "red", {"colour": "red", "x": ""})
    make(api, "blue", {"colour": "blue"})
    api.create(host={"Binds": ["used:/v"]})

    def names(**filters):
        return sorted(v["Name"] for v in api.ok("GET", "/volumes", {"filters": filters}).json()["Volumes"])

    assert names(label=["colour"]) == ["blue", "red"]
    assert names(label=["colour=red"]) == ["red"]
    assert names(label=["colour", "x"]) == ["red"]
    assert names(name=["bl"]) == ["blue"]
    assert names(dangling=["true"]) == ["blue", "red"]
    assert names(dangling=["false"]) == ["used"]
    assert names(driver=["local"]) == ["blue", "red", "used"]
    assert names(driver=["nope"]) == []
    reply = api.get("/volumes", {"filters": {"nope": ["1"]}})
    assert reply.status == 400 and "nvalid filter" in reply.message
    assert api.get("/volumes", {"filters": {"dangling": ["maybe"]}}).status == 400


def test_prune_by_label_and_usage(api):
    make(api, "keep", {"keep": "yes"})
    make(api, "go")
    run(api, "head -c 100000 /dev/zero > /v/file", {"Binds": ["go:/v"]})
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"], volumes=False)
    usage = {v["Name"]: v["UsageData"] for v in api.ok("GET", "/system/df").json()["Volumes"]}
    assert usage["go"]["Size"] >= 100000 and usage["go"]["RefCount"] == 0
    pruned = api.ok("POST", "/volumes/prune", {"filters": {"label!": ["keep"]}}).json()
    assert pruned["VolumesDeleted"] == ["go"] and pruned["SpaceReclaimed"] >= 100000


@pytest.mark.gantry_only  # our rows
def test_a_damaged_record_keeps_nothing_else_from_starting(api, engine):
    make(api, "good")
    make(api, "damaged")
    run(api, "echo kept > /v/file", {"Binds": ["good:/v"]})
    engine.stop()
    with sqlite3.connect(engine.data_root / "state.db") as rows:
        rows.execute("UPDATE volumes SET labels = '{' WHERE name = 'damaged'")
    rows.close()
    engine.start()
    assert "damaged" in engine.log_text() and "set aside" in engine.log_text()
    assert run(api, "cat /v/file", {"Binds": ["good:/v"]})[1] == "kept\n"
    assert api.post("/volumes/create", body={"Name": "damaged"}).status == 500
    assert api.delete("/volumes/damaged").status == 204
    make(api, "damaged")


@pytest.mark.gantry_only  # our rows
def test_lost_rows_and_lost_directories(api, engine):
    """A directory without a row holds somebody's data and becomes a volume again; a row without a directory gets one."""
    place = Path(make(api, "orphan")["Mountpoint"])
    (place / "file").write_text("x")
    lost = Path(make(api, "lost")["Mountpoint"])
    engine.stop()
    with sqlite3.connect(engine.data_root / "state.db") as rows:
        rows.execute("DELETE FROM volumes WHERE name = 'orphan'")
    rows.close()
    lost.rmdir()
    engine.start()
    assert run(api, "cat /v/file", {"Binds": ["orphan:/v"]})[1] == "x"
    assert run(api, "touch /v/x && echo ok", {"Binds": ["lost:/v"]})[1] == "ok\n"
