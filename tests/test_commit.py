"""`docker commit`, and what shows a container's changes: diff, export."""

import io
import tarfile

import pytest


def commit(api, container, body=None, **query):
    return api.post("/commit", {"container": container, **query}, body={} if body is None else body)


@pytest.fixture
def changed(api):
    container = api.run("echo new > /added; rm /etc/group; echo more >> /etc/passwd; mkdir /d; echo x > /d/x")
    api.wait(container)
    return container


@pytest.fixture(autouse=True)
def without_images(engine):
    yield
    api = engine.api()
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"])
    for image in api.ok("GET", "/images/json").json():
        if "busybox:latest" not in (image["RepoTags"] or []):
            api.delete(f"/images/{image['Id']}", {"force": 1})


def test_an_image_of_the_changes(api, changed):
    reply = commit(api, changed, repo="made", tag="one", comment="why", author="me <me@example.org>")
    assert reply.status == 201, reply
    identity = reply.json()["Id"]
    assert identity.startswith("sha256:")
    image = api.ok("GET", "/images/made:one/json").json()
    assert image["Id"] == identity and image["RepoTags"] == ["made:one"]
    assert (image["Comment"], image["Author"]) == ("why", "me <me@example.org>")
    base = api.ok("GET", "/images/busybox/json").json()
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"] and len(image["RootFS"]["Layers"]) == 2
    script = "cat /added; [ -e /etc/group ] || echo gone; tail -n1 /etc/passwd; cat /d/x"
    container = api.create(image="made:one", Cmd=["sh", "-c", script])
    api.start(container)
    api.wait(container)
    assert api.logs(container) == b"new\ngone\nmore\nx\n"


def test_history_tells_the_command(api, changed):
    commit(api, changed, repo="made", comment="c", author="a")
    newest = api.ok("GET", "/images/made/history").json()[0]
    assert newest["Comment"] == "c" and newest["CreatedBy"].startswith("sh -c echo new > /added")
    assert newest["Size"] > 0


def test_settings_come_from_the_container_and_changes(api):
    container = api.create(Cmd=["sh", "-c", "true"], Env=["A=1", "B=2"], Labels={"l": "1"}, WorkingDir="/tmp",
                           ExposedPorts={"80/tcp": {}}, User="alice")
    reply = commit(api, container, repo="made", changes=["ENV B=3", "CMD [\"echo\", \"hi\"]", "LABEL m=2", "EXPOSE 81",
                                                         "WORKDIR sub", "VOLUME /v", "USER root"])
    assert reply.status == 201, reply
    config = api.ok("GET", "/images/made/json").json()["Config"]
    assert config["Cmd"] == ["echo", "hi"] and set(config["Env"]) >= {"A=1", "B=3"} and "B=2" not in config["Env"]
    assert config["Labels"] == {"l": "1", "m": "2"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "81/tcp"} and set(config["Volumes"]) == {"/v"}
    assert (config["WorkingDir"], config["User"]) == ("/tmp/sub", "root")


@pytest.mark.gantry_only
def test_a_change_of_the_stop_signal(api):
    assert commit(api, api.create(), repo="made", changes="STOPSIGNAL SIGINT").status == 201
    assert api.ok("GET", "/images/made/json").json()["Config"]["StopSignal"] == "SIGINT"


def test_an_entrypoint_drops_the_command(api):
    container = api.create(Cmd=["sh", "-c", "true"])
    commit(api, container, repo="made", changes='ENTRYPOINT ["/bin/echo"]')
    config = api.ok("GET", "/images/made/json").json()["Config"]
    assert config["Entrypoint"] == ["/bin/echo"] and not config["Cmd"]


def test_a_config_in_the_request_goes_before_the_containers(api):
    container = api.create(Cmd=["sh"], Env=["A=1"], Labels={"l": "1"})
    commit(api, container, {"Cmd": ["date"], "Env": ["C=3"]}, repo="made")
    config = api.ok("GET", "/images/made/json").json()["Config"]
    assert config["Cmd"] == ["date"] and {"A=1", "C=3"} <= set(config["Env"]) and config["Labels"] == {"l": "1"}


def test_what_is_wrong(api, changed):
    assert commit(api, "nobody").status == 404
    reply = commit(api, changed, changes="RUN true")
    assert reply.status == 400 and reply.message == "run is not a valid change command"
    assert commit(api, changed, repo="UPPER").status in (400, 500)
    assert commit(api, changed, repo="ok", tag="not ok").status in (400, 500)


