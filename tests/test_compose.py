"""docker-compose 1.29 and 2.26 bring a project up, scale it, look into it and take it down."""

import json
import select
import subprocess
import time

import pytest

from harness import clients

# db is healthy a moment after its start; web waits for that and writes to a volume; worker waits for web.
PROJECT = """
version: "2.4"
services:
  db:
    image: busybox
    command: ["sh", "-c", "sleep 0.5; touch /tmp/ready; echo db is ready; exec sleep 1000"]
    init: true
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 200ms, timeout: 5s, retries: 50}
    networks: [back]
  web:
    image: busybox
    command: ["sh", "-c", "echo web is up > /data/index.html; exec httpd -f -p 80 -h /data"]
    init: true
    depends_on: {db: {condition: service_healthy}}
    ports: ["80"]
    volumes: ["data:/data"]
    networks: {back: {aliases: [www]}, front: {}}
    environment: {WHO: "${WHO}"}
  worker:
    image: busybox
    command: ["sh", "-c", "echo worker $$HOSTNAME starts; exec sleep 1000"]
    init: true
    depends_on: [web]
    volumes: ["data:/in:ro", "scratch:/scratch"]
    networks: [back]
    stop_grace_period: 1s
volumes: {data: {}, scratch: {labels: {kind: temporary}}}
networks: {back: {}, front: {labels: {kind: outer}}}
"""

# `up` returns before the server listens.
WGET = "for n in $(seq 50); do wget -q -O - http://www/index.html && exit; sleep 0.2; done; exit 1"


