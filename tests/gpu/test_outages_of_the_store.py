"""A request for cards whose store stands still for a while keeps its place, on every server."""

from __future__ import annotations

import queue
import sqlite3
import threading
from contextlib import closing

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import AcquireTimeout, BackendError
from lockkit.gpu.card_chooser import CardChooser
from lockkit.gpu.requests import HostCards
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.testing.stage import Work
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

(CARD,) = (card.uuid for card in SimulatedProvider(1).snapshot().devices)
SECONDS = 60.0
"""A bound on the slowness of the machine; the request itself waits for ever."""


@pytest.fixture(
    params=[(RedisServer, "redis"), (EtcdServer, "json"), (ZooKeeperServer, "kazoo")],
    ids=["redis", "etcd", "zookeeper"],
)
def server(request, tmp_path, monkeypatch):
    start, module = request.param
    pytest.importorskip(module)
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with start() as server:
        yield server


def test_a_request_that_waits_for_a_card_bears_an_outage_of_its_store(server, monkeypatch):
    waits, away = threading.Event(), threading.Event()
    before = CardChooser._as_before

    def as_before(self, error, held):
        away.set()
        return before(self, error, held)

    monkeypatch.setattr(CardChooser, "_as_before", as_before)
    with lockkit.connect(server.url()) as one, lockkit.connect(server.url()) as other:
        holder = lockkit.gpu.pool(one, simulate=1, ttl=40).acquire(timeout=SECONDS)
        cards = lockkit.gpu.pool(other, simulate=1, ttl=40)
        waiter = Work(lambda: cards.acquire(on_wait=lambda _: waits.set()))
        assert waits.wait(SECONDS)
        claims = {claim.claim_id for claim in one.inspect(pool_name(cards.name, CARD)).claims}

        server.pause()
        try:
            assert away.wait(SECONDS), "the chooser never asked while the store stood still"
        finally:
            server.resume()
        assert holder.release().released

        leases = waiter.result(SECONDS)
        assert leases.members == (CARD,)
        assert {lease.claim_id for lease in leases} <= claims, (
            "the claim that waited before is the one that holds"
        )
        assert leases.release().released


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """A client of an embedded store that another connection keeps locked, and a function that unlocks it."""
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = tmp_path / "locks" / "locks.db"
    path.parent.mkdir(mode=0o700)
    with lockkit.connect(f"sqlite:{path}", request_timeout=0.3) as client:
        client.names()  # so that it is open
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield client, lambda: other.execute("ROLLBACK")
            if other.in_transaction:
                other.execute("ROLLBACK")


def test_a_request_without_a_limit_waits_for_a_store_that_is_busy_when_the_record_of_a_card_must_be_written(
    busy, monkeypatch
):
    client, unlock = busy
    refused: queue.Queue[BaseException] = queue.Queue()
    written = HostCards.possible

    def possible(self, *asked):
        try:
            return written(self, *asked)
        except BackendError as error:
            refused.put(error)
            raise

    monkeypatch.setattr(HostCards, "possible", possible)
    waiter = Work(lambda: lockkit.gpu.pool(client, simulate=1).acquire())
    for _ in range(3):
        assert refused.get(timeout=SECONDS).busy
    unlock()
    waiter.result(SECONDS).release()


def test_a_request_with_a_limit_times_out_at_a_store_that_is_busy(busy):
    client, _ = busy
    with pytest.raises(AcquireTimeout):
        lockkit.gpu.pool(client, simulate=1).acquire(timeout=1.0)
