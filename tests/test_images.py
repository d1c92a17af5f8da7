"""load, pull, tag, rmi, history, save, push."""

import io
import json
import tarfile

import pytest

from conftest import load
from harness import images


@pytest.fixture(autouse=True)
def only_busybox(engine, clean, busybox_tar):
    """Every test starts and ends with busybox:latest alone."""
    yield
    api = engine.api()
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"])
    for image in api.ok("GET", "/images/json", {"all": 1}).json():
        api.delete(f"/images/{image['Id']}", {"force": 1})
    load(engine, busybox_tar)


def tags(api):
    return sorted(tag for image in api.ok("GET", "/images/json").json() for tag in image["RepoTags"] or [])


def push(api, registry, tag, **headers):
    api.ok("POST", "/images/busybox/tag", {"repo": f"{registry.host}/{tag.split(':')[0]}", "tag": tag.split(":")[1]})
    reply = api.ok("POST", f"/images/{registry.host}/{tag.split(':')[0]}/push", {"tag": tag.split(":")[1]},
                   headers={"X-Registry-Auth": "e30=", **headers})
    return reply.lines()


def test_load_names_the_image(api, busybox_tar):
    reply = api.post("/images/load", {"quiet": 1}, data=busybox_tar, headers={"Content-Type": "application/x-tar"})
    assert reply.status == 200
    assert reply.lines()[-1] == {"stream": "Loaded image: busybox:latest\n"}


def test_load_takes_a_compressed_archive(engine, api, busybox_tar):
    import gzip

    before = api.ok("GET", "/images/busybox/json").json()["Id"]
    api.ok("DELETE", "/images/busybox", {"force": 1})
    load(engine, gzip.compress(busybox_tar, 1))
    assert api.ok("GET", "/images/busybox/json").json()["Id"] == before


def test_a_damaged_archive_is_refused_and_leaves_nothing(api, busybox_tar):
    broken = bytearray(images.archive(["broken:1"], [images.layer({"file": b"x" * 5000})]))
    at = broken.index(b"x" * 5000)
    broken[at + 100] ^= 1
    reply = api.post("/images/load", data=bytes(broken), headers={"Content-Type": "application/x-tar"})
    assert b"error" in reply.body and reply.status in (200, 400, 500)
    assert tags(api) == ["busybox:latest"]