class Compose:
    def __init__(self, engine, directory, command, environment):
        self.command = command
        self.directory = directory
        self.environment = {**engine.client_env(), **environment, "WHO": "me"}
        (directory / "docker-compose.yml").write_text(PROJECT)

    def run(self, *args, check=True, input="", timeout=200):
        result = subprocess.run([*self.command, "-p", "shop", *args], cwd=self.directory, env=self.environment, text=True,
                                input=input, capture_output=True, timeout=timeout)
        if check and result.returncode != 0:
            raise AssertionError(f"compose {' '.join(args)} gave {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result

    def __call__(self, *args, **options):
        return self.run(*args, **options).stdout


@pytest.fixture(params=[1, 2], ids=["1.29", "2.26"])
def compose(request, engine, clean, scratch):
    generation = request.param
    compose = Compose(engine, scratch, *(clients.compose_1() if generation == 1 else clients.compose_2()))
    compose.generation = generation
    yield compose
    compose("down", "-v", "-t", "1", check=False)


def containers(api, service=None, **query):
    labels = ["com.docker.compose.project=shop"] + ([f"com.docker.compose.service={service}"] if service else [])
    return api.ok("GET", "/containers/json", {"all": 1, "filters": {"label": labels}, **query}).json()


def one(api, service):
    found = containers(api, service)
    assert len(found) == 1, found
    return found[0]["Id"]


def test_a_project_comes_up_in_order_and_goes_without_a_trace(api, compose):
    compose("up", "-d")
    states = {service: api.inspect(one(api, service)) for service in ("db", "web", "worker")}
    assert all(state["State"]["Running"] for state in states.values())
    assert states["db"]["State"]["Health"]["Status"] == "healthy"
    healthy = [entry for entry in states["db"]["State"]["Health"]["Log"] if entry["ExitCode"] == 0]
    assert healthy and states["db"]["State"]["StartedAt"] < states["web"]["State"]["StartedAt"]
    assert states["web"]["State"]["StartedAt"] < states["worker"]["State"]["StartedAt"]
    assert "WHO=me" in states["web"]["Config"]["Env"]
    assert set(states["web"]["NetworkSettings"]["Networks"]) == {"shop_back", "shop_front"}
    assert {volume["Name"] for volume in api.ok("GET", "/volumes").json()["Volumes"]} == {"shop_data", "shop_scratch"}

    listed = compose("ps")
    assert all(word in listed for word in ("db", "web", "worker")) and "healthy" in listed
    assert compose("exec", "-T", "worker", "cat", "/in/index.html") == "web is up\n"
    assert compose("exec", "-T", "worker", "sh", "-c", WGET) == "web is up\n"
    port = compose("port", "web", "80").strip().rsplit(":", 1)[1]
    fetched = subprocess.run(["busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/index.html"], capture_output=True,
                             check=True, timeout=60)
    assert fetched.stdout == b"web is up\n"
    assert "db is ready" in compose("logs", "db")
    assert "sleep 1000" in compose("top", "db")
    images = compose("images")
    assert "busybox" in images

    compose("down", "-v", "-t", "1")
    assert containers(api) == []
    assert api.ok("GET", "/volumes").json()["Volumes"] in ([], None)
    assert len(api.ok("GET", "/networks").json()) == 3


def test_up_again_changes_nothing_and_a_change_recreates(api, compose):
    compose("up", "-d")
    before = {each["Id"] for each in containers(api)}
    compose("up", "-d")
    assert {each["Id"] for each in containers(api)} == before
    compose.environment["WHO"] = "you"
    db, web = one(api, "db"), one(api, "web")
    compose("up", "-d")
    assert one(api, "db") == db and one(api, "web") != web
    assert "WHO=you" in api.inspect(one(api, "web"))["Config"]["Env"]
    compose("up", "-d", "--force-recreate", "--no-deps", "db")
    assert one(api, "db") != db


def test_scale_up_and_down(api, compose):
    compose("up", "-d", "--scale", "worker=3")
    assert len(containers(api, "worker")) == 3
    names = compose("exec", "-T", "db", "nslookup", "worker", "127.0.0.11", check=False)
    addresses = {api.inspect(each["Id"])["NetworkSettings"]["Networks"]["shop_back"]["IPAddress"]
                 for each in containers(api, "worker")}
    assert all(address in names for address in addresses)
    compose("up", "-d", "--scale", "worker=1", "--no-recreate")
    assert len(containers(api, "worker")) == 1


def test_run_makes_a_container_of_its_own(api, compose):
    compose("up", "-d", "db")
    result = compose("run", "--rm", "-T", "worker", "sh", "-c", "echo to stdout; cat; hostname -i", input="from stdin\n")
    assert result.startswith("to stdout\nfrom stdin\n")
    assert compose.run("run", "--rm", "-T", "--no-deps", "worker", "sh", "-c", "exit 5", check=False).returncode == 5
    assert len(containers(api, "worker")) == 0
    compose("run", "-d", "--no-deps", "--name", "off", "worker", "sleep", "1000")
    assert api.inspect("off")["Config"]["Labels"]["com.docker.compose.oneoff"] == "True"


def test_exec_gives_the_exit_code(compose):
    compose("up", "-d", "db")
    assert compose.run("exec", "-T", "db", "sh", "-c", "exit 9", check=False).returncode == 9
    assert compose("exec", "-T", "-e", "X=1", "-u", "alice", "-w", "/tmp", "db", "sh", "-c", "echo $X $(id -un) $(pwd)") == \
        "1 alice /tmp\n"
    assert compose("exec", "-T", "db", "cat", input="through\n") == "through\n"


def test_restart_stop_start_pause_kill(api, compose):
    compose("up", "-d")
    db = one(api, "db")
    started = api.state(db)["StartedAt"]
    compose("restart", "-t", "1", "db")
    assert api.state(db)["Running"] and api.state(db)["StartedAt"] > started
    compose("pause", "worker")
    assert api.state(one(api, "worker"))["Paused"]
    compose("unpause", "worker")
    compose("stop", "-t", "1", "worker")
    assert api.state(one(api, "worker"))["Status"] == "exited"
    compose("start", "worker")
    assert api.state(one(api, "worker"))["Running"]
    compose("kill", "-s", "SIGKILL", "web")
    assert api.state(one(api, "web"))["ExitCode"] == 137
    compose("rm", "-f", "web")
    assert containers(api, "web") == []
    compose("up", "-d")
    assert api.state(one(api, "web"))["Running"]


def test_events_of_a_project(api, compose):
    compose("up", "-d")
    process = subprocess.Popen([*compose.command, "-p", "shop", "events", "--json"], cwd=compose.directory, text=True,
                               env={**compose.environment, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, bufsize=1)
    try:
        # The client does not say when it listens: pause again and again until it has told one. The checks of health are
        # told, too.
        event = None
        while event is None or event["action"] not in ("pause", "unpause"):
            if select.select([process.stdout], [], [], 0)[0]:
                event = json.loads(process.stdout.readline())
            else:
                compose("pause", "db")
                compose("unpause", "db")
        assert event["service"] == "db"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_attached_up_shows_the_output_and_ends_with_the_containers(api, compose):
    (compose.directory / "docker-compose.yml").write_text("""
version: "2.4"
services:
  short: {image: busybox, command: ["sh", "-c", "echo said by short; exit 4"]}
  long: {image: busybox, init: true, command: ["sh", "-c", "echo said by long; exec sleep 1000"], stop_grace_period: 1s}
""")
    result = compose.run("up", "--exit-code-from", "short", "--abort-on-container-exit", check=False)
    assert result.returncode == 4
    assert "said by short" in result.stdout
    assert api.state(one(api, "long"))["Running"] is False


def test_a_dependency_that_is_not_healthy_fails(api, compose):
    (compose.directory / "docker-compose.yml").write_text("""
version: "2.4"
services:
  sick:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: ["CMD", "false"], interval: 100ms, retries: 2}
  waits: {image: busybox, command: sleep 1000, depends_on: {sick: {condition: service_healthy}}}
""")
    result = compose.run("up", "-d", check=False)
    assert result.returncode != 0 and "unhealthy" in result.stderr
    assert all(each["State"] == "created" for each in containers(api, "waits"))


def test_up_waits_until_all_are_well(api, compose):
    if compose.generation == 1:  # which has no --wait
        compose("up", "-d", "db", "web")
        deadline = time.monotonic() + 60
        while api.state(one(api, "db"))["Health"]["Status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return
    compose("up", "--wait", "db", "web")
    assert api.state(one(api, "db"))["Health"]["Status"] == "healthy" and api.state(one(api, "web"))["Running"]
    listed = json.loads(compose("ps", "--format", "json", "db").splitlines()[0])
    assert (listed["Service"], listed["State"], listed["Health"]) == ("db", "running", "healthy")
    compose("cp", str(compose.directory / "docker-compose.yml"), "db:/tmp/file")
    assert compose("exec", "-T", "db", "cat", "/tmp/file") == (compose.directory / "docker-compose.yml").read_text()
    assert "web" in compose("stats", "--no-stream") if "stats" in compose("--help") else True
    assert "shop" in compose("ls")
