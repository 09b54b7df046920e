"""The public interface: deadlocks, reentrancy, detach, the short form, the decorator, notes, records, what inspect shows."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack

from lockkit.errors import AcquireTimeout, BackendError, ConfigError, DeadlockDetected, LeaseLost, NotHeld
from lockkit.facts import Skipped
from lockkit.lease import Lease
from lockkit.store.spi import NOTE_LIMIT, Conflict
from lockkit.testing.faults import black_hole
from lockkit.testing.scenarios.queueing import HAND_OFF
from lockkit.testing.shapes import MUTEX, READERS, SEMAPHORE, Part
from lockkit.testing.stage import NotApplicable, Stage, scenario

__all__ = ["deadlock"]


@scenario("L2-self-deadlock")
def deadlock(stage: Stage) -> None:
    """Waiting for one's own claim is refused at once; trying returns None; another thread, or a detached lease, waits."""
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
        lock.acquire(0.05)
    except AcquireTimeout:
        pass
    for lease in leases:
        lease.release()
    waiting.result().release()


@scenario("L2-self-deadlock-between", (SEMAPHORE, READERS))
def deadlock_between(stage: Stage) -> None:
    """Waiting behind a waiter that waits for one's own claim is refused at once and leaves nothing in the store."""
    client, other = stage.client(), stage.client()
    if stage.shape is SEMAPHORE:
        mine, theirs = client.semaphore(stage.name, 3, ttl=stage.harness.ttl), Part("semaphore", 3, 3)
    else:
        mine, theirs = stage.holder(client), stage.shape.newcomer
    held = stage.take(mine)
    waiting = stage.waiting(theirs.lock(other, stage.name, ttl=stage.harness.ttl))
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
    assert isinstance(stage.work(lambda: mine.acquire(0.05)).error(), AcquireTimeout), (
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
    mine = client.semaphore(stage.name, 3, ttl=stage.harness.ttl)
    stage.take(mine)
    two = Part("semaphore", 2, 3)
    holder = stage.take(two.lock(stage.client(), stage.name, ttl=stage.harness.ttl))
    waiting = stage.waiting(two.lock(stage.client(), stage.name, ttl=stage.harness.ttl))

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
    assert isinstance(stage.work(lambda: lock.acquire(0.05)).error(), AcquireTimeout), (
        "another thread just waits"
    )


@scenario("S4-reentrant", (MUTEX,))
def reentrant(stage: Stage) -> None:
    """A re-entrant hold keeps its fence, ends with its last level in whatever order, and serves its own thread only."""
    client = stage.client()
    lock = client.lock(stage.name, ttl=stage.harness.ttl, reentrant=True)
    outer = stage.kept(lock.acquire(1.0))
    inner = stage.kept(lock.acquire(1.0))
    assert inner.fence == outer.fence
    assert inner.claim_id == outer.claim_id
    assert len(stage.stored()) == 1
    assert isinstance(stage.work(lambda: lock.acquire(0.05)).error(), AcquireTimeout), (
        "not for another thread"
    )
    assert stage.client().lock(stage.name, reentrant=True).try_acquire() is None, "not for another client"
    assert outer.release().outcome == "KEPT"
    assert outer.release().outcome == "KEPT", "idempotent"
    assert inner.valid()
    assert len(stage.held()) == 1
    assert inner.release().outcome == "RELEASED"
    assert stage.stored() == []
    plain = client.lock(stage.name)
    assert isinstance(
        stage.work(lambda: client.semaphore(stage.name, 2, reentrant=True)).error(), ConfigError
    )
    with plain.acquire(1.0):
        assert plain.try_acquire() is None


@scenario("S4-reentrant-lost", (MUTEX,))
def reentrant_lost(stage: Stage) -> None:
    """A lost hold is not entered again: LeaseLost is raised or, once the loss was noticed, a new hold with a larger fence is taken."""
    lock = stage.client().lock(stage.name, ttl=stage.harness.ttl, reentrant=True, auto_renew=False)
    outer = stage.kept(lock.acquire(1.0))
    stage.harness.outlast(stage.harness.ttl)
    try:
        inner = stage.kept(lock.acquire(1.0))
    except LeaseLost:
        assert stage.held() == []
    else:
        assert inner.valid()
        assert inner.fence > outer.fence, "S5: it runs under a hold that had lapsed"
        assert stage.held() == [inner.claim_id]
    assert not outer.valid()


@scenario("S4-reentrant-ttl", (MUTEX,))
def reentrant_ttl(stage: Stage) -> None:
    """A level with a longer ttl lengthens the hold, where ttls may differ; a level with a shorter ttl changes nothing."""
    client, ttl = stage.client(), stage.harness.ttl

    def level(ttl: float) -> Lease:
        lease = client.lock(stage.name, ttl=ttl, reentrant=True, auto_renew=False).try_acquire()
        assert lease is not None
        return stage.kept(lease)

    outer = level(ttl)
    inner = level(2 * ttl)
    if client.capabilities.fixed_ttl:
        assert inner.ttl == ttl
        return
    assert inner.ttl == outer.ttl == 2 * ttl
    assert inner.remaining() > ttl
    assert stage.client().inspect(stage.name).holders[0].ttl == 2 * ttl
    before = stage.stored()
    assert level(ttl).ttl == 2 * ttl
    assert stage.unchanged(before)
    assert inner.release().outcome == "KEPT"
    assert outer.ttl == 2 * ttl, "no call shortens a held claim"


@scenario("S4-reentrant-ttl-refused", (MUTEX,))
def reentrant_ttl_refused(stage: Stage) -> None:
    """A level whose longer ttl gets no answer is not entered, within its timeout, and the outer level stays as it was."""
    client, faults = stage.faulty()
    if client.capabilities.fixed_ttl:
        raise NotApplicable("all claims of a client have one ttl on this store")
    ttl = stage.harness.ttl
    outer = stage.take(client.lock(stage.name, ttl=ttl, reentrant=True))
    faults.always(black_hole, "extend")
    inner = client.lock(stage.name, ttl=2 * ttl, reentrant=True)
    with stage.within(0.2 + 0.5 + HAND_OFF, "giving up"):
        try:
            inner.acquire(0.2)
        except BackendError:
            pass
        else:
            raise AssertionError("S3: it was entered with a shorter ttl than it asked for")
    faults.heal()
    outer.confirm()
    assert outer.ttl == ttl
    assert outer.release().outcome == "RELEASED"
    assert stage.stored() == []


@scenario("S6-reentrant-told", (MUTEX,))
def reentrant_told(stage: Stage) -> None:
    """Each level's own ``on_lost`` is called, set by option or by method; that of a level that was left or collected is not."""
    client = stage.client()
    told: list[str] = []
    done = threading.Event()

    def level(name: str) -> Lease:
        ttl = stage.harness.ttl
        lock = client.lock(stage.name, ttl=ttl, reentrant=True, on_lost=lambda: told.append(name))
        return stage.kept(lock.acquire(1.0))

    outer, left, inner = level("outer"), level("left"), level("inner")
    left.on_lost(lambda: told.append("left by method"))
    inner.on_lost(done.set)
    assert left.release().outcome == "KEPT"
    client.evict(stage.name, outer.claim_id, reason="kit", now=True)
    assert isinstance(stage.work(inner.confirm).error(), LeaseLost)
    assert done.wait(5.0), "a callback that nothing but its lease refers to was not called"
    stage.until(lambda: len(told) >= 2, "both levels that are held are told")
    assert sorted(told) == ["inner", "outer"]


@scenario("L4-short-form")
def short_form(stage: Stage) -> None:
    """``with lock:`` keeps one lease for each thread, and raises LeaseLost at the end if the lock was lost."""
    lock = stage.holder(stage.client(), auto_renew=False)
    assert isinstance(stage.work(lambda: lock.lease).error(), NotHeld)
    with lock:
        assert lock.lease.valid()
        assert len(stage.stored()) == 1
        assert isinstance(stage.work(lambda: lock.lease).error(), NotHeld), "another thread's"
    assert stage.stored() == []

    def lost() -> None:
        with lock:
            stage.harness.outlast(stage.harness.ttl)

    assert isinstance(stage.work(lost).error(), LeaseLost)

    def lost_and_failed() -> None:
        with lock:
            stage.harness.outlast(stage.harness.ttl)
            raise KeyError("mine")

    assert isinstance(stage.work(lost_and_failed).error(), KeyError), "the body's exception wins"


@scenario("L4-short-form-elsewhere", (SEMAPHORE,))
def short_form_elsewhere(stage: Stage) -> None:
    """Each ``with lock:`` releases its own lease and no other, in whatever thread and order the blocks end."""
    lock = stage.holder(stage.client())

    def suspended() -> Generator[Lease, None, None]:
        with lock:
            while True:
                yield lock.lease

    def begun() -> tuple[Generator[Lease, None, None], Lease]:
        block = suspended()
        return block, next(block)

    theirs, _ = stage.work(begun).result()
    with lock:
        mine = lock.lease
        stage.work(theirs.close).result()  # a third thread
        assert mine.valid(), "S7: another's block released it"
        assert stage.held() == [mine.claim_id]
        theirs, _ = stage.work(begun).result()
        theirs.close()  # this thread, as the collector may
        assert mine.valid(), "S7: another's block released it"
        assert stage.held() == [mine.claim_id]
    first, one = begun()
    second, other = begun()
    assert next(first) is one, "that of the last block that began, not of the one around it"
    assert next(second) is other
    first.close()  # not the last that began
    assert not one.valid()
    assert stage.held() == [other.claim_id]
    second.close()
    assert stage.stored() == []
    assert isinstance(stage.work(lambda: lock.lease).error(), NotHeld)


@scenario("L4-short-form-stack", (SEMAPHORE,))
def short_form_stack(stage: Stage) -> None:
    """A block of ``contextlib.ExitStack`` releases its own lease, in whatever thread it ends; a stack that is dropped releases it as well."""
    lock = stage.holder(stage.client())

    def entered() -> tuple[ExitStack, Lease]:
        stack = ExitStack()
        stack.enter_context(lock)
        return stack, lock.lease

    first, one = entered()
    second, other = entered()
    assert lock.lease is other
    first.close()  # not the last that was entered
    assert not one.valid()
    assert stage.held() == [other.claim_id], "S7: another's block released it"
    stage.work(second.close).result()
    assert stage.stored() == []
    with lock:
        mine = lock.lease
        theirs, lease = stage.work(entered).result()
        theirs.close()
        assert not lease.valid()
        assert stage.held() == [mine.claim_id], "S7: another's block released it"
        dropped, lease = entered()
        dropped.pop_all()
        del dropped
        stage.until(
            lambda: stage.held() == [mine.claim_id], "L4: nobody can release it, and it is still renewed"
        )
        assert not lease.valid()
    assert stage.stored() == []


@scenario("L4-short-form-by-hand", (SEMAPHORE,))
def short_form_by_hand(stage: Stage) -> None:
    """A block that ends in another thread without a known lease raises NotHeld, releases nothing, and its lease lapses with the thread that took it."""
    lock = stage.holder(stage.client(), ttl=2 * stage.harness.short_ttl)

    def entered() -> Lease:
        lock.__enter__()
        return lock.lease

    def ended() -> None:
        lock.__exit__(None, None, None)

    lease = entered()
    with lock:
        mine = lock.lease
        ended()
        assert not lease.valid()
        assert mine.valid(), "S7: another's block released it"
    enter, leave = lock.__enter__, lock.__exit__  # as somebody keeps who wraps a lock
    for _ in range(2):
        enter()
        assert len(stage.stored()) == 1
        leave(None, None, None)
        assert stage.stored() == [], "L4: what was kept releases the first lease alone"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        lease = stage.work(entered).result()
        with lock:
            mine = lock.lease
            error = stage.work(ended).error()
            assert isinstance(error, NotHeld), "another thread's block was guessed"
            assert mine.valid(), "S7: another's block released it"
            assert lease.valid()
        del lease, error
        gc.collect()
    stage.until(lambda: stage.stored() == [], "L4: nobody can release it, and it is still renewed")


@scenario("L4-decorator", (MUTEX,))
def decorator(stage: Stage) -> None:
    """``locked`` builds its lock's name from the arguments, skips or raises when busy, and refuses bad templates at once."""
    ours, theirs = stage.client(), stage.client()
    ran: list[object] = []

    @ours.locked("invoice:{invoice_id}/{copy}", timeout=0, on_busy="skip")
    def bill(invoice_id: int, copy: str = "a") -> str:
        ran.append(invoice_id)
        assert len(stage.held(f"invoice:{invoice_id}/{copy}")) == 1
        return "done"

    @ours.locked("invoice:{invoice_id}/a", timeout=0)
    def strict(invoice_id: int) -> str:
        return f"done {invoice_id}"

    assert bill(7) == "done"
    assert bill(invoice_id=8, copy="b") == "done"
    lease = stage.take(theirs.lock("invoice:7/a", ttl=stage.harness.ttl))
    skipped = bill(7)
    assert isinstance(skipped, Skipped)
    assert not skipped
    assert skipped.holder is not None
    assert skipped.holder.claim_id == lease.claim_id
    assert skipped.since is not None
    assert ran == [7, 8]
    assert bill(9) == "done"
    assert isinstance(stage.work(lambda: strict(7)).error(), AcquireTimeout)
    assert ours.stats()["skipped"] == 1
    for template in ("{nobody}", "{", "a\0b"):
        bad = ours.locked(template)
        assert isinstance(stage.work(lambda bad=bad: bad(lambda x: x)).error(), ConfigError), template  # type: ignore[misc]
    assert ours.names() == ["invoice:7/a"]


@scenario("S1-inspect")
def inspect(stage: Stage) -> None:
    """``inspect`` shows holders and waiters in order, with their owners, and never a token."""
    clients = [stage.client(task=f"job-{at}") for at in range(len(stage.shape.holders))]
    leases = stage.fill(clients, note={"why": "kit"})
    waiting = stage.waiting(stage.newcomer(stage.client()))
    info = stage.client().inspect(stage.name)
    assert [claim.claim_id for claim in info.holders] == [lease.claim_id for lease in leases]
    assert [claim.fence for claim in info.holders] == [lease.fence for lease in leases]
    assert [claim.owner.task for claim in info.holders] == [client.owner.task for client in clients]
    assert len(info.waiters) == 1
    assert [claim.position for claim in info.claims] == list(range(len(info.claims)))
    head = info.holders[0]
    assert head.owner.pid == clients[0].owner.pid
    assert head.note == {"why": "kit"}
    assert head.ttl == stage.harness.ttl
    assert abs(head.since - stage.harness.clock.wall()) < 5.0
    assert (head.deadline is not None, head.renewed > 0) == (stage.harness.tells,) * 2
    if head.deadline is not None:
        assert abs(head.deadline - head.renewed - stage.harness.ttl) < 0.1
    for lease in leases:
        assert lease.token not in repr(info)
        assert lease.token not in repr(lease)
        lease.release()
    waiting.result().release()
    assert stage.client().inspect(stage.name).claims == ()


@scenario("S1-notes-and-records", None)
def notes(stage: Stage) -> None:
    """Notes of a claim reach its holder, within their limit; records outlive claims and are versioned."""
    client, other = stage.client(), stage.client()
    lease = stage.take(stage.holder(client, ttl=stage.harness.short_ttl, note={"a": 1, "b": 2}))
    assert other.annotate(stage.name, lease.claim_id, {"b": None, "ask_release": True})
    assert not other.annotate(stage.name, "0" * 12, {"b": None})
    stage.until(lambda: lease.requests.get("ask_release") is True, "the holder is told")
    assert other.inspect(stage.name).holders[0].note == {"a": 1, "ask_release": True}
    huge = {"x": "y" * NOTE_LIMIT}
    assert isinstance(
        stage.work(lambda: other.annotate(stage.name, lease.claim_id, huge)).error(), ConfigError
    )
    assert client.record(stage.name) is None
    assert other.put_record(stage.name, {"last": "kit"}, 0).version == 1
    assert isinstance(stage.work(lambda: client.put_record(stage.name, {}, 0)).error(), Conflict)
    assert client.put_record(stage.name, {"last": "again"}, 1).version == 2
    lease.release()
    record = other.record(stage.name)
    assert record is not None
    assert (record.value, record.version) == ({"last": "again"}, 2)


@scenario("S7-errors-pickle", None)
def errors_pickle(stage: Stage) -> None:
    """Errors cross processes with the name of the lock and its holder."""
    stage.fill()
    error = stage.work(lambda: stage.newcomer(stage.client()).acquire(0.05)).error()
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(copy, AcquireTimeout)
    assert isinstance(error, AcquireTimeout)
    assert (copy.name, copy.holder, str(copy)) == (error.name, error.holder, str(error))


@scenario("S2-turns", None)
def turns(stage: Stage) -> None:
    """Five workers take turns: all are served, no two at once."""
    inside, order, overlap = threading.Lock(), list[int](), list[int]()

    def play(worker: int) -> None:
        lock = stage.holder(stage.client())
        for _ in range(5):
            with lock.acquire(20.0) as lease:
                if not inside.acquire(blocking=False):
                    overlap.append(worker)
                else:
                    order.append(lease.fence)
                    lease.ensure_held()
                    inside.release()

    works = [stage.work(lambda worker=worker: play(worker)) for worker in range(5)]  # type: ignore[misc]
    for work in works:
        work.result(30.0)
    assert overlap == []
    assert len(order) == 25
    assert order == sorted(set(order)), "S4: fences in the order of the grants"
