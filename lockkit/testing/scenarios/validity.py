"""S3, S5, S6, L6: when a lease is valid, how it is lost, and that nothing brings it back."""

from __future__ import annotations

import threading
from typing import Any

from lockkit.errors import ConfigError, LeaseLost, NotHeld
from lockkit.facts import Owner
from lockkit.store.spi import Claim
from lockkit.sync.lease import Lease
from lockkit.testing.faults import black_hole, delay_reply, drop_reply, refuse, slow
from lockkit.testing.scenarios.queueing import steppers
from lockkit.testing.shapes import MUTEX, READERS
from lockkit.testing.stage import PATIENCE, NotApplicable, Stage, scenario

__all__ = ["Losses", "extendable"]


class Losses:
    """How often a loss was told."""

    def __init__(self) -> None:
        self.count = 0
        self.told = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.told.set()


def paused(stage: Stage, **options: Any) -> tuple[Lease, Losses]:
    """A holder that is not renewed, as if its process were stopped."""
    losses = Losses()
    lock = stage.holder(stage.client(), ttl=stage.harness.ttl, on_lost=losses, auto_renew=False, **options)
    return stage.take(lock), losses


def extendable(stage: Stage) -> None:
    """Play on only where there is an ``extend``; that there is none elsewhere is shown by CAP-extend."""
    if stage.harness.capabilities.fixed_ttl:
        raise NotApplicable("a claim's ttl is fixed on this store")


@scenario("S3-paused-past-ttl")
def paused_past_ttl(stage: Stage) -> None:
    """The first ``valid()`` after a pause longer than the ttl is False; the successor is left alone."""
    lease, losses = paused(stage)
    assert lease.valid()
    assert 0 < lease.remaining() <= stage.harness.ttl
    stage.harness.advance(stage.harness.ttl)
    assert not lease.valid(), "S3: valid after its ttl"
    assert lease.remaining() == 0
    stage.harness.outlast(0.0)
    successors = stage.fill()
    assert all(successor.fence > lease.fence for successor in successors)
    before = stage.stored()
    error = stage.work(lease.ensure_held).error()
    assert isinstance(error, LeaseLost)
    error = stage.work(lease.confirm).error()
    assert isinstance(error, LeaseLost), "S5: confirmed although somebody else holds it"
    assert lease.release().outcome == "LOST"
    assert stage.unchanged(before), "S1: the successor was touched"
    assert losses.told.wait(PATIENCE)
    assert losses.count == 1, "S6: told more than once"
    for successor in successors:
        successor.confirm()


@scenario("S3-ends-before-the-store")
def ends_before_the_store(stage: Stage) -> None:
    """Validity ends no later than the store's own deadline, which began no earlier than the basis."""
    lease, _ = paused(stage)
    (row,) = stage.stored()
    assert row.deadline is not None
    assert stage.harness.clock.now() + lease.remaining() <= row.deadline + 1e-3
    lease.confirm()
    (later,) = stage.stored()
    assert later.deadline is not None
    assert row.surely is not None
    assert later.deadline >= row.surely
    assert stage.harness.clock.now() + lease.remaining() <= later.deadline + 1e-3


@scenario("S5-nobody-came")
def nobody_came(stage: Stage) -> None:
    """A lapsed claim stays lost even if no other client came; a new acquire gets a larger fence."""
    lease, losses = paused(stage)
    client = stage.client()
    terms = stage.shape.holders[0].terms(stage.name, client.owner, ttl=stage.harness.ttl)
    claim = Claim(lease.token, terms)
    stage.harness.outlast(stage.harness.ttl)
    backend = stage.backend()
    assert backend.renew([(claim, lease.fence)], 2.0)[0].state == "LOST"
    assert backend.extend(claim, lease.fence, stage.harness.ttl * 2, 2.0).state == "LOST"
    assert isinstance(stage.work(lease.confirm).error(), LeaseLost)
    if not stage.harness.capabilities.fixed_ttl:
        assert isinstance(stage.work(lambda: lease.extend(stage.harness.ttl * 2)).error(), LeaseLost)
    assert not lease.valid()
    assert stage.stored() == []
    again = stage.take(stage.holder(client))
    assert again.fence > lease.fence
    assert losses.told.wait(PATIENCE)
    assert losses.count == 1


@scenario("S5-late-grant")
def late_grant(stage: Stage) -> None:
    """A grant that is read after its basis has run out grants nothing; the next try gets a larger fence."""
    client, faults = stage.faulty()
    terms = stage.shape.holders[0].terms(stage.name, Owner(), ttl=stage.harness.ttl)
    (stepper,) = steppers(stage, 1)
    stepper.backend = client.driver().backend
    first: list[int] = []

    def meanwhile() -> None:
        first.extend(row.fence for row in stage.stored())
        stage.harness.advance(stage.harness.ttl)

    faults.add("acquire", delay_reply(meanwhile))
    pending = stepper.acquire(terms)
    assert pending.run() == "held"
    assert pending.hold is not None
    assert pending.hold.fence > first[0], "S5: it took the grant that had run out"
    assert len(stage.stored()) == 1, "L4: the first grant is still there"
    stepper.release(pending.hold)


