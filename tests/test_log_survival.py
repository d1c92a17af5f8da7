"""Logs and log drivers of engines that are configured for it, or die."""

import pytest

from harness.log_servers import Server
from test_log_drivers import logging


@pytest.mark.gantry_only
def test_logging_goes_on_without_the_daemon(fresh):
    engine = fresh()
    api = engine.api()
    with Server("udp") as server:
        container = api.run("i=0; while :; do i=$((i+1)); echo n$i; sleep 0.05; done",
                            host=logging("syslog", syslog_address=f"udp://{server.address}"))
        server.read()
        engine.kill()
        before = int(server.read().split(b"n")[-1])
        numbers = [int(server.read().split(b"n")[-1]) for _ in range(10)]
        assert numbers == list(range(before + 1, before + 11))
        engine.start()
        lines = api.logs(container).split()
        assert lines == [b"n%d" % n for n in range(1, len(lines) + 1)] and len(lines) > 10
        api.remove(container)


def test_the_daemons_driver_and_options_are_the_default(fresh):
    engine = fresh(config={"log-driver": "local", "log-opts": {"max-size": "2m"}})
    api = engine.api()
    container = api.run("echo x")
    config = api.inspect(container)["HostConfig"]["LogConfig"]
    assert config == {"Type": "local", "Config": {"max-size": "2m"}}
    api.wait(container)
    assert api.logs(container) == b"x\n"
    assert api.ok("GET", "/info").json()["LoggingDriver"] == "local"
    api.remove(container)
