"""Log drivers that send the output away: what arrives at the server, and what happens when it does not."""

import re
import socket
import time
from datetime import datetime, timezone

import pytest

from harness.log_servers import Fluentd, Gelf, Journal, Server, certificate, is_silent


def logging(driver, **options):
    return {"LogConfig": {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in options.items()}}}


def refused(api, driver, **options):
    reply = api.post("/containers/create", body={"Image": "busybox", "HostConfig": logging(driver, **options)})
    assert reply.status == 400, reply
    return reply.message


# ---- options


def test_unknown_drivers_and_options_are_refused_at_create(api):
    # dockerd 20.10 looks for a plugin first, and fails at that.
    assert re.search("no log driver named 'x' is registered|logging plugin x", refused(api, "x"))
    assert refused(api, "json-file", x="1").endswith("unknown log opt 'x' for json-file log driver")
    assert refused(api, "local", x="1").endswith("unknown log opt 'x' for log driver local")
    assert refused(api, "syslog", x="1").endswith("unknown log opt 'x' for syslog log driver")
    assert refused(api, "gelf", gelf_address="udp://a:1", x="1").endswith('unknown log opt "x" for gelf log driver')
    assert refused(api, "journald", x="1").endswith("unknown log opt 'x' for journald log driver")
    assert refused(api, "fluentd", x="1").endswith("unknown log opt 'x' for fluentd log driver")


def test_bad_values_are_refused_at_create(api, scratch):
    assert refused(api, "json-file", mode="x").endswith("logger: logging mode not supported: x")
    assert "max-buffer-size option is only supported with 'mode=non-blocking'" in refused(api, "json-file", max_buffer_size="1m")
    assert "syslog-address should be in form proto://address, got x" in refused(api, "syslog", syslog_address="x")
    missing = scratch / "none.sock"
    assert f"stat {missing}: no such file or directory" in refused(api, "syslog", syslog_address=f"unix://{missing}")
    assert "invalid syslog facility" in refused(api, "syslog", syslog_facility="x")
    assert "Invalid syslog format" in refused(api, "syslog", syslog_format="x")
    assert "gelf-address is a required parameter" in refused(api, "gelf")
    assert "gelf: endpoint needs to be TCP or UDP" in refused(api, "gelf", gelf_address="unix:///x")
    assert "compression is only supported on UDP" in refused(api, "gelf", gelf_address="tcp://a:1", gelf_compression_type="gzip")
    assert "invalid fluentd-address" in refused(api, "fluentd", fluentd_address="tcp://a:b:c")


def test_info_names_the_drivers(api):
    drivers = api.ok("GET", "/info").json()["Plugins"]["Log"]
    assert set(drivers) >= {"fluentd", "gelf", "journald", "json-file", "local", "syslog"}
    assert "none" not in drivers and drivers == sorted(drivers)


# ---- syslog


@pytest.mark.parametrize("kind", ["udp", "tcp", "unix", "unixgram"])
def test_syslog_arrives_over_each_transport(api, scratch, kind):
    with Server(kind, scratch / "s" if kind.startswith("unix") else None) as server:
        host = logging("syslog", syslog_address=f"{kind}://{server.address}", syslog_facility="local3", tag="{{.Name}}/{{.ID}}")
        container = api.run("echo out; sleep 0.2; echo err >&2", name=f"sys-{kind}", host=host)
        data = server.until(b"err\n")
        tag = rf"sys-{kind}/{container[:12]}"
        stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
        expected = rf"<158>{stamp} {tag}\[\d+\]: out\n<155>{stamp} {tag}\[\d+\]: err\n"
        assert re.fullmatch(expected.encode(), data), data
        api.wait(container)


