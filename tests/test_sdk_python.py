"""The SDK for Python, the machine's and a newer one, drives the engine without a special case."""

import io
import tarfile
import time

import pytest

from harness import clients, images


@pytest.fixture(scope="module", params=["installed", "newer"])
def sdk(request):
    with clients.python_sdk(request.param) as module:
        yield module


@pytest.fixture
def client(engine, sdk, clean):
    client = sdk.DockerClient(base_url=f"unix://{engine.socket}", version="auto", timeout=120)
    yield client
    client.close()


def idle(client, **options):
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, **options)


def test_system(client):
    assert client.ping() is True
    assert client.version()["ApiVersion"] == client.api.api_version
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= client.df().keys()


def test_run_gives_the_output(client):
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    assert client.containers.run("busybox", ["sh", "-c", "echo o; echo e >&2"], stderr=True, stdout=False, remove=True) == b"e\n"
    assert list(client.containers.run("busybox", "echo streamed", remove=True, stream=True)) == [b"streamed\n"]
    assert client.containers.list(all=True) == []


def test_run_tells_a_failure(client, sdk):
    with pytest.raises(sdk.errors.ContainerError) as error:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert (error.value.exit_status, error.value.stderr) == (3, b"why\n")
    with pytest.raises(sdk.errors.ImageNotFound):
        client.containers.create("nope:1", "true")
    with pytest.raises(sdk.errors.ImageNotFound):
        client.images.get("nope")
    with pytest.raises(sdk.errors.NotFound):
        client.containers.get("nope")
    with pytest.raises(sdk.errors.APIError) as error:
        client.containers.run("busybox", "nosuchprogram")
    assert "executable file not found" in str(error.value)


def test_settings_of_a_container(client):
    container = idle(client, name="set", environment={"A": "1"}, labels={"l": "v"}, working_dir="/tmp", user="alice",
                     hostname="box", mem_limit="32m", nano_cpus=500_000_000, pids_limit=50, cap_add=["SYS_TIME"],
                     ports={"80/tcp": None}, tmpfs={"/scratch": "size=1m"}, volumes={"data": {"bind": "/data", "mode": "rw"}},
                     restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, shm_size="8m", init=True, read_only=True)
    container.reload()
    host = container.attrs["HostConfig"]
    assert (container.name, container.status, container.labels) == ("set", "running", {"l": "v"})
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"], host["ShmSize"]) == (32 << 20, 500_000_000, 50, 8 << 20)
    assert container.ports["80/tcp"][0]["HostPort"].isdigit()
    assert container.image.tags == ["busybox:latest"]
    assert container.exec_run(["sh", "-c", "echo $A $(pwd) $(id -un) $(hostname)"]).output == b"1 /tmp alice box\n"


def test_exec(client):
    container = idle(client, environment={"A": "1"})
    assert tuple(container.exec_run("echo hi")) == (0, b"hi\n")
    assert tuple(container.exec_run(["sh", "-c", "exit 7"])) == (7, b"")
    result = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert result.output == (b"o\n", b"e\n")
    result = container.exec_run(["sh", "-c", "echo $A $B; pwd; id -u"], environment={"B": "2"}, workdir="/tmp", user="1000")
    assert result.output == b"1 2\n/tmp\n1000\n"
    assert b"".join(container.exec_run(["sh", "-c", "echo a; echo b"], stream=True).output) == b"a\nb\n"
    assert container.exec_run(["sh", "-c", "test -t 1"], tty=True).exit_code == 0
    assert not container.exec_run(["sleep", "1"], detach=True).output
    assert container.exec_run("nosuchprogram").exit_code in (126, 127)


def test_exec_with_a_socket(client):
    container = idle(client)
    exec_id = client.api.exec_create(container.id, ["cat"], stdin=True)["Id"]
    stream = client.api.exec_start(exec_id, socket=True)
    raw = stream._sock if hasattr(stream, "_sock") else stream
    raw.sendall(b"over the socket\n")
    assert raw.recv(8) == b"\x01\0\0\0\0\0\0\x10"
    assert raw.recv(100) == b"over the socket\n"
    assert client.api.exec_inspect(exec_id)["Running"]
    stream.close()


@pytest.mark.slow
def test_exec_never_loses_a_frame(client, engine):
    """The SDK reads the socket below its own buffer: what comes in one segment with the head is lost."""
    container = idle(client)
    for _ in range(500 if engine.kind == "gantry" else 50):
        assert container.exec_run("echo hi") == (0, b"hi\n")


