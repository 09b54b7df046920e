"""S2, L1, L5: who is granted, and in which order."""

from __future__ import annotations

from lockkit.errors import CapacityMismatch
from lockkit.facts import Owner
from lockkit.store.spi import POLL_CAP, Claim, Granted
from lockkit.testing.scenarios.handoffs import HAND_OFF
from lockkit.testing.shapes import READERS, SEMAPHORE, WRITER, Part
from lockkit.testing.stage import Stage, Work, scenario
from lockkit.testing.stepping import Pending, Stepper
from lockkit.values.names import new_token

__all__ = ["queued", "steppers"]


def steppers(stage: Stage, count: int) -> list[Stepper]:
    """Clients driven by hand, each over a backend of its own."""
    return [Stepper(stage.backend(), stage.harness.clock) for _ in range(count)]


def queued(stage: Stage, stepper: Stepper, part: Part | None = None) -> Pending:
    """A claim that waits, driven by hand."""
    part = part or stage.shape.newcomer
    terms = part.terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    pending = stepper.acquire(terms)
    assert pending.state == "waiting", f"expected to wait, not {pending.state}: {pending.error}"
    return pending


@scenario("S2-busy")
def busy(stage: Stage) -> None:
    """A full lock refuses a try at once, and nothing of the try is left."""
    leases = stage.fill()
    before = stage.stored()
    assert stage.newcomer(stage.client()).try_acquire() is None
    assert stage.unchanged(before)
    assert len(stage.held()) == len(leases)


@scenario("L5-fifo")
def fifo(stage: Stage) -> None:
    """Waiters are granted in the order in which they arrived at the store."""
    leases = stage.fill()
    order: list[int] = []
    waiting = [_turn(stage, turn, order) for turn in range(4)]
    for lease in leases:
        lease.release()
    for work in waiting:
        work.result()
    if stage.shape is WRITER:
        assert sorted(order) == [0, 1, 2, 3], "readers may answer in any order"
    elif stage.shape is SEMAPHORE:
        assert set(order[:2]) <= {0, 1, 2}
    else:
        assert order == [0, 1, 2, 3]


def _turn(stage: Stage, turn: int, order: list[int]) -> Work[None]:
    lock = stage.newcomer(stage.client())

    def play() -> None:
        with lock.acquire(30.0):
            order.append(turn)

    return stage.queued(lock, play)


@scenario("L5-arrival-by-hand")
def arrival(stage: Stage) -> None:
    """After a release only the claims within the prefix are granted, whichever claim asks first."""
    leases = stage.fill()
    clients = steppers(stage, 3)
    waiting = [queued(stage, client) for client in clients]
    for lease in leases:
        lease.release()
    fitting = 2 if stage.shape is SEMAPHORE else 3 if stage.shape is WRITER else 1
    for pending in reversed(waiting):
        pending.step()
    assert [pending.state for pending in waiting] == ["held"] * fitting + ["waiting"] * (3 - fitting)
    fences = [pending.hold.fence for pending in waiting if pending.hold]
    assert fences == sorted(fences), "fences follow arrival"
    for pending in waiting:
        if pending.hold:
            pending.stepper.release(pending.hold)
        else:
            pending.cancel()
            pending.stepper.remove_orphans()
    assert stage.stored() == []


@scenario("S2-readers-together", (WRITER,))
def readers_together(stage: Stage) -> None:
    """Readers behind a writer all enter when it leaves."""
    (writer,) = stage.fill()
    readers = [stage.waiting(stage.newcomer(stage.client())) for _ in range(4)]
    with stage.within(HAND_OFF, "letting the readers in"):
        writer.release()
        leases = [reader.result() for reader in readers]
    assert len(stage.held()) == 4
    for lease in leases:
        lease.release()


