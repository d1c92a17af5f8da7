"""Images go to and fro between engines: skopeo, podman, buildah and Debian's dockerd read what we save and push, and we
load what they write."""

import json
import subprocess

import pytest

from conftest import load, make_engine
from harness.engine import Docker, fetch_oracle
from harness.interchange import Containers

pytestmark = pytest.mark.slow


@pytest.fixture
def containers(scratch):
    return Containers(scratch)


def saved(api, scratch, name="busybox:latest"):
    file = scratch / "saved.tar"
    file.write_bytes(api.ok("GET", f"/images/{name}/get").body)
    return file


def given(containers, api, scratch):
    """Our busybox in podman's store: its name there."""
    return containers.podman("load", *containers.policy, "-i", saved(api, scratch)).split()[-1]


def layers_of(api, name="busybox:latest"):
    return api.ok("GET", f"/images/{name}/json").json()["RootFS"]["Layers"]


def skopeo(*arguments):
    result = subprocess.run(["skopeo", *map(str, arguments)], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return result.stdout


def forget(api, name):
    api.delete(f"/images/{name}", {"force": 1})


def runs(api, name):
    container = api.run("echo fine", image=name)
    return api.wait(container) == 0


def push(api, registry, name):
    api.ok("POST", "/images/busybox/tag", {"repo": f"{registry.host}/{name}", "tag": "1"})
    lines = api.ok("POST", f"/images/{registry.host}/{name}/push", {"tag": "1"}, headers={"X-Registry-Auth": "e30="}).lines()
    assert "error" not in lines[-1], lines
    forget(api, f"{registry.host}/{name}:1")
    return f"{registry.host}/{name}:1"


def test_skopeo_reads_what_we_save_and_push(api, scratch, registry):
    config = json.loads(skopeo("inspect", "--config", f"docker-archive:{saved(api, scratch)}"))
    assert config["rootfs"]["diff_ids"] == layers_of(api)
    name = push(api, registry, "skopeo")
    config = json.loads(skopeo("inspect", "--tls-verify=false", "--config", f"docker://{name}"))
    assert config["rootfs"]["diff_ids"] == layers_of(api)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_we_load_what_skopeo_writes(api, scratch, kind):
    wanted = layers_of(api)
    if kind == "oci-archive" and not is_gantry(api):
        pytest.skip("dockerd 20.10 knows no OCI archives")
    file = scratch / "written.tar"
    name = "docker.io/library/written:1"
    skopeo("copy", "--insecure-policy", f"docker-archive:{saved(api, scratch)}", f"{kind}:{file}:{name}")
    reply = api.ok("POST", "/images/load", data=file.read_bytes(), headers={"Content-Type": "application/x-tar"})
    assert reply.lines()[-1]["stream"].startswith("Loaded image: written:1"), reply.body
    assert layers_of(api, "written:1") == wanted and runs(api, "written:1")


def is_gantry(api):
    return "gantry" in json.dumps(api.ok("GET", "/version").json()).lower()


def test_podman_and_buildah_read_what_we_save_and_push(api, scratch, containers, registry):
    wanted = layers_of(api)
    assert containers.image(given(containers, api, scratch))["RootFS"]["Layers"] == wanted
    name = push(api, registry, "podman")
    containers.podman("pull", *containers.policy, "--tls-verify=false", name)
    assert containers.image(name)["RootFS"]["Layers"] == wanted
    working = containers.buildah("from", *containers.policy, "--pull-never", name).strip()
    assert json.loads(containers.buildah("inspect", working))["OCIv1"]["rootfs"]["diff_ids"] == wanted


@pytest.mark.parametrize("layout", ["docker-archive", "oci-archive"])
def test_we_load_what_podman_saves(api, scratch, containers, layout):
    if layout == "oci-archive" and not is_gantry(api):
        pytest.skip("dockerd 20.10 knows no OCI archives")
    wanted = layers_of(api)
    containers.podman("tag", given(containers, api, scratch), "docker.io/library/podman:1")
    file = scratch / "podman.tar"
    containers.podman("save", *containers.policy, "--format", layout, "-o", file, "docker.io/library/podman:1")
    api.ok("POST", "/images/load", data=file.read_bytes(), headers={"Content-Type": "application/x-tar"})
    assert layers_of(api, "podman:1") == wanted and runs(api, "podman:1")


@pytest.mark.parametrize("layout", ["docker-archive", "oci-archive"])
def test_we_load_and_pull_what_buildah_builds(api, scratch, containers, registry, layout):
    if layout == "oci-archive" and not is_gantry(api):
        pytest.skip("dockerd 20.10 knows no OCI archives")
    busybox = given(containers, api, scratch)
    working = containers.buildah("from", *containers.policy, "--pull-never", busybox).strip()
    (scratch / "added").write_text("by buildah\n")
    containers.buildah("copy", working, scratch / "added", "/added")
    containers.buildah("config", "--env", "BUILT=yes", working)
    containers.buildah("commit", *containers.policy, working, "docker.io/library/built:1")
    file = scratch / "built.tar"
    containers.buildah("push", *containers.policy, "docker.io/library/built:1", f"{layout}:{file}:docker.io/library/built:1")
    api.ok("POST", "/images/load", data=file.read_bytes(), headers={"Content-Type": "application/x-tar"})
    container = api.run("cat /added; echo $BUILT", image="built:1")
    assert api.wait(container) == 0 and api.logs(container) == b"by buildah\nyes\n"
    name = f"{registry.host}/built:{layout[0]}"
    containers.buildah("push", *containers.policy, "--tls-verify=false", "docker.io/library/built:1", f"docker://{name}")
    api.ok("POST", "/images/create", {"fromImage": name})
    assert runs(api, name)


@pytest.mark.gantry_only
def test_archives_go_to_dockerd_and_back_with_the_same_image(engine, api, scratch):
    fetch_oracle()
    dockerd = make_engine(Docker)
    try:
        dockerd.start()
        theirs = dockerd.api()
        load(dockerd, saved(api, scratch).read_bytes())
        assert layers_of(theirs) == layers_of(api) and runs(theirs, "busybox:latest")
        config = api.ok("GET", "/images/busybox/get").body
        theirs.ok("POST", "/images/busybox/tag", {"repo": "docker", "tag": "1"})
        load(engine, theirs.ok("GET", "/images/docker:1/get").body)
        assert layers_of(api, "docker:1") == layers_of(api) and runs(api, "docker:1")
        forget(theirs, "docker:1")
        load(dockerd, api.ok("GET", "/images/docker:1/get").body)
        assert layers_of(theirs, "docker:1") == layers_of(theirs)
        assert config
    finally:
        dockerd.destroy()


@pytest.mark.gantry_only
def test_save_and_load_keep_the_id(engine, api, scratch):
    before = api.ok("GET", "/images/busybox/json").json()
    data = saved(api, scratch).read_bytes()
    api.ok("DELETE", "/images/busybox", {"force": 1})
    load(engine, data)
    after = api.ok("GET", "/images/busybox/json").json()
    assert (after["Id"], after["RootFS"], after["Config"]) == (before["Id"], before["RootFS"], before["Config"])
