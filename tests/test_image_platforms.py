"""Images for several platforms: what is kept of an index, shown, saved, pushed and removed; attestations."""

import io
import json
import tarfile

import pytest

from conftest import load
from harness import images
from harness.fake_registry import FakeRegistry
from harness.layouts import HOST, INDEX, MANIFEST, PROVENANCE, SBOM, Layout

# dockerd 20.10 keeps one platform of an image, without its index.
pytestmark = pytest.mark.gantry_only
OTHERS = [each for each in ("amd64", "arm64", "riscv64", "s390x") if each != HOST]
NEWEST = "1.55"


@pytest.fixture
def store(engine):
    """The shared engine's API at the newest version; its images go after the test."""
    api = engine.api(NEWEST)
    yield api
    for image in api.ok("GET", "/images/json", {"all": 1}).json():
        if "busybox:latest" not in image["RepoTags"]:
            api.delete(f"/images/{image['Id']}", {"force": 1})


def platform(architecture):
    return json.dumps({"os": "linux", "architecture": architecture})


def available(api, name="multi:1"):
    manifests = api.ok("GET", f"/images/{name}/json", {"manifests": 1}).json()["Manifests"]
    return {each["ImageData"]["Platform"]["architecture"] for each in manifests
            if each["Kind"] == "image" and each["Available"]}


def saved(api, name="multi:1", **query):
    data = api.ok("GET", f"/images/{name}/get", query).body
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return data, {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}


def blob_names(*digests):
    return {"blobs/sha256/" + each[7:] for each in digests}


def test_a_load_keeps_every_platform_of_the_archive(engine, store):
    layout = Layout([HOST, *OTHERS[:2]])
    load(engine, layout.archive("multi:1"))
    image = store.ok("GET", "/images/multi:1/json").json()
    assert image["Id"] == image["Descriptor"]["digest"] == layout.digest and image["Architecture"] == HOST
    assert available(store) == {HOST, *OTHERS[:2]}
    for other in OTHERS[:2]:
        assert store.ok("GET", "/images/multi:1/json", {"platform": platform(other)}).json()["Architecture"] == other
    reply = store.get("/images/multi:1/json", {"platform": platform(OTHERS[2])})
    assert reply.status == 404 and "does not provide the specified platform" in reply.message


def test_a_pull_adds_platforms_to_those_that_are_here(store):
    layout = Layout([HOST, *OTHERS[:2]])
    with FakeRegistry() as registry:
        layout.serve(registry, "multi", "1")
        name = f"{registry.host}/multi:1"
        store.ok("POST", "/images/create", {"fromImage": name})
        assert available(store, name) == {HOST}
        store.ok("POST", "/images/create", {"fromImage": name, "platform": f"linux/{OTHERS[0]}"})
        assert available(store, name) == {HOST, OTHERS[0]}
        assert store.ok("GET", f"/images/{name}/json").json()["Id"] == layout.digest


def test_a_load_tells_its_progress_when_asked(store):
    archive = Layout(files={"big": bytes(3_000_000)}).archive("multi:1")
    lines = store.post("/images/load", {"quiet": 0}, data=archive, headers={"Content-Type": "application/x-tar"}).lines()
    progress = [each for each in lines if each.get("status") == "Loading layer"]
    assert progress and progress[-1]["progressDetail"]["current"] == progress[-1]["progressDetail"]["total"] > 0
    assert len(progress[-1]["id"]) == 12 and lines[-1] == {"stream": "Loaded image: multi:1\n"}


def test_attestations_are_kept_and_shown(engine, store):
    layout = Layout([HOST, OTHERS[0]], attested=True)
    load(engine, layout.archive("multi:1"))
    kinds = {each["ID"]: each for each in store.ok("GET", "/images/multi:1/json", {"manifests": 1}).json()["Manifests"]}
    for image, attestation in layout.attestations.items():
        entry = kinds[attestation]
        assert (entry["Kind"], entry["Available"], entry["AttestationData"]) == ("attestation", True, {"For": image})
    listed = store.ok("GET", "/images/multi:1/attestations").json()
    assert {each["PredicateType"] for each in listed} == {PROVENANCE, SBOM}
    assert all("Statement" not in each and each["Descriptor"]["digest"] in layout.blobs for each in listed)
    only = store.ok("GET", "/images/multi:1/attestations", {"type": SBOM, "statement": 1}).json()
    assert [each["Statement"]["predicateType"] for each in only] == [SBOM]
    assert only[0]["Statement"]["subject"] == [{"name": layout.platforms[HOST]}]
    assert store.get("/images/multi:1/attestations", {"platform": platform(OTHERS[1])}).status == 404
    assert store.get("/images/none/attestations").status == 404


