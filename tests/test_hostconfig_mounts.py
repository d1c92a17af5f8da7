"""Mounts of every kind, seen from inside."""

import os
import subprocess

import pytest

from harness.hostconfig import run


def mount_options(api, host, at="/m", **config):
    """The options of what is mounted at a path, and the propagation fields of mountinfo."""
    code, output = run(api, f"grep ' {at} ' /proc/self/mountinfo", host, **config)
    assert code == 0, f"nothing is mounted at {at}"
    fields = output.splitlines()[-1].split(" ")
    return set(fields[5].split(",")), fields[6:fields.index("-")]


@pytest.fixture
def shared(scratch):
    """A directory that is a shared mount, with another mount below."""
    place = scratch / "shared"
    (place / "sub").mkdir(parents=True)
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", place / "sub"], check=True)
    yield place
    subprocess.run(["umount", "-R", "-l", place], check=True)


@pytest.mark.parametrize("mode, expected", [("", []), ("rprivate", []), ("private", []), ("rslave", ["master:"]), ("slave", ["master:"]),
                                            ("rshared", ["shared:"]), ("shared", ["shared:"])])
def test_propagation(api, shared, mode, expected):
    _, optional = mount_options(api, {"Binds": [f"{shared}:/m" + (f":{mode}" if mode else "")]})
    assert [field.split(":")[0] + ":" for field in optional] == expected
    _, optional = mount_options(api, {"Mounts": [{"Type": "bind", "Source": str(shared), "Target": "/m",
                                                  "BindOptions": {"Propagation": mode}}]})
    assert [field.split(":")[0] + ":" for field in optional] == expected


def test_a_shared_mount_carries_mounts_in_both_directions(api, shared, engine):
    container = api.run(["sleep", "1000"], host={"Binds": [f"{shared}:/m:rshared"]})
    (shared / "late").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "late", shared / "late"], check=True)
    pid = api.state(container)["Pid"]
    assert " /m/late " in open(f"/proc/{pid}/mountinfo").read()
    subprocess.run(["nsenter", "-t", str(pid), "-m", "busybox", "umount", "/m/late"], check=True)
    assert f" {shared}/late " not in open("/proc/self/mountinfo").read()


def test_a_source_that_is_not_shared_cannot_be_mounted_shared(api, scratch):
    container = api.create(Cmd=["true"], host={"Binds": [f"{scratch}:/m:rshared"]})
    reply = api.post(f"/containers/{container}/start")
    assert reply.status >= 400 and "is mounted on" in reply.message and "but it is not a shared mount" in reply.message


def test_non_recursive_leaves_out_what_is_mounted_below(api, shared):
    mount = {"Type": "bind", "Source": str(shared), "Target": "/m"}
    command = "grep -c ' /m/sub ' /proc/mounts || true"
    assert run(api, command, {"Mounts": [mount]})[1] == "1\n"
    assert run(api, command, {"Mounts": [{**mount, "BindOptions": {"NonRecursive": True}}]})[1] == "0\n"


def read_only(version, shared, api, **options):
    mount = {"Type": "bind", "Source": str(shared), "Target": "/m", "ReadOnly": True, **({"BindOptions": options} if options else {})}
    return run(api.at(version), "touch /m/x 2>/dev/null || echo top; touch /m/sub/x 2>/dev/null || echo below", {"Mounts": [mount]})[1]


def test_read_only_binds_of_old_clients_are_not_recursive(api, shared):
    assert read_only("1.41", shared, api) == "top\n"


@pytest.mark.gantry_only  # 1.44
def test_read_only_binds_are_recursive(api, shared):
    assert read_only("1.44", shared, api) == "top\nbelow\n"
    assert read_only("1.44", shared, api, ReadOnlyForceRecursive=True, Propagation="rprivate") == "top\nbelow\n"
    assert read_only("1.44", shared, api, ReadOnlyNonRecursive=True) == "top\n"


@pytest.mark.gantry_only  # 1.42
def test_create_mountpoint_makes_the_source(api, scratch):
    mount = {"Type": "bind", "Source": str(scratch / "made" / "deep"), "Target": "/m", "BindOptions": {"CreateMountpoint": True}}
    assert run(api.at("1.42"), "echo ok", {"Mounts": [mount]})[1] == "ok\n"
    assert (scratch / "made" / "deep").is_dir()


