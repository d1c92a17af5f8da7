"""What each version of the API sends: golden documents per version, and dockerd's own up to 1.41.

ACCEPT=1 rewrites the golden documents; then read the difference.
"""

import json
import os
import re
from pathlib import Path

import pytest

from conftest import load, make_engine, wipe
from harness import differential
from harness.engine import Docker, Gantry, fetch_oracle

pytestmark = pytest.mark.gantry_only  # it starts dockerd itself

GOLDEN = Path(__file__).parent / "golden/api"
VERSIONS = ("1.24", "1.32", "1.40", "1.41", "1.44", "1.51", None)
COMPARED = ("1.24", "1.32", "1.40", "1.41")
SECOND = 10**9

CONTAINER = {
    "Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"team": "a"}, "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
    "Env": ["A=1"], "Hostname": "box", "User": "alice", "WorkingDir": "/tmp", "StopSignal": "SIGINT", "StopTimeout": 3,
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000 * SECOND},
    "HostConfig": {"Binds": ["data:/data:ro"], "Memory": 64 << 20, "PortBindings": {"80/tcp": [{"HostPort": ""}]},
                   "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "CapAdd": ["NET_ADMIN"],
                   "Mounts": [{"Type": "tmpfs", "Target": "/scratch"}], "NetworkMode": "net", "ShmSize": 1 << 20,
                   "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
}

# What dockerd 20.10 sends otherwise, and why we do not: patterns of the lines of missing().
KNOWN = {
    r"/inspect(-created)?/HostConfig/(Dns\w*|PortBindings) is ": "empty, not null, since dockerd 25",
    r"/inspect(-created)?/HostConfig/KernelMemory(TCP)? ": "left out when not set, since API 1.42",
    r"/(images|df/Images)\[\]/RepoDigests ": "images have digests, as with the containerd store",
    r"/image/GraphDriver/Data ": "the same",
    r"/networks?(\[\])?/IPAM/Options ": "empty, not null, as for networks that the client makes",
    r"/networks\[\]/Containers ": "not in lists since API 1.28; 20.10 sends it empty",
    r"/info/(KernelMemory(TCP)?|ExecutionDriver|Runtimes/io.containerd.runtime.v1.linux) ": "gone from newer versions",
    r"/info/RegistryConfig/AllowNondistributableArtifacts": "gone from newer versions, null for older clients",
    r"/df/BuildCache ": "empty, not null",
}


def ask(engine, version):
    """What clients read, after the same deeds."""
    api = engine.api(version)
    base = engine.api("1.41")
    documents = {
        "inspect": api.ok("GET", "/containers/shape/json").json(),
        "inspect-created": api.ok("GET", "/containers/plain/json").json(),
        "list": api.ok("GET", "/containers/json", {"all": 1, "filters": {"name": ["shape"]}}).json(),
        "images": api.ok("GET", "/images/json").json(),
        "image": api.ok("GET", "/images/busybox/json").json(),
        "history": api.ok("GET", "/images/busybox/history").json(),
        "networks": api.ok("GET", "/networks", {"filters": {"name": ["net"]}}).json(),
        "network": api.ok("GET", "/networks/net").json(),
        "volumes": api.ok("GET", "/volumes").json(),
        "volume": api.ok("GET", "/volumes/data").json(),
        "info": api.ok("GET", "/info").json(),
        "version": api.ok("GET", "/version").json(),
        "df": api.ok("GET", "/system/df").json(),
        "top": api.ok("GET", "/containers/shape/top").json(),
        "stats": api.ok("GET", "/containers/shape/stats", {"stream": 0}).json(),
        "changes": api.ok("GET", "/containers/plain/changes").json(),
        "create": base.at(version).ok("POST", "/containers/create", {"name": f"v{version}"}, body={"Image": "busybox"}).json(),
    }
    exec_id = api.ok("POST", "/containers/shape/exec", body={"Cmd": ["true"], "AttachStdout": True}).json()["Id"]
    documents["exec"] = api.ok("GET", f"/exec/{exec_id}/json").json()
    with api.events(type=["container"]) as stream:
        base.ok("POST", "/containers/plain/rename", {"name": "renamed"})
        base.ok("POST", "/containers/renamed/rename", {"name": "plain"})
        documents["event"] = stream.next()
    base.remove(f"v{version}")
    # These depend on the machine.
    documents["stats"]["memory_stats"].pop("stats")
    documents["info"].pop("Warnings")
    return differential.Normaliser(engine.root)(documents)


def record(engine, versions):
    api = engine.api("1.41")
    api.ok("POST", "/networks/create", body={"Name": "net", "IPAM": {"Config": [{"Subnet": "10.99.0.0/24"}]}})
    api.ok("POST", "/volumes/create", body={"Name": "data", "Labels": {"l": "v"}})
    api.ok("POST", "/containers/create", {"name": "shape"}, body=CONTAINER)
    api.start("shape")
    api.create(name="plain", Cmd=["true"])
    try:
        return {version: differential.shape(ask(engine, version)) for version in versions}
    finally:
        wipe(engine)


@pytest.fixture(scope="module")
def shapes(busybox_tar):
    fetch_oracle()
    recorded = {}
    for kind, versions in ((Docker, COMPARED), (Gantry, VERSIONS)):
        engine = make_engine(kind)
        try:
            engine.start()
            load(engine, busybox_tar)
            recorded[kind] = record(engine, versions)
        finally:
            engine.destroy()
    return recorded


def lines(document):
    return json.dumps(document, indent=1, sort_keys=True).splitlines()


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_the_documents_of_a_version_are_those_of_before(shapes, version):
    path = GOLDEN / f"{version or 'newest'}.json"
    if os.environ.get("ACCEPT"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines(shapes[Gantry][version])) + "\n")
    differential.check(path.read_text().splitlines(), lines(shapes[Gantry][version]))


def missing(docker, gantry, at=""):
    """Keys that dockerd has and we have not, and values of another kind."""
    if isinstance(docker, dict) and isinstance(gantry, dict):
        out = []
        for key, value in docker.items():
            if key not in gantry:
                out.append(f"{at}/{key} is missing")
            else:
                out += missing(value, gantry[key], f"{at}/{key}")
        return out
    if isinstance(docker, list) and isinstance(gantry, list):
        return missing(docker[0], gantry[0], f"{at}[]") if docker and gantry else []
    return [] if type(docker) is type(gantry) and docker == gantry else [f"{at} is {gantry} instead of {docker}"]


@pytest.mark.parametrize("version", COMPARED)
def test_what_dockerd_sends_is_there(shapes, version):
    found = missing(shapes[Docker][version], shapes[Gantry][version])
    assert [line for line in found if not any(re.match(known, line) for known in KNOWN)] == []
