"""What create and update refuse, with the status and the words that clients get; nothing of it leaves anything behind."""

import json

import pytest

from harness import leaks

MIB = 1 << 20


def bind(**more):
    return {"Type": "bind", "Source": "/etc", "Target": "/m", **more}


def volume(**more):
    return {"Type": "volume", "Source": "v", "Target": "/m", **more}


def ours(name, host, text, status=400, version="1.41", **config):
    """Where dockerd 20.10 says something else, or nothing."""
    return pytest.param(host, config, status, text, version, id=name, marks=pytest.mark.gantry_only)


def both(name, host, text, status=400, version="1.41", **config):
    return pytest.param(host, config, status, text, version, id=name)


# The text is what the message must contain. Where dockerd wraps a wrong request in a 500, 400 is right, too.
CREATE = [
    # Limits.
    both("memory_too_small", {"Memory": 4096}, "Minimum memory limit allowed is"),
    both("memory_negative", {"Memory": -5}, "Minimum memory limit allowed is"),
    both("swap_without_memory", {"MemorySwap": 64 * MIB},
         "You should always set the Memory limit when using Memoryswap limit, see usage"),
    both("swap_below_memory", {"Memory": 64 * MIB, "MemorySwap": 32 * MIB},
         "Minimum memoryswap limit should be larger than memory limit, see usage"),
    both("reservation_above_memory", {"Memory": 64 * MIB, "MemoryReservation": 65 * MIB},
         "Minimum memory limit can not be less than memory reservation limit, see usage"),
    both("reservation_too_small", {"MemoryReservation": 1}, "Minimum memory reservation allowed is"),
    both("swappiness", {"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
    both("nano_cpus_and_period", {"NanoCpus": 10 ** 9, "CpuPeriod": 1000},
         "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
    both("nano_cpus_and_quota", {"NanoCpus": 10 ** 9, "CpuQuota": 10000},
         "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    both("too_many_cpus", {"NanoCpus": 10 ** 15}, "ange of CPUs is from 0.01 to"),
    both("period", {"CpuPeriod": 10}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    both("quota", {"CpuQuota": 10}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    both("shares_negative", {"CpuShares": -1}, "", status=(400, 201)),
    both("cpus", {"CpusetCpus": "4000"}, "Requested CPUs are not available - requested 4000, available: "),
    both("cpus_nonsense", {"CpusetCpus": "a-b"}, "Invalid value a-b for cpuset cpus"),
    both("mems_nonsense", {"CpusetMems": "x"}, "Invalid value x for cpuset mems"),
    both("mems", {"CpusetMems": "7"}, "Requested memory nodes are not available - requested 7, available: "),
    both("weight", {"BlkioWeight": 5}, "ange of blkio weight is from 10 to 1000", status=(400, 201)),
    both("shm", {"ShmSize": -1}, "SHM size can not be less than 0"),
    both("oom_score", {"OomScoreAdj": 5000}, "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ours("ulimit_name", {"Ulimits": [{"Name": "nope", "Soft": 1, "Hard": 1}]}, "invalid ulimit type: nope"),
    ours("ulimit_order", {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]},
         "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
    both("pids", {"PidsLimit": "many"}, ""),
    # Modes that are none, and that exclude each other.
    ours("ipc", {"IpcMode": "nope"}, "nvalid IPC mode: nope"),
    ours("pid", {"PidMode": "nope"}, "nvalid PID mode"),
    ours("uts", {"UTSMode": "nope"}, "nvalid UTS mode"),
    ours("userns", {"UsernsMode": "nope"}, "invalid userns mode: nope"),
    both("cgroupns", {"CgroupnsMode": "nope"}, "invalid cgroup namespace mode: nope"),
    both("isolation", {"Isolation": "hyperv"}, "nvalid isolation"),
    both("runtime", {"Runtime": "nope"}, "nope"),
    both("log_driver", {"LogConfig": {"Type": "nope"}}, "nope"),
    both("log_option", {"LogConfig": {"Type": "json-file", "Config": {"nope": "1"}}},
         "unknown log opt 'nope' for json-file log driver"),
    both("restart_policy", {"RestartPolicy": {"Name": "sometimes"}}, "nvalid restart policy"),
    both("retries_of_always", {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, "maximum retry count"),
    both("auto_remove_with_policy", {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
         "an't create 'AutoRemove' container with restart policy"),
    both("hostname_of_a_joined_network", {"NetworkMode": "container:x"}, "conflicting options: hostname and the network mode",
         Hostname="h"),
    both("dns_of_a_joined_network", {"NetworkMode": "container:x", "Dns": ["1.1.1.1"]},
         "conflicting options: dns and the network mode"),
    both("hosts_of_a_joined_network", {"NetworkMode": "container:x", "ExtraHosts": ["a:1.1.1.1"]},
         "conflicting options: custom host-to-IP mapping and the network mode"),
    both("ports_of_a_joined_network", {"NetworkMode": "container:x", "PublishAllPorts": True},
         "conflicting options: port publishing and the container type network mode"),
    both("links_of_a_joined_network", {"NetworkMode": "container:x", "Links": ["a:b"]},
         "conflicting options: container type network can't be used with links. This would result in undefined behavior"),
    both("links_of_the_hosts_network", {"NetworkMode": "host", "Links": ["a:b"]},
         "conflicting options: host type networking can't be used with links. This would result in undefined behavior"),
    both("nobody_to_join", {"NetworkMode": "container:"}, "invalid container format container:<name|id>"),
    both("hostname_of_the_hosts_uts", {"UTSMode": "host"}, "conflicting options: hostname and the UTS mode", Hostname="h"),
    # Security.
    both("capability", {"CapAdd": ["NOPE"]}, 'nvalid CapAdd: unknown capability: "CAP_NOPE"'),
    both("capability_drop", {"CapDrop": ["NOPE"]}, 'nvalid CapDrop: unknown capability: "CAP_NOPE"'),
    ours("security_option", {"SecurityOpt": ["bogus=1"]}, 'invalid --security-opt 2: "bogus=1"'),
    ours("seccomp_json", {"SecurityOpt": ["seccomp={"]}, "seccomp"),
    ours("masked_path", {"MaskedPaths": ["proc/kcore"]}, 'invalid MaskedPaths: "proc/kcore" is not an absolute path'),
    both("sysctl_of_the_hosts_network", {"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"},
         "", status=(400, 201)),
    ours("sysctl_of_the_machine", {"Sysctls": {"kernel.core_pattern": "x"}}, "is not in a separate kernel namespace"),
    ours("device_path", {"Devices": [{"PathOnHost": "null", "PathInContainer": "/dev/x"}]}, "PathOnHost"),
    both("device_rule", {"DeviceCgroupRules": ["z 1:1 r"]}, "z 1:1 r", status=(400, 201)),
    ours("cgroup_parent", {"CgroupParent": "/../up"}, "invalid cgroup-parent"),
    ours("annotation", {"Annotations": {"": "x"}}, "the empty string is not permitted as an annotation key", version="1.43"),
    both("storage_option", {"StorageOpt": {"size": "1G"}}, "--storage-opt is supported only for overlay over xfs"),
    # Mounts.
    both("bind_missing", {"Mounts": [bind(Source="/no/such/path")]},
         'invalid mount config for type "bind": bind source path does not exist: /no/such/path'),
    both("bind_relative", {"Mounts": [bind(Source="etc")]}, "invalid mount path: 'etc' mount path must be absolute"),
    both("no_target", {"Mounts": [bind(Target="")]}, 'invalid mount config for type "bind": field Target must not be empty'),
    both("no_source", {"Mounts": [bind(Source="")]}, 'invalid mount config for type "bind": field Source must not be empty'),
    both("target_root", {"Mounts": [bind(Target="/")]}, "destination can't be '/'"),
    both("target_climbs_to_the_root", {"Mounts": [bind(Target="/a/..")]}, "destination can't be '/'"),
    both("target_relative", {"Mounts": [bind(Target="m")]}, "mount path must be absolute"),
    both("mount_type", {"Mounts": [bind(Type="nope")]}, 'invalid mount config for type "nope": mount type unknown'),
    both("propagation", {"Mounts": [bind(BindOptions={"Propagation": "nope"})]}, "invalid propagation mode: nope"),
    ours("bind_with_volume_options", {"Mounts": [bind(VolumeOptions={})]},
         'VolumeOptions must not be specified', version="1.42"),
    both("tmpfs_with_source", {"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/m"}]},
         'invalid mount config for type "tmpfs": field Source must not be specified'),
    both("anonymous_read_only", {"Mounts": [volume(Source="", ReadOnly=True)]},
         "must not set ReadOnly mode when using anonymous volumes"),
    both("volume_name", {"Mounts": [volume(Source="a/b")]}, "includes invalid characters for a local volume name"),
    both("duplicate_mounts", {"Mounts": [bind(), bind(Source="/tmp")]}, "Duplicate mount point: /m"),
    both("duplicate_of_two_kinds", {"Mounts": [bind()], "Binds": ["/tmp:/m"]}, "Duplicate mount point: /m"),
    both("duplicate_after_cleaning", {"Binds": ["/tmp:/m/x/..", "/etc:/m"]}, "Duplicate mount point: /m"),
    both("duplicate_tmpfs", {"Binds": ["/tmp:/m"], "Tmpfs": {"/m": ""}}, "Duplicate mount point: /m"),
    both("bind_with_four_parts", {"Binds": ["a:b:c:d"]}, "invalid volume specification: 'a:b:c:d'"),
    both("bind_mode", {"Binds": ["/etc:/m:nope"]}, "invalid mode: nope"),
    both("bind_two_modes", {"Binds": ["/etc:/m:ro,rw"]}, "invalid mode: ro,rw"),
    both("bind_empty", {"Binds": [""]}, "invalid volume specification"),
    both("tmpfs_path", {"Tmpfs": {"m": ""}}, "m"),
    ours("tmpfs_option", {"Tmpfs": {"/m": "nope=1"}}, 'invalid tmpfs option "nope=1"'),
    both("volumes_from_nobody", {"VolumesFrom": ["nobody"]}, "No such container: nobody", status=(400, 404)),
    both("volumes_from_mode", {"VolumesFrom": ["nobody:nope"]}, "nope", status=(400, 404)),
    both("volume_driver", {"Binds": ["vol:/m"], "VolumeDriver": "nope"}, "nope", status=(400, 404)),
    both("volume_driver_option", {"Mounts": [volume(Source="own", VolumeOptions={"DriverConfig": {"Name": "local", "Options": {
        "nope": "1"}}})]}, 'invalid option'),
    # Config.
    both("no_command", {}, "ommand specified", Cmd=[], Entrypoint=[""]),
    both("working_dir", {}, "the working directory 'x' is invalid, it needs to be an absolute path", WorkingDir="x"),
    both("working_dir_is_a_file", {}, "Cannot mkdir: /etc/passwd is not a directory", WorkingDir="/etc/passwd"),
    both("env_without_a_name", {}, "invalid environment variable: =x", Env=["=x"]),
    both("stop_signal", {}, "nvalid signal: NOPE", StopSignal="NOPE"),
    both("health_interval", {}, "Interval in Healthcheck cannot be less than 1ms", Healthcheck={"Interval": 5}),
    both("image", {}, "No such image: nope:latest", status=404, Image="nope"),
    ours("hostname_lines", {}, "invalid Hostname", Hostname="a\nb"),
    both("port_binding", {"PortBindings": {"80/tcp": [{"HostPort": "abc"}]}}, "abc"),
    both("port_name", {"PortBindings": {"x/tcp": []}}, "", status=(400, 500)),
    # Wrong types.
    both("memory_text", {"Memory": "64m"}, ""),
    both("binds_map", {"Binds": {"a": "b"}}, ""),
    both("mounts_text", {"Mounts": "x"}, ""),
    both("cmd_number", {}, "", Cmd=5),
    both("labels_list", {}, "", Labels=["a"]),
]


@pytest.fixture
def state(engine, clean):
    """Whatever is refused leaves the engine as it was."""
    api = engine.api()

    def look():
        containers = [c["Id"] for c in api.ok("GET", "/containers/json", {"all": 1}).json()]
        volumes = sorted(v["Name"] for v in api.ok("GET", "/volumes").json()["Volumes"] or [])
        directories = sorted(path.name for path in (engine.data_root / "containers").iterdir())
        return containers, volumes, directories, leaks.mounts(engine), leaks.cgroups(engine)

    before = look()
    yield api
    assert look() == before


@pytest.mark.parametrize("host, config, status, text, version", CREATE)
def test_create_refuses(state, host, config, status, text, version):
    body = {"Image": "busybox", "Cmd": ["true"], **config, "HostConfig": host}
    reply = state.at(version).post("/containers/create", body=body)
    wanted = status if isinstance(status, tuple) else (status,)
    if reply.status == 201:
        state.remove(reply.json()["Id"])
    assert reply.status in wanted + ((500,) if 400 in wanted else ()), reply
    assert reply.status == 201 or text in reply.message, reply.message
    assert reply.status == 201 or reply.message


@pytest.mark.parametrize("body, text", [
    (b"{", ""), (b"", ""), (b"[]", ""), (b"null", "onfig cannot be empty in order to create a container"), (b'"x"', ""),
    (b'{"Image": "busybox", "Cmd": ["true"]', ""), (b"\xff\xfe", ""), (b"[" * 100000, ""),
], ids=["cut_off", "empty", "list", "null", "text", "without_end", "no_utf8", "deep"])
def test_bodies_that_are_no_request(engine, state, body, text):
    reply = state.post("/containers/create", data=body, headers={"Content-Type": "application/json"})
    # dockerd 20.10 answers 500, and reads no further than the first document.
    assert reply.status == (500 if engine.kind == "docker" and text == "" else 400), reply
    assert text in reply.message and reply.message


def test_a_body_of_another_type(state):
    reply = state.post("/containers/create", data=b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status == 400


BAD_NAMES = ["a", "-ab", ".ab", "_ab", "a b", "a/b", "a:b", "a@b", "a\tb", "a\nb", "ä", "a,b", "a*b", "..", "a" + "\x7f", "a%b", "a\\b", 'a"b',
             "a'b", "a$b", "a;b", "a(b", "a#b", "a?b", "a&b", "a=b", "a+b", "a~b", "a<b", "a|b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_containers(state, name):
    reply = state.post("/containers/create", {"name": name}, body={"Image": "busybox", "Cmd": ["true"]})
    assert reply.status == 400 and reply.message.startswith(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are"), reply


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_volumes(state, name):
    reply = state.post("/volumes/create", body={"Name": name})
    assert reply.status in (400, 500) and reply.message, reply
    reply = state.post("/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [volume(Source=name)]}})
    assert reply.status in (400, 500) and reply.message, reply


@pytest.mark.gantry_only  # dockerd takes them, and keeps them in memory for ever
def test_ten_megabytes_of_labels(state):
    body = {"Image": "busybox", "Cmd": ["true"], "Labels": {f"label{i}": "x" * 1000 for i in range(10000)}}
    reply = state.post("/containers/create", body=body)
    assert (reply.status, reply.message) == (400, "request body too large: the limit is 8388608 bytes")


UPDATE = [
    both("memory_too_small", {"Memory": 4096}, "Minimum memory limit allowed is"),
    both("swap_below_memory", {"MemorySwap": 32 * MIB}, ""),
    both("memory_above_swap", {"Memory": 512 * MIB},
         "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time", status=(400, 409)),
    both("cpus", {"CpusetCpus": "4000"}, "Requested CPUs are not available - requested 4000, available: "),
    both("period", {"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
    both("nano_cpus_of_a_quota", {"NanoCpus": 500000000}, "Conflicting options", status=(400, 409)),
    both("restart_policy", {"RestartPolicy": {"Name": "sometimes"}}, "nvalid restart policy"),
    both("retries", {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}, "maximum retry count"),
    both("wrong_type", {"Memory": "x"}, ""),
    both("a_list", [], ""),
]


@pytest.mark.parametrize("host, config, status, text, version", UPDATE)
def test_update_refuses(engine, clean, host, config, status, text, version):
    api = engine.api()
    container = api.run(["sleep", "1000"], host={"Memory": 64 * MIB, "MemorySwap": 128 * MIB, "CpuQuota": 50000, "CpuPeriod": 100000})
    before = api.inspect(container)["HostConfig"]
    reply = api.post(f"/containers/{container}/update", body=host)
    wanted = status if isinstance(status, tuple) else (status,)
    assert reply.status in wanted + (500,), reply
    assert text in reply.message and reply.message
    assert api.inspect(container)["HostConfig"] == before
    assert api.state(container)["Running"]


def test_the_policy_of_a_container_that_goes_by_itself(api):
    container = api.run(["sleep", "1000"], host={"AutoRemove": True})
    reply = api.post(f"/containers/{container}/update", body={"RestartPolicy": {"Name": "always"}})
    assert reply.status in (400, 409, 500)
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in reply.message


def test_an_update_of_nobody(api):
    reply = api.post("/containers/nobody/update", body={"Memory": 64 * MIB})
    assert (reply.status, reply.message) == (404, "No such container: nobody")


def test_limits_of_a_running_container_change(api, engine):
    from harness.hostconfig import MEMORY, cgroup_file

    container = api.run(["sleep", "1000"], host={"Memory": 64 * MIB, "MemorySwap": 64 * MIB})
    assert api.ok("POST", f"/containers/{container}/update", body={"Memory": 96 * MIB, "MemorySwap": 96 * MIB, "PidsLimit": 77}).json() in (
        {"Warnings": None}, {"Warnings": []})
    for v1, v2 in (((MEMORY, "memory.limit_in_bytes", str(96 * MIB)), ("memory.max", str(96 * MIB))),
                   (("pids", "pids.max", "77"), ("pids.max", "77"))):
        path, value = cgroup_file(engine, container, v1, v2)
        assert path.read_text().strip() == value
    assert json.dumps(api.inspect(container)["HostConfig"]["Memory"]) == str(96 * MIB)
