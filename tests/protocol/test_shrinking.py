"""A shrinking resize while an offer is unanswered: holds stay and count, and nothing is granted (S2)."""

from __future__ import annotations

import threading

import pytest

from lockkit.store.spi import Claim, Granted, Queued, Terms
from support.harnesses.sqlite import SqliteHarness
from support.simulation.statements import Statements
from support.simulation.stores import Atomic


def end(job):
    try:
        while True:
            next(job)
    except StopIteration as stop:
        return stop.value


class OnStatements:
    def __init__(self, clock):
        self.store = Statements(clock)

    def acquire(self, claim, *, create=True):
        return end(self.store.acquire(claim, claim.token, create=create))

    def release(self, claim):
        return end(self.store.release(claim, how="released"))

    def resize(self, capacity):
        return end(self.store.resize("a", capacity, 1.0))

    def watch(self, answer, wake, claim):
        return self.store.watch("a", answer.blockers, wake, claim)


class OnMemory(OnStatements):
    def __init__(self, clock):
        self.store = Atomic(clock)

    def acquire(self, claim, *, create=True):
        return self.store.backend.acquire(claim, create, 1.0)

    def release(self, claim):
        return self.store.backend.release(claim, 1.0)

    def resize(self, capacity):
        return self.store.backend.resize("a", capacity, 1.0)


def claims(count):
    return [
        Claim(f"{number:032}", Terms("a", weight=1, capacity=2, kind="semaphore")) for number in range(count)
    ]


class OnSqlite(OnMemory):
    """Through four connections, as of four processes."""

    def __init__(self, folder):
        harness = SqliteHarness(folder)
        self.backends = [harness.open() for _ in range(4)]

    def acquire(self, claim, *, create=True):
        return self.backends[int(claim.token)].acquire(claim, create, 1.0)

    def release(self, claim):
        return self.backends[int(claim.token)].release(claim, 1.0)

    def resize(self, capacity):
        return self.backends[0].resize("a", capacity, 1.0)

    def watch(self, answer, wake, claim):
        return self.backends[int(claim.token)].watch("a", answer.blockers, wake, claim)

    def close(self):
        for backend in self.backends:
            backend.close()


@pytest.fixture(params=["memory", "statements", "sqlite"])
def store(request, clock, tmp_path):
    if request.param == "sqlite":
        store = OnSqlite(tmp_path)
        yield store
        store.close()
    else:
        yield OnMemory(clock) if request.param == "memory" else OnStatements(clock)


def shrunk(store):
    """First and second held; third and fourth wait, are offered both, and only the fourth has answered."""
    first, second, third, fourth = claims(4)
    for claim in (first, second, third, fourth):
        store.acquire(claim)
    store.release(first)
    store.release(second)
    assert isinstance(store.acquire(fourth, create=False), Granted)
    store.resize(1)
    return third, fourth


def test_an_offer_gives_way_to_what_is_held_behind_it(store):
    third, _ = shrunk(store)
    assert isinstance(store.acquire(third, create=False), Queued)


def test_it_is_woken_and_granted_when_that_goes(store):
    third, fourth = shrunk(store)
    answer = store.acquire(third, create=False)
    woken = threading.Event()
    watch = store.watch(answer, woken.set, third)
    assert not woken.is_set()
    store.release(fourth)
    assert woken.wait(30.0)
    watch.close()
    assert isinstance(store.acquire(third, create=False), Granted)
