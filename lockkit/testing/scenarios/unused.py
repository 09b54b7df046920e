"""S2: a grant under which nobody has worked blocks no longer, and one that was used does."""

from __future__ import annotations

from lockkit.errors import AcquireTimeout
from lockkit.facts import Owner
from lockkit.notes.members import pool_name
from lockkit.testing.faults import drop_reply, interrupt_after, refuse
from lockkit.testing.interrupts import CtrlC
from lockkit.testing.scenarios.ambiguity import faulty_stepper
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario

__all__: list[str] = []


@scenario("S2-unused-together", needs=("min_hold",))
def together(stage: Stage) -> None:
    """A lock that ``all_of`` or a pool gives back as another is busy is free at once, despite min_hold."""
    least, client, pool = 10 * stage.harness.ttl, stage.client(), "kit-pool"
    stage.fill()
    busy = stage.newcomer(client)
    first = stage.holder(client, name=f"!{stage.name}", min_hold=least)  # all_of takes it first
    both = client.all_of([busy, first])
    assert both.try_acquire() is None
    assert stage.stored(first.name) == [], "what nobody has used goes on blocking"
    error = stage.work(lambda: both.acquire(IN_VAIN)).error()
    assert isinstance(error, AcquireTimeout), f"{error!r}"
    stage.until(lambda: stage.stored(first.name) == [], "what nobody has used is removed, after a wait, too")
    taken = client.pool(pool, ["b"], ttl=stage.harness.ttl).try_acquire()
    assert taken is not None
    some = client.pool(pool, ["a", "b"], ttl=stage.harness.ttl, min_hold=least)
    assert some.try_acquire(count=2) is None
    assert stage.stored(pool_name(pool, "a")) == [], "a member that nobody has used goes on blocking"
    taken.release()


@scenario("S2-unused-unread", needs=("min_hold",))
def unread(stage: Stage) -> None:
    """A grant that no caller got (reply lost, Ctrl-C, timeout) blocks no longer; one that was used does."""
    least, part = 10 * stage.harness.ttl, stage.shape.holders[0]
    terms = part.terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl, min_hold=least)
    stepper, faults = faulty_stepper(stage)
    for timeout, fault in ((0.1, drop_reply), (None, drop_reply), (None, interrupt_after(CtrlC()))):
        faults.add("acquire", fault)
        faults.always(refuse, "acquire")
        pending = stepper.acquire(terms, timeout)
        if timeout is None:
            assert [row.state for row in stage.stored()] == ["HELD"]
            pending.cancel()
        while not pending.over:
            stage.harness.advance(0.1)
            pending.step()
        faults.heal()
        stepper.remove_orphans(due_only=False)
        assert pending.hold is None
        assert stage.stored() == [], f"a grant that no caller got goes on blocking: {pending.error!r}"
    used = stepper.acquire(terms)
    assert used.hold is not None
    assert stepper.release(used.hold).outcome == "RELEASED"
    assert [row.state for row in stage.stored()] == ["LINGERING"], "min_hold did not block"


@scenario("S2-unused-closed", (MUTEX,), needs=("min_hold",))
def closed(stage: Stage) -> None:
    """A client that closes while it waits for several locks leaves none of those it already held."""
    least, client = 10 * stage.harness.ttl, stage.harness.client()
    stage.on_close(client.close)
    stage.fill()
    first = client.lock(f"!{stage.name}", ttl=stage.harness.ttl, min_hold=least)
    used = client.lock(f"{stage.name}/used", ttl=stage.harness.ttl, min_hold=least).acquire(5.0)
    waiting = stage.work(lambda: client.all_of([stage.newcomer(client), first]).acquire(30.0))
    stage.until(lambda: len(stage.stored()) == 2, "it waits")
    client.close()
    waiting.error()
    stage.until(lambda: stage.stored(first.name) == [], "what nobody has used goes on blocking")
    assert [row.state for row in stage.stored(used.name)] == ["LINGERING"], "min_hold did not block"
