"""L5, L7: a crowd of processes on one lock."""

from __future__ import annotations

from lockkit.store.spi import POLL_CAP
from lockkit.testing.children import Parent
from lockkit.testing.shapes import MUTEX, SEMAPHORE
from lockkit.testing.stage import Stage, scenario

__all__: list[str] = []

_PROCESSES, _WAITERS = 10, 10
_PATIENCE = 60.0
_PER_HAND_OFF = 6.0
_PER_BEAT = 4.0
"""Requests that a waiting client may send in the time of a poll cap, hand-offs apart."""


def _queue_up(stage: Stage, parent: Parent) -> list[tuple[int, float]]:
    """Wait with many threads; what they were granted: fence and time of each."""
    taken: list[tuple[int, float]] = []
    with stage.harness.client() as client:
        lock = stage.newcomer(client, ttl=stage.long_ttl)

        def turn() -> None:
            with lock.acquire(_PATIENCE) as lease:
                taken.append((lease.fence, stage.harness.clock.now()))

        waiting = [stage.queued(lock, turn) for _ in range(_WAITERS)]
        parent.tell("queued")
        for work in waiting:
            work.result(_PATIENCE)
    return taken


@scenario("L7-herd", (MUTEX, SEMAPHORE))
def herd(stage: Stage) -> None:
    """A hundred waiters in ten processes are served in order of arrival, once each, with few requests."""
    leases = stage.fill(ttl=stage.long_ttl)
    children = [stage.child(lambda parent: _queue_up(stage, parent)) for _ in range(_PROCESSES)]
    for child in children:
        assert child.hear(_PATIENCE) == "queued"
    crowd = _PROCESSES * _WAITERS
    assert len(stage.stored()) == len(leases) + crowd
    before, began = stage.harness.requests(), stage.harness.clock.now()
    for lease in leases:
        lease.release()
    taken = [turn for child in children for turn in child.hear(_PATIENCE)]
    after, took = stage.harness.requests(), stage.harness.clock.now() - began
    assert len({fence for fence, _ in taken}) == crowd, "S4: each has a fence of its own"
    if stage.shape is MUTEX:
        order = [fence for fence, _ in sorted(taken, key=lambda turn: turn[1])]
        assert order == sorted(order), "L5: not in the order of arrival"
    if before is not None and after is not None:
        beats = _PROCESSES * (1 + took / POLL_CAP)
        most = _PER_HAND_OFF * crowd + _PER_BEAT * beats
        assert after - before <= most, (
            f"L7: {after - before} requests for {crowd} hand-offs and {beats:.0f} beats"
        )
    stage.until(lambda: stage.stored() == [], "L4: nobody is left")
