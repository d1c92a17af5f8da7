"""Stats of containers."""

import json
import time

import pytest

ZERO = "0001-01-01T00:00:00Z"


def stats(api, container, **query):
    return api.ok("GET", f"/containers/{container}/stats", query).json()


def test_two_samples(api):
    container = api.run("while true; do :; done")
    sample = stats(api, container, stream=0)
    assert sample["id"] == container and sample["name"] == api.inspect(container)["Name"]
    cpu, before = sample["cpu_stats"], sample["precpu_stats"]
    used = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = cpu["system_cpu_usage"] - before["system_cpu_usage"]
    assert 0 < used <= passed * 1.5 and cpu["online_cpus"] >= 1
    assert sample["preread"] != ZERO and sample["preread"] < sample["read"]
    assert sample["memory_stats"]["usage"] > 0 and sample["memory_stats"]["limit"] > 1 << 20
    assert sample["pids_stats"]["current"] >= 1
    assert set(sample["networks"]) == {"eth0"}
    assert {"rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors",
            "tx_dropped"} == set(sample["networks"]["eth0"])


def test_one_shot(api):
    container = api.run("sleep 600")
    took = []
    for _ in range(10):  # two samples are never taken in less than a second
        begin = time.monotonic()
        sample = stats(api, container, stream=0, **{"one-shot": 1})
        took.append(time.monotonic() - begin)
    assert min(took) < 0.9
    assert sample["preread"] == ZERO and sample["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert api.get(f"/containers/{container}/stats", {"stream": 1, "one-shot": 1}).status == 400


def test_limits_are_told(api):
    container = api.run("sleep 600", host={"Memory": 64 << 20, "PidsLimit": 50})
    sample = stats(api, container, stream=0, **{"one-shot": 1})
    assert sample["memory_stats"]["limit"] == 64 << 20 and sample["pids_stats"]["limit"] == 50


def read_samples(response, count):
    """Objects of the stream, whatever lies between them."""
    decoder, text, found = json.JSONDecoder(), "", []
    while len(found) < count:
        piece = response.read1(65536)
        assert piece, f"the stream ended after {len(found)} samples"
        text += piece.decode()
        while text := text.lstrip():
            try:
                sample, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            found.append(sample)
            text = text[end:]
    return found


def test_a_stream(api):
    container = api.run("while true; do :; done")
    connection, response = api.open("GET", f"/containers/{container}/stats")
    first, second, third = read_samples(response, 3)[:3]
    connection.close()
    assert first["preread"] == ZERO
    assert second["preread"] == first["read"] and third["preread"] == second["read"]
    assert third["cpu_stats"]["cpu_usage"]["total_usage"] > second["cpu_stats"]["cpu_usage"]["total_usage"]


def test_many_watchers_see_the_same_readings(api):
    container = api.run("while true; do :; done")
    streams = [api.open("GET", f"/containers/{container}/stats") for _ in range(10)]
    reads = [[sample["read"] for sample in read_samples(response, 3)[:3]] for _, response in streams]
    for connection, _ in streams:
        connection.close()
    assert all(len(set(each)) == 3 for each in reads)


@pytest.mark.gantry_only
def test_a_container_is_read_once_a_second(api):
    container = api.run("while true; do :; done")
    streams = [api.open("GET", f"/containers/{container}/stats") for _ in range(10)]
    reads = {sample["read"] for _, response in streams for sample in read_samples(response, 3)[:3]}
    for connection, _ in streams:
        connection.close()
    assert len(reads) <= 15  # of thirty


def test_a_container_that_does_not_run(api):
    container = api.create()
    sample = stats(api, container, stream=0)
    assert sample["id"] == container and sample["read"] == ZERO and sample["memory_stats"] == {}
    assert sample["cpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_the_stream_of_a_container_ends_with_it(api):
    container = api.run("sleep 600")
    connection, response = api.open("GET", f"/containers/{container}/stats", timeout=60)
    read_samples(response, 1)
    assert api.remove(container).status == 204
    while response.read1(65536):
        pass
    connection.close()


def test_without_a_network_of_its_own(api):
    alone = api.run("sleep 600", host={"NetworkMode": "none"})
    shared = api.run("sleep 600", host={"NetworkMode": "host"})
    for container in (alone, shared):
        assert stats(api, container, stream=0, **{"one-shot": 1}).get("networks", {}) in ({}, None)


def test_the_client(docker):
    docker("run", "-d", "--name", "busy", "busybox", "sh", "-c", "while true; do :; done", check=True)
    docker("create", "--name", "idle", "busybox", check=True)
    line = docker("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", check=True).stdout.split()
    assert line[0] == "busy" and float(line[1].rstrip("%")) > 0.1 and line[-1] == "1"
    everyone = docker("stats", "--no-stream", "-a", "--format", "{{.Name}}", check=True).stdout.split()
    assert set(everyone) == {"busy", "idle"}


def test_who_is_missing(api):
    assert api.get("/containers/nobody/stats").message == "No such container: nobody"
