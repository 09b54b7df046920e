"""L1, L7: what a waiting thread is told, and how another thread ends its wait."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lockkit.errors import AcquireCancelled
from lockkit.facts import Waiting
from lockkit.store.spi import POLL_CAP
from lockkit.testing.scenarios.handoffs import HAND_OFF
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario
from lockkit.values.cancelling import Cancel

__all__: list[str] = []


@scenario("L4-cancelled")
def cancelled(stage: Stage) -> None:
    """A wait that another thread cancels ends at once (AcquireCancelled), leaves no claim; others wait on."""
    leases = stage.fill()
    stop = Cancel()
    lock = stage.newcomer(stage.client())
    first = stage.queued(lock, lambda: lock.acquire(60.0, cancel=stop))
    second = stage.waiting(stage.newcomer(stage.client()))
    with stage.within(HAND_OFF, "the end of the wait"):
        stop.cancel()
        assert isinstance(first.error(), AcquireCancelled)
    stage.until(lambda: len(stage.stored()) == len(leases) + 1, "L4: its claim is gone")
    queue = [claim.claim_id for claim in stage.stored()]
    assert isinstance(stage.work(lambda: lock.acquire(60.0, cancel=stop)).error(), AcquireCancelled)
    now = [claim.claim_id for claim in stage.stored()]
    assert now == queue, "a wait that is cancelled before it begins asks for nothing"
    assert not second.done
    for lease in leases[: stage.shape.leaves]:
        lease.release()
    second.result().release()


@scenario("L4-cancelled-together", (MUTEX,))
def cancelled_together(stage: Stage) -> None:
    """A wait for several locks, cancelled by another thread, ends, gives back its holds, leaves no queue."""
    (lease,) = stage.fill()
    client, before = stage.client(), f"!{stage.name}"  # all_of takes it first
    busy, free = stage.newcomer(client), client.lock(before, ttl=stage.harness.ttl)
    takes: tuple[Callable[..., object], ...] = (
        client.any_of([busy]).acquire,
        client.all_of([busy, free]).acquire,
    )
    for take in takes:
        stop = Cancel()
        work = stage.work(partial(take, 60.0, cancel=stop))
        stage.until(lambda: len(stage.stored()) == 2, "it waits")
        with stage.within(HAND_OFF, "the end of the wait"):
            stop.cancel()
            assert isinstance(work.error(), AcquireCancelled)
        stage.until(lambda: len(stage.stored()) == 1, "L4: its claim is gone")
        stage.until(lambda: stage.stored(before) == [], "L4: what it held is given back")
    assert lease.valid()


@scenario("L7-told", (MUTEX,))
def told(stage: Stage) -> None:
    """A waiter with ``on_wait`` learns within the poll cap that it moved forward, also without a wake."""
    holder = stage.fill()[0]
    stop, seen = Cancel(), list[Waiting]()
    leaver = stage.newcomer(stage.client())
    leaving = stage.queued(leaver, lambda: leaver.acquire(60.0, cancel=stop))
    between = stage.waiting(stage.newcomer(stage.client()))
    lock = stage.newcomer(stage.client())
    told_of = stage.queued(lock, lambda: stage.kept(lock.acquire(60.0, on_wait=seen.append)))
    stage.until(lambda: seen, "it is told of its place")
    assert seen[0].position == 3
    stop.cancel()
    assert isinstance(leaving.error(), AcquireCancelled)
    stage.until(lambda: seen[-1].position == 2, "it is told of its new place", 2 * (POLL_CAP + HAND_OFF))
    assert seen[-1].waited > seen[0].waited
    holder.release()
    between.result().release()
    told_of.result().release()
