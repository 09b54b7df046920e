"""L3, L7: who wakes whom, how soon a waiter has a lock that is free, and what a hand-off costs."""

from __future__ import annotations

import threading

from lockkit.facts import Owner
from lockkit.store.spi import POLL_CAP, Claim, Queued
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock
from lockkit.testing.shapes import MUTEX, READERS, SEMAPHORE
from lockkit.testing.stage import NotApplicable, Stage, Work, scenario
from lockkit.values.names import new_token

__all__ = ["HAND_OFF", "IN_VAIN"]

HAND_OFF = 1.0
"""Seconds in which a free lock must have reached a live waiter on a machine that is busy with tests."""
IN_VAIN = 1.0
"""Seconds of a wait that nobody ends; the store reports the holder within them, even on a busy machine."""
_MOMENT = 0.5
"""Seconds by which a time on the client's clock may be off if the store has computed it from its own."""


_POLLERS, _CLIENTS, _GRANTS = 32, 4, 50
_STORM = 45.0
"""Seconds in which a crowd that polls must have been granted so many leases."""


@scenario("L3-try-storm", (MUTEX, SEMAPHORE, READERS))
def try_storm(stage: Stage) -> None:
    """A lock that a crowd polls with tries is granted again and again, despite refused tries under way."""
    locks = [stage.newcomer(stage.client()) for _ in range(_CLIENTS)]
    for lock in locks:
        stage.take(lock).release()
    granted: list[int] = []
    begin, over = threading.Barrier(_POLLERS), threading.Event()

    def poll(lock: Lock) -> None:
        begin.wait(_STORM)
        while not over.is_set():
            lease = lock.try_acquire()
            if lease is not None:
                granted.append(lease.fence)
                lease.release()

    crowd = [stage.work(lambda lock=locks[at % _CLIENTS]: poll(lock)) for at in range(_POLLERS)]  # type: ignore[misc]
    try:
        stage.until(
            lambda: len(granted) >= _GRANTS or any(each.done for each in crowd), "L3: it is granted", _STORM
        )
    finally:
        over.set()
    for each in crowd:
        each.result()
    assert len(set(granted)) == len(granted), "S4: each has a fence of its own"
    stage.until(lambda: stage.stored() == [], "L4: nobody is left")


@scenario("L3-hand-off")
def hand_off(stage: Stage) -> None:
    """A waiter gets the lock promptly when enough holders have left, and not before."""
    leases = stage.fill()
    waiting = stage.waiting(stage.newcomer(stage.client()))
    for lease in leases[: stage.shape.leaves - 1]:
        lease.release()
    assert not waiting.done
    with stage.within(HAND_OFF, "the hand-off"):
        leases[stage.shape.leaves - 1].release()
        successor = waiting.result()
    assert successor.fence > max(lease.fence for lease in leases)
    successor.release()


@scenario("L3-lost-wake")
def lost_wake(stage: Stage) -> None:
    """If every wake is lost, the waiter asks again within the poll cap and keeps its place."""
    client, faults = stage.faulty()
    faults.wakes = False
    leases = stage.fill()
    first = stage.waiting(stage.newcomer(client))
    standing = stage.stored()[len(leases)]
    second = stage.waiting(stage.newcomer(stage.client()))
    for lease in leases:
        lease.release()
    with stage.within(POLL_CAP + HAND_OFF, "the grant without a wake"):
        successor = first.result()
    assert successor.claim_id == standing.claim_id, "it lost its place"
    successor.release()
    second.result().release()


@scenario("L3-ask-again-at")
def ask_again_at(stage: Stage) -> None:
    """Only the next in line learns when a blocker lapses, on the client's clock, if the store knows."""
    harness = stage.harness
    if harness.virtual:  # a clock that no test moves is another one then
        harness.advance(harness.ttl)
    stage.fill(ttl=harness.ttl, auto_renew=False)
    backend, holders = stage.backend(), stage.stored()
    terms = stage.shape.newcomer.terms(stage.name, Owner(host="kit"), ttl=harness.ttl)
    first, second = (backend.acquire(Claim(new_token(), terms), True, 2.0) for _ in range(2))
    assert isinstance(first, Queued)
    assert isinstance(second, Queued)
    assert second.ask_again_at is None, "only the next in line asks again at a deadline"
    if first.ask_again_at is None:
        raise NotApplicable("this store does not tell when a claim lapses")
    soonest = min(row.surely or 0.0 for row in holders) - _MOMENT
    latest = max(row.deadline or 0.0 for row in holders) + _MOMENT
    assert soonest <= first.ask_again_at <= latest, (
        f"L3: ask_again_at is {first.ask_again_at:.3f}; "
        f"the claims ahead lapse from {soonest:.3f} to {latest:.3f} "
        f"on the client's clock, on which it is {harness.clock.now():.3f} now"
    )


@scenario("L7-requests-per-hand-off", (MUTEX, SEMAPHORE, READERS))
def requests_per_hand_off(stage: Stage) -> None:
    """The number of requests of a hand-off does not grow with the number of waiters."""
    per_hand_off = {}
    for crowd in (4, 40):
        stage.name = f"kit/crowd-{crowd}"
        client, faults = stage.faulty()
        leases = stage.fill()
        waiting = [stage.waiting(stage.newcomer(client)) for _ in range(crowd)]
        faults.log.clear()
        for lease in leases:
            lease.release()
        served = _serve(waiting, min(crowd, 20) if crowd > 4 else crowd)
        calls = [call for call in faults.log if call != "renew"]
        per_hand_off[crowd] = len(calls) / served
        client.close()
        for work in waiting:
            work.error()
    assert per_hand_off[40] <= max(2.0 * per_hand_off[4], 6.0), (
        f"requests per hand-off by waiters: {per_hand_off}"
    )


def _serve(waiting: list[Work[Lease]], most: int) -> int:
    """Let waiters in and out again, in order, ``most`` of them."""
    for served, work in enumerate(waiting, 1):
        work.result().release()
        if served == most:
            return served
    return len(waiting)
