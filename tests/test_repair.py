"""Damage by hand: found, named, repaired or set aside; everything else works on."""

import base64
import json
import os
import random
import shutil
import sqlite3
import subprocess

import pytest

from conftest import load
from harness.fake_registry import FakeRegistry, Image
from harness.images import busybox_files

pytestmark = pytest.mark.gantry_only


def gantryd(engine, *arguments):
    """A command beside the daemon: the same options, then the subcommand."""
    command = [each for each in engine.command() if each != "-D"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=engine.env())


def repair(engine, *arguments):
    result = gantryd(engine, "repair", *arguments)
    return result.returncode, result.stdout + result.stderr


def blobs(engine):
    return engine.data_root / "content/blobs/sha256"


def largest(directory):
    return max(directory.iterdir(), key=lambda each: each.stat().st_size)


def flip(file):
    with file.open("r+b") as handle:
        handle.seek(file.stat().st_size // 2)
        byte = handle.read(1)
        handle.seek(-1, 1)
        handle.write(bytes([byte[0] ^ 1]))


def diff_of(engine, api, image="busybox"):
    """The directory of the image's topmost layer."""
    for layer in (engine.data_root / "layers").iterdir():
        if (layer / "diff/bin/busybox").exists():
            return layer / "diff"
    raise AssertionError("no layer")


def runs(api, image="busybox"):
    container = api.run("echo fine", image=image)
    code = api.wait(container)
    text = api.logs(container)
    api.remove(container)
    return code == 0 and b"fine" in text


def serve(registry):
    image = Image(busybox_files(), {"noise": random.Random(3).randbytes(300_000)})
    registry.serve("damaged", "1", image)
    return image, f"{registry.host}/damaged:1"


def test_a_sound_store_has_nothing_to_repair(fresh):
    engine = fresh()
    code, text = repair(engine, "--contents")
    assert code == 0 and "0 repaired, 0 not" in text, text
    doctor = gantryd(engine, "doctor")
    assert "PROBLEM" not in doctor.stdout, doctor.stdout
    engine.stop()
    code, text = repair(engine, "--contents")
    assert code == 0 and "0 repaired, 0 not" in text, text


@pytest.mark.parametrize("running", [True, False])
def test_a_flipped_bit_in_a_blob_is_found_and_the_blob_fetched_again(fresh, running):
    engine = fresh()
    api = engine.api()
    with FakeRegistry() as registry:
        image, name = serve(registry)
        api.ok("POST", "/images/create", {"fromImage": name})
        blob = blobs(engine) / image.layer_digest(1)[7:]
        flip(blob)
        assert "another digest" in gantryd(engine, "doctor").stdout
        if not running:
            engine.stop()
        code, text = repair(engine)
        assert code == 0 and "fetched again from" in text and "1 repaired, 0 not" in text, text
        assert blob.read_bytes() == image.layers[1]
        assert [each.name.split("-")[0] for each in (engine.data_root / "quarantine").iterdir()] == [blob.name]
        if not running:
            engine.start()
    assert runs(api, name)


def test_a_blob_that_nobody_has_is_set_aside_and_the_image_still_runs(fresh):
    engine = fresh()
    api = engine.api()
    flip(largest(blobs(engine)))
    code, text = repair(engine)
    assert code == 1 and "kept as" in text and "pull or load its image again" in text, text
    assert runs(api)
    assert any("repair" in each for each in api.ok("GET", "/info").json()["Warnings"])


def test_a_load_heals_what_was_set_aside(fresh, busybox_tar):
    engine = fresh()
    flip(largest(blobs(engine)))
    assert repair(engine)[0] == 1
    load(engine, busybox_tar)
    code, text = repair(engine, "--contents")
    assert code == 0, text


@pytest.mark.parametrize("damage", [
    lambda diff: (diff / "bin/busybox").unlink(),
    lambda diff: (diff / "etc/passwd").write_bytes(b""),
    lambda diff: (diff / "etc/group").chmod(0o600),
    lambda diff: os.chown(diff / "etc/group", 12, 34),
    lambda diff: os.setxattr(diff / "etc/group", "user.x", b"y"),
    lambda diff: (diff / "etc/stranger").write_bytes(b"x"),
    shutil.rmtree,
], ids=["removed", "emptied", "mode", "owner", "xattr", "stranger", "all"])
def test_a_damaged_layer_is_unpacked_again(fresh, damage):
    engine = fresh()
    api = engine.api()
    damage(diff_of(engine, api))
    assert "gantryd repair" in gantryd(engine, "doctor").stdout
    code, text = repair(engine)
    assert code == 0 and "unpacked again from its blob" in text, text
    assert "PROBLEM" not in gantryd(engine, "doctor").stdout and runs(api)


def test_changed_contents_are_found_on_request(fresh):
    engine = fresh()
    file = diff_of(engine, engine.api()) / "etc/passwd"
    text = file.read_text()
    file.write_text(text.replace("alice", "mallo"))
    assert "0 repaired" in repair(engine)[1]
    code, report = repair(engine, "--contents")
    assert code == 0 and '"etc/passwd": its content is another' in report, report
    assert file.read_text() == text


def test_a_layer_that_a_container_stands_on_is_left_alone(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("sleep 1000")
    stranger = diff_of(engine, api) / "etc/stranger"
    stranger.write_bytes(b"x")
    code, text = repair(engine)
    assert code == 1 and "a container stands on it" in text, text
    api.remove(container)
    assert repair(engine)[0] == 0 and not stranger.exists()


def test_repairs_are_events(fresh):
    engine = fresh()
    api = engine.api()
    (diff_of(engine, api) / "etc/passwd").unlink()
    with api.events() as events:
        repair(engine)
        event = events.until("repair", "image")
    assert event["Actor"]["ID"].startswith("layer sha256:")
    assert event["Actor"]["Attributes"]["outcome"] == "unpacked again from its blob"


def test_a_lost_layer_and_a_damaged_blob_heal_by_themselves_when_a_container_starts(fresh):
    engine = fresh()
    api = engine.api()
    with FakeRegistry() as registry:
        image, name = serve(registry)
        api.ok("POST", "/images/create", {"fromImage": name})
        engine.stop()
        for layer in (engine.data_root / "layers").iterdir():
            if (layer / "diff/noise").exists():
                shutil.rmtree(layer)
        flip(blobs(engine) / image.layer_digest(1)[7:])
        engine.start()
        assert runs(api, name)
        assert (blobs(engine) / image.layer_digest(1)[7:]).read_bytes() == image.layers[1]


@pytest.mark.parametrize("lost", ["manifest", "config", "layer"])
def test_a_blob_that_is_gone_at_the_start_is_fetched_by_a_repair(fresh, lost):
    engine = fresh()
    api = engine.api()
    with FakeRegistry() as registry:
        image, name = serve(registry)
        api.ok("POST", "/images/create", {"fromImage": name})
        engine.stop()
        digest = {"manifest": image.digest, "config": None, "layer": image.layer_digest(0)}[lost]
        if digest is None:
            digest = json.loads(image.manifest)["config"]["digest"]
        (blobs(engine) / digest[7:]).unlink()
        engine.start()
        assert any("repair" in each for each in api.ok("GET", "/info").json()["Warnings"])
        assert runs(api)  # the rest works
        code, text = repair(engine)
        assert code == 0, text
        assert runs(api, name) and not any("repair" in each for each in api.ok("GET", "/info").json()["Warnings"])


@pytest.mark.parametrize("running", [True, False])
def test_a_blob_of_a_private_registry_is_fetched_with_the_callers_login(fresh, tmp_path, running):
    engine = fresh()
    with FakeRegistry() as registry:
        image, name = serve(registry)
        api = engine.api()
        api.ok("POST", "/images/create", {"fromImage": name})
        blob = blobs(engine) / image.layer_digest(1)[7:]
        password = "Basic " + base64.b64encode(b"alice:secret").decode()

        def guard(request):
            if request.headers.get("Authorization") == password:
                return False
            return request.reply(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                                 WWW_Authenticate='Basic realm="private"')

        registry.intercept = guard
        flip(blob)
        if not running:
            engine.stop()
        code, text = repair(engine)
        assert code == 1 and "0 repaired" in text and not blob.exists(), text
        (tmp_path / "config.json").write_text(json.dumps(
            {"auths": {registry.host: {"auth": base64.b64encode(b"alice:secret").decode()}}}))
        environment = {**engine.env(), "DOCKER_CONFIG": str(tmp_path)}
        command = [each for each in engine.command() if each != "-D"]
        done = subprocess.run([*command, "repair"], capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0 and "1 repaired, 0 not" in done.stdout, done.stdout + done.stderr
        assert blob.read_bytes() == image.layers[1]
        assert "secret" not in engine.log_text()


def damage_pages(file, first, count=1):
    with file.open("r+b") as handle:
        handle.seek(4096 * first)
        handle.write(os.urandom(4096 * count))


def await_copy(engine):
    """The daemon copies its database when something has changed; at the latest when it starts."""
    engine.kill()
    (engine.data_root / "state.db.copy").unlink(missing_ok=True)
    engine.start()
    for _ in range(3000):
        if (engine.data_root / "state.db.copy").exists():
            return
        select_nothing()
    raise AssertionError("no copy")


def select_nothing():
    import select
    select.select([], [], [], 0.02)


def root_page(engine, table):
    with sqlite3.connect(engine.data_root / "state.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0] - 1


@pytest.mark.parametrize("table", ["images", "containers", "layers", "blobs", "networks"])
def test_a_damaged_page_of_the_database_is_filled_up_from_the_copy(fresh, table):
    engine = fresh()
    api = engine.api()
    container = api.create(Cmd=["sh", "-c", "echo fine"], name="kept")
    await_copy(engine)
    engine.stop()
    page = root_page(engine, table)
    damage_pages(engine.data_root / "state.db", page)
    engine.start()
    assert "was restored" in engine.log_text()
    assert api.inspect("kept")["Id"] == container
    api.start(container)
    assert api.wait(container) == 0
    assert list(engine.data_root.glob("state.db.damaged-*"))
    assert "PROBLEM" not in gantryd(engine, "doctor").stdout


@pytest.mark.parametrize("how", ["cut", "garbage", "empty header"])
def test_a_database_that_cannot_be_read_at_all_is_replaced_by_its_copy(fresh, how):
    engine = fresh()
    api = engine.api()
    api.create(Cmd=["true"], name="kept")
    await_copy(engine)
    engine.stop()
    file = engine.data_root / "state.db"
    if how == "cut":
        os.truncate(file, 4096 * 2)
    elif how == "garbage":
        file.write_bytes(os.urandom(8192))
    else:
        damage_pages(file, 0)
    engine.start()
    assert api.inspect("kept")["Name"] == "/kept" and runs(api)


def test_without_a_copy_the_daemon_starts_anew_and_keeps_what_containers_wrote(fresh):
    engine = fresh()
    api = engine.api()
    container = api.run("echo precious > /file")
    api.wait(container)
    api.ok("POST", "/volumes/create", body={"Name": "kept"})
    engine.stop()
    for file in engine.data_root.glob("state.db*"):
        if file.name != "state.db":
            file.unlink()
    (engine.data_root / "state.db").write_bytes(b"nothing of use" * 1000)
    engine.start()
    assert api.ok("GET", "/containers/json", {"all": 1}).json() == []
    assert [each["Name"] for each in api.ok("GET", "/volumes").json()["Volumes"]] == ["kept"]
    kept, = (engine.data_root / "quarantine").glob(f"container-{container}-*")
    assert (kept / "upper/file").read_text() == "precious\n"


@pytest.mark.parametrize("column", ["config", "state"])
def test_an_emptied_row_of_a_container_sets_it_aside_and_the_rest_works(fresh, column):
    engine = fresh()
    api = engine.api()
    broken = api.run("echo precious > /file", name="broken")
    api.wait(broken)
    api.create(Cmd=["true"], name="good")
    engine.stop()
    with sqlite3.connect(engine.data_root / "state.db") as db:
        db.execute(f"UPDATE containers SET {column} = '' WHERE name = 'broken'")
    engine.start()
    assert "broken" in engine.log_text() and "set aside" in engine.log_text()
    assert [each["Names"] for each in api.ok("GET", "/containers/json", {"all": 1}).json()] == [["/good"]]
    assert runs(api)
    assert (engine.data_root / "containers" / broken / "upper/file").read_text() == "precious\n"


def test_images_are_removed_to_keep_space_free(fresh, busybox_tar):
    engine = fresh(config={"image-keep-free": "100PB"})
    engine.restart()
    api = engine.api()
    for _ in range(3000):
        if "was removed to keep" in engine.log_text():
            break
        select_nothing()
    assert api.ok("GET", "/images/json").json() == []


def test_an_image_in_use_is_never_removed_to_keep_space_free(fresh):
    engine = fresh()
    api = engine.api()
    api.create(Cmd=["true"])
    engine.stop()
    engine.write_config({"image-keep-free": "100PB"})
    engine.start()
    select_nothing()
    assert [each["RepoTags"] for each in api.ok("GET", "/images/json").json()] == [["busybox:latest"]]
    assert any("Keep Free" in row[0] for row in api.ok("GET", "/info").json()["DriverStatus"])
