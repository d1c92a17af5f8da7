"""Bad input to each operation: status and text as dockerd gives them, and nothing is left of it."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from conftest import on_both_engines, wipe
from harness import differential, leaks
from harness.engine import Docker, Gantry

pytestmark = pytest.mark.gantry_only  # it starts dockerd itself

LONG = "x" * 300
CLIMB = "../../../../etc/passwd"


def raw(text, kind="application/json"):
    return {"data": text.encode() if isinstance(text, str) else text, "headers": {"Content-Type": kind}}


def tar(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name in entries:
            entry = tarfile.TarInfo(name)
            out.addfile(entry)
    return buffer.getvalue()


# (method, path, query, options). {idle} is a container that was never started, {up} one that runs, {tty} one that runs on
# a terminal, {paused} one that is paused.
REQUESTS = [
    # list
    ("GET", "/containers/json", {"filters": "nonsense"}, {}),
    ("GET", "/containers/json", {"filters": "[]"}, {}),
    ("GET", "/containers/json", {"filters": '{"colour":["red"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"status":["tired"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"exited":["a"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"health":["sick"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"is-task":["perhaps"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"before":["nope"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"since":["nope"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"publish":["a"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"expose":["99999"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"expose":["80/quic"]}'}, {}),
    ("GET", "/containers/json", {"filters": '{"name":["("]}'}, {}),
    ("GET", "/containers/json", {"limit": "many"}, {}),
    # every operation on who is not there
    *[(method, f"/containers/nope{path}", query, options) for method, path, query, options in [
        ("GET", "/json", {}, {}), ("GET", "/top", {}, {}), ("GET", "/logs", {"stdout": 1}, {}), ("GET", "/changes", {}, {}),
        ("GET", "/export", {}, {}), ("GET", "/stats", {}, {}), ("POST", "/resize", {"h": 1, "w": 1}, {}),
        ("POST", "/start", {}, {}), ("POST", "/stop", {}, {}), ("POST", "/restart", {}, {}), ("POST", "/kill", {}, {}),
        ("POST", "/update", {}, raw("{}")), ("POST", "/rename", {"name": "other"}, {}), ("POST", "/pause", {}, {}),
        ("POST", "/unpause", {}, {}), ("POST", "/wait", {}, {}), ("DELETE", "", {}, {}),
        ("GET", "/archive", {"path": "/"}, {}), ("PUT", "/archive", {"path": "/"}, raw(tar("x"), "application/x-tar")),
        ("POST", "/exec", {}, raw('{"Cmd":["true"]}'))]],
    ("GET", "/containers//json", {}, {}),
    ("GET", f"/containers/{LONG}/json", {}, {}),
    ("GET", "/containers/%00/json", {}, {}),
    ("GET", "/containers/%ff%fe/json", {}, {}),
    # verbs
    ("POST", "/containers/{idle}/start", {}, raw('{"Binds":["/:/host"]}')),
    ("POST", "/containers/{idle}/start", {}, raw("{}")),
    ("POST", "/containers/{idle}/kill", {}, {}),
    ("POST", "/containers/{up}/kill", {"signal": "NOSUCH"}, {}),
    ("POST", "/containers/{up}/kill", {"signal": "99"}, {}),
    ("POST", "/containers/{up}/kill", {"signal": "-1"}, {}),
    ("POST", "/containers/{up}/kill", {"signal": "0"}, {}),
    ("POST", "/containers/{up}/stop", {"t": "soon"}, {}),
    ("POST", "/containers/{up}/restart", {"t": "soon"}, {}),
    ("POST", "/containers/{idle}/stop", {}, {}),
    ("POST", "/containers/{idle}/pause", {}, {}),
    ("POST", "/containers/{idle}/unpause", {}, {}),
    ("POST", "/containers/{up}/unpause", {}, {}),
    ("POST", "/containers/{paused}/pause", {}, {}),
    ("POST", "/containers/{paused}/start", {}, {}),
    ("POST", "/containers/{paused}/exec", {}, raw('{"Cmd":["true"]}')),
    ("DELETE", "/containers/{paused}", {}, {}),
    ("DELETE", "/containers/{up}", {}, {}),
    ("DELETE", "/containers/{idle}", {"link": 1}, {}),
    ("POST", "/containers/{up}/resize", {}, {}),
    ("POST", "/containers/{up}/resize", {"h": "a", "w": 1}, {}),
    ("POST", "/containers/{up}/resize", {"h": 1, "w": "-1"}, {}),
    ("POST", "/containers/{up}/resize", {"h": 1, "w": "99999999999"}, {}),
    ("POST", "/containers/{idle}/resize", {"h": 1, "w": 1}, {}),
    ("POST", "/containers/{idle}/rename", {}, {}),
    ("POST", "/containers/{idle}/rename", {"name": "a b"}, {}),
    ("POST", "/containers/{idle}/rename", {"name": "x"}, {}),
    ("POST", "/containers/{idle}/rename", {"name": "idle"}, {}),
    ("POST", "/containers/{idle}/rename", {"name": "up"}, {}),
    ("POST", "/containers/{idle}/rename", {"name": CLIMB}, {}),
    ("POST", "/containers/{up}/wait", {"condition": "tomorrow"}, {}),
    ("GET", "/containers/{idle}/top", {}, {}),
    ("GET", "/containers/{up}/top", {"ps_args": "-o comm"}, {}),
    ("GET", "/containers/{up}/logs", {}, {}),
    ("GET", "/containers/{up}/logs", {"stdout": 0}, {}),
    ("GET", "/containers/{up}/logs", {"stdout": 1, "since": "then"}, {}),
    ("GET", "/containers/{up}/logs", {"stdout": 1, "until": "then"}, {}),
    ("GET", "/containers/{up}/stats", {"stream": 1, "one-shot": 1}, {}),
    ("POST", "/containers/prune", {"filters": '{"colour":["red"]}'}, {}),
    ("POST", "/containers/prune", {"filters": '{"until":["then"]}'}, {}),
    ("POST", "/containers/prune", {"filters": '{"until":["1h","2h"]}'}, {}),
    # archive
    ("GET", "/containers/{idle}/archive", {}, {}),
    ("HEAD", "/containers/{idle}/archive", {"path": "/nosuch"}, {}),
    ("GET", "/containers/{idle}/archive", {"path": "/nosuch"}, {}),
    ("GET", "/containers/{idle}/archive", {"path": CLIMB + "x"}, {}),
    ("GET", "/containers/{idle}/archive", {"path": "/etc/passwd/"}, {}),
    ("PUT", "/containers/{idle}/archive", {}, raw(tar("x"), "application/x-tar")),
    ("PUT", "/containers/{idle}/archive", {"path": "/nosuch"}, raw(tar("x"), "application/x-tar")),
    ("PUT", "/containers/{idle}/archive", {"path": "/etc/passwd"}, raw(tar("x"), "application/x-tar")),
    ("PUT", "/containers/{idle}/archive", {"path": "/", "noOverwriteDirNonDir": 1}, raw(tar("etc"), "application/x-tar")),
    # exec
    ("POST", "/containers/{up}/exec", {}, raw("{}")),
    ("POST", "/containers/{up}/exec", {}, raw("")),
    ("POST", "/containers/{up}/exec", {}, raw("null")),
    ("POST", "/containers/{up}/exec", {}, raw('{"Cmd":[]}')),
    ("POST", "/containers/{up}/exec", {}, raw('{"Cmd":["true"],"DetachKeys":"nonsense"}')),
    ("POST", "/containers/{up}/exec", {}, raw('{"Cmd":["true"]}', "text/plain")),
    ("POST", "/containers/{idle}/exec", {}, raw('{"Cmd":["true"]}')),
    ("POST", "/exec/nope/start", {}, raw("{}")),
    ("GET", "/exec/nope/json", {}, {}),
    ("POST", "/exec/nope/resize", {"h": 1, "w": 1}, {}),
    ("POST", "/exec/nope/resize", {"h": "a", "w": 1}, {}),
    # commit
    ("POST", "/commit", {}, {}),
    ("POST", "/commit", {"container": "nope"}, {}),
    ("POST", "/commit", {"container": "{idle}", "repo": "UPPER"}, {}),
    ("POST", "/commit", {"container": "{idle}", "repo": "a", "tag": "b c"}, {}),
    ("POST", "/commit", {"container": "{idle}", "changes": "NONSENSE x"}, {}),
    ("POST", "/commit", {"container": "{idle}", "changes": "FROM x"}, {}),
    # networks and volumes
    ("GET", "/networks", {"filters": '{"colour":["red"]}'}, {}),
    ("GET", "/networks", {"filters": '{"type":["big"]}'}, {}),
    ("GET", "/networks/nope", {}, {}),
    ("GET", "/networks/bridge", {"verbose": "perhaps"}, {}),
    ("DELETE", "/networks/nope", {}, {}),
    ("DELETE", "/networks/bridge", {}, {}),
    ("POST", "/networks/create", {}, raw("{}")),
    ("POST", "/networks/create", {}, raw('{"Name":"bridge"}')),
    ("POST", "/networks/create", {}, raw('{"Name":"x","Driver":"nosuch"}')),
    ("POST", "/networks/nope/connect", {}, raw('{"Container":"idle"}')),
    ("POST", "/networks/bridge/connect", {}, raw('{"Container":"nope"}')),
    ("POST", "/networks/bridge/connect", {}, raw('{"Container":"up"}')),
    ("POST", "/networks/host/connect", {}, raw('{"Container":"up"}')),
    ("POST", "/networks/bridge/disconnect", {}, raw('{"Container":"nope"}')),
    ("POST", "/networks/none/disconnect", {}, raw('{"Container":"up"}')),
    ("POST", "/networks/prune", {"filters": '{"colour":["red"]}'}, {}),
    ("GET", "/volumes", {"filters": '{"colour":["red"]}'}, {}),
    ("GET", "/volumes", {"filters": '{"dangling":["perhaps"]}'}, {}),
    ("GET", "/volumes/nope", {}, {}),
    ("DELETE", "/volumes/nope", {}, {}),
    ("POST", "/volumes/create", {}, raw('{"Name":"a/b"}')),
    ("POST", "/volumes/create", {}, raw('{"Name":"x"}')),
    ("POST", "/volumes/create", {}, raw('{"Name":"good","Driver":"nosuch"}')),
    ("POST", "/volumes/create", {}, raw('{"Name":"good","DriverOpts":{"colour":"red"}}')),
    ("POST", "/volumes/prune", {"filters": '{"colour":["red"]}'}, {}),
    # images
    ("GET", "/images/json", {"filters": '{"colour":["red"]}'}, {}),
    ("GET", "/images/json", {"filters": '{"dangling":["perhaps"]}'}, {}),
    ("GET", "/images/json", {"filters": '{"before":["nope"]}'}, {}),
    ("GET", "/images/nope/json", {}, {}),
    ("GET", "/images/nope/history", {}, {}),
    ("GET", "/images/nope/get", {}, {}),
    ("GET", "/images/UPPER/json", {}, {}),
    ("DELETE", "/images/nope", {}, {}),
    ("DELETE", "/images/busybox", {}, {}),
    ("POST", "/images/nope/tag", {"repo": "a"}, {}),
    ("POST", "/images/busybox/tag", {"repo": "a", "tag": "b c"}, {}),
    ("POST", "/images/create", {"fromImage": "UPPER"}, {}),
    ("POST", "/images/create", {"fromImage": "scratch"}, {}),
    ("POST", "/images/prune", {"filters": '{"colour":["red"]}'}, {}),
    # system
    ("GET", "/events", {"since": "then"}, {}),
    ("GET", "/events", {"since": 10, "until": 5}, {}),
    ("GET", "/events", {"filters": "nonsense"}, {}),
    ("POST", "/containers/create", {}, raw("{")),
    ("POST", "/containers/create", {}, raw("[]")),
    ("POST", "/containers/create", {}, raw('{"Image":"busybox"} trailing')),
    ("POST", "/containers/create", {}, raw('{"Image":7}')),
    ("POST", "/containers/create", {}, raw('{"Image":"busybox"}', "text/plain")),
    ("POST", "/containers/create", {"name": "a/b"}, raw('{"Image":"busybox"}')),
    ("POST", "/containers/create", {"name": "x"}, raw('{"Image":"busybox"}')),
    ("POST", "/containers/create", {"name": "up"}, raw('{"Image":"busybox"}')),
]


def name_of(request):
    method, path, query, options = request
    shown = path.replace(LONG, "LONG")
    if query:
        shown += "?" + "&".join(f"{key}={value}" for key, value in query.items())
    body = options.get("data", b"")
    if body and len(body) < 100:
        shown += " " + body.decode()
        if options["headers"]["Content-Type"] == "text/plain":
            shown += " (as text)"
    return f"{method} {shown}"


# [status, text] where we answer otherwise than 20.10: as newer versions word it, and never 500 for what the client did
# wrong. ACCEPT=1 rewrites it; then read the difference.
OURS = Path(__file__).parent / "golden/bad-input.json"


def ask(engine, container, request):
    method, path, query, options = request
    for key, value in container.items():
        path = path.replace("{" + key + "}", value)
        query = {k: v.replace("{" + key + "}", value) if isinstance(v, str) else v for k, v in query.items()}
    reply = engine.api().request(method, path, query, timeout=60, **options)
    text = reply.body.decode(errors="replace")
    if reply.status < 400:
        return [reply.status, ""]
    try:
        return [reply.status, json.loads(text)["message"]]
    except (ValueError, KeyError, TypeError):
        return [reply.status, f"not an error document: {text[:200]}" if text else ""]


def make_subjects(api):
    wipe_quietly(api)
    ids = {"idle": api.create(name="idle"), "up": api.run(["sleep", "1000"], name="up"),
           "paused": api.run(["sleep", "1000"], name="paused")}
    api.ok("POST", "/containers/paused/pause")
    return ids


def wipe_quietly(api):
    api.post("/containers/paused/unpause")
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"])


def record(engine):
    answers, ids = {}, None
    for request in REQUESTS:
        ids = ids or make_subjects(engine.api())
        normalise = differential.Normaliser(engine.root)
        normalise(list(ids.values()))
        try:
            answer = normalise(ask(engine, ids, request))
        except Exception as error:  # the comparison shows it
            answer = [0, f"{type(error).__name__}: {error}"]
        answers[name_of(request)] = answer
        if not 400 <= answer[0] < 500:
            ids = None  # it may have done something
    engine.api().post("/containers/paused/unpause")
    wipe(engine)
    return answers


@pytest.fixture(scope="module")
def answers(busybox_tar):
    def asked(engine):
        idle = leaks.mounts(engine)
        return record(engine), leaks.report(engine, idle)

    seen = on_both_engines(busybox_tar, asked)
    recorded = {kind: answers for kind, (answers, _) in seen.items()}
    recorded["left"] = seen[Gantry][1]
    if os.environ.get("ACCEPT"):
        ours = {name: answer for name, answer in recorded[Gantry].items() if answer != recorded[Docker][name]}
        OURS.write_text(json.dumps(ours, indent=1, ensure_ascii=True) + "\n")
    return recorded


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
def test_the_answer_is_dockers(answers, request_):
    name = name_of(request_)
    assert answers[Gantry][name] == json.loads(OURS.read_text()).get(name, answers[Docker][name])


def test_nothing_is_left(answers):
    assert not answers["left"]


def test_every_refusal_says_why(answers):
    empty = [name for name, (status, text) in answers[Gantry].items()
             if status >= 400 and not text and not name.startswith("HEAD")]
    assert not empty


def test_no_bad_input_is_our_failure(answers):
    failures = [name for name, (status, _) in answers[Gantry].items() if status == 0 or status >= 500]
    # Docker's own word for these is 500, and clients know it.
    assert [name for name in failures if answers[Docker][name][0] != 500] == []