@pytest.mark.parametrize("options, expected", [
    ({}, "rw,nosuid,nodev,noexec"),
    ({"SizeBytes": 65536}, "size=64k"),
    ({"Mode": 0o1700}, "mode=1700"),
])
def test_tmpfs_mounts(api, options, expected):
    mount = {"Type": "tmpfs", "Target": "/m", **({"TmpfsOptions": options} if options else {})}
    _, output = run(api, "grep ' /m ' /proc/mounts; touch /m/x && echo written", {"Mounts": [mount]})
    assert expected in output and output.endswith("written\n")


@pytest.mark.gantry_only  # TmpfsOptions.Options: 1.46
def test_tmpfs_options_as_a_list(api):
    mount = {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"Options": [["exec"], ["uid", "1234"]]}}
    _, output = run(api.at("1.46"), "grep ' /m ' /proc/mounts; stat -c %u /m", {"Mounts": [mount]})
    assert "noexec" not in output and output.endswith("\n1234\n")


def test_a_read_only_tmpfs(api):
    mount = {"Type": "tmpfs", "Target": "/m", "ReadOnly": True}
    assert run(api, "touch /m/x 2>/dev/null || echo refused", {"Mounts": [mount]})[1] == "refused\n"


def test_volume_mounts_carry_labels_and_driver_options(api):
    mount = {"Type": "volume", "Source": "labelled", "Target": "/m", "VolumeOptions": {
        "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}}}}
    _, output = run(api, "grep ' /m ' /proc/mounts", {"Mounts": [mount]})
    assert "size=64k" in output
    volume = api.ok("GET", "/volumes/labelled").json()
    assert volume["Labels"] == {"a": "b"} and volume["Options"]["device"] == "tmpfs"


@pytest.mark.gantry_only  # 1.45
def test_a_subpath_of_a_volume(api):
    api = api.at("1.45")
    run(api, "mkdir -p /v/a/b; echo deep > /v/a/b/file; ln -s /etc /v/out", {"Binds": ["vol:/v"]})

    def mount(subpath):
        return {"Mounts": [{"Type": "volume", "Source": "vol", "Target": "/m", "VolumeOptions": {"Subpath": subpath}}]}

    assert run(api, "cat /m/file", mount("a/b"))[1] == "deep\n"
    # A link in the volume leads nowhere but into the volume.
    for subpath in ("nope", "out"):
        container = api.create(Cmd=["true"], host=mount(subpath))
        reply = api.post(f"/containers/{container}/start")
        assert reply.status >= 400 and "cannot access path" in reply.message, subpath
    for subpath in ("../x", "/abs", "a/../../x"):
        reply = api.post("/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": mount(subpath)})
        assert (reply.status, "subpath must be a relative path within the volume" in reply.message) == (400, True), subpath


def test_volumes_from_with_modes(api, scratch):
    donor = api.create(name="donor", Cmd=["true"], host={"Binds": ["data:/data", f"{scratch}:/bind:ro"]}, Volumes={"/anon": {}})
    api.start(donor)
    command = "for d in data anon bind; do touch /$d/x 2>/dev/null && echo $d; done; true"
    assert run(api, command, {"VolumesFrom": ["donor"]})[1] == "data\nanon\n"
    assert run(api, command, {"VolumesFrom": ["donor:ro"]})[1] == ""
    assert run(api, command, {"VolumesFrom": ["donor:rw"]})[1] == "data\nanon\n"
    # An own mount wins.
    assert run(api, "ls /data", {"VolumesFrom": ["donor"], "Binds": ["other:/data"]})[1] == ""


def test_mounts_over_the_managed_files(api, scratch):
    (scratch / "hosts").write_text("mine\n")
    assert run(api, "cat /etc/hosts", {"Binds": [f"{scratch}/hosts:/etc/hosts:ro"]})[1] == "mine\n"


def test_nested_mounts_come_parents_first(api, scratch):
    (scratch / "b" / "c").mkdir(parents=True)
    (scratch / "b" / "c" / "deep").write_text("x")
    _, output = run(api, "ls /a /a/b/c", {"Binds": [f"{scratch}/b:/a/b", "vol:/a/b/c/in", "top:/a"], "Tmpfs": {"/a/t": ""}})
    assert output == "/a:\nb\nt\n\n/a/b/c:\ndeep\nin\n"


# Mounts of type image.

@pytest.fixture
def images(api, engine):
    """layered:1 has three layers, one of which removes a file; it names nothing that busybox has at its top."""
    for tag, command, base in (("one", "mkdir /data; echo 1 > /data/one; echo gone > /data/gone", "busybox"),
                               ("1", "rm /data/gone; echo 2 > /data/two; chown 33 /data/two", "layered:one")):
        container = api.create(image=base, Cmd=["sh", "-c", command])
        api.start(container)
        assert api.wait(container) == 0
        api.ok("POST", "/commit", {"container": container, "repo": "layered", "tag": tag})
        api.remove(container)
    yield
    for tag in ("1", "one"):
        api.delete(f"/images/layered:{tag}", {"force": 1})


def image_mount(source="layered:1", **options):
    return {"Mounts": [{"Type": "image", "Source": source, "Target": "/m", **({"ImageOptions": options} if options else {})}]}


@pytest.mark.gantry_only  # 1.48
class TestImageMounts:
    def test_its_files_are_there_and_cannot_be_changed(self, api, images):
        _, output = run(api.at("1.48"), "ls /m/data; cat /m/data/one; stat -c %u /m/data/two; [ -x /m/bin/busybox ] && echo busybox;"
                        "touch /m/x 2>&1; [ -e /m/.dockerenv ] || echo pure", image_mount())
        assert output == "one\ntwo\n1\n33\nbusybox\ntouch: /m/x: Read-only file system\npure\n"

    def test_who_may_mount_cannot_make_it_writable(self, api, images):
        for source in ("layered:1", "busybox"):  # three layers, and one
            _, output = run(api.at("1.48"), "mount -o remount,rw /m 2>/dev/null; mount -o remount,rw,bind /m 2>/dev/null; "
                            "touch /m/bin/x 2>&1", {**image_mount(source), "CapAdd": ["SYS_ADMIN"]})
            assert output == "touch: /m/bin/x: Read-only file system\n"

    def test_a_subpath(self, api, images):
        assert run(api.at("1.48"), "ls /m", image_mount(Subpath="data"))[1] == "one\ntwo\n"
        container = api.at("1.48").create(Cmd=["true"], host=image_mount(Subpath="nope"))
        reply = api.post(f"/containers/{container}/start")
        assert reply.status >= 400 and "cannot access path" in reply.message
        bad = {"Image": "busybox", "Cmd": ["true"], "HostConfig": image_mount(Subpath="../up")}
        assert api.at("1.48").post("/containers/create", body=bad).status == 400

    def test_inspect_tells_the_image(self, api, images):
        container = api.at("1.48").create(Cmd=["true"], host=image_mount())
        mount = api.inspect(container)["Mounts"][0]
        assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("image", "layered:1", "/m", False)

    def test_an_image_that_is_not_there(self, api):
        bad = {"Image": "busybox", "Cmd": ["true"], "HostConfig": image_mount("nope")}
        reply = api.at("1.48").post("/containers/create", body=bad)
        assert (reply.status, reply.message) == (404, "No such image: nope:latest")

    def test_old_clients_do_not_have_them(self, api, images):
        bad = {"Image": "busybox", "Cmd": ["true"], "HostConfig": image_mount()}
        reply = api.at("1.47").post("/containers/create", body=bad)
        assert (reply.status, reply.message) == (400, 'Mount type "Image" needs API v1.48 or newer')

    def test_it_is_kept_while_it_is_mounted(self, api, images, engine):
        container = api.at("1.48").run("cat /m/data/one; sleep 1000", host=image_mount())
        assert api.delete("/images/layered:1").status == 409
        api.delete("/images/layered:1", {"force": 1})
        api.ok("POST", "/images/prune", {"filters": {"dangling": ["false"]}})
        api.ok("POST", f"/containers/{container}/restart", {"t": 0})
        assert engine.docker("exec", container, "cat", "/m/data/two", check=True).stdout == "2\n"

    def test_it_survives_the_daemon(self, api, images, engine):
        container = api.at("1.48").run(["sleep", "1000"], host=image_mount())
        engine.kill()
        engine.start()
        assert engine.docker("exec", container, "cat", "/m/data/one", check=True).stdout == "1\n"
        assert engine.docker("cp", f"{container}:/m/data/one", "-", binary=True, check=True).stdout.find(b"1\n") > 0
        api.remove(container)
        assert container not in "".join(line for line in open("/proc/self/mountinfo"))
