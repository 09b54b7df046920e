"""S3, S4, L1, L6: process-bound holds, max_hold, min_hold, lock_delay, and fences over all of them."""

from __future__ import annotations

from lockkit.errors import BackendUnavailable, LeaseLost
from lockkit.facts import Owner
from lockkit.store.spi import RELEASED, Claim
from lockkit.testing.faults import delay_reply, interrupt
from lockkit.testing.scenarios.queueing import steppers
from lockkit.testing.scenarios.validity import Losses, paused
from lockkit.testing.stage import PATIENCE, Stage, scenario

__all__ = ["fence"]


@scenario("S3-process-bound-silence", needs=("process_bound",))
def process_bound(stage: Stage) -> None:
    """A silent process-bound hold (Ctrl-Z, a sleeping laptop) is not valid meanwhile, and is not lost."""
    lease, losses = paused(stage, process_bound=True)
    stage.harness.advance(5 * stage.harness.ttl)
    assert not lease.valid()
    assert lease.claim_id in stage.held()
    full = [stage.holder(stage.client(), at) for at in range(1, len(stage.shape.holders))]
    rest = [stage.take(lock) for lock in full]
    assert stage.newcomer(stage.client()).try_acquire() is None
    lease.confirm()
    assert lease.valid()
    assert losses.count == 0
    assert not lease.lost.is_set()
    fence = lease.fence
    assert lease.release().outcome == "RELEASED"
    assert all(other.fence > fence for other in rest)


@scenario("S3-process-bound-later", needs=("process_bound",))
def process_bound_later(stage: Stage) -> None:
    """A claim that ``extend`` makes process-bound outlasts silence; a later plain ``extend`` keeps that."""
    lease, _ = paused(stage)
    backend, ttl = stage.backend(), stage.harness.ttl
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=ttl)
    bound = Claim(lease.token, terms._replace(process_bound=True))
    assert backend.extend(bound, lease.fence, ttl, 2.0).state == "HELD"
    assert backend.extend(Claim(lease.token, terms), lease.fence, ttl, 2.0).state == "HELD"
    (before,) = [claim for claim in stage.client().inspect(stage.name).claims if claim.state == "HELD"]
    assert (before.process_bound, before.deadline) == (True, None)
    stage.harness.advance(5 * ttl)
    assert lease.claim_id in stage.held()
    assert backend.renew([(bound, lease.fence)], 2.0)[0].state == "HELD"
    assert backend.release(bound, 2.0) == RELEASED
    assert stage.stored() == []


@scenario("S3-process-bound-evict", needs=("process_bound",))
def process_bound_evicted(stage: Stage) -> None:
    """An evicted process-bound hold is lost, and blocks for the ttl after its last renewal."""
    lease, _ = paused(stage, process_bound=True)
    result = stage.client().evict(stage.name, lease.claim_id, reason="kit")
    assert result.outcome == "MARKED"
    assert lease.claim_id in stage.held(), "its holder may still believe in it"
    stage.harness.outlast(stage.harness.ttl)
    assert stage.stored() == []
    stage.fill()
    assert isinstance(stage.work(lease.confirm).error(), LeaseLost)


@scenario("L6-max-hold")
def max_hold(stage: Stage) -> None:
    """max_hold ends a forgotten hold although it is renewed, reports it, and lets the next waiter in."""
    losses = Losses()
    ttl = stage.lasting(least=1.5)
    limit = 1.5 * ttl
    client = stage.client()
    lease = stage.take(stage.holder(client, ttl=ttl, max_hold=limit, on_lost=losses))
    rest = [stage.take(stage.holder(stage.client(), at)) for at in range(1, len(stage.shape.holders))]
    waiting = stage.waiting(stage.newcomer(stage.client()))
    for other in rest[: stage.shape.leaves - 1]:
        other.release()
    with stage.within(limit + 2.5, "ending the forgotten hold"):
        waiting.result()
    assert not lease.valid()
    assert losses.told.wait(PATIENCE)
    assert lease.lost_because == "max_hold"
    assert losses.count == 1


