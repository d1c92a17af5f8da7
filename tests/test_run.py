"""docker run and what becomes of a container."""

import http.client
import os
import signal
import subprocess

import pytest


def test_run_rm_prints_and_leaves_nothing(api, docker):
    result = docker("run", "--rm", "busybox", "echo", "hello")
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "")
    assert api.ok("GET", "/containers/json", {"all": 1}).json() == []


def test_stdout_and_stderr_stay_apart(docker):
    result = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_containers(docker, code):
    assert docker("run", "--rm", "busybox", "sh", "-c", f"exit {code}").returncode == code


def test_a_missing_command_gives_127(docker):
    result = docker("run", "--rm", "busybox", "nosuch")
    assert result.returncode == 127
    assert "executable file not found in $PATH" in result.stderr


def test_a_file_that_is_no_program_gives_126(docker):
    result = docker("run", "--rm", "busybox", "/etc/passwd")
    assert result.returncode == 126
    assert "permission denied" in result.stderr


def test_a_missing_network_gives_125(docker):
    result = docker("run", "--rm", "--net", "nonet", "busybox", "true")
    assert result.returncode == 125
    assert "network nonet not found" in result.stderr


def test_a_missing_image_is_named(api):
    reply = api.post("/containers/create", body={"Image": "nope"})
    assert (reply.status, reply.message) == (404, "No such image: nope:latest")


def test_piped_input_reaches_the_container(docker):
    result = docker("run", "--rm", "-i", "busybox", "cat", input="hi\n")
    assert (result.returncode, result.stdout) == (0, "hi\n")


def test_empty_input_ends_the_container(docker):
    assert docker("run", "--rm", "-i", "busybox", "cat", input="").returncode == 0


def test_input_larger_than_any_buffer_comes_through_whole(docker):
    data = os.urandom(3_000_000)
    result = docker("run", "--rm", "-i", "busybox", "cat", input=data, binary=True)
    assert result.stdout == data


def test_a_container_that_stops_reading_does_not_hang_the_client(engine, docker):
    pipeline = subprocess.run("yes | docker run --rm -i busybox head -1", shell=True, env=engine.client_env(),
                              capture_output=True, timeout=120)
    assert pipeline.stdout == b"y\n"


def test_a_terminal_session(terminal):
    session = terminal("run", "--rm", "-it", "busybox", "sh")
    session.read_until("# ")
    session.type("tty; stty size\n")
    session.read_until("/dev/pts/0")
    session.read_until("40 120")
    session.type("exit 5\n")
    assert session.wait() == 5


def test_a_terminal_interrupt_reaches_the_program(terminal):
    session = terminal("run", "--rm", "-it", "busybox", "sh", "-c", "trap 'echo got it; exit 9' INT; echo set; read x")
    session.read_until("set")
    session.type(b"\x03")
    session.read_until("got it")
    assert session.wait() == 9


def test_detach_keys_leave_the_container_running(api, terminal):
    session = terminal("run", "-it", "--name", "bg", "busybox", "sh")
    session.read_until("# ")
    session.type(b"\x10\x11")
    assert session.wait() == 0
    assert api.state("bg")["Running"]


