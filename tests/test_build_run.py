"""What a RUN of a build sees and leaves. With docker buildx."""

import os
import re
import signal
import subprocess
import time

import pytest

from harness import clients

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks half of what this client asks for


class Runs:
    def __init__(self, engine, directory):
        self.engine = engine
        self.directory = directory
        self.env = {**engine.client_env(), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        self.root = directory / "context"
        self.root.mkdir()

    def put(self, files):
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        return self

    def command(self, dockerfile, *args):
        self.put({"Dockerfile": dockerfile})
        return [str(clients.buildx()), "build", "--progress=plain", *map(str, args), str(self.root)]

    def build(self, dockerfile, *args, code=0, env=None):
        """What the client printed, without its prefixes."""
        result = subprocess.run(self.command(dockerfile, *args), env={**self.env, **(env or {})}, capture_output=True,
                                timeout=200, cwd=self.directory, text=True, errors="replace")
        assert result.returncode == code, f"{result.returncode}:\n{result.stderr}"
        return result.stderr

    def out(self, dockerfile, *args, **options):
        """The lines that the steps printed."""
        lines = self.build(dockerfile, "--no-cache", *args, **options).splitlines()
        return [match[1] for line in lines if (match := re.match(r"#\d+ \d+\.\d+ (.*)", line))]


@pytest.fixture
def runs(engine, clean, scratch):
    return Runs(engine, scratch)


def layer_of(engine, runs, dockerfile):
    """What the last step of a Dockerfile adds or changes, of an image built from it."""
    runs.build(dockerfile, "--load", "-t", "layered")
    container = engine.docker("create", "layered", check=True).stdout.strip()
    try:
        return engine.docker("diff", container, check=True).stdout, engine.docker("run", "--rm", "layered", "find", "/",
                                                                                "-xdev", check=True).stdout.split()
    finally:
        engine.docker("rm", container)


def test_users_and_groups(runs):
    dockerfile = ("FROM busybox\n"
                  "RUN printf 'root:x:0:0::/root:/bin/sh\\ndaemon:x:1:1::/home/d:/bin/sh\\n' > /etc/passwd; "
                  "printf 'root:x:0:\\ndaemon:x:1:\\nextra:x:77:daemon\\n' > /etc/group\n"
                  "RUN id\nUSER daemon\nRUN id; echo $HOME\nUSER daemon:extra\nRUN id\nUSER 1:77\nRUN id\nUSER 1234\nRUN id\n"
                  "USER 5:6\nRUN id\n")
    assert [line.replace("  ", " ") for line in runs.out(dockerfile)] == [
        "uid=0(root) gid=0(root) groups=0(root)",
        "uid=1(daemon) gid=1(daemon) groups=1(daemon),77(extra)", "/home/d",
        "uid=1(daemon) gid=77(extra) groups=77(extra)", "uid=1(daemon) gid=77(extra) groups=77(extra)",
        "uid=1234 gid=0(root) groups=0(root)", "uid=5 gid=6 groups=6"]


def test_what_a_step_sees(runs):
    out = runs.out("FROM busybox\nENV A=1\nARG B=2\nWORKDIR /w\n"
                   "RUN hostname; pwd; echo $A$B; cat /etc/hosts | head -1; ls /proc/self/fd | wc -l; "
                   "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat; env | grep HOSTNAME; echo end\n")
    assert out[:3] == ["buildkitsandbox", "/w", "12"]
    assert out[3].split() == ["127.0.0.1", "localhost", "buildkitsandbox"] or out[3].split() == ["127.0.0.1", "localhost"]
    assert "CapEff:\t00000000a80425fb" in out and "NoNewPrivs:\t0" in out
    assert out[-1] == "end" and not any(line.startswith("HOSTNAME=") for line in out)


def test_a_failure_shows_its_command_and_place(runs):
    shown = runs.build("FROM busybox\nRUN echo before\nRUN echo said >&2; exit 5\n", code=1)
    assert 'process "/bin/sh -c echo said >&2; exit 5" did not complete successfully: exit code: 5' in shown
    assert "Dockerfile:3" in shown and "said" in shown
    shown = runs.build("FROM busybox\nRUN invalidcmd\n", code=1)
    assert 'process "/bin/sh -c invalidcmd" did not complete successfully: exit code: 127' in shown
    shown = runs.build('FROM busybox\nRUN ["no-such-program"]\n', code=1)
    assert 'process "no-such-program" did not complete successfully' in shown and "executable file not found in $PATH" in shown
    shown = runs.build('FROM busybox\nUSER nobody-here\nRUN true\n', code=1)
    assert "unable to find user nobody-here: no matching entries in passwd file" in shown


def test_an_image_without_directories_stays_without(runs, engine):
    runs.put({"sh": ""})
    (runs.root / "sh").write_bytes(open("/bin/busybox", "rb").read())
    (runs.root / "sh").chmod(0o755)
    runs.build("FROM scratch\nCOPY sh /bin/sh\nRUN --mount=target=/context --mount=type=tmpfs,target=/t --mount=type=cache,target=/c/d "
               "echo x > /made && test -e /context/sh\n", "--output=type=local,dest=" + str(runs.directory / "out"))
    found = sorted(str(path.relative_to(runs.directory / "out")) for path in (runs.directory / "out").rglob("*"))
    assert found == ["bin", "bin/sh", "made"]


def test_mounts_of_contexts_and_stages(runs):
    runs.put({"testfile": "contents0", "sub/other": "o"})
    assert runs.out('FROM busybox AS s\nRUN echo staged > /f\nFROM busybox\nARG kind=bind\n'
                    'RUN --mount=target=/context cat /context/testfile; echo; touch /context/x 2>/dev/null || echo refused\n'
                    'RUN --mount=type=$kind,from=s,source=/f,target=/m cat /m\n'
                    'RUN --mount=target=/rw,source=sub,rw echo changed > /rw/other; cat /rw/other\n'
                    'RUN --mount=target=/rw,source=sub cat /rw/other\n') == [
        "contents0", "refused", "staged", "changed", "o"]


def test_memory_mounts_and_limits(runs):
    out = runs.out("FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=131072k df -k /t | tail -1\nRUN df -k /dev/shm | tail -1; ulimit -n\n",
                   "--shm-size=131072k", "--ulimit=nofile=1062:1062")
    assert out[0].split()[1] == "131072" and out[1].split()[1] == "131072" and out[2] == "1062"


def test_cache_mounts(runs):
    step = "RUN --mount=type=cache,target=/c,id={} echo $(cat /c/n 2>/dev/null)1 > /c/n; cat /c/n\n"
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    assert runs.out("FROM busybox\n" + step.format(name)) == ["1"]
    assert runs.out("FROM busybox\n" + step.format(name)) == ["11"]
    assert runs.out("FROM busybox\n" + step.format(name + "other")) == ["1"]
    out = runs.out(f"FROM busybox\nRUN --mount=type=cache,target=/c,id={name}m,uid=1001,gid=1002,mode=0751 stat -c '%u %g %a' /c\n")
    assert out == ["1001 1002 751"]
    out = runs.out(f"FROM busybox AS s\nRUN mkdir -p /init/d && echo i > /init/d/f\nFROM busybox\n"
                   f"RUN --mount=type=cache,target=/c,id={name}i,from=s,source=/init cat /c/d/f\n")
    assert out == ["i"]


def test_a_cache_mount_cannot_be_left_by_a_link(runs):
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    runs.build(f"FROM busybox AS s\nRUN mkdir /x && ln -s /etc /x/out\nFROM busybox\n"
               f"RUN --mount=type=cache,target=/c,id={name},from=s,source=/x/out cat /c/hostname\n", code=1)


def test_secrets(runs, engine):
    (runs.directory / "secret").write_text("hidden-value")
    flag = f"--secret=id=mysecret,src={runs.directory / 'secret'}"
    shown = runs.build("FROM busybox\nRUN --mount=type=secret,id=mysecret,mode=741,uid=100,gid=102,target=/mysecret "
                       "stat -c '%u %g %f' /mysecret; grep -c hidden /mysecret; grep mysecret /proc/mounts\n"
                       "RUN --mount=type=secret,id=mysecret,required wc -c < /run/secrets/mysecret\n"
                       "RUN --mount=type=secret,id=mysecret,env=SECRET test \"$SECRET\" = $(printf 'hidden%s' -value) && test ! -e /run/secrets\n"
                       "RUN test ! -e /mysecret && test ! -e /run/secrets && echo gone\n", "--no-cache", flag, "--load", "-t", "made")
    assert "100 102 81e1" in shown and " 12\n" in shown and "gone" in shown and "hidden-value" not in shown
    assert re.search(r"/mysecret \S+ ro,nosuid,nodev,noexec", shown), shown
    assert "hidden-value" not in engine.docker("history", "--no-trunc", "made", check=True).stdout
    assert "secret mysecret: not found" in runs.build(
        "FROM busybox\nRUN --mount=type=secret,id=mysecret,required true\n", code=1)
    runs.build("FROM busybox\nRUN --mount=type=secret,id=mysecret test ! -e /run/secrets/mysecret\n")


def test_ssh_agents(runs):
    key = runs.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    out = runs.out("FROM busybox\nRUN --mount=type=ssh,mode=741,uid=100,gid=102 stat -c '%u %g %f' $SSH_AUTH_SOCK\n"
                   "RUN test ! -e /run/buildkit && echo gone\n", f"--ssh=default={key}")
    assert out == ["100 102 c1e1", "gone"]
    assert 'no SSH key "default" forwarded from the client' in runs.build(
        "FROM busybox\nRUN --mount=type=ssh,required true\n", code=1)


def test_networks(runs):
    dockerfile = "FROM busybox\nRUN --network={} ip link show eth0\n"
    assert any("eth0" in line for line in runs.out("FROM busybox\nRUN ip link show eth0\n"))
    assert any("eth0" in line for line in runs.out(dockerfile.format("default")))
    assert runs.out("FROM busybox\nRUN --network=none ! ip link show eth0 2>/dev/null && ip link show lo && echo alone\n")[-1] == "alone"
    assert "network.host is not allowed" in runs.build(dockerfile.format("host"), code=1)
    host = os.readlink("/proc/self/ns/net")
    inside = runs.out("FROM busybox\nRUN readlink /proc/self/ns/net\n", "--network=host")
    assert inside == [host]
    out = runs.out("FROM busybox\nRUN --network=none ip link show eth0 2>/dev/null || echo alone\n", "--network=host")
    assert out[-1] == "alone"


def test_extra_hosts_and_proxies(runs):
    out = runs.out("FROM busybox\nRUN grep somewhere /etc/hosts; echo $http_proxy:$no_proxy\n", "--add-host=somewhere:10.1.2.3",
                   "--build-arg=http_proxy=http://p:1", "--build-arg=NO_PROXY=none")
    assert out[0].split() == ["10.1.2.3", "somewhere"] and out[1] == "http://p:1:none"


def test_output_is_shown_as_it_comes(runs):
    process = subprocess.Popen(runs.command("FROM busybox\nRUN echo first; sleep 600\n", "--no-cache"), env=runs.env,
                               stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        for line in process.stderr:
            if re.search(r"\d first$", line.strip()):
                break
        else:
            pytest.fail("it ended by itself")
    finally:
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        process.wait(60)
    assert process.returncode != 0


def test_a_client_that_leaves_takes_its_processes_along(runs):
    mark = f"31{time.monotonic_ns() % 10**9}"
    process = subprocess.Popen(runs.command(f"FROM busybox\nRUN echo started; trap '' TERM INT; sleep {mark} & sleep {mark}\n", "--no-cache"),
                               env=runs.env, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    for line in process.stderr:
        if re.search(r"\d started$", line.strip()):
            break
    assert running(mark)
    process.kill()
    process.stderr.read()
    process.wait(60)
    deadline = time.monotonic() + 60
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(mark)


def running(mark):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"sleep\0{mark}\0".encode() == open(f"/proc/{pid}/cmdline", "rb").read():
                return True
        except OSError:
            pass
    return False


def test_scripts_inline(runs):
    out = runs.out("FROM busybox\nRUN <<EOF\necho one\necho two > /f\nEOF\nRUN cat /f\nRUN <<EOF\n#!/bin/cat\nprinted itself\nEOF\n"
                   "RUN cat <<A | tr a-z A-Z\nshout\nA\n")
    assert out == ["one", "two", "#!/bin/cat", "printed itself", "SHOUT"]


def test_steps_leave_no_traces_on_the_host(runs, engine):
    before = {line.split()[4] for line in open("/proc/self/mountinfo")}
    runs.build("FROM busybox\nRUN --mount=type=tmpfs,target=/t true\n", "--no-cache")
    assert {line.split()[4] for line in open("/proc/self/mountinfo")} - before == set()
    assert engine.docker("ps", "-a", check=True).stdout.count("\n") == 1
