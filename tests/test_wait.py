"""POST /containers/{id}/wait: docker run stands on it."""

import json

import pytest

from harness import memory


def begin(api, container, condition=None):
    """The head of the reply has arrived: the waiter is registered."""
    return api.open("POST", f"/containers/{container}/wait", {"condition": condition} if condition else None)


def test_headers_come_before_the_exit(api):
    container = api.create(Cmd=["sh", "-c", "exit 3"])
    connection, response = begin(api, container, "next-exit")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Transfer-Encoding"] == "chunked"
    api.start(container)
    assert json.loads(response.read())["StatusCode"] == 3
    connection.close()


def test_not_running_is_true_at_once_for_a_created_container(api):
    container = api.create()
    assert api.wait(container) == 0


def test_not_running_gives_the_code_of_an_exited_container(api):
    container = api.run("exit 9")
    assert api.wait(container) == 9
    assert api.wait(container, "not-running") == 9


def test_removed_waits_for_the_removal(api):
    container = api.run("exit 6")
    api.wait(container)
    connection, response = begin(api, container, "removed")
    api.remove(container)
    assert json.loads(response.read())["StatusCode"] == 6
    connection.close()


def test_removed_resolves_when_an_auto_remove_container_cannot_start(api):
    container = api.create(Cmd=["nosuch"], host={"AutoRemove": True})
    connection, response = begin(api, container, "removed")
    assert api.post(f"/containers/{container}/start").status in (400, 404, 500)
    assert json.loads(response.read())["StatusCode"] == 127
    connection.close()


def test_a_missing_container_cannot_be_waited_for(api):
    assert api.post("/containers/nope/wait").message == "No such container: nope"


@pytest.mark.gantry_only
def test_an_unknown_condition_is_refused(api):
    container = api.create()
    reply = api.post(f"/containers/{container}/wait", {"condition": "foo"})
    assert (reply.status, reply.message) == (400, 'invalid condition: "foo"')


def test_many_waiters_are_all_told(api):
    container = api.run("read x; exit 5", OpenStdin=True)
    waiters = [begin(api, container) for _ in range(20)]
    api.ok("POST", f"/containers/{container}/kill")
    assert {json.loads(response.read())["StatusCode"] for _, response in waiters} == {137}
    for connection, _ in waiters:
        connection.close()


def test_every_exit_of_a_restarting_container_resolves_a_wait(api):
    container = api.create(Cmd=["sh", "-c", "exit 8"], host={"RestartPolicy": {"Name": "on-failure",
                                                                             "MaximumRetryCount": 1}})
    connection, response = begin(api, container, "next-exit")
    api.start(container)
    assert json.loads(response.read())["StatusCode"] == 8
    connection.close()


@pytest.mark.gantry_only
def test_a_waiter_that_goes_away_costs_nothing(engine, api):
    container = api.run(["sleep", "1000"])
    before = memory.descriptors(engine.process.pid)
    for _ in range(200):
        connection, response = begin(api, container)
        assert response.status == 200
        connection.close()
    memory.assert_descriptors([engine.process.pid], [before])
