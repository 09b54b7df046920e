"""S12 and the ambiguous rows: answers that are lost, requests that arrive late or twice."""

from __future__ import annotations

from lockkit.errors import AcquireTimeout, BackendError
from lockkit.facts import Owner
from lockkit.store.spi import RELEASED, Busy, Claim, Granted, Queued
from lockkit.testing.faults import Faults, FaultyBackend, drop_reply, drop_request, duplicate, late_copy
from lockkit.testing.scenarios.validity import extendable
from lockkit.testing.shapes import Part
from lockkit.testing.stage import Stage, scenario
from lockkit.testing.stepping import Pending, Stepper

__all__ = ["faulty_stepper"]


def faulty_stepper(stage: Stage) -> tuple[Stepper, Faults]:
    """A client driven by hand whose calls meet faults."""
    faults = Faults()
    backend = FaultyBackend(stage.backend(), faults)
    return Stepper(backend, stage.harness.clock), faults


def acquire(stage: Stage, stepper: Stepper, part: Part | None = None, *, wait: bool = True) -> Pending:
    """Acquire by hand, through every retry."""
    terms = (part or stage.shape.holders[0]).terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    pending = stepper.acquire(terms, wait=wait)
    if pending.state == "paused":
        pending.run()
    return pending


@scenario("S12-acquire-reply-lost")
def acquire_reply_lost(stage: Stage) -> None:
    """A replayed acquire finds the same claim with the same fence; it is never busy with itself."""
    for wait in (True, False):
        for times in (1, 3):
            stepper, faults = faulty_stepper(stage)
            faults.add("acquire", drop_reply, times=times)
            pending = acquire(stage, stepper, wait=wait)
            assert pending.hold is not None, f"{pending.state} with nobody else there: {pending.error}"
            (row,) = stage.stored()
            assert (row.claim_id, row.fence) == (pending.hold.claim_id, pending.hold.fence)
            assert stepper.release(pending.hold).outcome == "RELEASED"
            assert stage.stored() == []


@scenario("S12-acquire-request-lost")
def acquire_request_lost(stage: Stage) -> None:
    """A request that never arrived is sent again, and makes one claim."""
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", drop_request, times=2)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    assert len(stage.stored()) == 1
    stepper.release(pending.hold)
    assert stage.stored() == []


@scenario("S12-queued-reply-lost")
def queued_reply_lost(stage: Stage) -> None:
    """The reply to an acquire that has to wait is lost: the replay finds the same claim in the same place."""
    stage.fill()
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", drop_reply, times=2)
    pending = acquire(stage, stepper, stage.shape.newcomer)
    assert pending.state == "waiting"
    faults.add("acquire", drop_reply)
    assert pending.run() == "waiting"
    assert [row.claim_id for row in stage.stored() if row.state != "HELD"] == [pending.claim_id]
    pending.cancel()
    stepper.remove_orphans()
    assert pending.claim_id not in [row.claim_id for row in stage.stored()]


@scenario("S12-busy-after-unknown")
def busy_after_unknown(stage: Stage) -> None:
    """A refusal after a try with unknown outcome leaves nothing, and no copy of the try grants anything."""
    leases = stage.fill()
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", drop_reply)
    pending = acquire(stage, stepper, stage.shape.newcomer, wait=False)
    assert pending.state == "busy"
    for lease in leases:
        lease.release()
    stepper.remove_orphans()
    assert stage.stored() == []


@scenario("S12-late-after-giving-up")
def late_after_giving_up(stage: Stage) -> None:
    """Copies of an acquire arrive after it was given up: they grant nothing."""
    stepper, faults = faulty_stepper(stage)
    faults.always(late_copy, "acquire")
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    pending = stepper.acquire(terms, timeout=0.1)
    while not pending.over:
        stage.harness.advance(0.3)
        pending.step()
    assert isinstance(pending.error, BackendError | AcquireTimeout)
    assert faults.late
    late, faults.late = faults.late, []
    faults.heal()
    stepper.remove_orphans(due_only=False)
    faults.late = late
    for answer in faults.deliver():
        assert not isinstance(answer, Granted | Queued), "S12: a late copy took a place"
    assert stage.stored() == []
    stage.fill()


@scenario("S12-late-after-success")
def late_after_success(stage: Stage) -> None:
    """The first copy of an acquire arrives after its replay was granted and released: it grants nothing."""
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", late_copy, times=2)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    assert stepper.release(pending.hold).outcome == "RELEASED"
    for answer in faults.deliver():
        assert not isinstance(answer, Granted | Queued), "S12: a late copy took a place"
    assert stage.stored() == []
    successors = stage.fill()
    assert all(lease.fence > pending.hold.fence for lease in successors)


@scenario("S12-late-after-busy")
def late_after_busy(stage: Stage) -> None:
    """The first copy of a try arrives after its replay was refused: it grants nothing."""
    leases = stage.fill()
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", late_copy)
    pending = acquire(stage, stepper, stage.shape.newcomer, wait=False)
    assert pending.state == "busy"
    for lease in leases:
        lease.release()
    stepper.remove_orphans()
    for answer in faults.deliver():
        assert not isinstance(answer, Granted | Queued), "S12: a late copy took a place"
    assert stage.stored() == []