@pytest.mark.parametrize("form, pattern", [
    ("rfc3164", r"<30>[A-Z][a-z]{2} [ \d]\d [\d:]{8} {host} {id}\[\d+\]: hi\n"),
    ("rfc5424", r"<30>1 [-\d]{10}T[\d:]{8}(Z|[-+]\d\d:\d\d) {host} {id} \d+ {id} - hi\n"),
    ("rfc5424micro", r"<30>1 [-\d]{10}T[\d:]{8}\.\d{1,6}(Z|[-+]\d\d:\d\d) {host} {id} \d+ {id} - hi\n"),
])
def test_syslog_formats(api, form, pattern):
    with Server("udp") as server:
        container = api.run("echo hi", host=logging("syslog", syslog_address=f"udp://{server.address}", syslog_format=form))
        pattern = pattern.replace("{host}", re.escape(socket.gethostname())).replace("{id}", container[:12])
        assert re.fullmatch(pattern.encode(), data := server.read()), data


def test_syslog_over_tls_counts_its_messages(api, scratch):
    files = certificate(scratch)
    with Server("tls", certificate=files) as server:
        host = logging("syslog", syslog_address=f"tcp+tls://{server.address}", syslog_tls_ca_cert=files[0],
                       syslog_format="rfc5424")
        import threading
        accepting = threading.Thread(target=server.accept)
        accepting.start()
        api.run("echo secret", host=host)
        accepting.join()
        length, message = server.until(b"secret\n").split(b" ", 1)
        assert int(length) == len(message)


def test_a_certificate_of_somebody_else_refuses_the_start(api, scratch):
    (scratch / "other").mkdir()
    files, other = certificate(scratch), certificate(scratch / "other")
    with Server("tls", certificate=files) as server:
        import threading

        def accept():
            try:
                server.accept()
            except OSError:
                pass

        accepting = threading.Thread(target=accept)
        accepting.start()
        container = api.create(Cmd=["true"], host=logging("syslog", syslog_address=f"tcp+tls://{server.address}",
                                                          syslog_tls_ca_cert=other[0]))
        reply = api.post(f"/containers/{container}/start")
        accepting.join()
        assert reply.status == 500 and "failed to initialize logging driver" in reply.message and "x509" in reply.message


# ---- fluentd


def test_fluentd_gets_records(api):
    with Fluentd("tcp") as server:
        host = logging("fluentd", fluentd_address=server.address, tag="docker.{{.Name}}", labels="role", env="COLOUR")
        container = api.run("echo out; sleep 0.2; echo err >&2", name="flu", host=host, Labels={"role": "db", "x": "y"},
                            Env=["COLOUR=red"])
        tag, when, record, *_ = server.message()
        assert tag == "docker.flu" and abs(when - time.time()) < 60
        assert record == {"container_id": container, "container_name": "/flu", "source": "stdout", "log": "out", "role": "db",
                          "COLOUR": "red"}
        assert server.message()[2]["source"] == "stderr"


def test_fluentd_over_a_unix_socket_with_sub_seconds(api, scratch):
    with Fluentd("unix", scratch / "f") as server:
        api.run("echo hi", host=logging("fluentd", fluentd_address=f"unix://{server.path}", fluentd_sub_second_precision="true"))
        message = server.message()
        assert isinstance(message[1], float) and message[2]["log"] == "hi"


def test_fluentd_marks_the_pieces_of_a_long_line(api):
    with Fluentd("tcp") as server:
        api.run("head -c 40000 /dev/zero | tr '\\0' a; echo", host=logging("fluentd", fluentd_address=server.address))
        pieces = [server.message()[2] for _ in range(3)]
        assert "".join(piece["log"] for piece in pieces) == "a" * 40000
        assert {piece["partial_message"] for piece in pieces} == {"true"}
        assert len({piece["partial_id"] for piece in pieces}) == 1
        assert [piece["partial_ordinal"] for piece in pieces] == ["1", "2", "3"]
        assert [piece["partial_last"] for piece in pieces] == ["false", "false", "true"]


