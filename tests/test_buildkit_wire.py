"""BuildKit's protocol as the wire has it: what buildx and buildctl send, in every order, and what hostile clients do."""

import hashlib
import secrets
import threading

import grpc
import pytest

from harness import buildkit
from harness.buildkit import Packet, control, gateway, ops

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 has an older dialect

MOBY = "moby"


def new_id():
    return secrets.token_hex(13)[:25]


@pytest.fixture
def connection(engine, clean, scratch):
    with buildkit.Connection(engine, scratch) as connection:
        yield connection


@pytest.fixture
def client(engine, connection, scratch):
    """client(files) makes a context and serves it; gives the session."""
    opened = []

    def make(files, **options):
        context = scratch / new_id()
        context.mkdir()
        for name, text in files.items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text(text)
        session = buildkit.Session(engine, scratch, options.pop("id", new_id()),
                                   {"context": context, "dockerfile": context}, **options)
        session.context = context
        opened.append(session)
        return session

    yield make
    for session in opened:
        session.close()


def solve_request(session_id, name=None, ref=None, frontend="dockerfile.v0", **attributes):
    request = control.SolveRequest(ref=ref or new_id(), session=session_id, frontend=frontend)
    request.frontend_attrs["filename"] = "Dockerfile"
    for key, value in attributes.items():
        request.frontend_attrs[key] = value
    if name is not None:
        exporter = request.exporters.add(type=MOBY)
        if name:
            exporter.attrs["name"] = name
    return request


SMALL = {"Dockerfile": "FROM busybox\nCOPY a.txt /\nRUN cat /a.txt > /b.txt\nCMD [\"cat\", \"/b.txt\"]\n", "a.txt": "hello"}


def test_workers_are_one_without_a_snapshotter(connection, api):
    [worker] = connection.control("ListWorkers", control.ListWorkersRequest(), control.ListWorkersResponse).record
    assert worker.id and worker.platforms[0].os == "linux"
    assert "org.mobyproject.buildkit.worker.snapshotter" not in worker.labels
    assert worker.buildkit_version.version.startswith("v0.")
    info = connection.control("Info", control.InfoRequest(), control.InfoResponse)
    assert info.buildkit_version.package == "github.com/moby/buildkit"


def test_a_build_as_buildctl_asks_for_it(connection, client, api, docker):
    session = client(SMALL)
    request = solve_request(session.id, "wire-one")
    thread, messages = connection.status(request.ref)
    response = connection.solve(request).exporter_response
    thread.join(60)
    image = api.ok("GET", "/images/wire-one/json").json()
    assert response["containerimage.config.digest"] == response["containerimage.digest"] == image["Id"]
    assert response["image.name"] == "docker.io/library/wire-one:latest"
    assert docker("run", "--rm", "wire-one", check=True).stdout == "hello"
    check_progress(messages)


def check_progress(messages):
    """Each vertex is told whole, begins before it ends, and ends."""
    last, names = {}, set()
    for message in messages:
        for vertex in message.vertexes:
            assert vertex.digest and vertex.name
            last[vertex.digest] = vertex
            names.add(vertex.name)
        for status in message.statuses:
            assert status.vertex in last and status.HasField("timestamp") and status.HasField("started")
    assert all(vertex.HasField("completed") for vertex in last.values() if vertex.HasField("started") or vertex.cached)
    assert "[internal] load build definition from Dockerfile" in names
    assert "exporting to image" in names
    return names


def bridged(connection, session_id, name, after_solve=None, **attributes):
    """A build as buildx runs it: the client in the frontend's place. Returns (response, solve result, messages)."""
    request = solve_request(session_id, name, frontend="", **attributes)
    thread, messages = connection.status(request.ref)
    with buildkit.solving(connection, request) as future:
        pong = connection.bridge(request.ref, "Ping", gateway.PingRequest(), gateway.PongResponse)
        assert {"solve.base", "return", "reference.output"} <= {cap.id for cap in pong.frontend_api_caps if cap.enabled}
        asked = gateway.SolveRequest(frontend="dockerfile.v0", allow_result_return=True, allow_result_array_ref=True)
        for key, value in request.frontend_attrs.items():
            asked.frontend_opt[key] = value
        result = connection.bridge(request.ref, "Solve", asked, gateway.SolveResponse).result
        if after_solve:
            after_solve(request.ref, result)
        connection.bridge(request.ref, "Return", gateway.ReturnRequest(result=result), gateway.ReturnResponse)
        response = future.result()
    thread.join(60)
    return response.exporter_response, result, messages