def test_a_published_port_answers(api, docker):
    container = docker("run", "-d", "-p", "80", "busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/var/www",
                       check=True).stdout.strip()
    port = int(docker("port", container, "80", check=True).stdout.split("\n")[0].rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"It works: a container answers.\n"
    connection.close()
    inspected = api.inspect(container)["NetworkSettings"]
    assert inspected["Ports"]["80/tcp"][0]["HostPort"] == str(port)
    assert inspected["IPAddress"] and inspected["Networks"]["bridge"]["IPAddress"]


def test_a_fixed_port_is_taken_once(docker):
    docker("run", "-d", "--name", "first", "-p", "18080:80", "busybox", "sleep", "60", check=True)
    second = docker("run", "-d", "--name", "second", "-p", "18080:80", "busybox", "sleep", "60")
    assert second.returncode == 125 and "port is already allocated" in second.stderr
    docker("rm", "-f", "first", check=True)
    docker("start", "second", check=True)


def test_create_does_not_start(api):
    container = api.create(Cmd=["true"], name="quiet")
    state = api.state(container)
    assert (state["Status"], state["Running"], state["StartedAt"]) == ("created", False, "0001-01-01T00:00:00Z")


def test_names_are_unique(api):
    first = api.create(name="twin")
    reply = api.post("/containers/create", {"name": "twin"}, body={"Image": "busybox"})
    assert reply.status == 409
    assert reply.message == (f'Conflict. The container name "/twin" is already in use by container "{first}". You have to '
                             "remove (or rename) that container to be able to reuse that name.")


def test_a_bad_name_is_refused(api):
    reply = api.post("/containers/create", {"name": "a b"}, body={"Image": "busybox"})
    assert reply.status == 400
    assert reply.message == "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_containers_are_found_by_id_prefix_and_name(api):
    container = api.create(name="finder")
    for reference in (container, container[:12], container[:4], "finder"):
        assert api.inspect(reference)["Id"] == container


def test_rename_moves_the_name(api):
    container = api.create(name="old")
    api.ok("POST", f"/containers/{container}/rename", {"name": "new"})
    assert api.inspect("new")["Name"] == "/new"
    assert api.get("/containers/old/json").status == 404


def test_stop_lets_the_program_end_by_itself(api):
    container = api.run("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
    api.wait_for_log(container, "up")
    api.ok("POST", f"/containers/{container}/stop")
    state = api.state(container)
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)
    assert b"bye" in api.logs(container)


def test_stop_kills_what_does_not_listen(api):
    container = api.run(["sleep", "1000"])
    api.ok("POST", f"/containers/{container}/stop", {"t": 1})
    assert api.state(container)["ExitCode"] == 137
    assert api.post(f"/containers/{container}/stop").status == 304


def test_kill_sends_the_signal_that_was_asked_for(api):
    container = api.run("trap 'exit 42' USR1; echo up; while :; do sleep 0.1; done")
    api.wait_for_log(container, "up")
    api.ok("POST", f"/containers/{container}/kill", {"signal": "SIGUSR1"})
    assert api.wait(container) == 42
    reply = api.post(f"/containers/{container}/kill")
    assert reply.status == 409 and "is not running" in reply.message


def test_restart_runs_it_again(api):
    container = api.run("echo run; sleep 1000")
    first = api.state(container)["StartedAt"]
    api.ok("POST", f"/containers/{container}/restart", {"t": 0})
    state = api.state(container)
    assert state["Running"] and state["StartedAt"] > first
    api.ok("POST", f"/containers/{container}/kill")
    api.wait(container)
    assert api.logs(container) == b"run\nrun\n"


def test_pause_freezes_and_unpause_goes_on(api):
    container = api.run(["sleep", "1000"])
    api.ok("POST", f"/containers/{container}/pause")
    assert api.state(container)["Status"] == "paused"
    reply = api.post(f"/containers/{container}/pause")
    assert reply.status == 409 and "is already paused" in reply.message
    api.ok("POST", f"/containers/{container}/unpause")
    assert api.state(container)["Status"] == "running"


def test_a_running_container_is_removed_only_by_force(api):
    container = api.run(["sleep", "1000"])
    reply = api.remove(container, force=False)
    assert reply.status == 409
    # 20.10 says the first, Docker since 23 the second.
    assert reply.message.startswith(f"You cannot remove a running container {container}.") or reply.message.endswith(
        "container is running: stop the container before removing or force remove"
    )
    assert api.remove(container).status == 204
    assert api.get(f"/containers/{container}/json").status == 404


def test_restart_on_failure_stops_at_its_count(api):
    with api.events() as events:
        container = api.run("echo once; exit 1", host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
        for _ in range(3):
            events.until("die")
    api.wait(container)
    inspected = api.inspect(container)
    assert inspected["RestartCount"] == 2
    assert (inspected["State"]["Status"], inspected["State"]["ExitCode"]) == ("exited", 1)
    assert api.logs(container) == b"once\n" * 3


def test_restart_always_starts_again_until_it_is_stopped(api):
    with api.events() as events:
        container = api.run("exit 0", host={"RestartPolicy": {"Name": "always"}})
        for _ in range(2):
            events.until("die")
        api.ok("POST", f"/containers/{container}/stop")
    assert api.state(container)["Status"] == "exited"
    assert not api.state(container)["Restarting"]


def test_auto_remove_removes_after_the_exit_code_was_told(api):
    container = api.create(Cmd=["sh", "-c", "exit 4"], host={"AutoRemove": True})
    connection, response = api.open("POST", f"/containers/{container}/wait", {"condition": "removed"})
    assert response.status == 200
    api.start(container)
    assert b'"StatusCode":4' in response.read()
    connection.close()
    assert api.get(f"/containers/{container}/json").status == 404


def test_out_of_memory_is_told(api):
    container = api.run("sleep 0.2; tail /dev/zero", host={"Memory": 16 << 20, "MemorySwap": 16 << 20})
    code = api.wait(container)
    state = api.state(container)
    assert code == 137 and state["ExitCode"] == 137
    assert state["OOMKilled"] is True


def test_limits_are_in_force(api):
    host = {"Memory": 64 << 20, "PidsLimit": 32, "NanoCpus": 500_000_000,
            "Ulimits": [{"Name": "nofile", "Soft": 123, "Hard": 456}]}
    container = api.run("ulimit -n; ulimit -Hn; cat /proc/self/cgroup; sleep 60", host=host)
    output = api.wait_for_log(container, "memory").decode()
    assert output.startswith("123\n456\n")
    inspected = api.inspect(container)["HostConfig"]
    assert (inspected["Memory"], inspected["PidsLimit"], inspected["NanoCpus"]) == (64 << 20, 32, 500_000_000)
    assert _host_limit(api.state(container)["Pid"], "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert _host_limit(api.state(container)["Pid"], "pids", "pids.max", "pids.max") == "32"


def _host_limit(pid, controller, v1_file, v2_file):
    """What the kernel enforces for a process, whichever cgroup version the host has."""
    for line in open(f"/proc/{pid}/cgroup"):
        _, controllers, path = line.strip().split(":", 2)
        if controller in controllers.split(","):
            return open(f"/sys/fs/cgroup/{controller}{path}/{v1_file}").read().strip()
    return open(f"/sys/fs/cgroup{path}/{v2_file}").read().strip()


def test_update_changes_limits_of_a_running_container(api):
    container = api.run(["sleep", "60"], host={"Memory": 64 << 20})
    api.ok("POST", f"/containers/{container}/update", body={"Memory": 32 << 20, "MemorySwap": -1})
    assert _host_limit(api.state(container)["Pid"], "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)


@pytest.mark.parametrize("user, expected", [("alice", "1000 1000"), ("1000:50", "1000 50"), ("nobody", "65534 65534"),
                                            ("123", "123 0"), ("", "0 0")])
def test_the_user_is_looked_up_in_the_image(api, user, expected):
    container = api.run("echo $(id -u) $(id -g)", User=user)
    api.wait(container)
    assert api.logs(container).decode().strip() == expected


def test_an_unknown_user_is_refused(docker):
    result = docker("run", "--rm", "-u", "ghost", "busybox", "true")
    assert result.returncode != 0
    assert "unable to find user ghost: no matching entries in passwd file" in result.stderr


def test_environment_directory_and_host_name(api):
    container = api.run("echo $A $(pwd) $(hostname) $HOSTNAME", Env=["A=1"], WorkingDir="/var/new/dir", Hostname="box")
    api.wait(container)
    assert api.logs(container) == b"1 /var/new/dir box box\n"


def test_the_host_name_is_the_short_id(api):
    container = api.run("hostname")
    api.wait(container)
    assert api.logs(container).decode().strip() == container[:12]


def test_capabilities_are_the_usual_ones(api):
    container = api.run("grep CapEff /proc/self/status")
    api.wait(container)
    assert api.logs(container).split() == [b"CapEff:", b"00000000a80425fb"]
    without = api.run("grep CapEff /proc/self/status", host={"CapDrop": ["ALL"]})
    api.wait(without)
    assert api.logs(without).split()[1] == b"0000000000000000"


def test_dangerous_paths_are_hidden_and_read_only(api):
    container = api.run("touch /proc/sys/kernel/x 2>/dev/null || echo ro; head -c1 /proc/kcore 2>/dev/null | wc -c; "
                        "ls /proc/acpi 2>/dev/null | wc -l; touch /sys/x 2>/dev/null || echo ro")
    api.wait(container)
    assert api.logs(container) == b"ro\n0\n0\nro\n"


def test_a_read_only_root_stays_read_only(api):
    container = api.run("touch /x 2>/dev/null || echo ro; touch /data/x && echo rw",
                        host={"ReadonlyRootfs": True, "Tmpfs": {"/data": "size=1m"}})
    api.wait(container)
    assert api.logs(container) == b"ro\nrw\n"


def test_init_reaps_and_forwards(api):
    container = api.run(["sh", "-c", "cat /proc/1/comm; sleep 1000"], host={"Init": True})
    assert b"sh" not in api.wait_for_log(container, "\n").split(b"\n")[0]
    api.ok("POST", f"/containers/{container}/stop", {"t": 8})
    assert api.state(container)["ExitCode"] == 143


def test_exec_runs_in_the_container(docker):
    docker("run", "-d", "--name", "box", "busybox", "sleep", "1000", check=True)
    result = docker("exec", "-e", "A=b", "-w", "/tmp", "box", "sh", "-c", "echo $A $(pwd); exit 6")
    assert (result.returncode, result.stdout) == (6, "b /tmp\n")
    assert docker("exec", "-i", "box", "cat", input="through").stdout == "through"
    assert docker("exec", "box", "nosuch").returncode in (126, 127)


def test_exec_on_a_terminal(docker, terminal):
    docker("run", "-d", "--name", "box", "busybox", "sleep", "1000", check=True)
    session = terminal("exec", "-it", "box", "sh")
    session.read_until("# ")
    session.type("stty size; exit 3\n")
    session.read_until("40 120")
    assert session.wait() == 3


def test_exec_codes_are_never_lost(docker):
    docker("run", "-d", "--name", "box", "busybox", "sleep", "1000", check=True)
    codes = [docker("exec", "box", "sh", "-c", "exit 7").returncode for _ in range(20)]
    assert codes == [7] * 20


def test_top_lists_processes(api):
    container = api.run(["sleep", "1000"])
    top = api.ok("GET", f"/containers/{container}/top").json()
    assert "PID" in top["Titles"] and any("sleep" in " ".join(row) for row in top["Processes"])


def test_ps_tells_the_status(api, docker):
    api.run(["sleep", "1000"], name="up")
    done = api.run("exit 2", name="done")
    api.wait(done)
    lines = docker("ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.Image}}", check=True).stdout.splitlines()
    status = dict(line.split("|")[:2] for line in lines)
    assert status["up"].startswith("Up ") and status["done"].startswith("Exited (2) ")
    assert docker("ps", "-q", check=True).stdout.count("\n") == 1


def test_cp_takes_files_in_and_out(docker, scratch):
    docker("run", "-d", "--name", "box", "busybox", "sleep", "1000", check=True)
    (scratch / "in").write_text("payload")
    docker("cp", str(scratch / "in"), "box:/tmp/file", check=True)
    assert docker("exec", "box", "cat", "/tmp/file").stdout == "payload"
    docker("cp", "box:/tmp/file", str(scratch / "out"), check=True)
    assert (scratch / "out").read_text() == "payload"
    missing = docker("cp", "box:/nope", str(scratch / "x"))
    # The client of 20.10 has words of its own.
    texts = ("Could not find the file /nope in container box", "No such container:path: box:/nope")
    assert missing.returncode == 1 and any(text in missing.stderr for text in texts)


def test_cp_does_not_follow_links_out_of_the_container(docker, scratch):
    secret = scratch / "secret"
    secret.write_text("host")
    docker("run", "-d", "--name", "box", "busybox", "sh", "-c", f"ln -s {secret} /leak; echo up; sleep 1000", check=True)
    docker("exec", "box", "sh", "-c", "while ! [ -L /leak ]; do :; done", check=True)
    result = docker("cp", "-L", "box:/leak", str(scratch / "got"))
    assert result.returncode != 0 or (scratch / "got").read_text() != "host"


def test_diff_and_commit(api, docker):
    container = api.run("echo new > /added; rm /etc/group")
    api.wait(container)
    changes = {c["Path"]: c["Kind"] for c in api.ok("GET", f"/containers/{container}/changes").json()}
    assert changes["/added"] == 1 and changes["/etc/group"] == 2 and changes["/etc"] == 0
    image = docker("commit", "-m", "note", container, "made:1", check=True).stdout.strip()
    assert image.startswith("sha256:")
    assert docker("run", "--rm", "made:1", "cat", "/added", check=True).stdout == "new\n"
    docker("rmi", "-f", "made:1", check=True)


def test_stats_give_two_samples(api):
    container = api.run(["sleep", "1000"])
    stats = api.ok("GET", f"/containers/{container}/stats", {"stream": 0}).json()
    assert stats["memory_stats"]["usage"] > 0
    assert stats["cpu_stats"]["system_cpu_usage"] > 0 and stats["cpu_stats"]["online_cpus"] >= 1
    assert stats["pids_stats"]["current"] == 1
    assert "eth0" in stats["networks"]


def test_a_healthcheck_is_carried_out(api):
    check = {"Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 200_000_000, "Timeout": 5_000_000_000, "Retries": 1}
    with api.events() as events:
        container = api.run("sleep 1000", Healthcheck=check)
        unhealthy = events.until("health_status")
        assert unhealthy["Action"] == "health_status: unhealthy"
        exec_id = api.ok("POST", f"/containers/{container}/exec", body={"Cmd": ["touch", "/tmp/ok"]}).json()["Id"]
        api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
        assert events.until("health_status")["Action"] == "health_status: healthy"
    assert api.state(container)["Health"]["Status"] == "healthy"


def test_sigterm_to_the_client_is_passed_on(engine, docker, api):
    client = subprocess.Popen(["docker", "run", "--name", "proxy", "busybox", "sh", "-c",
                               "trap 'exit 33' TERM; echo up; while :; do sleep 0.1; done"], env=engine.client_env(),
                              stdout=subprocess.PIPE)
    assert client.stdout.readline() == b"up\n"
    client.send_signal(signal.SIGTERM)
    assert client.wait(60) == 33
    client.stdout.close()
