"""The daemon's settings about containers, each on an engine of its own."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.hostconfig import needs_v1, run


def test_runtimes_and_annotations(fresh, scratch):
    """A runtime of the configuration is called with its arguments, and sees the annotations in config.json."""
    wrapper = scratch / "runtime"
    wrapper.write_text(f"""#!/bin/sh
for a in "$@"; do [ "$last" = --bundle ] && cp "$a/config.json" {scratch}/config.json; last=$a; done
echo "$@" >> {scratch}/calls
exec {shutil.which("runc")} "$@"
""")
    wrapper.chmod(0o755)
    engine = fresh(config={"runtimes": {"own": {"path": str(wrapper), "runtimeArgs": ["--debug"]}}, "default-runtime": "own"})
    api = engine.api() if engine.kind == "docker" else engine.api("1.43")
    container = api.run(["true"], host={"Annotations": {"org.example.note": "hello"}})
    assert api.wait(container) == 0
    assert api.inspect(container)["HostConfig"]["Runtime"] == "own"
    info = api.ok("GET", "/info").json()
    assert info["DefaultRuntime"] == "own" and {"own", "runc"} <= set(info["Runtimes"])
    assert "--debug" in (scratch / "calls").read_text()
    if engine.kind == "gantry":
        assert json.loads((scratch / "config.json").read_text())["annotations"] == {"org.example.note": "hello"}
    reply = api.post("/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Runtime": "nope"}})
    assert reply.status == 400 and "nope" in reply.message
    assert api.inspect(api.create(Cmd=["true"], host={"Runtime": "runc"}))["HostConfig"]["Runtime"] == "runc"


def test_defaults_of_containers(fresh):
    engine = fresh(config={"default-shm-size": "2M", "default-ipc-mode": "shareable", "default-cgroupns-mode": "private",
                           "no-new-privileges": True, "init": True,
                           "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 123, "Hard": 456}}})
    api = engine.api()
    _, output = run(api, "df -k /dev/shm | tail -1 | awk '{print $2}'; grep NoNewPrivs /proc/self/status | cut -f2; ulimit -Sn; "
                    "ulimit -Hn; tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1", {})
    assert output == "2048\n1\n123\n456\n/sbin/docker-init\n"
    container = api.create(Cmd=["true"])
    host = api.inspect(container)["HostConfig"]
    assert (host["IpcMode"], host["CgroupnsMode"], host["ShmSize"]) == ("shareable", "private", 2 << 20)
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 456, "Soft": 123}]
    # A container's own word wins.
    _, output = run(api, "grep NoNewPrivs /proc/self/status | cut -f2; ulimit -Sn; tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1",
                    {"SecurityOpt": ["no-new-privileges=false"], "Init": False,
                     "Ulimits": [{"Name": "nofile", "Soft": 200, "Hard": 200}]})
    assert output == "0\n200\nsh\n"


def test_the_seccomp_profile_of_the_daemon(fresh, scratch):
    profile = scratch / "profile.json"
    profile.write_text('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}')
    engine = fresh(config={"seccomp-profile": str(profile)})
    assert run(engine.api(), "mkdir /tmp/x 2>&1", {})[1] == "mkdir: can't create directory '/tmp/x': Operation not permitted\n"
    assert run(engine.api(), "mkdir /tmp/x && echo made", {"SecurityOpt": ["seccomp=unconfined"]})[1] == "made\n"


CDI = {"cdiVersion": "0.6.0", "kind": "vendor.example/thing",
       "containerEdits": {"env": ["ALL_OF_THEM=1"]},
       "devices": [{"name": "zero", "containerEdits": {
           "env": ["ONE=zero"], "deviceNodes": [{"path": "/dev/thing0", "hostPath": "/dev/full"}],
           "mounts": [{"containerPath": "/vendor", "hostPath": "/etc", "options": ["ro", "bind"]}]}}]}
CDI_YAML = """cdiVersion: "0.5.0"
kind: other.example/thing
devices:
- name: "1"
  containerEdits:
    env:
    - YAML=read