@scenario("L5-writer-not-starved", (READERS,))
def writer_not_starved(stage: Stage) -> None:
    """A reader that comes after a waiting writer waits behind it."""
    readers = stage.fill()
    writer = stage.waiting(stage.newcomer(stage.client()))
    assert stage.holder(stage.client()).try_acquire() is None, "a reader overtook the writer"
    late = stage.waiting(stage.holder(stage.client()))
    for reader in readers:
        reader.release()
    lease = writer.result()
    assert not late.done
    assert len(stage.held()) == 1
    lease.release()
    late.result().release()


@scenario("S2-any-holder-leaves", (SEMAPHORE, READERS))
def any_holder_leaves(stage: Stage) -> None:
    """Whichever holder leaves or dies, one in the middle included, the next waiter gets the lock."""
    for first in range(len(stage.shape.holders)):
        leases = stage.fill()
        waiting = stage.waiting(stage.newcomer(stage.client()))
        order = [leases[first], *(lease for lease in leases if lease is not leases[first])]
        for lease in order[: stage.shape.leaves]:
            lease.release()
        with stage.within(HAND_OFF, f"the hand-off after holder {first} left"):
            waiting.result().release()
        for lease in order[stage.shape.leaves :]:
            lease.release()


@scenario("L1-any-holder-dies", (SEMAPHORE, READERS))
def any_holder_dies(stage: Stage) -> None:
    """One of two holders vanishes, the first or the second: the next waiter gets the lock."""
    for dies in (0, 1):
        stage.name = f"kit/lock-{dies}"
        mortal = stage.client()
        clients = [mortal if at == dies else stage.client() for at in (0, 1)]
        ttls = [stage.harness.short_ttl if at == dies else stage.harness.ttl for at in (0, 1)]
        leases = [stage.take(stage.holder(clients[at], at, ttl=ttls[at])) for at in (0, 1)]
        waiting = stage.waiting(stage.newcomer(stage.client()))
        stage.harness.crash(mortal)
        if stage.shape is READERS:
            leases[1 - dies].release()
        with stage.within(
            stage.harness.short_ttl + POLL_CAP + HAND_OFF, f"the grant after holder {dies} died"
        ):
            waiting.result().release()
        assert leases[dies].claim_id not in stage.held()


@scenario("L5-middle-waiter-leaves")
def middle_waiter_leaves(stage: Stage) -> None:
    """When a middle waiter leaves, the waiter behind it still waits for the claims that block it."""
    leases = stage.fill()
    clients = steppers(stage, 3)
    middle, behind, last = (queued(stage, client) for client in clients)
    middle.cancel()
    clients[0].remove_orphans()
    for pending in (behind, last):
        assert pending.step() == "waiting", "S2: granted although the holders stand"
        pending.watch()
    assert not behind.woken, "its blockers all stand"
    for lease in leases:
        lease.release()
    stage.until(lambda: behind.woken, "the watch notices that the blockers left")
    assert behind.step() == "held"
    for client, pending in ((clients[1], behind), (clients[2], last)):
        if pending.hold:
            client.release(pending.hold)
        else:
            pending.cancel()
            client.remove_orphans()


@scenario("L5-dead-waiter")
def dead_waiter(stage: Stage) -> None:
    """A waiter that is silent beyond its deadline loses its place, and its claim never holds."""
    leases = stage.fill()
    slow, next_ = steppers(stage, 2)
    silent, patient = queued(stage, slow), queued(stage, next_)
    token = silent.claim.token
    silence = 4 * POLL_CAP
    steps = 8
    for _ in range(steps):
        stage.harness.advance(silence / steps)
        next_.beat([patient])
        for lease in leases:
            lease.confirm()
    for lease in leases:
        lease.release()
    patient.step()
    assert patient.state == "held", "the dead waiter holds up those behind it"
    silent.run()
    assert silent.claim.token != token, "S12: it came back under the token that had lapsed"
    if stage.shape.exclusive or stage.shape is READERS:
        assert silent.state == "waiting"


