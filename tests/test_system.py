"""Negotiation, /version, /info, errors and version gates."""

import json

import pytest


def test_ping_answers_ok_and_tells_the_api_version(api):
    reply = api.at(None).get("/_ping")
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["Api-Version"]
    assert reply.headers["Ostype"] == "linux"
    assert reply.headers["Docker-Experimental"] in ("true", "false")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert reply.headers["Server"].startswith("Docker/")


def test_head_ping_has_no_body_and_leaves_the_connection_usable(api):
    connection, response = api.at(None).open("HEAD", "/_ping")
    assert response.status == 200
    assert response.headers["Content-Length"] == "0"
    assert response.headers["Api-Version"]
    assert response.read() == b""
    connection.request("GET", "/_ping")
    assert connection.getresponse().read() == b"OK"
    connection.close()


def test_a_204_leaves_the_connection_usable(api):
    container = api.create(Cmd=["sleep", "60"])
    connection, response = api.open("POST", f"/containers/{container}/start")
    assert (response.status, response.read()) == (204, b"")
    connection.request("POST", f"/containers/{container}/start")
    again = connection.getresponse()
    assert (again.status, again.read()) == (304, b"")
    connection.request("GET", "/_ping")
    assert connection.getresponse().read() == b"OK"
    connection.close()


def test_a_version_below_the_minimum_is_refused_as_plain_text(api):
    reply = api.at("1.11").get("/info")
    assert reply.status == 400
    assert b"client version 1.11 is too old. Minimum supported API version is 1." in reply.body


def test_a_version_above_the_maximum_is_refused(api):
    reply = api.at("1.99").get("/info")
    assert reply.status == 400
    assert reply.message.startswith("client version 1.99 is too new. Maximum supported API version is 1.")


@pytest.mark.parametrize("method, path", [("GET", "/nope"), ("DELETE", "/info"), ("POST", "/containers/json")])
def test_an_unknown_path_or_method_is_page_not_found(api, method, path):
    reply = api.request(method, path)
    assert (reply.status, reply.json()) == (404, {"message": "page not found"})


def test_paths_work_with_and_without_a_version(api):
    for version in (None, "1.41", "1.24"):
        assert api.at(version).get("/containers/json").status == 200


def test_version_says_what_clients_ask(api):
    version = api.ok("GET", "/version").json()
    for key in ("Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion", "GitCommit"):
        assert version[key] != "", key
    assert version["Os"] == "linux"
    assert [c["Name"] for c in version["Components"]][0] == "Engine"


def test_info_says_what_clients_ask(api):
    container = api.run("sleep 60")
    info = api.ok("GET", "/info").json()
    assert info["OSType"] == "linux"
    assert info["Containers"] == 1 and info["ContainersRunning"] == 1
    assert info["Images"] == 1
    assert info["NCPU"] >= 1 and info["MemTotal"] > 0
    assert info["DefaultRuntime"] == "runc" and "runc" in info["Runtimes"]
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["CgroupDriver"] in ("cgroupfs", "systemd") and info["CgroupVersion"] in ("1", "2")
    assert info["SecurityOptions"] and info["Name"] and info["ID"]
    api.remove(container)


def test_docker_version_and_info_work(docker):
    assert "Server:" in docker("version", check=True).stdout
    assert "Server Version:" in docker("info", check=True).stdout


def test_a_missing_container_is_404_with_dockers_text(api):
    for path in ("/json", "/logs?stdout=1", "/top", "/stats?stream=0"):
        reply = api.get("/containers/nope" + path)
        assert (reply.status, reply.message) == (404, "No such container: nope"), path


def test_json_is_demanded_where_json_is_needed(api):
    reply = api.post("/containers/create", data=b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status in (400, 500)


def test_field_names_are_matched_without_case(api):
    reply = api.post("/containers/create", body={"image": "busybox", "CMD": ["true"]})
    assert reply.status == 201, reply
    assert api.inspect(reply.json()["Id"])["Config"]["Cmd"] == ["true"]


def test_filters_come_in_two_forms(api):
    container = api.create(Labels={"a": "b", "c": "d"})
    api.create(Labels={"a": "x"})
    for filters in ({"label": ["a=b", "c"]}, {"label": {"a=b": True, "c": True}}):
        found = api.ok("GET", "/containers/json", {"all": 1, "filters": json.dumps(filters)}).json()
        assert [c["Id"] for c in found] == [container]


def test_an_unknown_filter_is_refused(api):
    reply = api.get("/containers/json", {"filters": json.dumps({"foo": ["x"]})})
    assert reply.status == 400 and "foo" in reply.message
    assert "nvalid filter" in reply.message


def test_a_chunked_request_body_is_taken(engine, api):
    request = (b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
               b"8\r\n{\"Image\"\r\n" b"b\r\n:\"busybox\"}\r\n0\r\n\r\n")
    with api.raw(request) as reply:
        assert reply.status == 201, reply.head


def test_pipelined_keep_alive_requests_are_answered_in_order(api):
    one = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1.41/images/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with api.raw(one + one + last) as reply:
        rest = reply.read_all()
    assert rest.count(b"OK") >= 2 and b"RepoTags" in rest


def test_the_df_endpoint_counts_everything(api):
    api.ok("POST", "/volumes/create", body={"Name": "vol"})
    container = api.run("echo data > /file; sleep 60")
    api.wait_for_log(api.run("echo ready"), "ready")
    usage = api.ok("GET", "/system/df").json()
    assert [image["RepoTags"] for image in usage["Images"]] == [["busybox:latest"]]
    assert container in [c["Id"] for c in usage["Containers"]]
    assert [volume["Name"] for volume in usage["Volumes"]] == ["vol"]
    assert usage["LayersSize"] > 0


def test_the_sdk_for_python_works(engine, clean):
    import docker as sdk

    client = sdk.DockerClient(base_url=f"unix://{engine.socket}")
    assert client.ping()
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    container = client.containers.run("busybox", "sleep 60", detach=True)
    code, output = container.exec_run("echo from exec")
    assert (code, output) == (0, b"from exec\n")
    container.stop(timeout=0)
    container.remove()
    client.close()


def test_a_double_slash_is_redirected(api):
    reply = api.get("/containers//json")
    assert reply.status == 301 and reply.headers["Location"].endswith("/containers/json")


@pytest.mark.gantry_only
def test_ping_tells_the_builder(api):
    assert api.get("/_ping").headers["Builder-Version"] in ("1", "2")


@pytest.mark.gantry_only
@pytest.mark.parametrize("body, kind, text", [
    (b"{not json", "application/json", "invalid JSON: "), (b"{} {}", "application/json", "unexpected content after JSON"),
    (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'")])
def test_a_bad_body_is_400_and_says_why(api, body, kind, text):
    reply = api.post("/containers/create", data=body, headers={"Content-Type": kind})
    assert reply.status == 400 and reply.message.startswith(text)


@pytest.mark.gantry_only
def test_old_clients_are_answered(api):
    """testcontainers and docker-java send 1.32 and 1.30."""
    for version in ("1.24", "1.30", "1.32", "1.40", "1.44", "1.51"):
        assert api.at(version).get("/info").status == 200


@pytest.mark.gantry_only
def test_a_version_below_1_24_is_refused_as_plain_text_by_the_letter(api):
    reply = api.at("1.23").get("/info")
    assert reply.status == 400
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert reply.body.strip() == (b"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade "
                                  b"your client to a newer version")
