"""A request for cards whose store stands still for a while keeps its place, on every server."""

from __future__ import annotations

import threading

import pytest

import lockkit
import lockkit.gpu
from lockkit.gpu.card_chooser import CardChooser
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.members import pool_name
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
