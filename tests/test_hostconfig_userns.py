"""userns-remap: root of a container is nobody on the host, and everything works as before."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import test_exec as execs
import test_exec_native as native
from harness.hostconfig import run

FIRST = 700000
_CONFIG = {"userns-remap": "daemon"}


@pytest.fixture(scope="module")
def ranges(tmp_path_factory):
    """Ranges of ids for the user "daemon", on files of this mount namespace only."""
    directory = tmp_path_factory.mktemp("ranges")
    for name in ("subuid", "subgid"):
        (directory / name).write_text(f"daemon:{FIRST}:65536\n")
        Path("/etc", name).touch()
        subprocess.run(["mount", "--bind", directory / name, f"/etc/{name}"], check=True)
    yield
    for name in ("subuid", "subgid"):
        subprocess.run(["umount", f"/etc/{name}"], check=True)


@pytest.fixture
def engine(ranges, fresh):
    engine = fresh(start=False, config=_CONFIG)
    for directory in (engine.root, engine.root.parent):
        directory.chmod(0o755)
    engine.start()
    from conftest import load
    from harness import images

    load(engine, images.busybox_archive())
    return engine


def owner(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def test_root_inside_is_nobody_outside(engine):
    api = engine.api()
    assert "name=userns" in api.ok("GET", "/info").json()["SecurityOptions"]
    container = api.run("id -u; touch /made; stat -c %u:%g /made /bin/sh /etc/hosts /; sleep 1000")
    seen = api.wait_for_log(container, "\n0:0\n0:0\n0:0\n0:0\n").decode()
    assert seen.startswith("0\n")
    pid = api.state(container)["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{FIRST}\t{FIRST}" in status and f"Gid:\t{FIRST}\t{FIRST}" in status
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), "65536"]
    api.remove(container)


def test_it_may_do_in_its_namespaces_what_root_may(engine):
    api = engine.api()
    code, output = run(api, "ping -c1 -W5 127.0.0.1 >/dev/null && echo ping; ip link set lo mtu 1400 2>/dev/null || echo no; "
                       "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/class/net/eth0/mtu; hostname x 2>/dev/null "
                       "|| echo kept; mount -t tmpfs x /mnt 2>/dev/null || echo unmounted", {})
    assert output == "ping\nno\n0\n1500\nkept\nunmounted\n" or output.startswith("ping\nno\n"), (code, output)


def test_exec_cp_commit_diff_and_export(engine, scratch):
    api = engine.api()
    container = api.run("mkdir /own; echo hi > /own/file; chown 33:44 /own/file; echo ready; sleep 1000", name="box")
    api.wait_for_log(container, "ready")
    assert engine.docker("exec", "box", "stat", "-c", "%u:%g", "/own/file", check=True).stdout == "33:44\n"
    assert engine.docker("exec", "-u", "1000", "box", "id", "-u", check=True).stdout == "1000\n"
    # Out: what the archive says is what the container sees; dockerd writes the host's ids here, and here only.
    data = api.ok("GET", "/containers/box/archive", {"path": "/own"}).body
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        shift = FIRST if engine.kind == "docker" else 0
        assert {(m.name, m.uid - shift, m.gid - shift) for m in tar} == {("own", 0, 0), ("own/file", 33, 44)}
    # In: likewise.
    (scratch / "sent").write_text("x")
    os.chown(scratch / "sent", 7, 8)
    engine.docker("cp", "-a", str(scratch / "sent"), "box:/own/sent", check=True)
    assert engine.docker("exec", "box", "stat", "-c", "%u:%g", "/own/sent", check=True).stdout == "7:8\n"
    changes = {(c["Kind"], c["Path"]) for c in api.ok("GET", "/containers/box/changes").json()}
    assert changes == {(1, "/own"), (1, "/own/file"), (1, "/own/sent")}
    with tarfile.open(fileobj=io.BytesIO(api.ok("GET", "/containers/box/export").body)) as tar:
        found = {m.name.removeprefix("./"): (m.uid, m.gid) for m in tar}
        assert found["own/file"] == (33, 44) and found["bin/busybox"] == (0, 0)
    engine.docker("commit", "box", "changed:1", check=True)
    again = api.create(image="changed:1", Cmd=["stat", "-c", "%u:%g", "/own/file"])
    api.start(again)
    api.wait(again)
    assert api.logs(again) == b"33:44\n"
    api.remove(container)


def test_volumes_and_working_directories_belong_to_the_containers_root(engine):
    api = engine.api()
    code, output = run(api, "stat -c %u:%g /v /w . /var/www; touch /v/x /w/x x && echo written",
                       {"Binds": ["named:/v", "www:/var/www"]}, Volumes={"/w": {}}, WorkingDir="/made/here")
    assert (code, output) == (0, "0:0\n0:0\n0:0\n0:0\nwritten\n")
    assert owner(api.ok("GET", "/volumes/named").json()["Mountpoint"]) == (FIRST, FIRST)


def test_a_bind_keeps_the_hosts_owners(engine, scratch):
    scratch.chmod(0o755)
    (scratch / "file").write_text("x")
    _, output = run(engine.api(), "stat -c %u:%g /b/file; (echo > /b/file) 2>/dev/null || echo refused",
                    {"Binds": [f"{scratch}:/b"]})
    assert output == "65534:65534\nrefused\n"


@pytest.mark.parametrize("host, text", [
    ({"Privileged": True}, "rivileged mode is incompatible with user namespaces"),
    ({"NetworkMode": "host"}, "annot share the host's network namespace when user namespaces are enabled"),
    ({"PidMode": "host"}, "annot share the host PID namespace when user namespaces are enabled"),
])
def test_what_a_user_namespace_excludes(engine, host, text):
    reply = engine.api().post("/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": host})
    assert reply.status == 400 and text in reply.message


def test_usernsmode_host_opts_out(engine):
    _, output = run(engine.api(), "cat /proc/self/uid_map; readlink /proc/self/ns/user", {"UsernsMode": "host", "PidMode": "host"})
    assert output.split()[:3] == ["0", "0", "4294967295"] and output.split()[3] == os.readlink("/proc/self/ns/user")


def test_namespaces_are_lent_within_one_user_namespace(engine):
    api = engine.api()
    donor = api.run(["sleep", "1000"], name="donor", host={"IpcMode": "shareable"})
    wanted = os.readlink(f"/proc/{api.state(donor)['Pid']}/ns/user")
    for host in ({"NetworkMode": "container:donor"}, {"PidMode": "container:donor"}, {"IpcMode": "container:donor"}):
        code, output = run(api, "readlink /proc/self/ns/user; touch /dev/shm/x && echo shm", host)
        assert (code, output) == (0, f"{wanted}\nshm\n"), host
    api.remove(donor)


@pytest.mark.gantry_only  # dockerd keeps a data root for each mapping
def test_the_setting_does_not_touch_containers_that_are_there(engine):
    """They keep what they were made with, also when the daemon starts with another setting."""
    api = engine.api()
    mapped = api.run("stat -c %u /bin/sh; touch /x; stat -c %u /x; sleep 1000", name="mapped")
    api.wait_for_log(mapped, "0\n0\n")
    engine.stop()
    engine.write_config({})
    engine.start()
    plain = api.run("stat -c %u /bin/sh; cat /proc/self/uid_map")
    api.wait(plain)
    assert api.logs(plain).split() == [b"0", b"0", b"0", b"4294967295"]
    assert engine.docker("exec", "mapped", "stat", "-c", "%u", "/x", check=True).stdout == "0\n"
    api.ok("POST", "/containers/mapped/restart", {"t": 0})
    assert str(FIRST) in Path(f"/proc/{api.state(mapped)['Pid']}/uid_map").read_text()
    for container in (mapped, plain):
        api.remove(container)


@pytest.mark.gantry_only  # what our own files are
def test_a_start_that_is_cut_off_leaves_no_user_namespace(engine):
    api = engine.api()
    container = api.create(Cmd=["sleep", "1000"])
    engine.stop()
    engine.environment = {"GANTRY_FAILPOINTS": "start.after_user_namespace=kill"}
    engine.start()
    try:
        api.post(f"/containers/{container}/start")
    except OSError:
        pass
    engine.process.wait()
    engine.environment = {}
    engine.start()
    assert list((engine.exec_root / "userns").iterdir()) == []
    api.start(container)
    assert list((engine.exec_root / "userns").iterdir()) == []
    api.remove(container)


@pytest.mark.gantry_only  # dockerd makes the user and its ranges by itself
@pytest.mark.parametrize("setting, text", [("nobody-of-this-name", "unknown user"), ("bin", "no subuid ranges found for user"),
                                           ("a:b:c", "invalid user/group specification"), ("default", "dockremap")])
def test_a_setting_that_cannot_be_keeps_the_daemon_from_starting(ranges, fresh, setting, text):
    from harness.engine import EngineFailed

    engine = fresh(start=False, config={"userns-remap": setting})
    with pytest.raises(EngineFailed, match=text):
        engine.start()


@pytest.mark.gantry_only  # 1.48
def test_images_are_mounted_with_the_containers_owners(engine):
    api = engine.api("1.48")
    container = api.create(Cmd=["sh", "-c", "mkdir /data; touch /data/x; chown 5:6 /data/x"])
    api.start(container)
    api.wait(container)
    api.ok("POST", "/commit", {"container": container, "repo": "layered", "tag": "1"})
    for source, path in (("layered:1", "/m/data/x"), ("busybox", "/m/bin/busybox")):
        mount = {"Mounts": [{"Type": "image", "Source": source, "Target": "/m"}]}
        assert run(api, f"stat -c %u:%g {path}; touch /m/x 2>/dev/null || echo refused", mount)[1] in (
            "5:6\nrefused\n", "0:0\nrefused\n")


def test_an_exec_joins_the_namespace(engine):
    api = engine.api()
    container = api.run(execs.SLEEP)
    for user in ("", "alice"):
        native.same_as_by_runc(engine, api, container, User=user)
    show = "id -u; stat -c %u /dev/pts/0; echo c > /dev/tty; touch /tmp/x; stat -c %u /tmp/x"
    assert execs.output(api, container, show, User="alice", Tty=True) == ("1000\r\n1000\r\nc\r\n1000\r\n", 0)
    assert execs.output(api, container, "id -u; touch /x; stat -c %u:%g /x") == ("0\n0:0\n", 0)