@scenario("S5-late-renewal-answer")
def late_renewal_answer(stage: Stage) -> None:
    """An answer to a renewal that is read after the hold ran out does not extend it."""
    client, faults = stage.faulty()
    (stepper,) = steppers(stage, 1)
    stepper.backend = client.driver().backend
    terms = stage.shape.holders[0].terms(stage.name, Owner(), ttl=stage.harness.ttl)
    pending = stepper.acquire(terms)
    assert pending.hold is not None
    faults.add("renew", delay_reply(lambda: stage.harness.advance(stage.harness.ttl)))
    stepper.beat([pending])
    assert not pending.hold.valid(stage.harness.clock.now())
    assert stepper.lost == [pending.hold], "S6: the loss is told, once"
    stepper.beat([pending])
    assert stepper.lost == [pending.hold]
    stepper.remove_orphans(due_only=False)
    assert stage.stored() == [], "S11: it was lost and is still there"


@scenario("S6-failed-renewal-is-not-loss", (MUTEX, READERS))
def failed_renewal(stage: Stage) -> None:
    """Renewals that fail now and then are not a loss as long as one succeeds in time."""
    client, faults = stage.faulty()
    losses = Losses()
    ttl = stage.lasting(3)
    lease = stage.take(stage.holder(client, ttl=ttl, on_lost=losses))
    before = client.stats()["renewals"]
    faults.add("renew", refuse)
    faults.add("renew", drop_reply, skip=1)
    stage.until(lambda: client.stats()["renewals"] >= before + 3, "three renewals get through")
    assert lease.valid()
    assert losses.count == 0
    assert not lease.lost.is_set()


@scenario("S6-short-beside-long", (MUTEX,))
def short_beside_long(stage: Stage) -> None:
    """A slow answer may cost a hold with a short ttl, but not the client's other holds with a longer ttl."""
    if stage.harness.capabilities.fixed_ttl:
        raise NotApplicable("all claims of a client have one ttl on this store")
    client, faults = stage.faulty()
    short = stage.lasting(least=0.6)
    long = 4 * short
    losses = Losses()
    leases = [stage.take(client.lock(f"kit/long-{at}", ttl=long, on_lost=losses)) for at in range(2)]
    faults.always(slow(0.4 * short), "renew")
    over = threading.Event()

    def haste(at: int) -> int:
        lost = 0
        over.wait(at * short / 12)  # so that one of them is due whenever a long one is
        while not over.is_set():
            lease = client.lock(f"kit/short-{at}", ttl=short).acquire(10.0)
            lost += lease.lost.wait(short * 2)
            lease.release()
        return lost

    hasty = [stage.work(lambda at=at: haste(at)) for at in range(12)]  # type: ignore[misc]
    stage.steady(lambda: losses.count == 0, "S6: it was not renewed for the haste of another", 2 * long)
    over.set()
    assert all(work.result() for work in hasty), "the answers were not slow enough to show anything"
    assert all(lease.valid() for lease in leases)


@scenario("S6-silence-is-loss")
def silence_is_loss(stage: Stage) -> None:
    """If a store swallows renewals, the loss is reported at the deadline, though a renewal still hangs."""
    client, faults = stage.faulty()
    losses = Losses()
    ttl = stage.harness.short_ttl
    lease = stage.take(stage.holder(client, ttl=ttl, on_lost=losses))
    faults.always(black_hole, "renew")
    with stage.within(ttl + 1.0, "noticing the silence"):
        assert lease.lost.wait(PATIENCE)
    assert not lease.valid()
    assert losses.told.wait(PATIENCE)
    faults.heal()
    stage.until(lambda: stage.stored() == [], "S11: the lost claim is removed")
    lease.on_lost(losses)  # told late: at once, and once
    stage.until(lambda: losses.count == 2, "a late listener is told")
    report = lease.release()
    assert losses.count == 2
    assert report.outcome in ("LOST", "RELEASED")
    assert client.stats()["lost"] == 1


@scenario("S11-link-heals-after-loss")
def heals_after_loss(stage: Stage) -> None:
    """Renewals arrive but no answer returns: the hold is LOST, the claim removed, though its client lives."""
    client, faults = stage.faulty()
    lives = min(3 * stage.harness.ttl, stage.harness.capabilities.max_ttl)  # through the time without answers
    other = stage.take(stage.shape.holders[0].lock(client, "kit/other", ttl=lives))
    ttl = stage.lasting()
    lease = stage.take(stage.holder(client, ttl=ttl, lock_delay=0.0))
    faults.always(drop_reply, "renew")
    faults.always(black_hole, "release", "abandon")
    assert lease.lost.wait(PATIENCE)
    assert lease.claim_id in stage.held(), "the store was told to renew it up to now"
    faults.heal()
    with stage.within(ttl + 1.0, "removing what its client does not stand behind"):
        stage.until(lambda: stage.stored() == [], "S11: the lost claim is removed")
    assert other.valid()
    other.confirm()


