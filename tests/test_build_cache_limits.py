"""The build cache keeps to the limits of `builder.gc`."""

import time

import pytest

from harness.cached_builds import Builds

pytestmark = pytest.mark.gantry_only  # dockerd 20.10 lacks the half of what this client asks for


@pytest.mark.slow
def test_the_cache_keeps_to_its_limit(fresh, scratch):
    limit = 40_000_000
    engine = fresh(config={"builder": {"gc": {"enabled": True, "defaultMaxUsedSpace": str(limit)}}})
    builds = Builds(engine, scratch)
    for number in range(8):
        builds.build({"Dockerfile": f"FROM busybox\nRUN head -c 10000000 /dev/urandom > /r && echo {number}\n"})

    def used():
        return sum(record["Size"] for record in engine.api().ok("GET", "/system/df").json()["BuildCache"])

    deadline = time.monotonic() + 60
    while used() > limit and time.monotonic() < deadline:
        time.sleep(0.5)
    assert 0 < used() <= limit
