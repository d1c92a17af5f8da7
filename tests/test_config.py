"""daemon.json, flags, --validate, SIGHUP, listeners."""

import os
import signal
import socket
import subprocess

import pytest

from harness.api import Api
from harness.engine import EngineFailed, Gantry

pytestmark = pytest.mark.gantry_only


def validate(scratch, text, *flags):
    path = scratch / "daemon.json"
    path.write_text(text)
    return subprocess.run([str(Gantry.program()), "--validate", "--config-file", str(path), *flags], capture_output=True,
                          text=True, timeout=60)


BAD_FILES = {
    "misspelt key": ('{\n "live-restor": true\n}', ":2:", "live-restor", '"live-restore"'),
    "a flag's name as key": ('{"insecure-registry": ["x"]}', ":1:", "insecure-registry", '"insecure-registries"'),
    "wrong type": ('{"debug": "yes"}', ":1:", "debug", "true or false"),
    "wrong value": ('{"log-level": "inof"}', ":1:", "log-level", '"info"'),
    "a list is a string": ('{"dns": "8.8.8.8"}', ":1:", "dns", "list"),
    "bad address": ('{"dns": ["8.8.8"]}', ":1:", "dns", "not an ip address"),
    "mirror without scheme": ('{"registry-mirrors": ["m.example"]}', ":1:", "registry-mirrors", "https://m.example"),
    "registry with scheme": ('{"insecure-registries": ["http://r:5000"]}', ":1:", "insecure-registries", "r:5000"),
    "negative number": ('{"max-concurrent-downloads": -1}', ":1:", "max-concurrent-downloads", "1 or more"),
    "unknown storage driver": ('{"storage-driver": "overlay3"}', ":1:", "driver not supported", '"overlay2"'),
    "comma at the end": ('{\n"debug": true,\n}', ":3:", "invalid JSON", "comma"),
    "nested": ('{"default-address-pools": [\n{"base": "10.0.0.0/8",\n"siez": 24}]}', ":3:", "siez", '"size"'),
    "systemd cgroups without systemd": ('{"exec-opts": ["native.cgroupdriver=systemd"]}', ":1:", "exec-opts", "systemd"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_validate_names_line_key_and_remedy(scratch, case):
    text, *expected = BAD_FILES[case]
    result = validate(scratch, text)
    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert not [part for part in expected if part not in output], output


def test_validate_lists_all_problems_at_once(scratch):
    result = validate(scratch, '{"debug": 1,\n"icc": "x",\n"mtu": "y",\n"nope": 0}')
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert [n for n in (1, 2, 3, 4) if f"daemon.json:{n}: " not in output] == []


def test_validate_accepts_a_full_file(scratch):
    result = validate(scratch, '{"debug": true, "log-opts": {"max-size": "10m"}, "runtimes": {"x": {"path": "/x"}}}')
    assert (result.returncode, "configuration OK" in result.stdout + result.stderr) == (0, True)


def test_validate_knows_every_key_of_dockerd(scratch):
    """The keys of dockerd with their types; the list is not taken from our own table."""
    keys = {
        "booleans": "allow-direct-routing cri-containerd debug experimental icc init ip-forward ip-forward-no-drop ip-masq "
                    "iptables ip6tables ipv6 live-restore no-new-privileges raw-logs rootless selinux-enabled "
                    "userland-proxy",
        "lists": "authorization-plugins cdi-spec-dirs dns dns-opts dns-search exec-opts host-gateway-ips "
                 "insecure-registries labels node-generic-resources registry-mirrors storage-opts",
        "numbers": "cpu-rt-period cpu-rt-runtime network-control-plane-mtu network-diagnostic-port "
                   "swarm-raft-heartbeat-tick swarm-raft-election-tick",
        "texts": "bip bip6 bridge bridge-accept-fwmark cgroup-parent containerd containerd-namespace "
                 "containerd-plugin-namespace default-gateway default-gateway-v6 fixed-cidr fixed-cidr-v6 init-path "
                 "metrics-addr resolv-conf storage-driver swarm-default-advertise-addr userland-proxy-path userns-remap "
                 "deprecated-key-path",
        "objects": "builder default-network-opts default-ulimits features log-opts nri-opts proxies runtimes",
    }
    values = {"booleans": "true", "lists": "[]", "numbers": "0", "texts": '""', "objects": "{}"}
    members = [f'"{key}": {values[kind]}' for kind, names in keys.items() for key in names.split()]
    members += ['"default-cgroupns-mode": "host"', '"default-ipc-mode": "private"', '"default-runtime": "runc"',
                '"default-shm-size": "64M"', '"default-stop-timeout": 10', '"shutdown-timeout": 15', '"data-root": "/x"',
                '"exec-root": "/y"', '"pidfile": "/p"', '"group": "docker"', '"hosts": ["unix:///s"]', '"ip": "0.0.0.0"',
                '"log-driver": "json-file"', '"log-level": "info"', '"log-format": "text"', '"mtu": 1500',
                '"max-concurrent-downloads": 3', '"max-concurrent-uploads": 5', '"max-download-attempts": 5',
                '"min-api-version": "1.24"', '"seccomp-profile": "builtin"', '"firewall-backend": "nftables"',
                '"default-address-pools": []', '"default-init": "docker-init"', '"tls": false']
    result = validate(scratch, "{" + ",\n".join(members) + "}")
    assert result.returncode == 0, result.stdout + result.stderr


def test_version_and_help(scratch):
    for flag in ("--version", "-v", "--help"):
        result = subprocess.run([str(Gantry.program()), flag], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and result.stdout and not result.stderr


def test_a_bad_optional_key_does_not_keep_it_from_starting(fresh):
    engine = fresh(config={"log-level": "loud", "no-such-key": 1, "mtu": "x"})
    assert engine.api().get("/_ping").status == 200
    for word in ("log-level", "no-such-key", "mtu"):
        assert word in engine.log_text()


def test_what_has_no_effect_is_said_in_the_log(fresh):
    engine = fresh(config={"selinux-enabled": True})
    assert "selinux-enabled" in engine.log_text()


def test_a_setting_that_the_host_cannot_honour_is_refused_at_the_start(fresh):
    engine = fresh(start=False, config={"exec-opts": ["native.cgroupdriver=systemd"]})
    with pytest.raises(EngineFailed, match="systemd is not the init system"):
        engine.start()


def test_the_same_key_as_flag_and_in_the_file_is_an_error(fresh):
    engine = fresh(start=False, config={"labels": ["c=d"]}, arguments=["--label", "a=b"])
    with pytest.raises(EngineFailed, match="the following directives are specified both as a flag and in the configuration "
                                           r"file: labels: \(from flag: \[a=b\], from file: \[c=d\]\)"):
        engine.start()


def test_hup_takes_live_settings(fresh):
    engine = fresh(config={"labels": ["a=1"]})
    api = engine.api()
    with api.events() as events:
        engine.write_config({"labels": ["a=2", "b=3"], "max-concurrent-downloads": 7})
        engine.signal(signal.SIGHUP)
        reload = events.until("reload", "daemon")
    assert sorted(api.ok("GET", "/info").json()["Labels"]) == ["a=2", "b=3"]
    assert reload["Actor"]["Attributes"]["max-concurrent-downloads"] == "7"


def test_hup_with_a_bad_file_changes_nothing(fresh):
    engine = fresh(config={"labels": ["a=1"]})
    api = engine.api()
    engine.write_config({"labels": ["a=2"], "max-concurrent-downloads": -1})
    engine.signal(signal.SIGHUP)
    _await_log(engine, "max-concurrent-downloads")
    assert api.ok("GET", "/info").json()["Labels"] == ["a=1"]
    with api.events() as events:
        engine.write_config({"labels": ["a=3"]})
        engine.signal(signal.SIGHUP)
        events.until("reload", "daemon")
    assert api.ok("GET", "/info").json()["Labels"] == ["a=3"]


def _await_log(engine, text, timeout=60):
    tail = subprocess.Popen(["timeout", str(timeout), "tail", "-n", "+1", "-f", str(engine.log_file)],
                            stdout=subprocess.PIPE, text=True)
    try:
        for line in tail.stdout:
            if text in line:
                return
    finally:
        tail.kill()
        tail.wait()
        tail.stdout.close()
    raise AssertionError(f"{text} is not in the log:\n{engine.log_tail()}")


def test_several_listeners(fresh, scratch):
    engine = fresh(arguments=["-H", f"unix://{scratch}/second.sock", "-H", "tcp://127.0.0.1:12375"])
    assert Api(scratch / "second.sock").get("/_ping").body == b"OK"
    with socket.create_connection(("127.0.0.1", 12375), timeout=60) as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in client.recv(65536)


def test_the_socket_belongs_to_the_group(fresh):
    engine = fresh(arguments=["-G", "daemon"])
    import grp

    info = os.stat(engine.socket)
    assert info.st_gid == grp.getgrnam("daemon").gr_gid
    assert info.st_mode & 0o777 == 0o660


def test_the_pid_file_is_written_and_removed(fresh):
    engine = fresh()
    assert int(engine.pidfile.read_text()) == engine.process.pid
    engine.stop()
    assert not engine.pidfile.exists()


def test_a_second_daemon_on_the_same_state_is_refused(fresh):
    engine = fresh()
    second = subprocess.run(engine.command(), capture_output=True, text=True, timeout=60, env=engine.env())
    assert second.returncode != 0
    assert f"another gantryd uses {engine.data_root}" in second.stderr
    assert engine.api().get("/_ping").status == 200


def test_sockets_from_systemd(fresh, scratch):
    """fd:// takes listening sockets from the environment, as systemd hands them over (sd_listen_fds(3))."""
    engine = fresh(start=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(scratch / "fd.sock"))
    listener.listen(16)
    command = engine.command()
    command[command.index("-H") + 1] = "fd://"

    def hand_over():
        os.dup2(listener.fileno(), 3, inheritable=True)

    launcher = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command]
    log = engine.log_file.open("ab")
    daemon = subprocess.Popen(launcher, env=engine.env(), preexec_fn=hand_over, close_fds=False, stdout=log,
                              stderr=log)
    try:
        # The socket listens already: the request waits in its queue until the daemon takes it.
        assert Api(scratch / "fd.sock", timeout=60).get("/_ping").body == b"OK"
    finally:
        daemon.terminate()
        daemon.wait(60)
        listener.close()
        log.close()


def make_certificates(directory):
    """A CA, a server's certificate for 127.0.0.1 and a client's."""
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca",
            "-days", "2")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (directory / "ext").write_text(extension)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj",
                f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-out",
                f"{name}.pem", "-days", "2", "-extfile", "ext")


