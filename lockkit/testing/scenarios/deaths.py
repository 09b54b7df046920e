"""L3, L5: a waiter's process dies, or its claim does without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockkit.store.spi import POLL_CAP
from lockkit.sync.lease import Lease
from lockkit.testing.children import Parent
from lockkit.testing.faults import FAULTY_URL, Faults, Send, through
from lockkit.testing.scenarios.handoffs import HAND_OFF
from lockkit.testing.scenarios.queueing import queued, steppers
from lockkit.testing.stage import Stage, scenario
from lockkit.testing.stepping import Pending

__all__: list[str] = []

_STEPS = 8


def _waits(stage: Stage, parent: Parent) -> None:
    """Wait for the lock for good; once a wake comes, say so and hang."""
    faults = Faults()
    client = stage.harness.client(url=FAULTY_URL, plugins=[through(stage.harness, faults)])

    def woken(faults: Faults, send: Send, budget: float) -> None:  # noqa: ARG001
        parent.tell("woken")
        parent.hear()

    faults.add("acquire", woken, skip=1)
    stage.newcomer(client, ttl=stage.harness.ttl).acquire(60.0, on_wait=lambda _: parent.tell("queued"))


def _silence(
    stage: Stage, leases: Sequence[Lease], living: Sequence[Pending], look: Callable[[], bool]
) -> None:
    """Let a dead waiter's time run out, while the others go on; or until there is no need."""
    silence = max(4 * POLL_CAP, stage.harness.ttl + HAND_OFF)
    for _ in range(_STEPS):
        if look():
            return
        stage.harness.advance(silence / _STEPS)
        for pending in living:
            pending.stepper.beat([pending])
        for lease in leases:
            lease.confirm()


@scenario("L3-woken-waiter-killed")
def woken_waiter_killed(stage: Stage) -> None:
    """A woken waiter is killed (kill -9) before it asks: the next one holds once the death is known."""
    leases = stage.fill(ttl=stage.long_ttl)
    mortal = stage.child(lambda parent: _waits(stage, parent))
    assert mortal.hear() == "queued"
    (client,) = steppers(stage, 1)
    patient = queued(stage, client)
    going, staying = leases[: stage.shape.leaves], leases[stage.shape.leaves :]
    for lease in going:
        lease.release()
    while mortal.hear() != "woken":
        pass
    mortal.kill()
    _silence(stage, staying, [patient], lambda: patient.step() == "held")
    assert patient.run() == "held", "L5: the dead waiter holds up those behind it"
    assert patient.hold is not None
    assert patient.hold.claim_id in stage.held()
    client.release(patient.hold)


@scenario("L5-middle-waiter-killed")
def middle_waiter_killed(stage: Stage) -> None:
    """A middle waiter is killed (kill -9): the waiter behind it gets the lock only once the holders leave."""
    leases = stage.fill(ttl=stage.long_ttl)
    middle = stage.child(lambda parent: _waits(stage, parent))
    assert middle.hear() == "queued"
    (client,) = steppers(stage, 1)
    behind = queued(stage, client)
    middle.kill()

    def alone() -> bool:
        assert behind.run() == "waiting", "S2: granted although the holders stand"
        return behind.position == len(leases)  # nobody else is ahead

    _silence(stage, leases, [behind], alone)
    stage.until(alone, "L5: the dead waiter's claim goes")
    behind.watch()
    for lease in leases:
        lease.release()
    stage.until(lambda: behind.woken, "the watch notices that the blockers left")
    assert behind.run() == "held"
    assert behind.hold is not None
    client.release(behind.hold)


@scenario("L3-waiting-claim-dies")
def waiting_claim_dies(stage: Stage) -> None:
    """A waiter whose claim dies, as with its session, queues again; the dead claim never counts as held."""
    leases = stage.fill()
    waiting = stage.waiting(stage.newcomer(stage.client()))
    dead = stage.stored()[len(leases)].claim_id
    stage.harness.forget(stage.name, dead)

    def again() -> bool:
        queue = [row.claim_id for row in stage.stored()]
        return dead not in queue and len(queue) == len(leases) + 1

    stage.until(again, "it queues again", POLL_CAP + HAND_OFF)
    assert not waiting.done
    for lease in leases:
        lease.release()
    successor = waiting.result()
    assert successor.claim_id != dead
    successor.confirm()
    assert successor.claim_id in stage.held()
