"""Black-box tests: they start an engine and see of it what a user sees.

`--against=docker` runs the same tests against Debian's dockerd 20.10, which proves the tests. Tests of what only we
promise are marked `gantry_only`. Everything runs in network and mount namespaces of its own (harness/private_host.py).
"""

import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness import images, leaks, private_host
from harness.engine import Docker, Gantry, fetch_oracle
from harness.registry import Registry
from harness.terminal import Terminal

_numbers = itertools.count(1)
_scratch = None
_TEST_TIMEOUT = 240


def pytest_addoption(parser):
    parser.addoption("--against", choices=("gantry", "docker"), default="gantry", help="which engine to test")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_configure(config):
    config.addinivalue_line("markers", "gantry_only: what dockerd 20.10 does not do or promise")
    config.addinivalue_line("markers", "deadline(seconds): what the test may take, if more than usual")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
    if config.option.collectonly or config.option.help:
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("the tests start an engine: run them as root")
    if config.option.against == "docker":
        fetch_oracle()
    elif not Gantry.program().exists():
        raise pytest.UsageError(f"{Gantry.program()} is not built; set GANTRYD or run scripts/test")
    # In the background of a script SIGINT is ignored, and clients would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # An interrupted run cleans up, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    global _scratch
    _scratch = Path(tempfile.mkdtemp(prefix="gt-"))
    private_host.enter()


def pytest_unconfigure():
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)


def pytest_collection_modifyitems(config, items):
    if config.option.against == "docker":
        ours = [item for item in items if item.get_closest_marker("gantry_only")]
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    no_skips = session.config.option.no_skips or os.environ.get("GANTRY_NO_SKIPS")
    if no_skips and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of the engine's log."""
    report = (yield).get_result()
    if report.failed:
        for name in ("engine", "fresh"):
            value = getattr(item, "funcargs", {}).get(name)
            for engine in value if isinstance(value, list) else [value]:
                if hasattr(engine, "log_tail"):
                    report.sections.append((f"log of {engine.kind}", engine.log_tail()))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Every test has a deadline: an engine that hangs fails one test, not the run."""
    marker = item.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else _TEST_TIMEOUT

    def expired(*_):
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _make(config):
    return make_engine(Docker if config.option.against == "docker" else Gantry)


def make_engine(kind):
    """One that is not started, of that class."""
    number = next(_numbers)
    return kind(_scratch / str(number), f"gantry-test-{os.getpid()}-{number}")


def on_both_engines(busybox_tar, record):
    """{class: what `record` returned for it}: first dockerd, then Gantry, each with busybox and nothing else."""
    fetch_oracle()
    results = {}
    for kind in (Docker, Gantry):
        engine = make_engine(kind)
        try:
            engine.start()
            load(engine, busybox_tar)
            results[kind] = record(engine)
        finally:
            engine.destroy()
    return results


@pytest.fixture(scope="session")
def busybox_tar():
    return images.busybox_archive()


@pytest.fixture(scope="module")
def engine(pytestconfig, busybox_tar):
    """An engine with the image busybox:latest, shared by the tests of a file. It must leave nothing behind."""
    engine = _make(pytestconfig)
    try:
        engine.start()
        idle = leaks.mounts(engine)
        load(engine, busybox_tar)
        yield engine
        left = leaks.report(engine, idle)
        engine.stop()
        if engine.kind == "gantry":
            left += leaks.report(engine)
        assert not left, f"left behind after the tests of this file: {left}"
    finally:
        engine.destroy()


def load(engine, archive):
    reply = engine.api().ok("POST", "/images/load", data=archive, headers={"Content-Type": "application/x-tar"})
    assert b"errorDetail" not in reply.body, reply.body


@pytest.fixture
def clean(engine):
    """Whatever a test makes in the shared engine is removed after it."""
    yield
    wipe(engine)


def wipe(engine):
    api = engine.api()
    for container in api.ok("GET", "/containers/json", {"all": 1}).json():
        api.remove(container["Id"])
    for network in api.ok("GET", "/networks").json():
        if network["Name"] not in ("bridge", "host", "none"):
            api.delete(f"/networks/{network['Id']}")
    for volume in api.ok("GET", "/volumes").json()["Volumes"] or []:
        api.delete(f"/volumes/{volume['Name']}", {"force": 1})


@pytest.fixture
def api(engine, clean):
    return engine.api()


@pytest.fixture
def docker(engine, clean):
    return engine.docker


@pytest.fixture
def terminal(engine, clean):
    """terminal("run", "-it", …) runs the docker client on a pseudo-terminal."""
    opened = []

    def run(*args, **options):
        opened.append(Terminal(["docker", *args], engine.client_env(), **options))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


@pytest.fixture
def fresh(pytestconfig, busybox_tar):
    """fresh() makes a started engine of the test's own with the busybox image; fresh(start=False) only makes it."""
    made = Engines()

    def make(start=True, config=None, arguments=(), environment=None):
        engine = _make(pytestconfig)
        made.append(engine)
        engine.arguments = list(arguments)
        engine.environment = dict(environment or {})
        if config:
            engine.write_config(config)
        if start:
            engine.start()
            load(engine, busybox_tar)
        return engine

    made.make = make
    yield made
    for engine in made:
        engine.destroy()
    leaks.remove_bridges()


class Engines(list):
    """The engines of one test; calling it makes another."""

    def __call__(self, **options):
        return self.make(**options)


@pytest.fixture
def scratch(tmp_path_factory):
    path = Path(tempfile.mkdtemp(dir=_scratch))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(pytestconfig):
    with_store = Path(tempfile.mkdtemp(dir=_scratch))
    registry = Registry(with_store).start()
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def private_registry(pytestconfig):
    registry = Registry(Path(tempfile.mkdtemp(dir=_scratch)), user="alice", password="s3cret").start()
    yield registry
    registry.stop()
