"""What HostConfig asks of a container's processes, namespaces and limits, seen from inside or in the host's cgroups."""

import os
import re
from pathlib import Path

import pytest

from harness.hostconfig import CGROUPS, MEMORY, cgroup_file, needs_v1, run

DEFAULT_CAPS = 0xA80425FB  # engine-api.md §11: the fourteen


def case(name, command, expected, host=None, **config):
    return pytest.param(command, expected, host or {}, config, id=name)


# (command in the container, what it must print, HostConfig, Config)
INSIDE = [
    case("user", "id -u; id -g", "1234\n0\n", User="1234"),
    case("user_and_group", "id -u; id -g", "1234\n567\n", User="1234:567"),
    case("user_by_name", "id -un", "daemon\n", User="daemon"),
    case("group_add", "id -G", "0 1 4242\n", {"GroupAdd": ["daemon", "4242"]}),
    case("working_dir", "pwd", "/made/by/create\n", WorkingDir="/made/by/create"),
    case("env", "echo $A; echo $B", "1\n\n", Env=["A=1", "B="]),
    case("env_removes_a_variable", "env | grep -c ^TERM || true", "0\n", Env=["TERM"]),
    case("hostname", "hostname", "box\n", Hostname="box"),
    case("domainname", "cat /proc/sys/kernel/domainname", "example.org\n", Hostname="box", Domainname="example.org"),
    case("stop_signal_is_no_effect_inside", "echo ok", "ok\n", StopSignal="SIGUSR1"),
    case("oom_score_adj", "cat /proc/self/oom_score_adj", "500\n", {"OomScoreAdj": 500}),
    case("ulimit_nofile", "ulimit -Sn; ulimit -Hn", "100\n200\n", {"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}]}),
    case("ulimit_core", "ulimit -c", "0\n", {"Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}]}),
    case("shm_size", "df -k /dev/shm | tail -1 | awk '{print $2}'", "2048\n", {"ShmSize": 2 << 20}),
    case("default_shm_size", "df -k /dev/shm | tail -1 | awk '{print $2}'", "65536\n"),
    case("ipc_none", "grep -c ' /dev/shm ' /proc/mounts || true", "0\n", {"IpcMode": "none"}),
    case("readonly_rootfs", "touch /x 2>&1; touch /dev/shm/y && echo shm", "touch: /x: Read-only file system\nshm\n",
         {"ReadonlyRootfs": True}),
    case("tmpfs", "touch /t/x && grep ' /t ' /proc/mounts | cut -d' ' -f4", r"re:rw,nosuid,nodev,noexec,.*size=128k.*\n",
         {"Tmpfs": {"/t": "size=128k"}}),
    case("tmpfs_exec_and_mode", "grep ' /t ' /proc/mounts; stat -c %a /t", r"re:(?!.*noexec).*\n700\n",
         {"Tmpfs": {"/t": "exec,mode=700"}}),
    case("sysctl_net", "cat /proc/sys/net/ipv4/ip_forward", "0\n", {"Sysctls": {"net.ipv4.ip_forward": "0"}}),
    case("sysctl_ipc", "cat /proc/sys/kernel/msgmax", "12345\n", {"Sysctls": {"kernel.msgmax": "12345"}}),
    case("sysctl_unprivileged_ports", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
    case("sysctl_ping_group", "cat /proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n"),
    case("init", "cat /proc/1/cmdline | tr '\\0' ' '", r"re:/sbin/docker-init -- sh -c .*", {"Init": True}),
    case("no_new_privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", {"SecurityOpt": ["no-new-privileges"]}),
    case("new_privileges_by_default", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n"),
    case("seccomp_by_default", "grep Seccomp: /proc/self/status", "Seccomp:\t2\n"),
    case("seccomp_unconfined", "grep Seccomp: /proc/self/status", "Seccomp:\t0\n", {"SecurityOpt": ["seccomp=unconfined"]}),
    case("label_disable", "echo ok", "ok\n", {"SecurityOpt": ["label=disable"]}),
    case("label_parts_where_there_is_no_selinux", "echo ok", "ok\n",
         {"SecurityOpt": ["label=user:u", "label=role:r", "label=type:t", "label=level:s0:c1,c2"]}),
    case("pid_private", "echo $$", "1\n"),
    case("uts_host", "hostname", f"{os.uname().nodename}\n", {"UTSMode": "host"}),
    case("network_none", "ls /sys/class/net | grep -v -e ^lo$ -e tunl -e ^ip -e ^gre -e ^sit -e ^erspan || true", "",
         {"NetworkMode": "none"}),
    case("masked_paths_by_default", "cat /proc/keys | wc -c; ls /sys/firmware | wc -l", "0\n0\n"),
    case("masked_paths_none", "grep -c ' /proc/kcore ' /proc/mounts || true", "0\n", {"MaskedPaths": [], "ReadonlyPaths": []}),
    case("masked_paths_own", "wc -c < /proc/version", "0\n", {"MaskedPaths": ["/proc/version"]}),
    case("readonly_paths_by_default", "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused", "refused\n"),
    case("readonly_paths_own", "touch /tmp/ro/x 2>&1 || echo refused", r"re:.*refused\n",
         {"ReadonlyPaths": ["/etc"], "Tmpfs": {"/tmp/ro": "ro"}}),
    case("cgroup_is_read_only", "mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x 2>/dev/null || echo refused", "refused\n"),
    case("device", "ls -l /dev/there | awk '{print $1, $5, $6}'", "crw-rw-rw- 1, 3\n",
         {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/there", "CgroupPermissions": "rwm"}]}),
    case("device_rule", "mknod /port c 1 7 && (echo > /port) 2>&1 | grep -c 'left on device'", "1\n",
         {"DeviceCgroupRules": ["c 1:7 rwm"]}),
    case("without_device_rule", "mknod /port c 1 7 && (echo > /port) 2>/dev/null || echo refused", "refused\n"),
    case("device_permissions", "head -c1 /dev/z | wc -c; (echo x > /dev/z) 2>/dev/null || echo refused", "1\nrefused\n",
         {"Devices": [{"PathOnHost": "/dev/full", "PathInContainer": "/dev/z", "CgroupPermissions": "r"}]}),
    case("device_directory", "ls /dev/copies | grep -c . ", r"re:[1-9]\d*\n",
         {"Devices": [{"PathOnHost": "/dev/net", "PathInContainer": "/dev/copies", "CgroupPermissions": "rwm"}]}),
    case("network_disabled", "ls /sys/class/net | grep -c eth || true", "0\n", NetworkDisabled=True),
]


@pytest.mark.parametrize("command, expected, host, config", INSIDE)
def test_inside(api, command, expected, host, config):
    code, output = run(api, command, host, **config)
    if expected.startswith("re:"):
        assert re.fullmatch(expected[3:], output, re.DOTALL), (code, output)
    else:
        assert output == expected, code


def capabilities(*names):
    bits = {"CHOWN": 0, "NET_ADMIN": 12, "SYS_ADMIN": 21, "NET_RAW": 13, "MKNOD": 27}
    return sum(1 << bits[name] for name in names)


@pytest.mark.parametrize("host, expected", [
    pytest.param({}, DEFAULT_CAPS, id="default"),
    pytest.param({"CapAdd": ["NET_ADMIN"]}, DEFAULT_CAPS | capabilities("NET_ADMIN"), id="add"),
    pytest.param({"CapAdd": ["cap_net_admin"]}, DEFAULT_CAPS | capabilities("NET_ADMIN"), id="add_prefixed"),
    pytest.param({"CapDrop": ["MKNOD", "NET_RAW"]}, DEFAULT_CAPS & ~capabilities("MKNOD", "NET_RAW"), id="drop"),
    pytest.param({"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]}, capabilities("CHOWN"), id="drop_all_add_one"),
    pytest.param({"CapDrop": ["ALL"]}, 0, id="drop_all"),
])
def test_capabilities(api, host, expected):
    _, output = run(api, "grep -e CapBnd -e CapEff -e CapInh -e CapAmb /proc/self/status", host)
    seen = {line.split(":")[0]: int(line.split()[1], 16) for line in output.splitlines()}
    assert (seen["CapBnd"], seen["CapEff"], seen["CapAmb"]) == (expected, expected, 0)


def test_another_user_has_no_effective_capabilities(api):
    _, output = run(api, "grep -e CapBnd -e CapEff /proc/self/status", {}, User="1000")
    assert output.split()[1] == f"{DEFAULT_CAPS:016x}" or output.split()[3] == f"{DEFAULT_CAPS:016x}"
    assert "CapEff:\t0000000000000000" in output


def test_a_custom_seccomp_profile_holds(api):
    profile = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}'
    _, output = run(api, "mkdir /tmp/x 2>&1; touch /tmp/y && echo touched", {"SecurityOpt": [f"seccomp={profile}"]})
    assert output == "mkdir: can't create directory '/tmp/x': Operation not permitted\ntouched\n"


def test_the_security_options_separator_of_old_clients_works(api):
    assert run(api, "grep Seccomp: /proc/self/status", {"SecurityOpt": ["seccomp:unconfined"]})[1] == "Seccomp:\t0\n"


@pytest.mark.parametrize("kind, host", [("net", {"NetworkMode": "host"}), ("pid", {"PidMode": "host"}), ("uts", {"UTSMode": "host"}),
                                        ("ipc", {"IpcMode": "host"})])
def test_host_namespaces(api, kind, host):
    assert run(api, f"readlink /proc/self/ns/{kind}", host)[1].strip() == os.readlink(f"/proc/self/ns/{kind}")
    assert run(api, f"readlink /proc/self/ns/{kind}", {})[1].strip() != os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("mode", ["private", "host"])
def test_cgroup_namespace(api, mode):
    own = run(api, "readlink /proc/self/ns/cgroup", {"CgroupnsMode": mode})[1].strip()
    assert (own == os.readlink("/proc/self/ns/cgroup")) == (mode == "host")


@pytest.mark.parametrize("field, kind", [("PidMode", "pid"), ("IpcMode", "ipc"), ("NetworkMode", "net")])
def test_namespaces_of_another_container(api, field, kind):
    donor = api.run(["sleep", "1000"], name="donor", host={"IpcMode": "shareable"})
    wanted = os.readlink(f"/proc/{api.state(donor)['Pid']}/ns/{kind}")
    assert run(api, f"readlink /proc/self/ns/{kind}", {field: "container:donor"})[1].strip() == wanted


def test_a_private_ipc_namespace_is_not_lent(api):
    api.run(["sleep", "1000"], name="donor", host={"IpcMode": "private"})
    container = api.create(Cmd=["true"], host={"IpcMode": "container:donor"})
    reply = api.post(f"/containers/{container}/start")
    assert reply.status >= 400 and "non-shareable IPC" in reply.message


def test_shared_memory_is_shared(api):
    donor = api.run("echo hello > /dev/shm/x; sleep 1000", name="donor", host={"IpcMode": "shareable", "ShmSize": 1 << 20})
    api.ok("POST", f"/containers/{donor}/exec", body={"Cmd": ["true"]})
    _, output = run(api, "until [ -s /dev/shm/x ]; do :; done; cat /dev/shm/x; df -k /dev/shm | tail -1 | awk '{print $2}'",
                    {"IpcMode": "container:donor"})
    assert output == "hello\n1024\n"


# Limits: the file of the container's cgroup (version 1, version 2) and what it must hold.
LIMITS = [
    ("memory", {"Memory": 64 << 20}, (MEMORY, "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
    ("swap", {"Memory": 64 << 20, "MemorySwap": 96 << 20}, (MEMORY, "memory.memsw.limit_in_bytes", "100663296"),
     ("memory.swap.max", "33554432")),
    ("reservation", {"MemoryReservation": 32 << 20}, (MEMORY, "memory.soft_limit_in_bytes", "33554432"),
     ("memory.low", "33554432")),
    ("swappiness", {"MemorySwappiness": 7}, (MEMORY, "memory.swappiness", "7"), None),
    ("shares", {"CpuShares": 512}, ("cpu", "cpu.shares", "512"), ("cpu.weight", "20")),
    ("quota", {"CpuPeriod": 50000, "CpuQuota": 25000}, ("cpu", "cpu.cfs_quota_us", "25000"), ("cpu.max", "25000 50000")),
    ("period", {"CpuPeriod": 50000, "CpuQuota": 25000}, ("cpu", "cpu.cfs_period_us", "50000"), ("cpu.max", "25000 50000")),
    ("nano_cpus", {"NanoCpus": 500000000}, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    ("cpuset", {"CpusetCpus": "0"}, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ("cpuset_mems", {"CpusetMems": "0"}, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    ("pids", {"PidsLimit": 33}, ("pids", "pids.max", "33"), ("pids.max", "33")),
    ("pids_unlimited", {"PidsLimit": -1}, ("pids", "pids.max", "max"), ("pids.max", "max")),
]


@pytest.mark.parametrize("host, v1, v2", [pytest.param(*rest, id=name) for name, *rest in LIMITS])
def test_limits(api, engine, host, v1, v2):
    container = api.run(["sleep", "1000"], host=host)
    path, expected = cgroup_file(engine, container, v1, v2)
    if path is None:
        pytest.skip("this host's control groups do not have it")
    assert path.read_text().strip() == expected


@needs_v1
def test_oom_kill_disable(api, engine):
    container = api.run(["sleep", "1000"], host={"OomKillDisable": True, "Memory": 64 << 20})
    path, _ = cgroup_file(engine, container, (MEMORY, "memory.oom_control", ""), None)
    assert "oom_kill_disable 1" in path.read_text()


def block_device():
    """A whole disk that the kernel can throttle."""
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith(("vd", "sd", "nvme", "loop")) and Path("/dev", name).exists():
            return f"/dev/{name}", Path("/sys/block", name, "dev").read_text().strip()
    return None, None


@pytest.mark.parametrize("field, file", [("BlkioDeviceReadBps", "read_bps"), ("BlkioDeviceWriteBps", "write_bps"),
                                         ("BlkioDeviceReadIOps", "read_iops"), ("BlkioDeviceWriteIOps", "write_iops")])
def test_block_io_rates(api, engine, field, file):
    path, number = block_device()
    if path is None:
        pytest.skip("no block device")
    container = api.run(["sleep", "1000"], host={field: [{"Path": path, "Rate": 1048576}]})
    v2_key = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}[file]
    at, _ = cgroup_file(engine, container, ("blkio", f"blkio.throttle.{file}_device", ""), ("io.max", ""))
    text = at.read_text()
    assert f"{number} 1048576" in text or f"{v2_key}=1048576" in text


def test_a_weight_that_the_kernel_cannot_hold_is_a_warning(api):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"BlkioWeight": 300}}
    reply = api.ok("POST", "/containers/create", body=body).json()
    if Path("/sys/fs/cgroup/blkio/blkio.weight").exists() or Path("/sys/fs/cgroup/blkio/blkio.bfq.weight").exists():
        pytest.skip("the kernel has weights")
    assert len(reply["Warnings"]) == 1 and "Block I/O weight" in reply["Warnings"][0]
    api.start(reply["Id"])
    assert api.wait(reply["Id"]) == 0


def test_kernel_memory_is_ignored(api):
    container = api.create(Cmd=["true"], host={"KernelMemoryTCP": 64 << 20})
    api.start(container)
    assert api.wait(container) == 0


@needs_v1
def test_cgroup_parent(api, engine):
    container = api.run(["sleep", "1000"], host={"CgroupParent": f"/{engine.name}/below"})
    assert (CGROUPS / "memory" / engine.name / "below" / container / "cgroup.procs").exists()
    api.remove(container)
    for parent in CGROUPS.glob(f"*/{engine.name}/below"):
        parent.rmdir()  # engines leave parents alone


@pytest.mark.gantry_only  # Docker asks for all capabilities there are, and a host like this one does not have them all
def test_privileged(api):
    _, output = run(api, "[ -c /dev/kmsg ] && echo devices; grep Seccomp: /proc/self/status; "
                    "grep -c ' /proc/kcore ' /proc/mounts; mknod /port c 1 7 && (echo > /port) 2>&1 | grep -c 'left on device'",
                    {"Privileged": True})
    assert output == "devices\nSeccomp:\t0\n0\n1\n"


@pytest.mark.gantry_only  # 1.55
def test_block_io_rates_of_a_running_container_change(api, engine):
    path, number = block_device()
    if path is None:
        pytest.skip("no block device")
    container = api.run(["sleep", "1000"])
    rates = {"BlkioDeviceReadBps": [{"Path": path, "Rate": 2097152}], "BlkioDeviceWriteIOps": [{"Path": path, "Rate": 77}]}
    api.ok("POST", f"/containers/{container}/update", body=rates)  # ignored before 1.55
    at, _ = cgroup_file(engine, container, ("blkio", "blkio.throttle.read_bps_device", ""), ("io.max", ""))
    assert number not in at.read_text()
    api.at("1.55").ok("POST", f"/containers/{container}/update", body=rates)
    assert f"{number} 2097152" in at.read_text() or "rbps=2097152" in at.read_text()
    assert api.inspect(container)["HostConfig"]["BlkioDeviceReadBps"] == rates["BlkioDeviceReadBps"]
    reply = api.at("1.55").post(f"/containers/{container}/update", body={"BlkioDeviceReadBps": [{"Path": "/nope", "Rate": 1}]})
    assert reply.status == 400 and "no such file or directory" in reply.message


@pytest.mark.parametrize("host, config, text", [
    ({}, {"User": "ghost"}, "unable to find user ghost: no matching entries in passwd file"),
    ({"GroupAdd": ["ghosts"]}, {}, "nable to find group ghosts"),
    ({"Devices": [{"PathOnHost": "/dev/no-such", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]}, {},
     'error gathering device information while adding custom device "/dev/no-such": no such file or directory'),
    ({"PidMode": "container:stopped"}, {}, ""),
    ({"IpcMode": "container:stopped"}, {}, ""),
])
def test_settings_that_turn_out_wrong_at_the_start(api, host, config, text):
    """The request was right: that is an error of the server's, and the container says what it was."""
    api.create(name="stopped", Cmd=["true"], host={"IpcMode": "shareable"})
    container = api.create(Cmd=["true"], host=host, **config)
    reply = api.post(f"/containers/{container}/start")
    assert reply.status == 500 and text in reply.message, reply
    state = api.state(container)
    assert (state["Status"], state["ExitCode"], text in state["Error"]) == ("created", 128, True)