@scenario("S11-crashed-beside-the-living")
def crashed_beside_the_living(stage: Stage) -> None:
    """The claims of a vanished client end with their ttl, though other clients of its process live on."""
    dead, alive = stage.client(), stage.client()
    stage.take(stage.holder(dead, ttl=stage.harness.ttl))
    living = stage.take(stage.shape.holders[0].lock(alive, "kit/other", ttl=3 * stage.harness.ttl))
    stage.harness.crash(dead)
    stage.harness.outlast(stage.harness.ttl + stage.harness.slack)
    living.confirm()
    assert stage.stored() == []
    stage.fill()


@scenario("S6-evicted")
def evicted(stage: Stage) -> None:
    """An evicted holder stops being valid before the next is granted, and is told once, with the reason."""
    losses = Losses()
    lease = stage.take(stage.holder(stage.client(), ttl=stage.lasting(2), on_lost=losses))
    rest = [stage.take(stage.holder(stage.client(), at)) for at in range(1, len(stage.shape.holders))]
    waiting = stage.waiting(stage.newcomer(stage.client()))
    result = stage.client().evict(stage.name, lease.claim_id, reason="kit")
    assert result.outcome == "MARKED"
    for other in rest[: stage.shape.leaves - 1]:
        other.release()
    waiting.result()
    assert not lease.valid(), "S3: valid although the next one holds"
    assert losses.told.wait(PATIENCE)
    assert losses.count == 1
    assert lease.lost_because in ("evicted", "lost")
    waiting.result().release()


@scenario("S6-evicted-waiter")
def evicted_waiter(stage: Stage) -> None:
    """An evicted waiter loses its place; it queues again at the tail under a new token, or is told."""
    stage.fill()
    client = stage.client()
    waiting = stage.waiting(stage.newcomer(client))
    (row,) = [row for row in stage.stored() if row.state != "HELD"]
    assert stage.client().evict(stage.name, row.claim_id, reason="kit").outcome == "REMOVED"
    stage.until(
        lambda: (
            waiting.done or [r for r in stage.stored() if r.state != "HELD" and r.claim_id != row.claim_id]
        ),
        "it queues again or gives up",
    )
    assert row.claim_id not in [claim.claim_id for claim in stage.stored()]


@scenario("S3-evict-now")
def evict_now(stage: Stage) -> None:
    """``now=True`` removes exactly that claim; the holder learns it with its next request to the store."""
    leases = stage.fill()
    assert stage.client().evict(stage.name, "0" * 12, reason="kit", now=True).outcome == "ABSENT"
    assert len(stage.held()) == len(leases)
    assert stage.client().evict(stage.name, leases[0].claim_id, reason="kit", now=True).outcome == "REMOVED"
    assert stage.held() == [lease.claim_id for lease in leases[1:]]
    assert isinstance(stage.work(leases[0].confirm).error(), LeaseLost)
    assert not leases[0].valid()
    for lease in leases[1:]:
        lease.confirm()


@scenario("S3-extend")
def extend(stage: Stage) -> None:
    """``extend`` lengthens the hold from now on; less than the present ttl is refused without a request."""
    extendable(stage)
    client, faults = stage.faulty()
    ttl = stage.harness.ttl
    lease = stage.take(stage.holder(client, ttl=ttl, auto_renew=False))
    faults.log.clear()
    assert isinstance(stage.work(lambda: lease.extend(ttl / 2)).error(), ConfigError)
    assert faults.log == []
    lease.extend(2 * ttl)
    assert lease.ttl == 2 * ttl
    stage.harness.advance(1.5 * ttl)
    assert lease.valid()
    assert lease.claim_id in stage.held()
    lease.confirm()
    stage.harness.advance(1.5 * ttl)
    assert lease.valid(), "a confirmation uses the longer ttl"
    lease.release()
    assert isinstance(stage.work(lambda: lease.extend(3 * ttl)).error(), NotHeld)


@scenario("S3-no-auto-renew", (MUTEX, READERS))
def no_auto_renew(stage: Stage) -> None:
    """A lease without auto_renew is not renewed; after its ttl it is lost and its claim is removed."""
    losses = Losses()
    client, faults = stage.faulty()
    lease = stage.take(stage.holder(client, ttl=stage.harness.short_ttl, auto_renew=False, on_lost=losses))
    assert losses.told.wait(PATIENCE)
    assert "renew" not in faults.log
    assert not lease.valid()
    stage.until(lambda: stage.stored() == [], "it is removed")


@scenario("S3-renewed", (MUTEX, READERS))
def renewed(stage: Stage) -> None:
    """A renewed lease outlives its ttl many times over."""
    client = stage.client()
    ttl = stage.lasting(least=1.5)
    lease = stage.take(stage.holder(client, ttl=ttl))
    stage.steady(lease.valid, "S3: it must stay valid while it is renewed", 2.5 * ttl)
    assert client.stats()["renewals"] >= 3
    assert client.stats()["lost"] == 0
    assert lease.claim_id in stage.held()
