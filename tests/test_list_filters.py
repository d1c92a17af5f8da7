"""GET /containers/json: every filter, sizes and limits."""

import pytest

SECOND = 10**9


@pytest.fixture
def zoo(api):
    """Containers in every state that does not pass by itself."""
    api.ok("POST", "/networks/create", body={"Name": "zoo-net"})
    ids = {}
    ids["made"] = api.create(name="made", Cmd=["true"], Labels={"team": "a", "empty": ""}, ExposedPorts={"90/tcp": {}})
    ids["done"] = api.run("exit 3", name="done", Labels={"team": "b"}, host={"Binds": ["zoo-data:/data"]})
    api.wait(ids["done"])
    ids["busy"] = api.run(["sleep", "1000"], name="busy", Labels={"team": "a", "x": "y"}, ExposedPorts={"80/tcp": {}, "53/udp": {}},
                          host={"NetworkMode": "zoo-net", "PortBindings": {"80/tcp": [{"HostPort": ""}]}})
    ids["held"] = api.run(["sleep", "1000"], name="held", Volumes={"/anonymous": {}})
    api.ok("POST", "/containers/held/pause")
    ids["well"] = api.run(["sleep", "1000"], name="well",
                          Healthcheck={"Test": ["CMD", "true"], "Interval": 1000 * SECOND})
    yield ids
    api.post("/containers/held/unpause")


def names(api, all=1, **filters):
    query = {"all": all} if all else {}
    if filters:
        query["filters"] = {key.replace("_", "-"): value if isinstance(value, list) else [value]
                            for key, value in filters.items()}
    return [each["Names"][0][1:] for each in api.ok("GET", "/containers/json", query).json()]


EVERYBODY = ["well", "held", "busy", "done", "made"]


def test_every_filter(api, engine, zoo):
    assert names(api) == EVERYBODY
    assert names(api, all=0) == ["well", "held", "busy"]
    assert names(api, id=zoo["busy"]) == names(api, id=zoo["busy"][:12]) == ["busy"]
    assert names(api, id=zoo["busy"][5:20]) == []
    assert names(api, name="us") == ["busy"] and names(api, name="^/busy$") == ["busy"] and names(api, name="^busy$") == ["busy"]
    assert names(api, name=["made", "done"]) == ["done", "made"]
    assert names(api, label="team") == ["busy", "done", "made"] and names(api, label="team=a") == ["busy", "made"]
    assert names(api, label=["team=a", "x"]) == ["busy"] and names(api, label="empty=") == ["made"]
    assert names(api, label="team=A") == [] and names(api, label="tea") == []
    for status, wanted in (("created", ["made"]), ("exited", ["done"]), ("running", ["well", "busy"]), ("paused", ["held"]),
                           ("dead", []), ("restarting", []), ("removing", [])):
        assert names(api, all=0, status=status) == wanted, status
    assert names(api, status=["created", "exited"]) == ["done", "made"]
    assert names(api, exited="3") == ["done"] and names(api, exited=["0", "3"]) == ["done"]
    assert names(api, before="busy") == ["done", "made"] and names(api, since="busy") == ["well", "held"]
    assert names(api, before=zoo["busy"], since="made") == ["done"]
    assert names(api, ancestor="busybox") == names(api, ancestor="busybox:latest") == EVERYBODY
    image = api.ok("GET", "/images/busybox/json").json()["Id"]
    assert names(api, ancestor=image) == EVERYBODY and names(api, ancestor="nosuch") == []
    assert names(api, volume="zoo-data") == names(api, volume="/data") == ["done"]
    assert names(api, volume="/anonymous") == ["held"] and names(api, volume="/dat") == []
    assert names(api, network="zoo-net") == ["busy"] and names(api, network="bridge") == ["well", "held", "done", "made"]
    network = api.ok("GET", "/networks/zoo-net").json()["Id"]
    assert names(api, network=network) == names(api, network=network[:10]) == ["busy"]
    # By its manual dockerd does the same; 20.10 finds nobody here.
    if engine.kind == "gantry":
        assert names(api, expose="90") == ["made"]
        assert names(api, publish="80") == names(api, publish="80/tcp") == names(api, publish="79-81/tcp") == ["busy"]
    assert names(api, publish="53/udp") == []
    assert names(api, expose="80") == ["busy"] and names(api, expose="53/udp") == ["busy"]
    assert names(api, health="starting") == ["well"] and names(api, health="healthy") == []
    assert names(api, health="none") == ["held", "busy", "done", "made"]
    assert names(api, isolation="default") == names(api, isolation="hyperv") == EVERYBODY  # for Windows only
    assert names(api, is_task="false") == EVERYBODY and names(api, is_task="true") == []
    assert names(api, name="busy", status="exited") == []


def test_limit_counts_all_of_them(api, zoo):
    listed = lambda **query: [each["Names"][0][1:] for each in api.ok("GET", "/containers/json", query).json()]
    assert listed(limit=2) == ["well", "held"] and listed(limit=4) == EVERYBODY[:4]
    assert listed(limit=0) == ["well", "held", "busy"] and listed(limit=-1) == ["well", "held", "busy"]
    assert listed(limit=1, filters={"status": ["exited"]}) == ["done"]


def test_sizes_are_those_of_the_files(api):
    container = api.run("echo -n hello > /five; mkdir /dir; ln /five /again", name="sized")
    api.wait(container)
    plain = api.ok("GET", "/containers/json", {"all": 1}).json()[0]
    assert "SizeRw" not in plain and "SizeRootFs" not in plain
    listed = api.ok("GET", "/containers/json", {"all": 1, "size": 1}).json()[0]
    assert listed["SizeRw"] == 5
    assert listed["SizeRootFs"] - listed["SizeRw"] > 500_000
    inspected = api.ok("GET", "/containers/sized/json", {"size": 1}).json()
    assert (inspected["SizeRw"], inspected["SizeRootFs"]) == (listed["SizeRw"], listed["SizeRootFs"])
    assert "SizeRw" not in api.inspect("sized")


def test_prune_with_filters(api, zoo):
    prune = lambda **filters: api.ok("POST", "/containers/prune", {"filters": filters}).json()["ContainersDeleted"]
    assert prune(label=["team=c"]) is None
    assert prune(until=["24h"]) is None
    assert prune(**{"label!": ["team"]}) is None
    assert prune(label=["team=b"]) == [zoo["done"]]
    assert prune() == [zoo["made"]]
    assert names(api) == ["well", "held", "busy"]