"""


@pytest.mark.gantry_only  # 20.10 has no CDI
def test_devices_by_cdi(fresh, scratch):
    (scratch / "vendor.json").write_text(json.dumps(CDI))
    (scratch / "other.yaml").write_text(CDI_YAML)
    engine = fresh(config={"cdi-spec-dirs": [str(scratch)]})
    api = engine.api("1.50")
    request = {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.example/thing=zero", "other.example/thing=1"]}]}
    _, output = run(api, "echo $ALL_OF_THEM $ONE $YAML; head -c1 /dev/thing0 | wc -c; ls /vendor | grep -c ^passwd$; "
                    "touch /vendor/x 2>/dev/null || echo read-only", request)
    assert output == "1 zero read\n1\n1\nread-only\n"
    container = api.create(Cmd=["true"], host={"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.example/thing=none"]}]})
    reply = api.post(f"/containers/{container}/start")
    assert reply.status == 500
    assert reply.message == "CDI device injection failed: unresolvable CDI devices vendor.example/thing=none"
    info = api.ok("GET", "/info").json()
    assert info["CDISpecDirs"] == [str(scratch)]
    assert info["DiscoveredDevices"] == [{"Source": "cdi", "ID": "other.example/thing=1"},
                                         {"Source": "cdi", "ID": "vendor.example/thing=zero"}]


def test_gpus_where_there_are_none(fresh):
    engine = fresh()
    api = engine.api()
    container = api.create(Cmd=["true"], host={"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]})
    reply = api.post(f"/containers/{container}/start")
    assert (reply.status, reply.message) == (500, 'could not select device driver "" with capabilities: [[gpu]]')


@pytest.mark.gantry_only  # only we tell what is accepted without an effect
def test_settings_of_containers_have_an_effect(fresh):
    engine = fresh(start=False, config={"shutdown-timeout": 20, "default-init": "tini-static", "cdi-spec-dirs": ["/nowhere"],
                                        "storage-opts": ["overlay2.override_kernel_check=true"]})
    engine.start()
    assert "has no effect" not in engine.log_text()


@pytest.mark.gantry_only  # our texts
@pytest.mark.parametrize("config, text", [
    ({"storage-opts": ["overlay2.size=1G"]}, "overlay2.size not supported"),
    ({"storage-opts": ["dm.x=1"]}, "overlay2: unknown option dm.x"),
    ({"cpu-rt-runtime": -1}, "CPU real-time runtime"),
    ({"default-init": "no-such-init", "init": True}, None),
])
def test_settings_that_cannot_be_are_named(fresh, config, text):
    if text is None:
        api = fresh(config=config).api()
        reply = api.post(f"/containers/{api.create(Cmd=['true'])}/start")
        assert reply.status >= 400 and '"no-such-init": executable file not found in $PATH' in reply.message
        return
    assert text in fresh(config=config).log_text()


@needs_v1
@pytest.mark.skipif(not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists(), reason="no real-time groups in this kernel")
def test_real_time_share(fresh):
    engine = fresh(config={"cpu-rt-period": 1000000, "cpu-rt-runtime": 10000})
    group = Path("/sys/fs/cgroup/cpu") / engine.name
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"CpuRealtimeRuntime": 5000, "CpuRealtimePeriod": 1000000})
    assert (group / "cpu.rt_runtime_us").read_text() == "10000\n"
    assert (group / container / "cpu.rt_runtime_us").read_text() == "5000\n"
    api.remove(container)


@pytest.mark.gantry_only  # dockerd stops its containers, and kills them after that time
def test_a_shutdown_that_takes_too_long_is_cut_off(fresh):
    engine = fresh(config={"shutdown-timeout": 1})
    api = engine.api()
    container = api.run(["sleep", "1000"])
    begun = time.monotonic()
    engine.stop()
    assert time.monotonic() - begun < 10
    engine.start()
    assert api.state(container)["Running"]
    api.remove(container)


@pytest.mark.gantry_only  # our mount
def test_the_exec_root_is_a_private_mount_that_goes_with_the_last_container(fresh):
    engine = fresh()

    def at_exec_root():
        lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [line[6:line.index("-")] for line in lines if line[4] == str(engine.exec_root)]

    assert at_exec_root() == [[]]  # no propagation
    container = engine.api().run(["sleep", "1000"])
    engine.stop()
    assert at_exec_root() == [[]]
    engine.start()
    engine.api().remove(container)
    engine.stop()
    assert at_exec_root() == []


@pytest.mark.gantry_only  # our mount
def test_other_mount_namespaces_do_not_get_the_mounts_of_containers(fresh):
    """A service of systemd with a mount namespace of its own would keep what is mounted there alive."""
    engine = fresh(start=False)
    subprocess.run(["mount", "--bind", engine.root, engine.root], check=True)
    subprocess.run(["mount", "--make-shared", engine.root], check=True)
    other = subprocess.Popen(["unshare", "-m", "--propagation", "slave", "sleep", "100"])
    try:
        engine.start()
        from conftest import load
        from harness import images

        load(engine, images.busybox_archive())
        container = engine.api().run(["sleep", "1000"], host={"IpcMode": "shareable"})
        assert container in Path("/proc/self/mountinfo").read_text()
        assert container not in Path(f"/proc/{other.pid}/mountinfo").read_text()
        engine.api().remove(container)
        engine.stop()
    finally:
        other.kill()
        other.wait()
        subprocess.run(["umount", "-l", engine.root], check=True)