def test_a_build_as_buildx_runs_it(connection, client, api):
    session = client(SMALL)
    before = []
    response, result, messages = bridged(connection, session.id, "wire-two",
                                         after_solve=lambda *_: before.extend(session.requested))
    # Until Return only what the frontend reads is fetched: the build is lazy.
    assert "a.txt" not in before and "a.txt" in session.requested
    assert b"rootfs" in result.metadata["containerimage.config"]
    assert response["containerimage.digest"] == api.ok("GET", "/images/wire-two/json").json()["Id"]
    assert "[3/3] RUN cat /a.txt > /b.txt" in check_progress(messages)


def test_the_same_build_again_gives_the_same_image_and_runs_nothing(connection, client, api):
    session = client(SMALL)
    first, _, _ = bridged(connection, session.id, "wire-again")
    second, _, messages = bridged(connection, session.id, "wire-again")
    assert first["containerimage.digest"] == second["containerimage.digest"]
    ends = {v.name: v.cached for m in messages for v in m.vertexes if v.HasField("completed")}
    assert ends["[2/3] COPY a.txt /"] and ends["[3/3] RUN cat /a.txt > /b.txt"]


def test_the_order_of_calls_does_not_matter(engine, connection, client, scratch):
    """Status, bridge and session may come before the build that they belong to, and after."""
    for order in range(3):
        ref, session_id = new_id(), new_id()
        request = solve_request(session_id, "", ref=ref, frontend="")
        asked = gateway.SolveRequest(frontend="dockerfile.v0")
        asked.frontend_opt["filename"] = "Dockerfile"
        results = {}

        def frontend():
            result = connection.bridge(ref, "Solve", asked, gateway.SolveResponse).result
            connection.bridge(ref, "Return", gateway.ReturnRequest(result=result), gateway.ReturnResponse)

        def solve():
            results["response"] = connection.solve(request)

        steps = [solve, frontend, lambda: client(SMALL, id=session_id)]
        steps = steps[order:] + steps[:order]
        thread, messages = connection.status(ref)
        running = [threading.Thread(target=step, daemon=True) for step in steps]
        for each in running:
            each.start()
        for each in running:
            each.join(60)
        thread.join(60)
        assert results["response"].exporter_response["containerimage.digest"].startswith("sha256:"), order
        check_progress(messages)


def test_the_probe_of_buildx_is_no_build(connection):
    request = control.SolveRequest(ref=new_id(), internal=True)
    thread, messages = connection.status(request.ref)
    with buildkit.solving(connection, request) as future:
        connection.bridge(request.ref, "Ping", gateway.PingRequest(), gateway.PongResponse)
        result = gateway.Result(ref=gateway.Ref())
        connection.bridge(request.ref, "Return", gateway.ReturnRequest(result=result), gateway.ReturnResponse)
        assert not future.result().exporter_response
    thread.join(60)
    assert not thread.is_alive() and not any(message.vertexes for message in messages)


def test_what_is_not_there_is_said_so(connection, client):
    with pytest.raises(grpc.RpcError) as failure:
        connection.bridge("nobody", "Ping", gateway.PingRequest(), gateway.PongResponse)
    assert failure.value.details() == "no such job nobody"
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(solve_request(new_id(), ""))
    assert "no active session for" in failure.value.details()
    session = client(SMALL)
    request = solve_request(session.id)
    request.exporters.add(type="punchcards")
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(request)
    assert failure.value.details() == 'exporter "punchcards" could not be found'
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(solve_request(session.id, frontend="gateway.v0", source="example.com/other"))
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(control.SolveRequest(ref=new_id(), entitlements=["security.insecure"]))
    assert failure.value.details() == ("granting entitlement security.insecure is not allowed by build daemon "
                                       "configuration")


