"""Execs that the shim makes itself: what the process gets and cannot get, what becomes of the host, and the cost."""

import errno
import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

import test_exec as execs
from harness import filters
from harness.api import text_of

pytestmark = pytest.mark.gantry_only
BEGIN = "OCI runtime exec failed: exec failed: "


def shim_of(engine, container):
    """The pid of a container's shim."""
    return int((engine.exec_root / "shims" / container / "pid").read_text())


def shim_file(engine):
    return next(path for path in (engine.program().parent / "shim/gantry-shim", engine.program().parent / "gantry-shim") if path.exists())


def begun(api, container, cmd, **options):
    """A detached exec's pid on the host."""
    exec_id = execs.make(api, container, cmd, **options)
    api.ok("POST", f"/exec/{exec_id}/start", body={"Detach": True})
    return execs.inspect(api, exec_id)["Pid"]


def status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


# How it is confined.


def by_runc(engine, container, cmd, options=()):
    pid_file = engine.root / "runc-exec.pid"
    subprocess.run(["runc", "--root", engine.exec_root / "runtime/runc", "exec", "-d", "--pid-file", pid_file, *options, container, *cmd],
                   check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = int(pid_file.read_text())
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1] != [each.encode() for each in cmd]:
        assert time.monotonic() < end  # runc says that it is done a moment before
        time.sleep(0.01)
    return pid


CONFINED = {
    "default": {},
    "more": {"CapAdd": ["SYS_ADMIN"]},
    "no_new_privs": {"SecurityOpt": ["no-new-privileges"]},
    "unconfined": {"SecurityOpt": ["seccomp=unconfined"]},
    "custom": {"SecurityOpt": ['seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","personality"],'
                               '"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}']},
    "privileged": {"Privileged": True},
}


def same_as_by_runc(engine, api, container, **options):
    user = ["-u", {"alice": "1000:1000"}[options["User"]]] if options.get("User") else []
    ours, theirs = begun(api, container, execs.SLEEP, **options), by_runc(engine, container, execs.SLEEP, user)
    wanted = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask", "SigBlk")
    if not user:  # runc's option sets no further groups
        wanted += ("Groups",)
    assert {key: status(ours)[key] for key in wanted} == {key: status(theirs)[key] for key in wanted}
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
        assert os.readlink(f"/proc/{ours}/ns/{kind}") == os.readlink(f"/proc/{theirs}/ns/{kind}"), kind
    for file in ("cgroup", "limits", "oom_score_adj"):
        assert Path(f"/proc/{ours}/{file}").read_text() == Path(f"/proc/{theirs}/{file}").read_text(), file
    assert status(ours)["SigIgn"].strip("0") == ""
    if status(ours)["Seccomp"] == "2":
        a, b = filters.of(ours), filters.of(theirs)
        assert [c for c in filters.calls() if filters.decide(a, *c) != filters.decide(b, *c)] == []


@pytest.mark.parametrize("name", CONFINED)
def test_it_is_confined_as_the_runtime_would_do_it(engine, api, name):
    container = api.run(execs.SLEEP, host=CONFINED[name])
    same_as_by_runc(engine, api, container)


def test_limits_and_the_rest(api):
    container = api.run(execs.SLEEP, host={"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "nproc", "Soft": 77, "Hard": 77}],
                                           "OomScoreAdj": 300, "GroupAdd": ["daemon"]})
    text, _ = execs.output(api, container, "ulimit -Sn; ulimit -Hn; ulimit -u; cat /proc/self/oom_score_adj; id -G", User="alice")
    assert text == "100\n200\n77\n300\n1000 1 50\n" or text.splitlines()[:4] == ["100", "200", "77", "300"]
    container = api.run(execs.SLEEP, host={"Ulimits": [{"Name": "nproc", "Soft": 1, "Hard": 1}]}, User="7654")
    assert execs.output(api, container, ["true"])[1] == 0  # sleep belongs to another user


def test_home_follows_the_user(api):
    container = api.run(execs.SLEEP)
    home = "echo $HOME"
    assert execs.output(api, container, home, User="alice")[0] == execs.output(api, container, home, User="1000")[0]
    assert execs.output(api, container, home)[0] == "/root\n"
    assert execs.output(api, container, home, Env=["HOME="])[0] == "/root\n"
    assert execs.output(api, container, home, Env=["HOME=/x"])[0] == "/x\n"
    assert execs.output(api, container, home, User="4321")[0] == "/\n"


def test_streams_belong_to_the_user(api):
    container = api.run(execs.SLEEP)
    assert execs.output(api, container, "echo a > /dev/stdout; echo b > /dev/stderr", User="alice")[1] == 0
    text = execs.output(api, container, "stat -c %u /dev/pts/0; echo c > /dev/tty; tty", User="alice", Tty=True)[0]
    assert text == "1000\r\nc\r\n/dev/pts/0\r\n"