def test_logs(client):
    container = client.containers.run("busybox", ["sh", "-c", "echo one; echo two >&2; echo three"], detach=True)
    container.wait()
    assert sorted(container.logs().split()) == [b"one", b"three", b"two"]
    assert container.logs(stderr=False) == b"one\nthree\n"
    assert container.logs(stdout=False) == b"two\n"
    only = client.containers.run("busybox", ["sh", "-c", "echo one; echo two; echo three"], detach=True)
    only.wait()
    assert only.logs(tail=1) == b"three\n"
    stamp = only.logs(tail=1, timestamps=True).split(b" ")
    assert stamp[1] == b"three\n" and len(stamp[0]) == 30
    assert container.logs(since=int(time.time()) + 100) == b""
    assert container.logs(until=int(time.time()) + 100, stderr=False) == b"one\nthree\n"
    assert b"".join(container.logs(stream=True, follow=True, stderr=False)) == b"one\nthree\n"


def test_logs_are_followed(client):
    container = client.containers.run("busybox", ["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.1; done"], detach=True)
    assert b"".join(container.logs(stream=True)) == b"1\n2\n3\n"


def test_attach(client):
    container = client.containers.create("busybox", ["sh", "-c", "echo o; echo e >&2"])
    output = container.attach(stream=True, logs=True, demux=True)
    container.start()
    parts = list(output)
    assert b"".join(part[0] or b"" for part in parts) == b"o\n"
    assert b"".join(part[1] or b"" for part in parts) == b"e\n"