def test_a_pull_brings_what_is_attested_of_its_platform(engine, store):
    layout = Layout([HOST, OTHERS[0]], attested=True)
    with FakeRegistry() as registry:
        layout.serve(registry, "multi", "1")
        store.ok("POST", "/images/create", {"fromImage": f"{registry.host}/multi:1"})
        name = f"{registry.host}/multi:1"
        assert len(store.ok("GET", f"/images/{name}/attestations").json()) == 2
        other = layout.attestations[layout.platforms[OTHERS[0]]]
        assert not registry.paths(other)
    engine.restart()
    assert len(store.ok("GET", f"/images/{name}/attestations").json()) == 2


def test_a_pull_goes_on_when_an_attestation_cannot_be_had(store):
    layout = Layout([HOST], attested=True)
    with FakeRegistry() as registry:
        layout.serve(registry, "multi", "1")
        del registry.manifests["multi", layout.attestations[layout.platforms[HOST]]]
        name = f"{registry.host}/multi:1"
        assert "error" not in store.ok("POST", "/images/create", {"fromImage": name}).lines()[-1]
        assert store.ok("GET", f"/images/{name}/attestations").json() == []


def test_save_and_load_keep_index_platforms_and_attestations(engine, store):
    layout = Layout([HOST, *OTHERS[:2]], attested=True)
    load(engine, layout.archive("multi:1"))
    data, files = saved(store)
    assert set(files) >= blob_names(*layout.blobs)
    store.ok("DELETE", "/images/multi:1", {"force": 1})
    load(engine, data)
    assert store.ok("GET", "/images/multi:1/json").json()["Id"] == layout.digest
    assert available(store) == {HOST, *OTHERS[:2]}
    assert len(store.ok("GET", "/images/multi:1/attestations").json()) == 2


def test_save_of_some_platforms_leaves_the_others_out(engine, store):
    layout = Layout([HOST, *OTHERS[:2]], attested=True)
    load(engine, layout.archive("multi:1"))
    data, files = saved(store, platform=[platform(HOST), platform(OTHERS[0])])
    wanted = [layout.platforms[HOST], layout.platforms[OTHERS[0]]]
    assert set(files) >= blob_names(layout.digest, *wanted, *[layout.attestations[each] for each in wanted])
    left_out = layout.platforms[OTHERS[1]]
    assert not set(files) & blob_names(left_out, layout.attestations[left_out])
    store.ok("DELETE", "/images/multi:1", {"force": 1})
    load(engine, data)
    assert store.ok("GET", "/images/multi:1/json").json()["Id"] == layout.digest
    assert available(store) == {HOST, OTHERS[0]}
    reply = store.get("/images/multi:1/get", {"platform": [platform(HOST), platform("mips")]})
    assert reply.status == 404
    assert store.at("1.51").get("/images/multi:1/get", {"platform": [platform(HOST), platform(OTHERS[0])]}).status == 400


def test_one_platform_of_an_image_is_removed(engine, store):
    layout = Layout([HOST, *OTHERS[:2]], attested=True)
    load(engine, layout.archive("multi:1"))
    wanted = {"platforms": [platform(OTHERS[0])]}
    reply = store.delete("/images/multi:1", wanted)
    assert reply.status == 400 and "Content will be removed from all images" in reply.message
    removed = store.ok("DELETE", "/images/multi:1", {**wanted, "force": 1}).json()
    assert removed == [{"Deleted": layout.platforms[OTHERS[0]]}]
    assert available(store) == {HOST, OTHERS[1]}
    blobs = {each.name for each in (engine.data_root / "content/blobs/sha256").iterdir()}
    assert layout.platforms[OTHERS[0]][7:] not in blobs
    assert layout.attestations[layout.platforms[OTHERS[0]]][7:] not in blobs
    assert store.delete("/images/multi:1", {**wanted, "force": 1}).status == 404
    engine.restart()
    assert available(store) == {HOST, OTHERS[1]}
    store.ok("DELETE", "/images/multi:1", {"platforms": [platform(HOST), platform(OTHERS[1])], "force": 1})
    assert store.get("/images/multi:1/json").status == 404