@scenario("S2-slow-offer")
def slow_offer(stage: Stage) -> None:
    """An unconfirmed offer lapses although the waiter's heartbeat runs; the claim never holds."""
    leases = stage.fill()
    hanging, next_ = steppers(stage, 2)
    slow, patient = queued(stage, hanging), queued(stage, next_)
    for lease in leases:
        lease.release()
    for _ in range(8):
        hanging.beat([slow])
        next_.beat([patient])
        stage.harness.advance(POLL_CAP / 2)
    assert slow.hold is None
    old = slow.claim_id
    patient.run()
    assert patient.state == "held", "an offer was kept alive by a heartbeat"
    assert old not in [row.claim_id for row in stage.stored()]


@scenario("S2-grant-without-lease")
def grant_without_lease(stage: Stage) -> None:
    """A grant whose answer was never read lapses: heartbeats without a lease do not extend it."""
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    backend, claim = stage.backend(), Claim(new_token(), terms)
    assert isinstance(backend.acquire(claim, True, 2.0), Granted)  # the thread hangs before it reads this
    granted = stage.stored()[0]
    for _ in range(3):
        stage.harness.advance(stage.harness.ttl / 4)
        (renewal,) = backend.renew([(claim, None)], 2.0)
        assert renewal.state in ("OFFERED", "LOST")
    assert granted.deadline is not None
    assert all(row.surely is not None and row.surely <= granted.deadline for row in stage.stored()), (
        "a heartbeat without a Lease kept it alive"
    )
    stage.harness.outlast(stage.harness.ttl / 2)
    assert stage.stored() == []


@scenario("S2-capacity-mismatch", (SEMAPHORE,))
def capacity_mismatch(stage: Stage) -> None:
    """A claim with another capacity is refused, naming a client that uses it; no claim is disturbed."""
    leases = stage.fill()
    before = stage.stored()
    other = stage.client().semaphore(stage.name, 3, ttl=stage.harness.ttl)
    for attempt in (other.try_acquire, lambda: other.acquire(5.0)):
        mismatch = stage.work(attempt).error()
        assert isinstance(mismatch, CapacityMismatch), "two capacities on one name"
        assert mismatch.name == stage.name
        assert "2" in str(mismatch)
        assert "3" in str(mismatch)
        assert mismatch.holder is not None
        assert mismatch.holder.claim_id == leases[0].claim_id
    assert stage.unchanged(before)


@scenario("S2-resize", (SEMAPHORE,))
def resize(stage: Stage) -> None:
    """Shrinking takes nothing away, and grants nothing until the holders fit; growing lets waiters in."""
    leases = stage.fill()
    waiting = stage.waiting(stage.newcomer(stage.client()))
    heavy = stage.waiting(Part("semaphore", 2, 2).lock(stage.client(), stage.name))
    operator = stage.client()
    assert operator.resize(stage.name, 1) == 4
    error = heavy.error()
    assert isinstance(error, CapacityMismatch), f"a claim that can never fit was not told: {error!r}"
    for lease in leases:
        lease.confirm()
    leases[0].release()
    ends: list[BaseException | None] = []

    def fits() -> bool:
        if waiting.done and not ends:
            ends.append(waiting.error())
        return ends != [None] or not leases[1].valid()

    stage.steady(fits, "S2: granted before it fitted", 0.2)
    leases[1].release()
    third = ends[0] if ends else waiting.error()
    assert third is None or isinstance(third, CapacityMismatch)


@scenario("S2-resize-grow", (SEMAPHORE,))
def resize_grow(stage: Stage) -> None:
    """A larger capacity lets a waiter in at once."""
    leases = stage.fill()
    (client,) = steppers(stage, 1)
    pending = queued(stage, client)
    pending.watch()
    stage.client().resize(stage.name, 3)
    stage.until(lambda: pending.woken, "the watch notices the new room")
    rows = stage.stored()
    assert [row.capacity for row in rows] == [3, 3, 3]
    assert pending.run() == "held", f"there is room now, and it is {pending.state}"
    assert all(lease.valid() for lease in leases)
