"""The Python calls that an uncontended acquire and release pass: how many they are, and in which files."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest

import lockkit
from lockkit_memory.backend import MemoryBackend

PACKAGE = Path(lockkit.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "docs/architecture.md"
ACQUIRE, RELEASE = 26, 29
"""The most calls that each may take. A generator counts once more each time that it is resumed."""


def calls_of(call):
    """Call something; return its result and all calls of Python functions that it made: each as a stack, innermost first."""
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


def told(stacks):
    """The calls as a table, with the file of each."""
    for number, (code, *_) in enumerate(stacks, 1):
        yield f"{number:3}  {getattr(code, 'co_qualname', code.co_name):40} {code.co_filename}"


@pytest.fixture
def lock():
    with lockkit.connect("memory://calls") as client:
        lock = client.lock("a")
        with client.lock(
            "b", ttl=5
        ).acquire():  # is renewed before the other, so the heartbeat need not be woken for that one
            for _ in range(3):
                lock.acquire().release()
            yield lock


def test_an_uncontended_acquire_and_release_are_few_calls(lock):
    lease, acquired = calls_of(lock.acquire)
    report, released = calls_of(lease.release)

    print("acquire", *told(acquired), "release", *told(released), sep="\n")
    assert report.outcome == "RELEASED"
    assert len(acquired) <= ACQUIRE
    assert len(released) <= RELEASE


def test_the_architecture_page_tells_the_same_numbers():
    told = re.search(
        r"(\d+) Python calls where the store is in memory; its release is (\d+)", ARCHITECTURE.read_text()
    )

    assert told is not None
    assert (int(told[1]), int(told[2])) == (ACQUIRE, RELEASE)


def test_the_way_from_the_timeout_to_the_store_is_in_four_files(lock):
    """The way: the functions that are entered and not left when the store is asked, and the generator that had them ask."""
    lease, stacks = calls_of(lambda: lock.acquire(timeout=1.0))
    lease.release()
    asked = next(n for n, stack in enumerate(stacks) if stack[0] is MemoryBackend.acquire.__code__)
    decided = next(
        stack for stack in stacks[:asked] if stack[0] is lockkit.protocol.acquiring.acquiring.__code__
    )
    way = [Path(code.co_filename) for code in (*decided, *stacks[asked])]

    files = {str(file.relative_to(PACKAGE)) for file in way if file.is_relative_to(PACKAGE)}
    assert files == {"sync/locks.py", "drivers/threads.py", "protocol/running.py", "protocol/acquiring.py"}