def test_a_platform_that_runs_is_not_removed(engine, store):
    layout = Layout([HOST, OTHERS[0]], files=images.busybox_files())
    load(engine, layout.archive("multi:1"))
    container = store.run("sleep 1000", image="multi:1")
    reply = store.delete("/images/multi:1", {"platforms": [platform(HOST)], "force": 1})
    assert reply.status == 409 and "cannot be forced" in reply.message
    store.remove(container)


def test_an_index_is_pushed_with_the_digest_that_was_pulled(store, registry):
    layout = Layout([HOST, OTHERS[0]], attested=True)
    with FakeRegistry() as source:
        layout.serve(source, "multi", "1")
        name = f"{source.host}/multi:1"
        for architecture in (HOST, OTHERS[0]):
            store.ok("POST", "/images/create", {"fromImage": name, "platform": f"linux/{architecture}"})
    store.ok("POST", f"/images/{name}/tag", {"repo": f"{registry.host}/again", "tag": "1"})
    lines = store.ok("POST", f"/images/{registry.host}/again/push", {"tag": "1"}).lines()
    assert lines[-1]["aux"]["Digest"] == layout.digest, lines
    for digest in (layout.digest, *layout.platforms.values(), *layout.attestations.values()):
        kind = INDEX if digest == layout.digest else MANIFEST
        assert registry.get(f"/v2/again/manifests/{digest}", kind) == json.loads(layout.blobs[digest])


def test_of_a_partial_index_the_platform_that_is_here_is_pushed(store, registry):
    layout = Layout([HOST, OTHERS[0]])
    with FakeRegistry() as source:
        layout.serve(source, "multi", "1")
        name = f"{source.host}/multi:1"
        store.ok("POST", "/images/create", {"fromImage": name})
        store.ok("POST", f"/images/{name}/tag", {"repo": f"{registry.host}/part", "tag": "1"})
        lines = store.ok("POST", f"/images/{registry.host}/part/push", {"tag": "1"}).lines()
        note = [each["aux"] for each in lines if "manifestPushedInsteadOfIndex" in each.get("aux", {})]
        assert note[0]["originalIndex"]["digest"] == layout.digest
        assert note[0]["selectedManifest"]["digest"] == layout.platforms[HOST]
        # Once the registry has the rest, the index itself goes.
        store.ok("POST", "/images/create", {"fromImage": name, "platform": f"linux/{OTHERS[0]}"})
        store.ok("POST", f"/images/{registry.host}/part/push", {"tag": "1"})
        store.ok("DELETE", f"/images/{name}", {"platforms": [platform(OTHERS[0])], "force": 1})
        store.ok("POST", f"/images/{name}/tag", {"repo": f"{registry.host}/part", "tag": "2"})
        lines = store.ok("POST", f"/images/{registry.host}/part/push", {"tag": "2"}).lines()
        assert lines[-1]["aux"]["Digest"] == layout.digest


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_an_image_is_imported_from_a_url(store, scheme):
    tar = Layout(files={"etc/imported": b"yes"})
    layer = next(data for data in tar.blobs.values() if data[:2] == b"\x1f\x8b")
    with FakeRegistry() as server:
        def answer(request):
            return request.reply(200, layer) if request.path == "/root.tar.gz" else request.reply(404, b"nothing here\n")

        server.intercept = answer
        url = f"{scheme}{server.host}/root.tar.gz"
        lines = store.ok("POST", "/images/create", {"fromSrc": url, "repo": "imported", "tag": "1"}).lines()
        assert lines[0]["status"] == f"Downloading from http://{server.host}/root.tar.gz"
        image = store.ok("GET", "/images/imported:1/json").json()
        assert lines[-1] == {"status": image["Id"]} and image["Comment"] == f"Imported from {url}"
        lines = store.post("/images/create", {"fromSrc": f"http://{server.host}/missing"}).lines()
        assert "failed to GET" in lines[-1]["error"] and "404 Not Found" in lines[-1]["error"], lines
    reply = store.post("/images/create", {"fromSrc": "file:///etc/passwd"})
    assert reply.status == 500 and 'unsupported protocol scheme "file"' in reply.message