@scenario("L6-over-before-it-begins")
def over_before_it_begins(stage: Stage) -> None:
    """A grant that ran out before use is asked for again only after a pause, and leaves nothing."""
    client, faults = stage.faulty()
    short = 0.01
    (stepper,) = steppers(stage, 1)
    stepper.backend = client.driver().backend
    few = 4
    faults.add("acquire", interrupt(AssertionError(f"{few} claims and no pause")), skip=few)
    faults.always(delay_reply(lambda: stage.harness.advance(2 * short)), "acquire")
    terms = stage.shape.holders[0].terms(stage.name, Owner(), ttl=stage.harness.ttl, max_hold=short)
    pending = stepper.acquire(terms)
    for _ in range(few - 1):
        assert pending.state == "paused", pending.error or f"{pending.state}: it goes on without a pause"
        pending.step()
    assert pending.state == "paused"
    pending.cancel()
    stepper.remove_orphans(due_only=False)
    assert stage.stored() == [], "L4: a grant of no use is still there"


@scenario("L6-over-is-told")
def over_is_told(stage: Stage) -> None:
    """When every grant runs out before use, a try raises an error that says so, in bounded time."""
    client, faults = stage.faulty(request_timeout=stage.harness.request_timeout)
    lock = stage.holder(client, max_hold=0.01)
    faults.always(delay_reply(lambda: stage.harness.advance(0.02)), "acquire")
    error = stage.work(lock.try_acquire).error()
    assert isinstance(error, BackendUnavailable), f"{error!r} was told"
    assert "ran out before it could be used" in str(error)
    assert "max_hold" in str(error.hint)
    assert faults.log.count("acquire") > 1, "it was asked for once only"
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: a grant of no use is removed")


@scenario("L6-max-hold-from-grant")
def max_hold_from_grant(stage: Stage) -> None:
    """max_hold counts from the grant, also if the session or lease under the claim is older."""
    client = stage.client()
    with stage.holder(client, name=f"{stage.name}/before", ttl=stage.harness.ttl).acquire(5.0):
        stage.harness.advance(0.45 * stage.harness.ttl)
    limit = 0.4 * stage.harness.ttl
    before = stage.harness.clock.now()
    lease = stage.kept(stage.holder(client, ttl=stage.harness.ttl, max_hold=limit).acquire(5.0))
    left, spent = lease.remaining(), stage.harness.clock.now() - before
    assert left >= limit * (1.0 - stage.harness.capabilities.drift) - spent - 0.01, (
        f"L6: {left:g} s are left of a max_hold of {limit:g} s, {spent:g} s after it was asked for"
    )


@scenario("L6-max-hold-process-bound", needs=("process_bound",))
def max_hold_process_bound(stage: Stage) -> None:
    """max_hold ends a process-bound hold as well."""
    lease, _ = paused(stage, process_bound=True, max_hold=2 * stage.harness.ttl)
    stage.harness.advance(1.9 * stage.harness.ttl)
    lease.confirm()
    assert lease.valid()
    stage.harness.advance(0.2 * stage.harness.ttl)
    assert not lease.valid()
    assert stage.stored() == []
    assert isinstance(stage.work(lease.confirm).error(), LeaseLost)


@scenario("S2-min-hold", needs=("min_hold",))
def min_hold(stage: Stage) -> None:
    """A lock that is released early stays blocked until min_hold after its grant, and no longer."""
    span = stage.harness.ttl / 2
    leases = stage.fill(min_hold=span)
    for lease in leases:
        assert lease.release().outcome == "RELEASED"
    assert stage.newcomer(stage.client()).try_acquire() is None, "min_hold did not block"
    assert {row.state for row in stage.stored()} == {"LINGERING"}
    for lease in leases:
        assert not lease.valid()
    stage.harness.outlast(span)
    again = stage.take(stage.newcomer(stage.client()))
    assert again.fence > max(lease.fence for lease in leases)


@scenario("S2-min-hold-over", needs=("min_hold",))
def min_hold_over(stage: Stage) -> None:
    """A claim that is released after its min_hold blocks no longer, however short that was."""
    short = 0.001
    leases = stage.fill(min_hold=short)
    stage.harness.advance(10 * short)
    for lease in leases:
        assert lease.release().outcome == "RELEASED"
    assert stage.stored() == [], "it goes on blocking after its min_hold"
    stage.take(stage.newcomer(stage.client()))


