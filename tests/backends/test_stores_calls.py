"""The Python calls of an uncontended acquire and release on each store: how many, in how many files."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import tomllib
from pathlib import Path

import pytest

import lockkit
import lockkit_memory
from lockkit_memory.backend import MemoryBackend
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

PACKAGE = Path(lockkit.__file__).parent
BACKENDS = Path(lockkit_memory.__file__).parents[1]
ROOT = Path(__file__).parents[2]
LIMITS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["house"]["calls"]
"""The most calls and files of an acquire and a release. A generator counts again each time it is resumed."""
TRIES = 5
"""The one with the fewest calls counts: the others waited longer for an answer."""
SERVERS = {"redis": RedisServer, "etcd": EtcdServer, "zookeeper": ZooKeeperServer}


def calls_of(call):
    """Call something; return its result and this thread's Python calls, as innermost-first stacks."""
    stacks = []

    def note(frame, event, _):
        if event == "call":
            stack = []
            while frame is not None and frame.f_code is not calls_of.__code__:
                stack.append(frame.f_code)
                frame = frame.f_back
            stacks.append(stack)

    gc.disable()  # finalizers of other tests' objects are calls, too
    sys.setprofile(note)
    try:
        result = call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return result, stacks


def table(stacks):
    """The calls as a table, with the file of each."""
    for number, (code, *_) in enumerate(stacks, 1):
        yield f"{number:3}  {getattr(code, 'co_qualname', code.co_name):40} {code.co_filename}"


def size(stacks):
    """How many calls there are, and in how many files of lockkit."""
    files = {Path(code.co_filename) for code, *_ in stacks}
    return len(stacks), sum(file.is_relative_to(PACKAGE) or file.is_relative_to(BACKENDS) for file in files)


@contextlib.contextmanager
def locked(url):
    """A lock that was taken and released before, so that everything is imported and connected."""
    with lockkit.connect(url) as client, client.lock("b", ttl=5).acquire():
        # The other lock is renewed before this one, so the heartbeat need not be woken for this one.
        lock = client.lock("a")
        for _ in range(3):
            lock.acquire().release()
        yield lock


@pytest.mark.parametrize("store", LIMITS)
def test_an_uncontended_acquire_and_release_are_few_calls(store, tmp_path):
    with contextlib.ExitStack() as stack:
        url = {"memory": "memory://calls", "sqlite": f"sqlite:{tmp_path}/s.db"}.get(store)
        url = url or stack.enter_context(SERVERS[store]()).url()
        lock = stack.enter_context(locked(url))
        tries = []
        for _ in range(TRIES):
            lease, acquired = calls_of(lock.acquire)
            report, released = calls_of(lease.release)
            assert report.outcome == "RELEASED"
            tries.append({"acquire": acquired, "release": released})

    for step, (calls, files) in LIMITS[store].items():
        fewest = min((one[step] for one in tries), key=len)
        print(f"{store} {step}: {size(fewest)}", *table(fewest), sep="\n")
        assert size(fewest) <= (calls, files)
        assert size(fewest)[1] <= files


def test_the_architecture_page_has_the_same_numbers():
    found = re.search(
        r"(\d+) Python calls where the store is in memory; its release is (\d+)",
        (ROOT / "docs/architecture.md").read_text(),
    )

    assert found is not None
    assert [int(found[1]), int(found[2])] == [LIMITS["memory"][step][0] for step in ("acquire", "release")]


def test_the_way_from_the_timeout_to_the_store_is_in_four_files():
    """The way: the functions still entered when the store is asked, and the generator that had them ask."""
    with locked("memory://calls") as lock:
        lease, stacks = calls_of(lambda: lock.acquire(timeout=1.0))
        lease.release()
    asked = next(n for n, stack in enumerate(stacks) if stack[0] is MemoryBackend.acquire.__code__)
    decided = next(
        stack for stack in stacks[:asked] if stack[0] is lockkit.protocol.acquiring.acquiring.__code__
    )
    way = [Path(code.co_filename) for code in (*decided, *stacks[asked])]

    files = {str(file.relative_to(PACKAGE)) for file in way if file.is_relative_to(PACKAGE)}
    assert files == {"sync/locks.py", "drivers/threads.py", "protocol/running.py", "protocol/acquiring.py"}