@pytest.mark.gantry_only  # dockerd waits for each acknowledgement before it reads on; the same, but 20.10 has no such option
def test_fluentd_waits_for_acknowledgements(api):
    with Fluentd("tcp") as server:
        api.run("echo 1; echo 2", host=logging("fluentd", fluentd_address=server.address, fluentd_request_ack="true"))
        first = server.message()
        assert first[2]["log"] == "1" and is_silent(server, 0.3)
        server.acknowledge(first)
        assert server.message()[2]["log"] == "2"


# ---- gelf


@pytest.mark.parametrize("options", [{}, {"gelf_compression_type": "zlib", "gelf_compression_level": "9"},
                                     {"gelf_compression_type": "none"}])
def test_gelf_over_udp(api, options):
    with Gelf("udp") as server:
        host = logging("gelf", gelf_address=f"udp://{server.address}", tag="t-{{.Name}}", labels="role", **options)
        container = api.run(["sh", "-c", "echo 'say \"hi\"' >&2"], name="gel", host=host, Labels={"role": "db"})
        message = server.message()
        assert abs(message.pop("timestamp") - time.time()) < 60
        created = datetime.fromisoformat(message.pop("_created")[:19]).replace(tzinfo=timezone.utc)
        assert abs(created.timestamp() - time.time()) < 60
        image = api.inspect(container)["Image"]
        assert message == {"version": "1.1", "host": socket.gethostname(), "short_message": 'say "hi"', "level": 3,
                           "_container_id": container, "_container_name": "gel", "_image_id": image, "_image_name": "busybox",
                           "_command": "sh -c echo 'say \"hi\"' >&2", "_tag": "t-gel", "_role": "db"}


def test_gelf_chunks_what_is_too_long_for_a_datagram(api):
    with Gelf("udp") as server:
        api.run("head -c 9000 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' | head -c 16000; echo",
                host=logging("gelf", gelf_address=f"udp://{server.address}"))
        assert len(server.message()["short_message"]) == 16000


def test_gelf_over_tcp_ends_messages_with_nul(api):
    with Gelf("tcp") as server:
        api.run("echo one; echo two", host=logging("gelf", gelf_address=f"tcp://{server.address}"))
        assert [server.message()["short_message"] for _ in range(2)] == ["one", "two"]


# ---- journald


def test_without_a_journal_the_start_is_refused(api):
    container = api.create(Cmd=["true"], host=logging("journald"))
    reply = api.post(f"/containers/{container}/start")
    assert reply.status == 500
    assert "failed to initialize logging driver: journald is not enabled on this host" in reply.message
    state = api.state(container)
    assert (state["Status"], state["ExitCode"]) == ("created", 128) and "journald" in state["Error"]


def test_the_journal_gets_fields(api):
    with Journal() as journal:
        host = logging("journald", tag="{{.ImageName}}/{{.Name}}", labels="com.example/role", env="A")
        container = api.run("echo hi; echo bad >&2", name="jou", host=host, Labels={"com.example/role": "x"}, Env=["A=1\n2"])
        entry = journal.message()
        assert entry.items() >= {"MESSAGE": "hi", "PRIORITY": "6", "CONTAINER_ID": container[:12], "CONTAINER_ID_FULL": container,
                                 "CONTAINER_NAME": "jou", "CONTAINER_TAG": "busybox/jou", "SYSLOG_IDENTIFIER": "busybox/jou",
                                 "COM_EXAMPLE_ROLE": "x", "A": "1\n2"}.items()
        assert journal.message()["PRIORITY"] == "3"


# ---- when the server is away


def closed_port():
    with Server("tcp") as server:
        return server.port


@pytest.mark.parametrize("driver, option, prefix", [
    ("syslog", "syslog_address", "dial tcp"), ("fluentd", "fluentd_address", "dial tcp"),
    ("gelf", "gelf_address", "gelf: cannot connect to GELF endpoint: ")])
