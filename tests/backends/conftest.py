"""Fixtures of the tests of stores: watches, Redis with its own clock, kinds of lock, two etcd clients."""

from __future__ import annotations

import contextlib

import pytest

from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import OpenOptions
from lockkit.testing.clocks import ShiftedClock
from support.servers.redis import RedisServer
from support.servers.started import started

SHAPES = {
    "mutex": [{}],
    "semaphore": [{"capacity": 2, "kind": "semaphore"}] * 2,
    "writer": [{"weight": RW_CAPACITY, "capacity": RW_CAPACITY, "kind": "write"}],
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def full(request):
    """The terms of as many claims as hold the lock together; another like the first has to wait."""
    return request.param


@pytest.fixture
def watch(store):
    """Watches for the answers to claims that wait; they end with the test."""
    with contextlib.ExitStack() as stack:

        def watch(one, answer, wake):
            began = store.watch(one.terms.name, answer.blockers, wake, one)
            return stack.enter_context(contextlib.closing(began))

        yield watch


class Clocks(ShiftedClock):
    """The client's clock; ``both`` lets time pass everywhere, ``server.step`` moves the server's alone."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def both(self, seconds):
        self.advance(seconds)
        self.server.step(seconds)


machine = started(RedisServer, clock=True)


@pytest.fixture
def server(machine):
    machine.clock.reset()
    if not machine.alive:
        machine.start()
    machine.cli("FLUSHALL")
    return machine


@pytest.fixture
def clock(server):
    return Clocks(server.clock)


@pytest.fixture
def opened(server, clock):
    from lockkit_redis.backend import open_store

    with contextlib.ExitStack() as stack:

        def another():
            store = open_store(server.url(), OpenOptions(clock=clock))
            stack.callback(store.close)
            return store

        yield another


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def stores(server):
    """Two stores of an etcd that has nothing stored; ``server`` is the file's."""
    from lockkit_etcd.backend import open_store

    server.wipe()
    with (
        contextlib.closing(open_store(server.url(), OpenOptions())) as store,
        contextlib.closing(open_store(server.url(), OpenOptions())) as other,
    ):
        yield store, other


@pytest.fixture(scope="session")
def nothing_held():
    """Whether a Redis server has no claim at all."""
    return lambda server: not [key for key in server.cli("KEYS", "*") if key.endswith((b":q", b":d", b":c"))]