def test_a_running_container_is_paused_meanwhile(api):
    container = api.run("sleep 600")
    with api.events(container=[container]) as events:
        assert commit(api, container, repo="made").status == 201
        events.until("unpause")
        assert events.actions() == ["pause", "commit", "unpause"]
        assert commit(api, container, repo="made", pause=0).status == 201
        assert events.until("commit")["Actor"]["Attributes"]["imageRef"] in ("made:latest", "made")
        assert events.actions()[3:] == ["commit"]
    assert api.state(container)["Status"] == "running"


def test_a_paused_container_stays_paused(api):
    container = api.run("sleep 600")
    api.ok("POST", f"/containers/{container}/pause")
    assert commit(api, container).status == 201
    assert api.state(container)["Paused"]
    api.ok("POST", f"/containers/{container}/unpause")


def test_commit_upon_commit(docker):
    docker("run", "--name", "first", "busybox", "sh", "-c", "mkdir /keep; echo 1 > /keep/1; echo 1 > /gone", check=True)
    docker("commit", "first", "made:1", check=True)
    docker("run", "--name", "second", "made:1", "sh", "-c", "rm -rf /gone /keep; mkdir /keep; echo 2 > /keep/2", check=True)
    identity = docker("commit", "-m", "two", "second", "made:2", check=True).stdout.strip()
    assert identity.startswith("sha256:")
    assert docker("run", "--rm", "made:2", "sh", "-c", "ls /keep; ls /gone", check=False).stdout == "2\n"


def test_volumes_are_not_committed(docker):
    docker("run", "--name", "with", "-v", "vol:/data", "busybox", "sh", "-c", "echo x > /data/x", check=True)
    docker("commit", "with", "made", check=True)
    assert docker("run", "--rm", "made", "ls", "/data", check=True).stdout == ""


def test_diff(docker, api, changed):
    lines = docker("diff", changed, check=True).stdout.splitlines()
    assert {"A /added", "C /etc", "D /etc/group", "C /etc/passwd", "A /d", "A /d/x"} <= set(lines)
    # The places where the engine mounts its own files show up in 20.10, too.
    assert {line for line in lines if line.split()[1].startswith(("/bin", "/home", "/var"))} == set()
    untouched = api.create()
    assert api.ok("GET", f"/containers/{untouched}/changes").json() in (None, [])


def test_diff_of_a_running_container(docker, api):
    container = api.run("echo x > /seen; sleep 600 & wait")
    api_lines = ""
    for _ in range(200):
        api_lines = docker("diff", container, check=True).stdout
        if "A /seen" in api_lines:
            break
    assert "A /seen" in api_lines.splitlines()


@pytest.mark.parametrize("running", (False, True))
def test_export(docker, api, running):
    container = api.run("echo x > /exported; rm /etc/group; touch /ready; sleep 600 & " + ("wait" if running else ""),
                        host={"Binds": ["vol:/data"]})
    if running:
        for _ in range(200):
            if "A /ready" in docker("diff", container).stdout:
                break
    else:
        api.wait(container)
    data = docker("export", container, check=True, binary=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = {member.name.strip("./"): member for member in archive}
    assert {"exported", "bin/busybox", "bin/sh", "etc/passwd", "data", "tmp"} <= set(names)
    assert "etc/group" not in names and names["tmp"].mode & 0o7777 == 0o1777 and names["bin/sh"].issym()
    assert not [name for name in names if name.startswith(("proc/", "sys/", "data/"))]


def test_export_and_import(docker, api, changed):
    data = docker("export", changed, check=True, binary=True).stdout
    docker("import", "-", "made:flat", input=data, binary=True, check=True)
    assert docker("run", "--rm", "made:flat", "cat", "/added", check=True).stdout == "new\n"


def test_top(docker, api):
    container = api.run("sleep 601 & sleep 602")
    for _ in range(100):
        shown = docker("top", container, check=True).stdout.splitlines()
        if len(shown) == 4 and sum(line.endswith(("sleep 601", "sleep 602")) for line in shown) == 2:
            break
    assert shown[0].split()[:2] == ["UID", "PID"]
    assert sorted(line.split(None, 7)[7] for line in shown[1:])[-2:] == ["sleep 601", "sleep 602"]
    assert docker("top", container, "-o", "pid,comm", check=True).stdout.splitlines()[0].split() == ["PID", "COMMAND"]
    stopped = api.create()
    reply = api.get(f"/containers/{stopped}/top")
    assert reply.status in (409, 500) and "is not running" in reply.message