def test_input_that_is_not_wanted_is_the_containers_null(api):
    container = api.run(execs.SLEEP)
    assert execs.output(api, container, "readlink /proc/self/fd/0; stat -Lc %t:%T /proc/self/fd/0; cat")[0] == "/dev/null\n1:3\n"
    execs.output(api, container, "rm /dev/null; mkfifo /dev/null")
    assert execs.output(api, container, "cat; echo end")[0] == "end\n"
    execs.output(api, container, "rm /dev/null; ln -s /etc/passwd /dev/null")
    assert execs.output(api, container, "cat; echo end")[0] == "end\n"


def test_a_container_whose_terminals_are_gone(api):
    container = api.run(execs.SLEEP, host={"CapAdd": ["SYS_ADMIN"]})
    execs.output(api, container, "umount /dev/pts; rmdir /dev/pts; ln -s /proc /dev/pts")
    text, code = execs.output(api, container, ["tty"], Tty=True)
    assert "/dev/pts" in text and code == 126
    assert execs.output(api, container, ["echo", "hi"])[0] == "hi\n"


# What cannot be started.


FAILED = [
    (["nosuch"], {}, 127, 'exec: "nosuch": executable file not found in $PATH'),
    ([""], {}, 127, 'exec: "": executable file not found in $PATH'),
    (["/no/such"], {}, 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
    (["./nosuch"], {}, 127, 'exec: "./nosuch": stat ./nosuch: no such file or directory'),
    (["/etc/passwd/x"], {}, 127, 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
    (["/tmp"], {}, 126, 'exec: "/tmp": is a directory: permission denied'),
    (["/etc/passwd"], {}, 126, 'exec: "/etc/passwd": permission denied'),
    (["true"], {"WorkingDir": "/nope"}, 127, 'chdir to cwd ("/nope") set in config.json failed: no such file or directory'),
    (["true"], {"WorkingDir": "/etc/passwd"}, 127, 'chdir to cwd ("/etc/passwd") set in config.json failed: not a directory'),
    (["true"], {"Env": ["PATH"]}, 127, 'exec: "true": executable file not found in $PATH'),
    (["garbage"], {"Env": ["PATH=."], "WorkingDir": "/tmp"}, 126,
     'exec: "garbage": cannot run executable found relative to current directory'),
    (["/tmp/garbage"], {}, 126, "exec /tmp/garbage: exec format error"),
    (["/tmp/orphan"], {}, 127, "exec /tmp/orphan: no such file or directory"),
    (["echo", "x" * 200_000], {}, 126, "exec /bin/echo: argument list too long"),
]


def test_what_cannot_be_started_says_why(api):
    container = api.run(execs.SLEEP)
    execs.output(api, container, "printf garbage > /tmp/garbage; printf '#!/no/such\\n' > /tmp/orphan; chmod +x /tmp/*")
    for cmd, options, code, text in FAILED:
        seen = execs.output(api, container, cmd, **options)
        assert seen == (f"{BEGIN}unable to start container process: {text}: unknown\r\n", code), cmd[0]


def test_what_only_the_runtime_can_refuse(api):
    container = api.run(execs.SLEEP)
    assert execs.output(api, container, ["pwd"], WorkingDir="tmp")[0] == f"{BEGIN}Cwd must be an absolute path: unknown\r\n"
    assert "environment variable name can't be empty" in execs.output(api, container, ["env"], Env=["=x"])[0]


# The host.


def test_the_program_of_the_shim_cannot_be_changed_from_inside(engine, api):
    """CVE-2019-5736: the container makes us execute /proc/self/exe and writes to what that is."""
    before = hashlib.sha256(shim_file(engine).read_bytes()).hexdigest()
    container = api.run(execs.SLEEP, host={"CapAdd": ["SYS_PTRACE"]})
    # Held up at its very beginning: it wants to read a file that is a pipe.
    execs.output(api, container, "mkdir /tmp/d; mkfifo /tmp/d/config; printf '#!/proc/self/exe\\n' > /tmp/script; chmod +x /tmp/script")
    assert execs.output(api, container, ["/tmp/script"])[1] != 0
    begun(api, container, ["/proc/self/exe", "--dir", "/tmp/d"])
    attack = r"""
      for try in $(seq 100); do
        for p in /proc/[0-9]*; do readlink $p/exe | grep -q gantry && found=$p; done
        [ -n "$found" ] && break
        sleep 0.1
      done
      [ -n "$found" ] || exit 9
      head -c 4 $found/exe | tail -c 3; echo
      exec 3< $found/exe
      echo evil > $found/exe && echo written
      chmod 000 /proc/self/fd/3 && echo forbidden
      chmod 777 /proc/self/fd/3; truncate -s 0 /proc/self/fd/3
      echo > /tmp/d/config
      sleep 0.5
      echo evil > /proc/self/fd/3 && echo written
      dd if=/dev/zero of=/proc/self/fd/3 bs=1 count=1 conv=notrunc && echo written
      truncate -s 0 /proc/self/fd/3 && echo cut
      echo over
    """
    assert execs.output(api, container, f"({attack}) 2>/dev/null")[0].splitlines() == ["ELF", "over"]
    assert hashlib.sha256(shim_file(engine).read_bytes()).hexdigest() == before
    other = api.run(execs.SLEEP)
    for shim in (shim_of(engine, container), shim_of(engine, other)):
        assert hashlib.sha256(Path(f"/proc/{shim}/exe").read_bytes()).hexdigest() == before
        assert os.readlink(f"/proc/{shim}/exe") == "/gantry-shim"
        with pytest.raises(OSError) as refused:
            os.open(f"/proc/{shim}/exe", os.O_WRONLY)
        assert refused.value.errno in (errno.EROFS, errno.ETXTBSY)
        assert Path(f"/proc/{shim}/comm").read_text() == "gantry-shim\n"


def test_shims_share_the_pages_of_their_program(engine, api):
    containers = [api.run(execs.SLEEP) for _ in range(2)]
    inodes = {os.stat(f"/proc/{shim_of(engine, container)}/exe").st_ino for container in containers}
    assert len(inodes) == 1


def test_nothing_but_its_streams_is_open(api):
    container = api.run(execs.SLEEP)
    for options in ({}, {"Tty": True}, {"AttachStdin": True}):
        exec_id = execs.make(api, container, "for f in /proc/$$/fd/*; do [ -e $f ] && echo ${f##*/}; done", **options)
        with execs.begin(api, exec_id, Tty=options.get("Tty", False)) as stream:
            text = stream.read_all() if options.get("Tty") else text_of(stream.frames())
        # The shell has its own beside the three: where it came from, on a terminal.
        assert text.decode().split() in (["0", "1", "2"], ["0", "1", "10", "2"]), options


def test_no_descriptor_of_ours_is_a_working_directory(api):
    container = api.run(execs.SLEEP)
    for number in range(3, 24):
        text, code = execs.output(api, container, ["pwd"], WorkingDir=f"/proc/self/fd/{number}")
        assert code in (126, 127) and text.startswith(BEGIN), (number, text)


def test_a_working_directory_outside_is_refused(api):
    """With the host's pid namespace, /proc leads everywhere."""
    container = api.run(execs.SLEEP, host={"PidMode": "host"})
    for path in ("/proc/1/root", "/proc/1/root/etc", "/proc/1/cwd", f"/proc/{os.getpid()}/cwd"):
        text, code = execs.output(api, container, ["ls"], WorkingDir=path)
        assert code in (126, 127) and text.startswith(BEGIN), (path, text)


def test_a_joining_process_cannot_be_looked_into(api):
    """A process of the container that looks at every new one sees nothing of ours, and opens nothing of it."""
    container = api.run(execs.SLEEP)
    look = r"""
      while [ ! -e /tmp/stop ]; do
        for p in /proc/[0-9]*; do
          case "$(readlink $p/exe)" in *gantry*) echo "exe of $p" ;; esac
          for f in $p/fd/*; do
            case "$(readlink $f)" in *socket*|*gantry*|*cgroup*|*anon_inode*) echo "$f" ;; esac
          done
        done
      done; echo looked
    """
    exec_id = execs.make(api, container, look + " 2>/dev/null")
    with execs.begin(api, exec_id) as stream:
        for _ in range(150):
            assert execs.output(api, container, ["true"])[1] == 0
        execs.output(api, container, ["touch", "/tmp/stop"])
        assert text_of(stream.frames(), 1) == b"looked\n"


# Life and death.


def test_more_than_a_thousand_processes_are_listed(api):
    container = api.run("i=0; while [ $i -lt 1300 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait")
    api.wait_for_log(container, "ready")
    assert len(api.ok("GET", f"/containers/{container}/top", {"ps_args": "-o pid"}).json()["Processes"]) == 1301


# What it costs.


@pytest.mark.slow
def test_a_thousand_in_a_row(api):
    container = api.run(execs.SLEEP)
    for number in range(1000):
        assert execs.output(api, container, f"echo {number}; exit {number % 256}") == (f"{number}\n", number % 256)
