"""Deadlocks: a wait that could never end is refused at once, and no other wait is."""

from __future__ import annotations

from functools import partial

from lockkit.errors import AcquireTimeout, DeadlockDetected
from lockkit.facts import ClaimInfo, Deadlock
from lockkit.testing.children import Child, Parent
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX, READERS, SEMAPHORE, Part
from lockkit.testing.stage import Stage, scenario

__all__ = ["deadlock"]


@scenario("L2-self-deadlock")
def deadlock(stage: Stage) -> None:
    """Waiting for one's own claim is refused, trying returns None; other threads and detached leases wait."""
    client = stage.client()
    leases = stage.fill([client] * len(stage.shape.holders))
    lock = stage.newcomer(client)
    before = stage.stored()
    for timeout in (None, 5.0):
        try:
            lock.acquire(timeout)
        except DeadlockDetected as error:
            assert error.name == stage.name  # noqa: PT017
        else:
            raise AssertionError("L2: it would have waited for itself")
    assert lock.try_acquire() is None
    assert stage.unchanged(before)
    waiting = stage.waiting(lock)
    for lease in leases:
        lease.detach()
    try:
        lock.acquire(0.5)
    except AcquireTimeout:
        pass
    for lease in leases:
        lease.release()
    waiting.result().release()


@scenario("L2-self-deadlock-between", (SEMAPHORE, READERS))
def deadlock_between(stage: Stage) -> None:
    """Waiting behind a waiter for one's own claim is refused at once and leaves nothing in the store."""
    client, other = stage.client(), stage.client()
    if stage.shape is SEMAPHORE:
        mine, theirs = client.semaphore(stage.name, 3, ttl=stage.long_ttl), Part("semaphore", 3, 3)
    else:
        mine, theirs = stage.holder(client), stage.shape.newcomer
    held = stage.take(mine)
    waiting = stage.waiting(theirs.lock(other, stage.name, ttl=stage.long_ttl))
    before = stage.stored()
    for timeout in (1.0, None):
        try:
            mine.acquire(timeout)
        except DeadlockDetected as error:
            assert error.name == stage.name  # noqa: PT017
            assert error.holder is not None  # noqa: PT017
            assert error.holder.claim_id == before[1].claim_id  # noqa: PT017
            assert str(other.owner) in str(error)  # noqa: PT017
        else:
            raise AssertionError("L2: it would have waited for itself")
    assert mine.try_acquire() is None
    assert isinstance(stage.work(lambda: mine.acquire(IN_VAIN)).error(), AcquireTimeout), (
        "another thread just waits"
    )
    stage.until(lambda: stage.unchanged(before), "nothing of it is left")
    assert not waiting.done
    held.release()
    waiting.result().release()


@scenario("L2-no-false-deadlock-between", (SEMAPHORE,))
def no_false_deadlock_between(stage: Stage) -> None:
    """A waiter ahead that waits for other holders only is not a deadlock."""
    client = stage.client()
    mine = client.semaphore(stage.name, 3, ttl=stage.long_ttl)
    stage.take(mine)
    two = Part("semaphore", 2, 3)
    holder = stage.take(two.lock(stage.client(), stage.name, ttl=stage.long_ttl))
    waiting = stage.waiting(two.lock(stage.client(), stage.name, ttl=stage.long_ttl))

    def leave() -> None:
        stage.until(lambda: len(stage.stored()) == 4, "the second permit is queued")
        holder.release()
        waiting.result().release()

    leaving = stage.work(leave)
    stage.kept(mine.acquire(20.0))
    leaving.result()


@scenario("L2-no-false-deadlock", (SEMAPHORE,))
def no_false_deadlock(stage: Stage) -> None:
    """A second permit for the same thread is not a deadlock while a permit is free."""
    client = stage.client()
    lock = stage.holder(client)
    first, second = stage.kept(lock.acquire(1.0)), stage.kept(lock.acquire(1.0))
    assert first.fence < second.fence
    assert isinstance(stage.work(lambda: lock.acquire(IN_VAIN)).error(), AcquireTimeout), (
        "another thread just waits"
    )


def _ttl(stage: Stage) -> float:
    """The ttl of holders in other processes, for whom time is real on every store."""
    return min(stage.harness.ttl, max(3.0, stage.harness.capabilities.min_ttl))


def _crossed(stage: Stage, *, detect: bool) -> list[Child]:
    """Two processes, each of which holds a lock and waits for that of the other."""
    stage.client().annotate(stage.name, "0" * 12, {})  # skips the scenario on a store without notes

    def part(parent: Parent, mine: str, other: str) -> str:
        client = stage.client()
        with client.lock(mine, ttl=_ttl(stage)).acquire(10.0):
            parent.tell("holds")
            parent.hear()
            try:
                with client.lock(other, ttl=_ttl(stage)).acquire(60.0, detect_deadlock=detect):
                    return "went on"
            except DeadlockDetected as error:
                return str(error)

    names = [stage.name, f"{stage.name}/2"]
    children = [
        stage.child(partial(part, mine=mine, other=other)) for mine, other in (names, reversed(names))
    ]
    assert [child.hear() for child in children] == ["holds", "holds"]
    for child in children:
        child.tell("go")
    return children


@scenario("L2-deadlock-found", (MUTEX,))
def deadlock_found(stage: Stage) -> None:
    """A third process finds two that wait for each other; once one is killed, the other goes on."""
    children = _crossed(stage, detect=False)
    client = stage.client()
    found: list[Deadlock] = []

    def look() -> bool:
        found[:] = client.deadlocks()
        return bool(found)

    stage.until(look, "the deadlock is found", 30.0)
    assert {claim.owner.pid for claim in found[0].waiters} == {child.pid for child in children}
    assert {claim.name for claim in found[0].holders} == {stage.name, f"{stage.name}/2"}
    assert f"waits for {stage.name!r}" in str(found[0])
    children[0].kill()
    assert children[1].hear(_ttl(stage) + stage.harness.slack + 10.0) == "went on"
    assert client.deadlocks() == []


@scenario("L2-deadlock-ended", (MUTEX,))
def deadlock_ended(stage: Stage) -> None:
    """The youngest of two processes that detect their deadlock gets an error; the other one continues."""
    children = _crossed(stage, detect=True)
    client = stage.client()
    waiters: list[ClaimInfo] = []

    def both_wait() -> bool:
        waiters[:] = [
            claim for name in (stage.name, f"{stage.name}/2") for claim in client.inspect(name).waiters
        ]
        return len(waiters) == 2

    stage.until(both_wait, "both wait")
    youngest = max(waiters, key=lambda claim: claim.claim_id)
    ends = [child.hear() for child in children]
    assert ends.count("went on") == 1, ends
    assert any(f"waits for {youngest.name!r} in a deadlock" in end for end in ends), (ends, youngest)
