"""The short form ``with lock:``: a block releases its own lease, in whatever thread and order blocks end."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator
from contextlib import ExitStack

from lockkit.errors import LeaseLost, NotHeld
from lockkit.sync.lease import Lease
from lockkit.testing.shapes import SEMAPHORE
from lockkit.testing.stage import Stage, scenario

__all__ = ["short_form"]


@scenario("L4-short-form")
def short_form(stage: Stage) -> None:
    """``with lock:`` keeps one lease per thread, and raises LeaseLost at the end if the lock was lost."""
    lock = stage.holder(stage.client(), ttl=stage.harness.ttl, auto_renew=False)
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
    """Each ``with lock:`` releases its own lease only, in whatever thread and order the blocks end."""
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
    """A ``contextlib.ExitStack`` releases its own lease, in whatever thread it ends, and when dropped."""
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
    """A block ended by a thread with no known lease raises NotHeld; the lease goes with its own thread."""
    lock = stage.holder(stage.client(), ttl=stage.lasting(2))

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
