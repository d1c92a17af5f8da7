"""`ExecIDs` of inspect: what was made and has not ended."""


def make(api, container, *command):
    return api.ok("POST", f"/containers/{container}/exec", body={"Cmd": list(command), "AttachStdout": True}).json()["Id"]


def shown(api, container):
    return api.inspect(container)["ExecIDs"]


def run(api, exec_id):
    with api.hijack(f"/exec/{exec_id}/start", body={}) as stream:
        return stream.read_all()


def test_it_lists_what_was_made_until_it_has_ended(api):
    container = api.run(["sleep", "1000"])
    assert shown(api, container) is None
    made = make(api, container, "true")
    other = make(api, container, "cat", "/dev/null")
    assert set(shown(api, container)) == {made, other}
    run(api, made)
    assert shown(api, container) == [other]
    long = make(api, container, "sleep", "1000")
    api.ok("POST", f"/exec/{long}/start", body={"Detach": True})
    assert set(shown(api, container)) == {other, long}
    failing = make(api, container, "/nosuch")
    run(api, failing)
    assert set(shown(api, container)) == {other, long}
    # What has ended can still be asked for.
    assert api.ok("GET", f"/exec/{made}/json").json()["ExitCode"] == 0