def test_a_failed_step_comes_with_its_lines(connection, client):
    files = {"Dockerfile": "FROM busybox\nRUN echo one\nRUN exit 5\n"}
    session = client(files)
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(solve_request(session.id, ""))
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert failure.value.details() == 'process "/bin/sh -c exit 5" did not complete successfully: exit code: 5'
    source = buildkit.details(failure.value)["errdefs.Source"]
    assert source["ranges"] == [{"start": {"line": 3}, "end": {"line": 3}}]
    assert source["info"]["filename"] == "Dockerfile"


def test_a_file_that_does_not_parse_comes_with_its_lines(connection, client):
    session = client({"Dockerfile": "FROM busybox\nBAD thing\n"})
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(solve_request(session.id, ""))
    assert "dockerfile parse error on line 2: unknown instruction: BAD" in failure.value.details()
    assert buildkit.details(failure.value)["errdefs.Source"]["ranges"][0]["start"] == {"line": 2}


def test_what_the_client_returns_as_a_failure_is_the_builds(connection):
    request = control.SolveRequest(ref=new_id())
    with buildkit.solving(connection, request) as future:
        returned = gateway.ReturnRequest()
        returned.error.code, returned.error.message = 2, "made up by the client"
        connection.bridge(request.ref, "Return", returned, gateway.ReturnResponse)
        with pytest.raises(grpc.RpcError) as failure:
            future.result()
    assert failure.value.code() == grpc.StatusCode.UNKNOWN and failure.value.details() == "made up by the client"


def test_a_frontends_calls_read_the_result(connection, client):
    seen = {}

    def read(ref, result):
        tree = result.ref.id
        seen["file"] = connection.bridge(ref, "ReadFile", gateway.ReadFileRequest(ref=tree, file_path="/b.txt"),
                                         gateway.ReadFileResponse).data
        part = gateway.ReadFileRequest(ref=tree, file_path="/b.txt")
        part.range.offset, part.range.length = 1, 3
        seen["part"] = connection.bridge(ref, "ReadFile", part, gateway.ReadFileResponse).data
        listed = gateway.ReadDirRequest(ref=tree, dir_path="/", include_pattern="*.txt")
        seen["names"] = [entry.path for entry in connection.bridge(ref, "ReadDir", listed,
                                                                    gateway.ReadDirResponse).entries]
        seen["stat"] = connection.bridge(ref, "StatFile", gateway.StatFileRequest(ref=tree, path="/bin"),
                                         gateway.StatFileResponse).stat
        with pytest.raises(grpc.RpcError) as failure:
            connection.bridge(ref, "ReadFile", gateway.ReadFileRequest(ref=tree, file_path="/../nothing"),
                              gateway.ReadFileResponse)
        seen["missing"] = failure.value.details()
        connection.bridge(ref, "Evaluate", gateway.EvaluateRequest(ref=tree), gateway.EvaluateResponse)

    bridged(connection, client(SMALL).id, "", after_solve=read)
    assert seen["file"] == b"hello" and seen["part"] == b"ell"
    assert seen["names"] == [b"a.txt", b"b.txt"]
    assert seen["stat"].mode & buildkit.DIRECTORY
    assert "no such file or directory" in seen["missing"]


def test_the_image_config_of_a_name(connection):
    request = control.SolveRequest(ref=new_id(), internal=True)
    with buildkit.solving(connection, request):
        answer = connection.bridge(request.ref, "ResolveImageConfig",
                                   gateway.ResolveImageConfigRequest(ref="docker.io/library/busybox:latest"),
                                   gateway.ResolveImageConfigResponse)
    assert answer.digest.startswith("sha256:") and b"rootfs" in answer.config


def test_a_graph_without_a_frontend(connection, client):
    """What buildctl and frontends of others send: ops."""
    session = client({"a.txt": "from a graph"})
    definition = ops.Definition()
    source = ops.Op()
    source.source.identifier = "local://context"
    source.source.attrs["local.session"] = session.id
    add_op(definition, source)
    end = ops.Op()
    end.inputs.add(digest=digest_of(getattr(definition, "def")[-1]))
    add_op(definition, end)
    request = control.SolveRequest(ref=new_id(), session=session.id, definition=definition)
    request.exporters.add(type="tar")
    connection.solve(request)
    assert b"from a graph" in session.results["0"]