@scenario("S12-duplicated-acquire")
def duplicated_acquire(stage: Stage) -> None:
    """A request that arrives twice makes one claim; while held, the copy changes only its deadline."""
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", duplicate)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    (before,) = stage.stored()
    faults.deliver()
    (after,) = stage.stored()
    assert (after.claim_id, after.fence, after.state) == (before.claim_id, before.fence, "HELD")
    stepper.release(pending.hold)
    assert stage.stored() == []


@scenario("S7-release-reply-lost")
def release_reply_lost(stage: Stage) -> None:
    """The reply to a release is lost and a successor holds: RELEASED, and the successor is untouched."""
    stepper, faults = faulty_stepper(stage)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    before = []

    def meanwhile(faults: Faults, send: object, budget: float) -> None:
        drop = drop_reply
        try:
            drop(faults, send, budget)  # type: ignore[arg-type]
        finally:
            stage.fill()
            before.extend(stage.stored())

    faults.add("release", meanwhile)
    report = stepper.release(pending.hold)
    assert report.outcome == "RELEASED"
    assert stage.unchanged(before), "S1: the successor was touched"
    assert stepper.orphans == []


@scenario("S7-release-request-lost")
def release_request_lost(stage: Stage) -> None:
    """A release that never arrived is sent again."""
    stepper, faults = faulty_stepper(stage)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    faults.add("release", drop_request, times=2)
    assert stepper.release(pending.hold).outcome == "RELEASED"
    assert stage.stored() == []


@scenario("S7-late-release")
def late_release(stage: Stage) -> None:
    """Copies of releases that arrive after the lock was taken again, even by their client, touch nothing."""
    stepper, faults = faulty_stepper(stage)
    first = acquire(stage, stepper)
    assert first.hold is not None
    for method in ("release", "emergency_release", "abandon"):
        faults.add(method, duplicate)
    stepper.release(first.hold)
    again = acquire(stage, stepper)
    assert again.hold is not None
    before = stage.stored()
    faults.deliver()
    assert stage.unchanged(before)
    assert stepper.release(again.hold).outcome == "RELEASED"


@scenario("S5-late-renewal")
def late_renewal(stage: Stage) -> None:
    """Copies of renewals that arrive after the release bring nothing back."""
    stepper, faults = faulty_stepper(stage)
    pending = acquire(stage, stepper)
    assert pending.hold is not None
    faults.add("renew", duplicate)
    stepper.beat([pending])
    stepper.release(pending.hold)
    (answer,) = faults.deliver()
    assert [renewal.state for renewal in answer] == ["LOST"]
    assert stage.stored() == [], "S5: a late renewal brought the claim back"


@scenario("S3-late-renewal-shortens-nothing")
def late_renewal_shortens_nothing(stage: Stage) -> None:
    """A copy of an older renewal that arrives after a newer one, or after an extension, shortens nothing.

    Nor does a shorter extension: of two threads that extend a lease, the first to ask may hear last.
    """
    extendable(stage)
    stepper, faults = faulty_stepper(stage)
    pending = acquire(stage, stepper)
    hold = pending.hold
    assert hold is not None
    faults.add("renew", duplicate)
    stepper.beat([pending])
    stage.harness.advance(stage.harness.ttl / 3)
    backend = stage.backend()
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    assert (
        backend.extend(Claim(hold.claim.token, terms), hold.fence, 3 * stage.harness.ttl, 2.0).state == "HELD"
    )
    (before,) = stage.stored()
    faults.deliver()
    (after,) = stage.stored()
    assert before.surely is not None
    assert after.deadline is not None
    assert after.deadline >= before.surely, "a late renewal shortened the claim"
    assert after.surely is not None
    ttl = stage.harness.ttl
    assert backend.extend(Claim(hold.claim.token, terms), hold.fence, 2 * ttl, 2.0).state == "HELD"
    stage.harness.advance(ttl / 3)
    for _ in range(2):  # the first may only find out that it was extended elsewhere
        stepper.beat([pending])
    (last,) = stage.stored()
    assert last.deadline is not None
    assert last.deadline >= after.surely + ttl / 4, "a shorter extension shortened the claim"
    stepper.release(hold)


@scenario("S12-abandon-first")
def abandon_first(stage: Stage) -> None:
    """A claim is abandoned before its acquire arrives: the acquire then grants nothing."""
    stepper, faults = faulty_stepper(stage)
    faults.add("acquire", late_copy)
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    pending = stepper.acquire(terms)
    assert pending.state == "paused"
    pending.cancel()
    assert stepper.remove_orphans() == 1
    for answer in faults.deliver():
        assert not isinstance(answer, Granted | Queued), "S12: a late copy took a place"
    assert stage.stored() == []


@scenario("S1-idempotent-calls")
def idempotent_calls(stage: Stage) -> None:
    """Each call of the interface can be sent again: same claim, same fence, no second effect."""
    backend = stage.backend()
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    claim = Claim("a" * 32, terms)
    first, second = backend.acquire(claim, True, 2.0), backend.acquire(claim, True, 2.0)
    assert isinstance(first, Granted)
    assert isinstance(second, Granted), "busy with itself"
    assert first.fence == second.fence
    assert second.basis >= first.basis
    tried = backend.acquire(Claim(claim.token, terms, wait=False), True, 2.0)
    assert not isinstance(tried, Busy), "busy with itself"
    assert backend.release(claim, 2.0) == RELEASED
    assert backend.release(claim, 2.0) == "ABSENT"
    assert stage.stored() == []