def test_a_server_that_is_away_refuses_the_start(api, driver, option, prefix):
    container = api.create(Cmd=["true"], host=logging(driver, **{option: f"tcp://127.0.0.1:{closed_port()}"}))
    reply = api.post(f"/containers/{container}/start")
    assert reply.status == 500, reply
    assert f"failed to initialize logging driver: {prefix}" in reply.message
    assert "connect: connection refused" in reply.message
    assert api.state(container)["Status"] == "created"


def test_fluentd_async_starts_without_its_server_and_delivers_later(api):
    port = closed_port()
    host = logging("fluentd", fluentd_address=f"127.0.0.1:{port}", fluentd_async="true", fluentd_retry_wait="200ms")
    container = api.run("echo early; sleep 20", host=host)
    with Fluentd("tcp", port=port) as server:
        assert server.message()[2]["log"] == "early"
    api.remove(container)


@pytest.mark.gantry_only  # dockerd connects at the start in every mode
def test_non_blocking_starts_without_its_server_and_delivers_later(api):
    port = closed_port()
    container = api.run("echo early; sleep 20",
                        host=logging("syslog", syslog_address=f"tcp://127.0.0.1:{port}", mode="non-blocking"))
    with Server("tcp", port=port) as server:
        assert b"early\n" in server.until(b"early\n")
    api.remove(container)


def test_a_lost_connection_is_made_again(api):
    with Server("tcp") as server:
        container = api.run("i=0; while :; do i=$((i+1)); echo line-$i; sleep 0.1; done",
                            host=logging("syslog", syslog_address=f"tcp://{server.address}"))
        server.until(b"line-3\n")
        server.client.close()
        server.client = None
        assert b"line-" in server.until(b"\n")
        api.remove(container)


@pytest.mark.gantry_only
def test_a_dead_syslog_server_does_not_hold_the_container_up(api):
    """It was there at the start, so that the container runs; then what cannot be delivered is dropped."""
    server = Server("tcp")
    container = api.run("read x; head -c 20000000 /dev/zero | tr '\\0' 'a' | fold -w 100; echo done", OpenStdin=True,
                        host=logging("syslog", syslog_address=f"tcp://{server.address}", cache_max_size="1m"))
    server.accept()
    server.close()
    with api.hijack(f"/containers/{container}/attach", {"stdin": 1, "stream": 1}) as stdin:
        started = time.monotonic()
        stdin.send(b"go\n")
        assert api.wait(container) == 0
    assert time.monotonic() - started < 60
    assert b"done\n" in api.logs(container, tail=1)


@pytest.mark.gantry_only
def test_a_server_that_does_not_read_holds_up_only_who_blocks(api):
    """Blocking: the container waits, and loses nothing. Non-blocking: it does not wait."""
    print_much = "head -c 8000000 /dev/zero | tr '\\0' 'a' | fold -w 999; echo; echo done"
    for mode in ("non-blocking", "blocking"):
        with Server("tcp") as server:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            container = api.run(print_much, host=logging("syslog", syslog_address=f"tcp://{server.address}", mode=mode))
            server.accept()
            if mode == "non-blocking":
                assert api.wait(container) == 0
            else:
                with pytest.raises((socket.timeout, TimeoutError)):
                    api.wait(container, timeout=1.5)
                count, last = 0, b""
                while not last.endswith(b": done\n"):
                    data = server.read()
                    count += data.count(b"a")
                    last = (last + data)[-100:]
                assert count >= 8_000_000
            api.remove(container)


@pytest.mark.gantry_only
def test_a_killed_sender_is_started_again(engine, api):
    import os
    from pathlib import Path

    with Server("udp") as server:
        container = api.run("i=0; while :; do i=$((i+1)); echo n$i; sleep 0.05; done",
                            host=logging("syslog", syslog_address=f"udp://{server.address}"))
        server.read()
        pid = int(re.search(rb"\[(\d+)\]", server.read()).group(1))
        assert Path(f"/proc/{pid}/exe").resolve().name == "gantry-log"
        os.kill(pid, 9)
        while int(re.search(rb"\[(\d+)\]", server.read()).group(1)) == pid:
            pass
        api.remove(container)
