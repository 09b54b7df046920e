"""Reentrant locks: levels share one hold and one fence, each with its own ttl, callback and release."""

from __future__ import annotations

import threading

from lockkit.errors import AcquireTimeout, BackendError, ConfigError, DeadlockDetected, LeaseLost
from lockkit.sync.lease import Lease
from lockkit.testing.faults import black_hole
from lockkit.testing.scenarios.handoffs import HAND_OFF, IN_VAIN
from lockkit.testing.shapes import MUTEX, READERS
from lockkit.testing.stage import PATIENCE, NotApplicable, Stage, scenario

__all__ = ["reentrant"]


@scenario("S4-reentrant", (MUTEX,))
def reentrant(stage: Stage) -> None:
    """A re-entrant hold keeps its fence, ends with its last level in any order, serving only its thread."""
    client = stage.client()
    lock = client.lock(stage.name, ttl=stage.harness.ttl, reentrant=True)
    outer = stage.kept(lock.acquire(1.0))
    inner = stage.kept(lock.acquire(1.0))
    assert inner.fence == outer.fence
    assert inner.claim_id == outer.claim_id
    assert len(stage.stored()) == 1
    assert isinstance(stage.work(lambda: lock.acquire(IN_VAIN)).error(), AcquireTimeout), (
        "not for another thread"
    )
    assert stage.client().lock(stage.name, reentrant=True).try_acquire() is None, "not for another client"
    assert outer.release().outcome == "KEPT"
    assert outer.release().outcome == "KEPT", "idempotent"
    assert inner.valid()
    assert len(stage.held()) == 1
    assert inner.release().outcome == "RELEASED"
    assert stage.stored() == []
    plain = client.lock(stage.name)
    assert isinstance(
        stage.work(lambda: client.semaphore(stage.name, 2, reentrant=True)).error(), ConfigError
    )
    with plain.acquire(1.0):
        assert plain.try_acquire() is None


@scenario("S4-reentrant-writer", (READERS,))
def reentrant_writer(stage: Stage) -> None:
    """A writer may read and write under one fence; a reader may read, but not write (DeadlockDetected)."""
    client, ttl = stage.client(), stage.harness.ttl
    both = client.rwlock(stage.name, ttl=ttl, reentrant=True)
    theirs = stage.client().rwlock(stage.name, ttl=ttl, reentrant=True)
    outer = stage.kept(both.write().acquire(1.0))
    reads = stage.kept(both.read().acquire(1.0))
    writes = stage.kept(both.write().acquire(1.0))
    assert outer.fence == reads.fence == writes.fence
    assert len(stage.stored()) == 1
    assert both.read().held()
    assert both.write().held()
    assert outer.release().outcome == writes.release().outcome == "KEPT"
    assert reads.valid()
    assert theirs.read().try_acquire() is None, "S1: it keeps out everybody else until its last level is left"
    assert reads.release().outcome == "RELEASED"
    assert stage.stored() == []
    first = stage.kept(both.read().acquire(1.0))
    beside = stage.kept(theirs.read().acquire(1.0))
    waiting = stage.waiting(stage.newcomer(stage.client()))
    again = stage.kept(both.read().acquire(1.0))
    assert again.fence == first.fence, "a reader that reads again does not wait behind a writer"
    queue = [claim.claim_id for claim in stage.stored()]
    refusal = ""
    try:
        stage.kept(both.write().acquire(1.0))
    except DeadlockDetected as error:
        refusal = str(error)
    assert "a reader cannot become a writer" in refusal, f"S1: it writes while others read: {refusal}"
    assert both.write().try_acquire() is None
    assert [claim.claim_id for claim in stage.stored()] == queue
    assert not both.write().held()
    for lease in (again, first, beside):
        lease.release()
    waiting.result().release()


@scenario("S4-reentrant-lost", (MUTEX,))
def reentrant_lost(stage: Stage) -> None:
    """A lost hold is not re-entered: LeaseLost or, once the loss is noticed, a hold with a larger fence."""
    lock = stage.client().lock(stage.name, ttl=stage.harness.ttl, reentrant=True, auto_renew=False)
    outer = stage.kept(lock.acquire(1.0))
    stage.harness.outlast(stage.harness.ttl)
    try:
        inner = stage.kept(lock.acquire(1.0))
    except LeaseLost:
        assert stage.held() == []
    else:
        assert inner.valid()
        assert inner.fence > outer.fence, "S5: it runs under a hold that had lapsed"
        assert stage.held() == [inner.claim_id]
    assert not outer.valid()


@scenario("S4-reentrant-ttl", (MUTEX,))
def reentrant_ttl(stage: Stage) -> None:
    """A level with a longer ttl lengthens the hold, where ttls may differ; a shorter ttl changes nothing."""
    client, ttl = stage.client(), stage.harness.ttl

    def level(ttl: float) -> Lease:
        lease = client.lock(stage.name, ttl=ttl, reentrant=True, auto_renew=False).try_acquire()
        assert lease is not None
        return stage.kept(lease)

    outer = level(ttl)
    inner = level(2 * ttl)
    if client.capabilities.fixed_ttl:
        assert inner.ttl == ttl
        return
    assert inner.ttl == outer.ttl == 2 * ttl
    assert inner.remaining() > ttl
    assert stage.client().inspect(stage.name).holders[0].ttl == 2 * ttl
    before = stage.stored()
    assert level(ttl).ttl == 2 * ttl
    assert stage.unchanged(before)
    assert inner.release().outcome == "KEPT"
    assert outer.ttl == 2 * ttl, "no call shortens a held claim"


@scenario("S4-reentrant-ttl-refused", (MUTEX,))
def reentrant_ttl_refused(stage: Stage) -> None:
    """A level whose longer ttl gets no answer in its timeout is not entered; the outer level is unchanged."""
    client, faults = stage.faulty()
    if client.capabilities.fixed_ttl:
        raise NotApplicable("all claims of a client have one ttl on this store")
    ttl = stage.harness.ttl
    outer = stage.take(client.lock(stage.name, ttl=ttl, reentrant=True))
    faults.always(black_hole, "extend")
    inner = client.lock(stage.name, ttl=2 * ttl, reentrant=True)
    with stage.within(0.2 + 0.5 + HAND_OFF, "giving up"):
        try:
            inner.acquire(0.2)
        except BackendError:
            pass
        else:
            raise AssertionError("S3: it was entered with a shorter ttl than it asked for")
    faults.heal()
    outer.confirm()
    assert outer.ttl == ttl
    assert outer.release().outcome == "RELEASED"
    assert stage.stored() == []


@scenario("S6-reentrant-told", (MUTEX,))
def reentrant_told(stage: Stage) -> None:
    """Each level's own ``on_lost`` is called, unless the level was left or collected."""
    client = stage.client()
    told: list[str] = []
    done = threading.Event()

    def level(name: str) -> Lease:
        ttl = stage.harness.ttl
        lock = client.lock(stage.name, ttl=ttl, reentrant=True, on_lost=lambda: told.append(name))
        return stage.kept(lock.acquire(1.0))

    outer, left, inner = level("outer"), level("left"), level("inner")
    left.on_lost(lambda: told.append("left by method"))
    inner.on_lost(done.set)
    assert left.release().outcome == "KEPT"
    client.evict(stage.name, outer.claim_id, reason="kit", now=True)
    assert isinstance(stage.work(inner.confirm).error(), LeaseLost)
    assert done.wait(PATIENCE), "a callback that nothing but its lease refers to was not called"
    stage.until(lambda: len(told) >= 2, "both levels that are held are told")
    assert sorted(told) == ["inner", "outer"]
