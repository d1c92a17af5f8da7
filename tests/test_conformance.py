"""The conformance list of the Engine API: each item breaks a mainstream client if it is wrong.

 1 ping, 204 and 304 leave the connection usable    test_system
 2 versions out of range, unknown paths             test_system, test_bad_input_like_dockerd
 3 attach by the byte, early input                  test_attach, test_attach_streams
 4 wait before start; `removed` of who cannot start test_wait
 5 exit codes of `docker run`                       test_run
 6 pipes into `docker run -i` all end               test_run
 7 1,000 execs, 1,000 exit codes                    here
 8 1,000 execs by the SDK lose no frame             test_sdk_python
 9 the second start of an exec                      test_attach, test_exec
10 events by version, prefix of health_status, order test_events, test_events_like_dockerd, here
11 both forms of filters, unknown keys              test_system, test_bad_input_like_dockerd
12 docker cp's matrix                               test_archive
13 compose: up, scale, restart, --wait, down        test_compose
14 the reaper of testcontainers                     here
15 buildx with a container of its own               test_exec (dial-stdio), test_run
16 login, pull, push, redirects                     test_registry, test_images
17 archives of every generation load                test_images
18 daemon.json                                      test_config
"""

import json
import socket
import subprocess
import time

import pytest

from harness import clients
from harness.api import text_of

SECOND = 10**9


@pytest.mark.slow
def test_a_thousand_execs_give_a_thousand_exit_codes(api, engine):
    container = api.run(["sleep", "1000"])
    for number in range(1000 if engine.kind == "gantry" else 20):
        code = number % 200 + 1
        body = {"Cmd": ["sh", "-c", f"echo {number}; exit {code}"], "AttachStdout": True}
        exec_id = api.ok("POST", f"/containers/{container}/exec", body=body).json()["Id"]
        with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
            assert text_of(stream.frames()) == f"{number}\n".encode()
            assert api.ok("GET", f"/exec/{exec_id}/json").json()["ExitCode"] == code


def test_the_filter_health_status_means_all_of_them(api):
    with api.events(event=["health_status"]) as events:
        api.run(["sleep", "1000"], Healthcheck={"Test": ["CMD", "true"], "Interval": SECOND // 5})
        assert events.next()["Action"] == "health_status: healthy"
    with api.events(event=["health_status: unhealthy"]) as events:
        api.run(["sleep", "1000"], Healthcheck={"Test": ["CMD", "true"], "Interval": SECOND // 5})
        container = api.run(["sleep", "1000"], Healthcheck={"Test": ["CMD", "false"], "Interval": SECOND // 5, "Retries": 1})
        assert events.next()["Actor"]["ID"] == container


def test_the_reaper_of_testcontainers(api, engine):
    """It gets the engine's socket, listens on a published port and removes by label what its clients leave."""
    script = ("while :; do nc -l -p 8080 -e sh -c 'read filter; echo ACK; "
              "printf \"GET /v1.32/containers/json?all=1 HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n\" "
              "| nc local:/var/run/docker.sock > /tmp/seen; echo done'; done")
    reaper = api.at("1.32").create(
        name="reaper", Cmd=["sh", "-c", script], ExposedPorts={"8080/tcp": {}}, Labels={"org.testcontainers": "true"},
        host={"AutoRemove": True, "PublishAllPorts": True,
              "Binds": [f"{engine.socket}:/var/run/docker.sock"]})
    api.at("1.32").start(reaper)
    # The port is there when start returns, at the place where docker-java looks for it.
    settings = api.at("1.32").inspect(reaper)["NetworkSettings"]
    port = int(settings["Ports"]["8080/tcp"][0]["HostPort"])
    assert settings["IPAddress"] and settings["Gateway"]
    assert api.at("1.32").inspect(reaper)["State"]["Running"]

    exec_id = api.ok("POST", f"/containers/{reaper}/exec",
                     body={"Cmd": ["test", "-S", "/var/run/docker.sock"]}).json()["Id"]
    api.ok("POST", f"/exec/{exec_id}/start", body={})
    assert api.ok("GET", f"/exec/{exec_id}/json").json()["ExitCode"] == 0

    answer = b""
    for _ in range(300):
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"label=org.testcontainers=true\n")
                answer = connection.recv(100)
        except OSError:
            pass
        if answer:
            break
        time.sleep(0.1)
    assert answer.startswith(b"ACK")
    # What it then sends is what docker-java and ryuk send.
    listed = api.at("1.32").ok("GET", "/containers/json", {"all": 1, "filters": {"label": {"org.testcontainers=true": True}}})
    assert [each["Id"] for each in listed.json()] == [reaper]
    assert api.delete(f"/containers/{reaper}", {"force": 1, "v": 1}).status == 204
    assert api.delete(f"/containers/{reaper}", {"force": 1, "v": 1}).status in (404, 409)


def test_a_newer_client_does_what_the_older_does(engine, clean, scratch):
    """Docker's client 26.1, which negotiates a newer version and reads newer shapes."""
    def docker(*args, code=0):
        result = subprocess.run([clients.newer_docker(), *args], env=engine.client_env(), capture_output=True, text=True,
                                timeout=120, input="")
        assert result.returncode == code, f"{args}: {result.returncode} {result.stderr}"
        return result.stdout

    assert docker("run", "--rm", "busybox", "echo", "hello") == "hello\n"
    docker("run", "--rm", "busybox", "sh", "-c", "exit 3", code=3)
    docker("run", "--rm", "busybox", "nosuchprogram", code=127)
    docker("network", "create", "net")
    docker("volume", "create", "vol")
    docker("run", "-d", "--name", "one", "--network", "net", "-v", "vol:/data", "-p", "80", "--health-cmd", "true",
           "busybox", "sh", "-c", "echo up; sleep 1000")
    engine.api().wait_for_log("one", "up\n")
    assert docker("logs", "one") == "up\n"
    assert docker("exec", "one", "echo", "in") == "in\n"
    docker("exec", "one", "sh", "-c", "exit 9", code=9)
    assert "one" in docker("ps") and "health" in docker("ps", "--format", "{{.Status}}")
    assert json.loads(docker("inspect", "one"))[0]["State"]["Running"]
    assert docker("port", "one", "80").startswith("0.0.0.0:")
    assert "one" in docker("stats", "--no-stream", "one") and "sleep" in docker("top", "one")
    (scratch / "f").write_text("copied")
    docker("cp", str(scratch / "f"), "one:/data/f")
    docker("cp", "one:/data/f", str(scratch / "g"))
    assert (scratch / "g").read_text() == "copied"
    assert docker("diff", "one") == "A /data\n"
    docker("commit", "one", "made:v1")
    assert "made" in docker("images") and "v1" in docker("images", "made")
    docker("save", "-o", str(scratch / "made.tar"), "made:v1")
    docker("rmi", "made:v1")
    assert "Loaded image: made:v1" in docker("load", "-i", str(scratch / "made.tar"))
    docker("rmi", "made:v1")
    docker("update", "--memory", "64m", "--memory-swap", "128m", "one")
    docker("pause", "one")
    docker("unpause", "one")
    docker("rename", "one", "two")
    docker("restart", "-t", "0", "two")
    docker("stop", "-t", "0", "two")
    assert "Exited" in docker("ps", "-a", "--format", "{{.Status}}")
    docker("rm", "-v", "two")
    assert "Server" in docker("version") and "Images" in docker("system", "df") and "Kernel" in docker("info")
    docker("system", "prune", "-f", "--volumes")
    docker("volume", "rm", "-f", "vol")  # before API 1.42 prune took it