def test_attach_with_a_socket(client):
    container = client.containers.create("busybox", "cat", stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    stream._sock.sendall(b"ping\n")
    assert stream._sock.recv(8) == b"\x01\0\0\0\0\0\0\x05"
    assert stream._sock.recv(100) == b"ping\n"
    stream.close()


def test_stats(client):
    container = idle(client, mem_limit="32m")
    once = container.stats(stream=False)
    assert once["memory_stats"]["limit"] == 32 << 20
    assert once["cpu_stats"]["system_cpu_usage"] > once["precpu_stats"]["system_cpu_usage"] > 0
    stream = container.stats(decode=True, stream=True)
    first, second = next(stream), next(stream)
    assert first["id"] == container.id and second["read"] > first["read"]
    assert second["preread"] == first["read"]


def test_archives(client, sdk):
    container = idle(client)
    assert container.put_archive("/tmp", images.layer({"one": b"1", "two": b"22"}))
    stream, stat = container.get_archive("/tmp/two")
    assert (stat["name"], stat["size"]) == ("two", 2)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as got:
        assert got.extractfile("two").read() == b"22"
    with pytest.raises(sdk.errors.NotFound):
        container.get_archive("/nosuch")
    with pytest.raises(sdk.errors.NotFound):
        container.put_archive("/nosuch", images.layer({"one": b"1"}))


def test_commit_diff_and_export(client):
    container = client.containers.run("busybox", ["sh", "-c", "echo new > /new; rm /etc/group"], detach=True)
    container.wait()
    changes = {change["Path"]: change["Kind"] for change in container.diff()}
    assert (changes["/new"], changes["/etc/group"], changes["/etc"]) == (1, 2, 0)
    image = container.commit("made", "v1", message="why", author="who", changes=["ENV X=y"])
    assert client.containers.run("made:v1", ["sh", "-c", "cat /new; echo $X"], remove=True) == b"new\ny\n"
    assert image.history()[0]["Comment"] == "why"
    client.images.remove("made:v1")
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as exported:
        assert exported.extractfile("new").read() == b"new\n"


def test_events(client):
    since = time.time()
    container = client.containers.create("busybox", "true", name="told")
    container.start()
    container.wait()
    container.remove()
    events = client.events(since=int(since), until=int(time.time()) + 2, decode=True, filters={"container": "told"})
    actions = [event["Action"] for event in events]
    assert [action for action in actions if action != "attach"] == ["create", "start", "die", "destroy"]


def test_events_are_followed_until_closed(client):
    events = client.events(decode=True)
    container = client.containers.create("busybox", "true")
    assert next(events)["Actor"]["ID"] == container.id
    events.close()


def test_health(client):
    second = 1_000_000_000
    with_check = idle(client, healthcheck={"test": ["CMD", "test", "-e", "/tmp/ok"], "interval": second // 5, "retries": 1})

    def becomes(status):
        for event in client.events(decode=True, since=0, filters={"container": with_check.id, "event": "health_status"}):
            if event["Action"].endswith(status):
                return True

    assert becomes("unhealthy")
    with_check.exec_run("touch /tmp/ok")
    assert becomes(": healthy")
    with_check.reload()
    assert with_check.attrs["State"]["Health"]["Status"] == "healthy"
    if hasattr(with_check, "health"):
        assert with_check.health == "healthy"


def test_verbs(client, sdk):
    container = idle(client, name="before")
    container.rename("after")
    container.reload()
    assert container.name == "after"
    container.pause()
    assert client.containers.get("after").status == "paused"
    container.unpause()
    assert container.top()["Titles"][0] == "UID"
    assert container.top(ps_args="aux")["Titles"][0] == "USER"
    container.update(mem_limit="64m", memswap_limit="128m")
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    container.restart(timeout=0)
    container.kill("SIGKILL")
    assert container.wait()["StatusCode"] == 137
    container.start()
    container.stop(timeout=0)
    container.reload()
    assert container.status == "exited"
    with pytest.raises(sdk.errors.APIError) as error:
        container.kill()
    assert error.value.response.status_code == 409
    container.remove(v=True)


def test_wait_with_every_condition(client):
    container = client.containers.create("busybox", "true")
    assert container.wait(condition="not-running")["StatusCode"] == 0
    container.start()
    assert container.wait()["StatusCode"] == 0
    gone = client.containers.run("busybox", ["sh", "-c", "sleep 0.5; exit 4"], detach=True, auto_remove=True)
    assert gone.wait(condition="removed")["StatusCode"] == 4


def test_lists(client):
    one = idle(client, name="one", labels={"team": "a", "x": ""})
    two = client.containers.create("busybox", "true", name="two", labels={"team": "b"})
    names = lambda **query: [container.name for container in client.containers.list(**query)]
    assert names() == ["one"]
    assert names(all=True) == ["two", "one"]
    assert names(limit=1) == ["two"]
    assert names(all=True, filters={"since": one.id}) == ["two"]
    assert names(all=True, filters={"before": two.id}) == ["one"]
    assert names(all=True, filters={"label": "team=b"}) == ["two"]
    assert names(all=True, filters={"label": ["team", "x"]}) == ["one"]
    assert names(filters={"status": "created"}) == ["two"]
    assert names(all=True, filters={"name": "^/tw"}) == ["two"]
    assert names(all=True, filters={"ancestor": "busybox"}) == ["two", "one"]


def test_volumes(client, sdk):
    volume = client.volumes.create("vol", labels={"l": "v"})
    assert (volume.name, volume.attrs["Driver"], volume.attrs["Labels"]) == ("vol", "local", {"l": "v"})
    assert [each.name for each in client.volumes.list(filters={"label": "l=v"})] == ["vol"]
    client.containers.run("busybox", "touch /data/kept", volumes={"vol": {"bind": "/data", "mode": "rw"}}, remove=True)
    mount = sdk.types.Mount("/data", "vol", read_only=True)
    assert client.containers.run("busybox", "ls /data", mounts=[mount], remove=True) == b"kept\n"
    client.volumes.get("vol").remove()
    with pytest.raises(sdk.errors.NotFound):
        client.volumes.get("vol")
    client.volumes.create()
    assert len(client.volumes.prune()["VolumesDeleted"]) == 1


def test_networks(client, sdk):
    pool = sdk.types.IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.1")
    network = client.networks.create("net", ipam=sdk.types.IPAMConfig(pool_configs=[pool]), labels={"l": "v"}, check_duplicate=True)
    assert [each.name for each in client.networks.list(filters={"label": "l=v"})] == ["net"]
    server = idle(client, name="server", network="net")
    other = idle(client)
    network.connect(other, aliases=["nick"], ipv4_address="10.77.0.9")
    assert server.exec_run("ping -c 1 -w 30 nick").exit_code == 0
    network.reload()
    assert {container.id for container in network.containers} == {server.id, other.id}
    network.disconnect(other)
    other.reload()
    assert list(other.attrs["NetworkSettings"]["Networks"]) == ["bridge"]
    server.remove(force=True)
    assert client.networks.prune()["NetworksDeleted"] == ["net"]


def test_images(client, sdk):
    image = client.images.get("busybox")
    assert image.tags == ["busybox:latest"] and image.short_id.startswith("sha256:")
    assert image.tag("other", "v1")
    assert [each.id for each in client.images.list("other")] == [image.id]
    saved = b"".join(client.images.get("other:v1").save(named="other:v1"))
    client.images.remove("other:v1")
    assert [each.id for each in client.images.load(saved)] == [image.id]
    client.images.remove("other:v1")
    assert image.history()[0]["Id"] == image.id
    made = client.containers.create("busybox", "true").commit()
    assert any(part.get("Deleted") == made.id for part in client.images.prune()["ImagesDeleted"])


def test_prune(client):
    gone = client.containers.create("busybox", "true", labels={"p": ""})
    kept = client.containers.create("busybox", "true")
    assert client.containers.prune(filters={"label": ["p"]})["ContainersDeleted"] == [gone.id]
    assert client.containers.prune(filters={"until": "1h"})["ContainersDeleted"] is None
    assert client.containers.prune()["ContainersDeleted"] == [kept.id]