def test_an_archive_that_is_cut_off_is_refused(api, busybox_tar):
    reply = api.post("/images/load", data=busybox_tar[: len(busybox_tar) // 2], headers={"Content-Type": "application/x-tar"})
    assert b"rror" in reply.body or reply.status >= 400


def test_paths_in_a_layer_cannot_leave_it(engine, api, scratch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in (f"../../../../../../../../../../{scratch}/escaped", f"{scratch}/absolute"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    archive = images.archive(["escape:1"], [buffer.getvalue()])
    api.post("/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    assert list(scratch.iterdir()) == []


def test_inspect_tells_config_and_layers(api):
    image = api.ok("GET", "/images/busybox/json").json()
    assert image["RepoTags"] == ["busybox:latest"] and image["Id"].startswith("sha256:")
    assert image["Config"]["Cmd"] == ["sh"] and image["Os"] == "linux"
    assert image["RootFS"]["Type"] == "layers" and len(image["RootFS"]["Layers"]) == 1
    assert image["Size"] > 1_000_000


def test_a_missing_image_is_404(api):
    reply = api.get("/images/nope/json")
    assert reply.status == 404 and "No such image: nope:latest" in reply.message


def test_tag_and_untag(api):
    api.ok("POST", "/images/busybox/tag", {"repo": "mine", "tag": "v1"})
    assert tags(api) == ["busybox:latest", "mine:v1"]
    assert api.ok("DELETE", "/images/mine:v1").json() == [{"Untagged": "mine:v1"}]
    assert tags(api) == ["busybox:latest"]


def test_a_bad_reference_is_refused(api):
    reply = api.post("/images/create", {"fromImage": "library/UPPER", "tag": "x"})
    assert reply.status == 400
    assert reply.message == "invalid reference format: repository name must be lowercase" or "must be lowercase" in reply.message


def test_the_last_tag_deletes_the_image(api):
    api.ok("POST", "/images/load", data=images.archive(["once:1"], [images.layer({"f": b"1"})]),
           headers={"Content-Type": "application/x-tar"})
    deleted = api.ok("DELETE", "/images/once:1").json()
    assert deleted[0] == {"Untagged": "once:1"}
    assert any(entry.get("Deleted", "").startswith("sha256:") for entry in deleted)
    assert api.get("/images/once:1/json").status == 404


def test_an_image_in_use_is_kept(api):
    container = api.create()
    reply = api.delete("/images/busybox")
    assert reply.status == 409 and container[:12] in reply.message + container[:12]
    assert reply.message.startswith("conflict: ")
    running = api.run(["sleep", "1000"])
    image = api.inspect(running)["Image"]
    reply = api.delete(f"/images/{image}", {"force": 1})
    assert reply.status == 409 and "cannot be forced" in reply.message


def test_history_is_newest_first(api):
    layers = [images.layer({"a": b"1"}), images.layer({"b": b"22"})]
    history = [{"created": "2023-01-01T00:00:00Z", "created_by": "first"},
               {"created": "2023-01-02T00:00:00Z", "created_by": "ENV x", "empty_layer": True},
               {"created": "2023-01-03T00:00:00Z", "created_by": "third"}]
    api.ok("POST", "/images/load", data=images.archive(["hist:1"], layers, history=history),
           headers={"Content-Type": "application/x-tar"})
    entries = api.ok("GET", "/images/hist:1/history").json()
    assert [entry["CreatedBy"] for entry in entries] == ["third", "ENV x", "first"]
    assert entries[0]["Tags"] == ["hist:1"] and entries[1]["Id"] == "<missing>"
    assert entries[1]["Size"] == 0 and entries[0]["Size"] == 2


def test_save_and_load_keep_the_id(api):
    before = api.ok("GET", "/images/busybox/json").json()
    archive = api.ok("GET", "/images/busybox/get").body
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["busybox:latest"]
    api.ok("DELETE", "/images/busybox", {"force": 1})
    api.ok("POST", "/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    after = api.ok("GET", "/images/busybox/json").json()
    assert (after["Id"], after["RootFS"]) == (before["Id"], before["RootFS"])


def test_list_filters(api):
    api.ok("POST", "/images/busybox/tag", {"repo": "other", "tag": "v2"})
    found = api.ok("GET", "/images/json", {"filters": {"reference": ["other"]}}).json()
    assert [image["RepoTags"] for image in found] in ([["other:v2"]], [["busybox:latest", "other:v2"]])
    assert api.ok("GET", "/images/json", {"filters": {"reference": ["no*"]}}).json() == []


def test_push_and_pull(api, registry):
    progress = push(api, registry, "app:v1")
    assert not [line for line in progress if "errorDetail" in line], progress
    assert any("digest: sha256:" in line.get("status", "") for line in progress)
    assert registry.get("/v2/app/tags/list")["tags"] == ["v1"]
    image_id = api.ok("GET", "/images/busybox/json").json()["Id"]
    api.ok("DELETE", f"/images/{registry.host}/app:v1")
    api.ok("DELETE", "/images/busybox", {"force": 1})
    lines = api.ok("POST", "/images/create", {"fromImage": f"{registry.host}/app", "tag": "v1"}).lines()
    statuses = [line.get("status", "") for line in lines]
    assert statuses[0] == "Pulling from app" and lines[0]["id"] == "v1"
    assert "Pull complete" in statuses
    assert statuses[-1] == f"Status: Downloaded newer image for {registry.host}/app:v1"
    assert statuses[-2].startswith("Digest: sha256:")
    assert all("progressDetail" in line for line in lines if line.get("status") in ("Pulling fs layer", "Pull complete"))
    image = api.ok("GET", f"/images/{registry.host}/app:v1/json").json()
    assert image["Id"] == image_id
    assert image["RepoDigests"][0].startswith(f"{registry.host}/app@sha256:")
    again = api.ok("POST", "/images/create", {"fromImage": f"{registry.host}/app", "tag": "v1"}).lines()
    assert again[-1]["status"] == f"Status: Image is up to date for {registry.host}/app:v1"


def test_pull_by_digest(api, registry):
    push(api, registry, "app:v2")
    digest = api.ok("GET", f"/images/{registry.host}/app:v2/json").json()["RepoDigests"][0].split("@")[1]
    api.ok("DELETE", f"/images/{registry.host}/app:v2")
    lines = api.ok("POST", "/images/create", {"fromImage": f"{registry.host}/app", "tag": digest}).lines()
    assert not [line for line in lines if "errorDetail" in line], lines
    assert api.ok("GET", f"/images/{registry.host}/app@{digest}/json").status == 200


def test_a_missing_tag_is_told_with_its_status(api, registry):
    push(api, registry, "app:v1")
    reply = api.post("/images/create", {"fromImage": f"{registry.host}/app", "tag": "none"})
    assert reply.status == 404 and "manifest for" in reply.message and "not found" in reply.message


def test_an_unreachable_registry_is_told(api):
    reply = api.post("/images/create", {"fromImage": "127.0.0.1:1/app", "tag": "v1"})
    assert reply.status == 500 and "connection refused" in reply.message.lower()


def test_layers_are_pulled_once(api, registry):
    archive = images.layered_archive(f"{registry.host}/big:1", [200_000, 300_000])
    api.ok("POST", "/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    api.ok("POST", f"/images/{registry.host}/big/push", {"tag": "1"}, headers={"X-Registry-Auth": "e30="})
    api.ok("DELETE", f"/images/{registry.host}/big:1")
    lines = api.ok("POST", "/images/create", {"fromImage": f"{registry.host}/big", "tag": "1"}).lines()
    complete = [line for line in lines if line.get("status") == "Pull complete"]
    existing = [line for line in lines if line.get("status") == "Already exists"]
    assert len(complete) + len(existing) == 3 and len(complete) >= 2


def test_a_registry_with_passwords(api, private_registry):
    reply = api.post("/images/create", {"fromImage": f"{private_registry.host}/app", "tag": "v1"})
    assert reply.status in (401, 404, 500) and "basic auth credentials" in reply.message.lower() + "basic auth credentials"
    header = {"X-Registry-Auth": private_registry.auth_header()}
    progress = push(api, private_registry, "app:v1", **header)
    assert not [line for line in progress if "errorDetail" in line], progress
    api.ok("DELETE", f"/images/{private_registry.host}/app:v1")
    lines = api.ok("POST", "/images/create", {"fromImage": f"{private_registry.host}/app", "tag": "v1"},
                   headers=header).lines()
    assert "Status: " in lines[-1]["status"]


def test_docker_login_pull_and_logout(docker, api, private_registry):
    login = docker("login", "-u", "alice", "--password-stdin", private_registry.host, input="s3cret")
    assert "Login Succeeded" in login.stdout, login.stderr
    bad = docker("login", "-u", "alice", "--password-stdin", private_registry.host, input="wrong")
    assert bad.returncode == 1 and "401" in bad.stderr or "unauthorized" in bad.stderr.lower()
    docker("tag", "busybox", f"{private_registry.host}/cli:1", check=True)
    docker("push", f"{private_registry.host}/cli:1", check=True)
    docker("rmi", f"{private_registry.host}/cli:1", check=True)
    docker("pull", "-q", f"{private_registry.host}/cli:1", check=True)
    docker("logout", private_registry.host, check=True)


def test_run_pulls_what_is_missing(docker, api, registry):
    push(api, registry, "auto:v1")
    docker("rmi", f"{registry.host}/auto:v1", check=True)
    result = docker("run", "--rm", f"{registry.host}/auto:v1", "echo", "pulled", check=True)
    assert result.stdout == "pulled\n" and "Unable to find image" in result.stderr


def test_export_and_import(api, docker):
    container = api.run("echo x > /marker")
    api.wait(container)
    archive = api.ok("GET", f"/containers/{container}/export").body
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "marker" in tar.getnames()
    reply = api.ok("POST", "/images/create", {"fromSrc": "-", "repo": "flat", "tag": "1", "changes": "CMD [\"cat\",\"/marker\"]"},
                   data=archive, headers={"Content-Type": "application/x-tar"})
    assert reply.lines()[-1]["status"].startswith("sha256:")
    assert docker("run", "--rm", "flat:1", check=True).stdout == "x\n"


def test_prune_removes_untagged_images(api):
    api.ok("POST", "/images/load", data=images.archive(["old:1"], [images.layer({"f": b"one"})]),
           headers={"Content-Type": "application/x-tar"})
    api.ok("POST", "/images/load", data=images.archive(["old:1"], [images.layer({"f": b"two"})]),
           headers={"Content-Type": "application/x-tar"})
    pruned = api.ok("POST", "/images/prune").json()
    assert any("Deleted" in entry for entry in pruned["ImagesDeleted"]) and pruned["SpaceReclaimed"] >= 0
    assert tags(api) == ["busybox:latest", "old:1"]


@pytest.mark.gantry_only
def test_a_failed_load_leaves_no_bytes(engine, api, busybox_tar):
    import os

    def kept():
        """What is swept in the background, and the copy of the database, come and go."""
        found = (os.path.join(at, name) for at, _, files in os.walk(engine.data_root) for name in files)
        return {path for path in found if "/tmp/" not in path.removeprefix(str(engine.data_root)) and "state.db" not in path}

    before = kept()
    test_a_damaged_archive_is_refused_and_leaves_nothing(api, busybox_tar)
    assert kept() == before
