"""S2: a drained namespace grants nothing new, and leaves its holders alone."""

from __future__ import annotations

import threading
from functools import partial
from itertools import count

from lockkit.errors import CapabilityError, Drained
from lockkit.facts import Drain, Owner
from lockkit.shared.copies import LeaseCopy
from lockkit.store.drains import mark_of
from lockkit.store.spi import Claim, Drains, Granted, Refused
from lockkit.sync.client import Client
from lockkit.testing.faults import delay_reply
from lockkit.testing.scenarios.queueing import queued, steppers
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import PATIENCE, NotApplicable, Stage, scenario
from lockkit.values.names import new_token

__all__ = ["newcomers"]

_NEEDS = ("drains",)
_WORKERS = 3


@scenario("CAP-drains", None)
def declared(stage: Stage) -> None:
    """``drains``: a namespace can be drained; undeclared, draining is refused, and there is no mark."""
    client = stage.client()
    error = stage.work(lambda: client.drain("kit")).error()
    if stage.harness.capabilities.drains:
        assert error is None
        assert client.drained() is not None
    else:
        assert isinstance(error, CapabilityError)
        assert client.drained() is None
        assert stage.backend().extras.drains is None


@scenario("S2-drain-newcomers", needs=_NEEDS)
def newcomers(stage: Stage) -> None:
    """New acquires in a drained namespace are refused with who and why, and leave nothing, until undrain."""
    admin, client = stage.client(), stage.client()
    made = admin.drain("new kernel")
    assert client.drained() == made
    assert (made.reason, made.owner.pid) == ("new kernel", admin.owner.pid)
    for timeout in (0, 5.0, None):
        error = stage.work(lambda timeout=timeout: stage.holder(client).acquire(timeout)).error()  # type: ignore[misc]
        assert isinstance(error, Drained), f"S2: expected to be refused, not {error!r}"
        assert error.drain == made
        assert error.name == stage.name
        assert "new kernel" in str(error)
        assert "undrain" in str(error)
    assert isinstance(stage.work(stage.holder(client).try_acquire).error(), Drained)
    assert stage.stored() == [], "L4: a refused claim is left"
    assert admin.undrain() == made
    assert admin.undrain() is None
    assert client.drained() is None
    stage.take(stage.holder(client)).release()


@scenario("S2-drain-waiters", needs=_NEEDS)
def waiters(stage: Stage) -> None:
    """Waiters are refused at once when the namespace is drained, although the holders go on."""
    leases = stage.fill()
    works = [stage.waiting(stage.newcomer(stage.client()), None) for _ in range(2)]
    admin = stage.client()
    with stage.within(PATIENCE, "to refuse the waiters"):
        made = admin.drain()
        for work in works:
            error = work.error()
            assert isinstance(error, Drained), f"S2: expected to be refused, not {error!r}"
            assert error.drain == made
    stage.until(lambda: len(stage.stored()) == len(leases), "L4: nothing of the waiters is left")
    assert all(lease.valid() for lease in leases)


@scenario("S2-drain-holders", needs=_NEEDS)
def holders(stage: Stage) -> None:
    """Holders in a drained namespace go on as before, by a copy too; what they release goes to nobody."""
    client, other = stage.client(), stage.client()
    leases = stage.fill([client] * len(stage.shape.holders), ttl=stage.harness.ttl, auto_renew=False)
    other.drain("kit")
    for lease in leases:
        lease.confirm()
        if not stage.harness.capabilities.fixed_ttl:
            lease.extend(2 * stage.harness.ttl)
        assert lease.valid()
        assert other.ask_release(stage.name, lease.claim_id, "kit").reason == "kit"
    first, *rest = leases
    report = other.adopt(LeaseCopy(first.handle())).release()
    assert report.outcome == "RELEASED"
    assert isinstance(stage.work(stage.newcomer(other).try_acquire).error(), Drained)
    for lease in rest:
        assert lease.release().outcome == "RELEASED"
    assert isinstance(stage.work(stage.newcomer(other).try_acquire).error(), Drained)
    assert stage.stored() == []


@scenario("S2-drain-reentrant", (MUTEX,), needs=_NEEDS)
def reentrant(stage: Stage) -> None:
    """A re-entrant acquire of a hold that the thread has is granted in a drained namespace."""
    client = stage.client()
    lock = stage.holder(client, reentrant=True)
    outer = stage.take(lock)
    client.drain()
    inner = lock.acquire(1.0)
    assert inner.fence == outer.fence
    inner.release()
    assert outer.valid()
    outer.release()
    assert isinstance(stage.work(lambda: lock.acquire(1.0)).error(), Drained)