def add_op(definition, op):
    data = op.SerializeToString(deterministic=True)
    getattr(definition, "def").append(data)
    definition.metadata[digest_of(data)].ignore_cache = False


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_hostile_graphs_are_refused(connection, client):
    session = client({"a.txt": ""})
    for bad in ([b"\xff\xff"], [b""], [ops.Op().SerializeToString(), b"\x0a\x02\x0a\x00"]):
        definition = ops.Definition()
        getattr(definition, "def").extend(bad)
        with pytest.raises(grpc.RpcError) as failure:
            connection.solve(control.SolveRequest(ref=new_id(), session=session.id, definition=definition))
        assert "invalid build definition" in failure.value.details()


@pytest.mark.parametrize("listing", [
    [buildkit.fsutil.Stat(path=b"../evil", mode=0o644)],
    [buildkit.fsutil.Stat(path=b"/etc/evil", mode=0o644)],
    [buildkit.fsutil.Stat(path=b"b", mode=0o644), buildkit.fsutil.Stat(path=b"a", mode=0o644)],
    [buildkit.fsutil.Stat(path=b"link", mode=buildkit.SYMLINK | 0o777, linkname=b"/tmp"),
     buildkit.fsutil.Stat(path=b"link/evil", mode=0o644)],
    [buildkit.fsutil.Stat(path=b"hard", mode=0o644, linkname=b"../../../etc/passwd")],
], ids=["parent", "absolute", "disorder", "through a link", "hard link"])
def test_a_hostile_context_is_refused_and_the_next_build_works(connection, client, listing):
    def script(name, stream):
        for entry in listing:
            yield Packet(stat=entry)
        yield Packet()
        for packet in stream:
            if packet.type == Packet.PACKET_ERR:
                return

    session = client({}, script=script)
    with pytest.raises(grpc.RpcError) as failure:
        connection.solve(solve_request(session.id, ""))
    assert "the client" in failure.value.details()
    assert connection.solve(solve_request(client(SMALL).id, "")).exporter_response["containerimage.digest"]


def test_who_hangs_up_ends_the_build(engine, connection, client, scratch):
    session = client({"Dockerfile": "FROM busybox\nRUN echo started; sleep 600\n"})
    request = solve_request(session.id, "")
    with buildkit.Connection(engine, scratch) as other:
        future = other.solve_later(request)
        started = threading.Event()

        def follow():
            try:
                for message in connection.control("Status", control.StatusRequest(ref=request.ref),
                                                  control.StatusResponse, kind="unary_stream"):
                    if any(b"started" in log.msg for log in message.logs):
                        started.set()
            except grpc.RpcError:
                pass

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()
        assert started.wait(120)
        future.cancel()
    # Its progress ends, which it does only when everything of the build has ended.
    reader.join(60)
    assert not reader.is_alive()


def test_a_session_in_a_call(connection, engine, scratch):
    """Control/Session: the bytes of a session in a stream, as bake does it for shared directories."""
    context = scratch / "context"
    context.mkdir()
    for name, text in SMALL.items():
        (context / name).write_text(text)
    with buildkit.TunnelledSession(connection, scratch, new_id(), {"context": context, "dockerfile": context}) as session:
        response = connection.solve(solve_request(session.id, "tunnelled")).exporter_response
    assert response["image.name"] == "docker.io/library/tunnelled:latest"


def test_disk_usage_and_prune(connection, client):
    connection.solve(solve_request(client(SMALL).id, ""))
    usage = connection.control("DiskUsage", control.DiskUsageRequest(filter=[""]), control.DiskUsageResponse).record
    assert {"regular", "source.local"} <= {record.record_type for record in usage}
    assert all(record.id and record.HasField("created_at") for record in usage)
    pruned = list(connection.control("Prune", control.PruneRequest(all=True), control.UsageRecord, kind="unary_stream"))
    assert {record.id for record in pruned} <= {record.id for record in usage}
    left = connection.control("DiskUsage", control.DiskUsageRequest(), control.DiskUsageResponse).record
    assert not left


def test_many_probes_of_the_connection(engine, scratch):
    """buildx opens /grpc and closes it at once, for every command."""
    for _ in range(50):
        buildkit.upgrade(engine, "/grpc").close()
    with buildkit.Connection(engine, scratch) as connection:
        connection.control("ListWorkers", control.ListWorkersRequest(), control.ListWorkersResponse)
