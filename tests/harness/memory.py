"""What a process keeps. How much memory an allocator holds at a moment is chance; a leak shows in every round."""

import os
import time

ROUNDS = 6


def private(pid):
    """KiB of anonymous memory, shared pages counted in parts."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def assert_bounded(pids, act, bounds):
    """`act` leaves nothing in the processes: of several rounds of it, each process has one that leaves less than its
    bound (in KiB). Whoever leaks grows by more in every one."""
    before = [private(pid) for pid in pids]
    grown = []
    for _ in range(ROUNDS):
        act()
        now = [private(pid) for pid in pids]
        grown.append([new - old for new, old in zip(now, before)])
        before = now
        if all(min(of_one) < bound for of_one, bound in zip(zip(*grown), bounds)):
            print(f"grown by {grown} KiB")
            return
    raise AssertionError(f"every round leaves more than {bounds} KiB: {grown}")


def assert_descriptors(pids, idle, timeout=60):
    """No more is open than was, but for one or two that are opened when they are needed first: connections are closed
    some time after their clients went."""
    deadline = time.monotonic() + timeout
    while True:
        now = [descriptors(pid) for pid in pids]
        if all(new <= old + 2 for new, old in zip(now, idle)):
            return
        assert time.monotonic() < deadline, f"descriptors: {now}, idle: {idle}"
        time.sleep(0.1)