def test_tls_with_client_certificates(fresh, scratch):
    make_certificates(scratch)
    engine = fresh(arguments=["-H", "tcp://127.0.0.1:12376", "--tlsverify", "--tlscacert", f"{scratch}/ca.pem", "--tlscert",
                              f"{scratch}/server.pem", "--tlskey", f"{scratch}/server-key.pem"])
    assert engine.api().get("/_ping").status == 200
    good = ["docker", "-H", "tcp://127.0.0.1:12376", "--tlsverify", "--tlscacert", f"{scratch}/ca.pem", "--tlscert",
            f"{scratch}/client.pem", "--tlskey", f"{scratch}/client-key.pem", "version", "--format", "{{.Server.Os}}"]
    env = {"PATH": os.environ["PATH"], "HOME": str(scratch)}
    result = subprocess.run(good, env=env, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "linux\n"), result.stderr
    import ssl

    context = ssl.create_default_context(cafile=f"{scratch}/ca.pem")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with socket.create_connection(("127.0.0.1", 12376), timeout=60) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
                if not client.recv(100):
                    raise ConnectionError("closed")


def test_min_api_version_is_in_force(fresh):
    engine = fresh(config={"min-api-version": "1.40"})
    reply = engine.api("1.39").get("/info")
    assert reply.status == 400 and "Minimum supported API version is 1.40" in reply.message