@scenario("S2-min-hold-of-the-dead", needs=("min_hold",))
def min_hold_of_the_dead(stage: Stage) -> None:
    """min_hold runs to its end although its owner dies, the claim was released, and others looked at it."""
    span = 1.5 * stage.harness.ttl
    mortal = stage.client()
    stage.take(stage.holder(mortal, ttl=stage.harness.ttl, min_hold=span))
    stage.harness.crash(mortal)
    stage.harness.advance(stage.harness.ttl * 1.1)
    rest = [stage.holder(stage.client(), at).try_acquire() for at in range(1, len(stage.shape.holders))]
    assert stage.newcomer(stage.client()).try_acquire() is None, "the death of its owner ended min_hold"
    stage.harness.outlast(span - stage.harness.ttl)
    for lease in rest:
        assert lease is not None
        lease.release()
    stage.take(stage.newcomer(stage.client()))


@scenario("S2-lock-delay", needs=("lock_delay",))
def lock_delay(stage: Stage) -> None:
    """The lock stays blocked for lock_delay after an ungraceful end, and not after a release."""
    delay = stage.harness.ttl / 2
    for lease in stage.fill(lock_delay=delay):
        lease.release()
    assert stage.stored() == [], "a graceful release must not be delayed"
    mortal = stage.client()
    stage.take(stage.holder(mortal, ttl=stage.harness.ttl, lock_delay=delay))
    stage.harness.crash(mortal)
    longer = 3 * stage.harness.ttl
    others = range(1, len(stage.shape.holders))
    rest = [stage.take(stage.holder(stage.client(), at, ttl=longer)) for at in others]
    stage.harness.advance(stage.harness.ttl * 1.1)
    assert stage.newcomer(stage.client()).try_acquire() is None, "the quiet time is missing"
    stage.harness.outlast(delay)
    for lease in rest:
        lease.release()
    stage.take(stage.newcomer(stage.client()))


@scenario("S2-lock-delay-evict", needs=("lock_delay",))
def lock_delay_evict(stage: Stage) -> None:
    """The lock stays blocked for lock_delay after an eviction, although the evicted holder releases it."""
    delay = stage.harness.ttl / 3
    leases = stage.fill(lock_delay=delay, auto_renew=False)
    for lease in leases:
        stage.client().evict(stage.name, lease.claim_id, reason="kit")
        lease.release()
    assert stage.newcomer(stage.client()).try_acquire() is None, "the quiet time is missing"
    stage.harness.outlast(delay)
    stage.take(stage.newcomer(stage.client()))


@scenario("S4-fence-rises")
def fence(stage: Stage) -> None:
    """Fences rise across release, expiry, eviction, and reopening of the store."""
    seen: list[int] = []
    for end in ("release", "expire", "evict", "reopen", "last"):
        client = stage.harness.client()
        lease = stage.holder(client, ttl=stage.harness.ttl, auto_renew=False).try_acquire()
        assert lease is not None, f"before {end}"
        seen.append(lease.fence)
        if end == "expire":
            stage.harness.outlast(stage.harness.ttl)
        elif end == "evict":
            client.evict(stage.name, lease.claim_id, reason="kit", now=True)
        lease.release()
        client.close()
    assert seen == sorted(set(seen)), f"S4: {seen}"
    assert seen[-1] < 2**63, "a fence fits a BIGINT"


@scenario("S4-fence-per-arrival")
def fence_per_arrival(stage: Stage) -> None:
    """Claims that share the lock have different fences, in the order in which they arrived."""
    fences = [lease.fence for lease in stage.fill()]
    assert fences == sorted(set(fences))


@scenario("S2-min-hold-by-copy", needs=("min_hold",))
def min_hold_by_copy(stage: Stage) -> None:
    """A release by a copied handle, which does not know min_hold and lock_delay, obeys both."""
    span = stage.harness.ttl / 2
    leases = stage.fill(min_hold=span)
    waiting = stage.waiting(stage.newcomer(stage.client()))
    other = stage.client()
    for lease in leases:
        assert other.adopt(lease.handle()).release().outcome == "RELEASED"
    stage.steady(lambda: not waiting.done, "min_hold did not block", 0.1)
    assert [row.state for row in stage.stored()][: len(leases)] == ["LINGERING"] * len(leases)
