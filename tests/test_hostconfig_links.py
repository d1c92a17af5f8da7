"""Legacy links of the default network: names, variables, and what ends them."""

from harness.api import text_of


def linked(api):
    api.run(["sleep", "1000"], name="db", Env=["PASSWORD=secret", "HOME=/x"],
            ExposedPorts={port: {} for port in ("5432/tcp", "5433/tcp", "5434/tcp", "53/udp", "6000/tcp", "6001/tcp")})
    return api.run("env; cat /etc/hosts; sleep 1000", name="web", host={"Links": ["db:my-db"]})


def test_variables_and_hosts(api):
    web = linked(api)
    ip = api.inspect("db")["NetworkSettings"]["IPAddress"]
    seen = set(api.wait_for_log(web, "\tmy-db ").decode().splitlines())
    for line in (f"MY_DB_PORT=udp://{ip}:53", f"MY_DB_PORT_53_UDP=udp://{ip}:53", f"MY_DB_PORT_5432_TCP=tcp://{ip}:5432",
                 f"MY_DB_PORT_5432_TCP_ADDR={ip}", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_PROTO=tcp",
                 f"MY_DB_PORT_5432_TCP_START=tcp://{ip}:5432", f"MY_DB_PORT_5432_TCP_END=tcp://{ip}:5434",
                 "MY_DB_PORT_5432_TCP_PORT_START=5432", "MY_DB_PORT_5432_TCP_PORT_END=5434", "MY_DB_NAME=/web/my-db",
                 "MY_DB_ENV_PASSWORD=secret"):
        assert line in seen, line
    # Two are no range.
    assert not any(line.startswith(("MY_DB_ENV_HOME", "MY_DB_PORT_6000_TCP_START")) for line in seen)
    exec_id = api.ok("POST", f"/containers/{web}/exec", body={"Cmd": ["env"], "AttachStdout": True}).json()["Id"]
    with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
        assert f"MY_DB_PORT_5432_TCP_ADDR={ip}\n".encode() in text_of(stream.frames())


def test_names_and_removal_of_the_link(api):
    linked(api)
    names = {n for c in api.ok("GET", "/containers/json").json() for n in c["Names"]}
    assert names == {"/web", "/db", "/web/my-db"}
    assert api.inspect("web")["HostConfig"]["Links"] == ["/db:/web/my-db"]
    refused = api.delete("/containers/web", {"link": 1})
    assert refused.status in (409, 500)  # dockerd has no status of its own for it
    assert refused.message == "Conflict, cannot remove the default link name of the container"
    assert api.delete("/containers/web/my-db", {"link": 1}).status == 204
    assert api.inspect("web")["HostConfig"]["Links"] in (None, [])
    assert {n for c in api.ok("GET", "/containers/json").json() for n in c["Names"]} == {"/web", "/db"}
    assert api.delete("/containers/nobody/x", {"link": 1}).status >= 400


def test_a_link_to_what_does_not_run(api):
    api.create(name="db", Cmd=["true"])
    web = api.create(name="web", Cmd=["true"], host={"Links": ["db:my-db"]})
    reply = api.post(f"/containers/{web}/start")
    assert reply.status >= 400 and "Cannot link to a non running container: /db AS /web/my-db" in reply.message
    reply = api.post("/containers/create", body={"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Links": ["nobody:x"]}})
    assert reply.status == 400 and "could not get container for nobody" in reply.message.lower()
