"""Volumes and mounts."""

import os

import pytest


def test_create_inspect_list_remove(api):
    volume = api.ok("POST", "/volumes/create", body={"Name": "data", "Labels": {"a": "b"}}).json()
    assert (volume["Name"], volume["Driver"], volume["Scope"], volume["Labels"]) == ("data", "local", "local", {"a": "b"})
    assert volume["Mountpoint"].endswith("/volumes/data/_data") and os.path.isdir(volume["Mountpoint"])
    assert api.ok("GET", "/volumes/data").json()["Mountpoint"] == volume["Mountpoint"]
    assert [v["Name"] for v in api.ok("GET", "/volumes").json()["Volumes"]] == ["data"]
    assert api.delete("/volumes/data").status == 204
    assert not os.path.exists(volume["Mountpoint"])
    reply = api.get("/volumes/data")
    assert (reply.status, reply.message) == (404, "get data: no such volume")


def test_create_twice_gives_the_same(api):
    first = api.ok("POST", "/volumes/create", body={"Name": "again"})
    second = api.ok("POST", "/volumes/create", body={"Name": "again"})
    assert first.status == second.status == 201
    assert first.json()["CreatedAt"] == second.json()["CreatedAt"]


def test_a_bad_name_is_refused(api):
    reply = api.post("/volumes/create", body={"Name": "/bad"})
    assert reply.status == 400
    assert 'includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed' in reply.message


def test_data_outlives_the_container(docker):
    docker("run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/file", check=True)
    assert docker("run", "--rm", "-v", "keep:/data:ro", "busybox", "cat", "/data/file", check=True).stdout == "kept\n"


def test_a_read_only_volume_cannot_be_written(docker):
    result = docker("run", "--rm", "-v", "keep:/data:ro", "busybox", "touch", "/data/x")
    assert result.returncode == 1 and "Read-only file system" in result.stderr


def test_a_new_volume_starts_with_the_images_files(docker):
    assert "index.html" in docker("run", "--rm", "-v", "www:/var/www", "busybox", "ls", "/var/www", check=True).stdout
    nothing = docker("run", "--rm", "--mount", "type=volume,src=empty,dst=/var/www,volume-nocopy", "busybox", "ls",
                     "/var/www", check=True)
    assert nothing.stdout == ""


def test_a_volume_in_use_is_kept(api):
    container = api.create(host={"Binds": ["used:/data"]})
    reply = api.delete("/volumes/used")
    assert reply.status == 409 and reply.message == f"remove used: volume is in use - [{container}]"
    api.remove(container)
    assert api.delete("/volumes/used").status == 204


def test_anonymous_volumes_go_with_their_container(api):
    container = api.create(Volumes={"/anon": {}})
    name = api.inspect(container)["Mounts"][0]["Name"]
    assert len(name) == 64
    api.remove(container)
    assert api.get(f"/volumes/{name}").status == 404


def test_auto_remove_takes_anonymous_volumes_along(api, docker):
    def names():
        return {volume["Name"] for volume in api.ok("GET", "/volumes").json()["Volumes"]}

    before = names()
    docker("run", "--rm", "-v", "/anon", "-v", "named:/named", "busybox", "true", check=True)
    assert names() - before == {"named"}


def test_a_bind_shows_the_hosts_files(docker, scratch):
    (scratch / "file").write_text("from the host\n")
    result = docker("run", "--rm", "-v", f"{scratch}:/host", "busybox", "sh", "-c", "cat /host/file; echo back > /host/new",
                    check=True)
    assert result.stdout == "from the host\n"
    assert (scratch / "new").read_text() == "back\n"


def test_a_missing_bind_source_is_made_by_v_and_refused_by_mount(docker, scratch):
    docker("run", "--rm", "-v", f"{scratch}/made:/x", "busybox", "true", check=True)
    assert (scratch / "made").is_dir()
    result = docker("run", "--rm", "--mount", f"type=bind,src={scratch}/missing,dst=/x", "busybox", "true")
    assert result.returncode == 125 and "bind source path does not exist" in result.stderr


def test_tmpfs_has_its_size(docker):
    result = docker("run", "--rm", "--tmpfs", "/t:size=64k", "busybox", "sh", "-c", "grep ' /t ' /proc/mounts", check=True)
    assert "tmpfs" in result.stdout and "size=64k" in result.stdout
    assert "noexec" in result.stdout and "nosuid" in result.stdout


def test_mounts_are_listed_in_inspect(api, scratch):
    container = api.create(host={"Binds": [f"{scratch}:/bind:ro", "vol:/vol"],
                                 "Mounts": [{"Type": "tmpfs", "Target": "/tmpfs"}]})
    mounts = {mount["Destination"]: mount for mount in api.inspect(container)["Mounts"]}
    assert (mounts["/bind"]["Type"], mounts["/bind"]["Source"], mounts["/bind"]["RW"]) == ("bind", str(scratch), False)
    assert (mounts["/vol"]["Type"], mounts["/vol"]["Name"], mounts["/vol"]["RW"]) == ("volume", "vol", True)


def test_volumes_from_another_container(docker):
    docker("run", "--name", "source", "-v", "shared:/data", "busybox", "sh", "-c", "echo x > /data/f", check=True)
    assert docker("run", "--rm", "--volumes-from", "source", "busybox", "cat", "/data/f", check=True).stdout == "x\n"


def test_two_mounts_at_one_place_are_refused(api):
    reply = api.post("/containers/create", body={"Image": "busybox", "HostConfig": {"Binds": ["first:/x", "second:/x"]}})
    assert reply.status in (400, 500) and "Duplicate mount point: /x" in reply.message


def test_prune_takes_what_nobody_uses(api):
    api.create(host={"Binds": ["kept:/x"]})
    api.ok("POST", "/volumes/create", body={"Name": "lonely"})
    pruned = api.ok("POST", "/volumes/prune").json()
    assert pruned["VolumesDeleted"] == ["lonely"]


def test_a_mount_over_a_link_stays_inside(docker, scratch):
    """A container's link must not lead a mount out of its root."""
    docker("run", "--name", "evil", "busybox", "sh", "-c", f"ln -s {scratch} /trap", check=True)
    docker("commit", "evil", "evil:1", check=True)
    docker("run", "--rm", "-v", "vol:/trap/inner", "busybox", "true", check=True)
    docker("run", "--rm", "-v", "vol:/trap/inner", "evil:1", "touch", "/trap/inner/x")
    assert list(scratch.iterdir()) == []
    docker("rmi", "-f", "evil:1")


@pytest.mark.gantry_only
def test_prune_spares_named_volumes_for_new_clients(api):
    api.ok("POST", "/volumes/create", body={"Name": "named"})
    assert api.at("1.42").ok("POST", "/volumes/prune").json()["VolumesDeleted"] in ([], None)
    pruned = api.at("1.42").ok("POST", "/volumes/prune", {"filters": {"all": ["true"]}}).json()
    assert pruned["VolumesDeleted"] == ["named"]