@scenario("S2-drain-in-turn", needs=_NEEDS)
def in_turn(stage: Stage) -> None:
    """A waiter that nobody has woken is refused when its turn comes, and nothing of it is left."""
    leases = stage.fill()
    (stepper,) = steppers(stage, 1)
    pending = queued(stage, stepper)
    _marks(stage).set(_mark("kit"), 2.0)
    for lease in leases:
        lease.release()
    pending.step()
    assert isinstance(pending.error, Drained), (
        f"S2: it is {pending.state}, and was to be refused: {pending.error!r}"
    )
    stepper.remove_orphans(due_only=False)
    assert stage.stored() == [], "L4: the refused waiter is left"


@scenario("S2-drain-granted", needs=_NEEDS)
def granted_meanwhile(stage: Stage) -> None:
    """A waiter granted after ``drain`` saw it wait holds like any other: not evicted, released as ever."""
    leases = stage.fill()
    (stepper,) = steppers(stage, 1)
    pending, marks = queued(stage, stepper), _marks(stage)
    admin, faults = stage.faulty()

    def grant_it() -> None:
        mark = marks.get(2.0)
        assert mark is not None
        assert marks.clear(mark, 2.0)  # as if it had been granted just before
        for lease in leases:
            lease.release()
        pending.step()
        assert pending.state == "held", f"it is {pending.state}: {pending.error!r}"
        marks.set(mark, 2.0)

    faults.add("inspect", delay_reply(grant_it))
    admin.drain("kit")
    (claim,) = stage.stored()
    assert (claim.state, claim.evicted) == ("HELD", False), f"S2: a holder was evicted: {claim}"
    assert not marks.turn_away(stage.name, claim.claim_id, 2.0), "S2: a holder was turned away"
    assert (stage.stored()[0].state, stage.stored()[0].evicted) == ("HELD", False)
    assert pending.hold is not None
    assert stepper.release(pending.hold).outcome == "RELEASED"
    assert stage.stored() == []


@scenario("S2-drain-replays", needs=_NEEDS)
def replays(stage: Stage) -> None:
    """A HELD claim is confirmed in a drained namespace, by a replay too; a new one is refused for good."""
    backend, marks = stage.backend(), _marks(stage)
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    claim, late = Claim(new_token(), terms), Claim(new_token(), terms)
    granted = backend.acquire(claim, True, 2.0)
    assert isinstance(granted, Granted)
    marks.set(_mark("kit"), 2.0)
    for create in (True, False):
        again = backend.acquire(claim, create, 2.0)
        assert isinstance(again, Granted)
        assert again.fence == granted.fence
    for wait in (True, False):
        try:
            answer: object = backend.acquire(late._replace(wait=wait), True, 2.0)
        except Refused as refusal:
            assert isinstance(refusal.error, Drained)  # noqa: PT017
            assert not refusal.retry  # noqa: PT017
        else:
            raise AssertionError(f"S2: expected to be refused, not {answer!r}")
    assert backend.release(claim, 2.0) == "RELEASED"
    backend.abandon(late, 2.0)
    assert stage.stored() == []


@scenario("S2-drain-stays", None, needs=_NEEDS)
def stays(stage: Stage) -> None:
    """The mark outlives the client that set it, and time; a mark is cleared only by who has read it."""
    if stage.harness.capabilities.scope == "process":
        raise NotApplicable("the store ends with its last client")
    with stage.harness.client() as admin:
        made = admin.drain("first")
    stage.harness.advance(2 * stage.harness.ttl)
    client = stage.client()
    assert client.drained() == made
    assert isinstance(stage.work(stage.holder(client).try_acquire).error(), Drained)
    marks = _marks(stage)
    read = marks.get(2.0)
    assert read is not None
    second = client.drain("second")
    assert not marks.clear(read, 2.0), "S10: an older mark was given, and the newer one is gone"
    assert client.drained() == second
    assert client.undrain() == second


@scenario("S2-drain-races", None, needs=_NEEDS)
def races(stage: Stage) -> None:
    """After drain returns, no later acquire is granted, and a complete look sees all earlier grants."""
    admin = stage.client()
    returned = threading.Event()
    late: list[str] = []
    warm = threading.Semaphore(0)

    def work(client: Client, number: int) -> None:
        for turn in count():
            after = returned.is_set()
            lock = stage.holder(client, name=f"kit/drain/{number}/{turn % 3}")
            try:
                lease = lock.try_acquire()
            except Drained:
                return
            assert lease is not None
            if after:
                late.append(lease.claim_id)
            lease.release()
            warm.release()

    works = [stage.work(partial(work, stage.client(), number)) for number in range(_WORKERS)]
    for _ in range(2 * _WORKERS):
        assert warm.acquire(timeout=PATIENCE)
    admin.drain("kit")
    returned.set()
    for each in works:
        each.result()
    assert not late, f"S2: granted although the drain had returned: {late}"
    assert admin.names(deep=True) == [], "S2: a claim stands although all have ended"


def _marks(stage: Stage) -> Drains:
    marks = stage.backend().extras.drains
    assert marks is not None, "drains is declared, and extras have none"
    return marks


def _mark(reason: str) -> str:
    return mark_of(Drain("", reason, Owner(host="kit"), 1.0))
