"""L2, L4: every call comes back in time, and nothing is left of what was cut short."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lockkit.errors import AcquireCancelled, AcquireTimeout, BackendError
from lockkit.facts import Event
from lockkit.hooks import hookimpl
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock
from lockkit.testing.faults import Fault, Faults, Send, black_hole, drop_reply, refuse
from lockkit.testing.interrupts import CtrlC
from lockkit.testing.scenarios.handoffs import IN_VAIN
from lockkit.testing.shapes import MUTEX, READERS
from lockkit.testing.stage import Stage, scenario

__all__ = ["footprint"]

_LONG_REQUEST = 5.0
"""Seconds that a request may take, where the timeout is to end it long before."""
_MOST_CALLS = 40
_LONG_TTL = 60.0
"""Seconds in which no heartbeat is late, however busy the machine is."""


def footprint() -> Counter[str]:
    """Threads and descriptors of this process."""
    found = Counter(thread.name.rstrip("0123456789-") for thread in threading.enumerate())
    found["descriptors"] = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    return found


def interrupt_here(where: threading.Thread, after: bool) -> Callable[[Faults, Send, float], Any]:  # noqa: FBT001
    """Ctrl-C in a call of this thread, before it is sent or when it has been applied."""

    def fault(faults: Faults, send: Send, budget: float) -> Any:  # noqa: ARG001
        if threading.current_thread() is not where:
            return send()
        if after:
            send()
        raise CtrlC

    return fault


@scenario("L4-interrupted-calls")
def interrupted_calls(stage: Stage) -> None:
    """Ctrl-C in each store call of acquire and release, before and after its execution: nothing is left."""
    for after in (False, True):
        for k in range(_MOST_CALLS):
            client, faults = stage.faulty()
            lock = stage.holder(client)
            here = threading.current_thread()
            faults.add("*", interrupt_here(here, after), skip=k)
            done = False
            try:
                with lock.acquire(5.0):
                    pass
                done = True
            except CtrlC:
                pass
            stage.until(
                lambda: stage.stored() == [], f"L4: call {k} was interrupted, its claim stays", stage.soon
            )
            faults.heal()
            client.close()
            if done:
                break
        else:
            raise AssertionError(f"more than {_MOST_CALLS} calls for one acquire and release")
    stage.fill()


@scenario("L4-interrupted-wait")
def interrupted_wait(stage: Stage) -> None:
    """Ctrl-C in each store call of a waiting acquire: KeyboardInterrupt is raised, the claim is removed."""
    leases = stage.fill()
    before = stage.stored()
    for k in range(3):
        client, faults = stage.faulty()
        lock = stage.newcomer(client)

        def wait(k: int = k, faults: Faults = faults, lock: Any = lock) -> None:
            faults.add("acquire", interrupt_here(threading.current_thread(), after=True), skip=k)
            lock.acquire(stage.harness.request_timeout).release()

        error = stage.work(wait).error()
        if k == 0:
            assert isinstance(error, CtrlC), f"Ctrl-C was swallowed: {error!r}"
        stage.until(lambda: stage.unchanged(before), "L4: the waiting claim stays", stage.soon)
        client.close()
    for lease in leases:
        assert lease.valid()


@scenario("L4-timed-out")
def timed_out(stage: Stage) -> None:
    """A wait that times out ends in time, names the holder, and leaves nothing."""
    leases = stage.fill()
    before = stage.stored()
    client = stage.client()
    lock = stage.newcomer(client)
    for timeout in (0.0, IN_VAIN):
        with stage.within(timeout + 3.0, f"a wait of {timeout:g} s"):  # and not as long as there is a holder
            error = stage.work(lambda timeout=timeout: lock.acquire(timeout)).error()  # type: ignore[misc]
        assert isinstance(error, AcquireTimeout)
        assert isinstance(error, TimeoutError)
        assert error.holder is not None
        assert error.holder.claim_id in [lease.claim_id for lease in leases]
        stage.until(lambda: stage.unchanged(before), "L4: the waiting claim stays", stage.soon)
    assert client.stats()["timeouts"] + client.stats()["busy"] == 2


@scenario("L4-closed-while-waiting")
def closed_while_waiting(stage: Stage) -> None:
    """Closing a client ends its waits with AcquireCancelled, removes their claims, and releases its holds."""
    leases = stage.fill()
    before = stage.stored()
    client = stage.client()
    other = stage.take(stage.shape.holders[0].lock(client, "kit/other", ttl=stage.long_ttl))
    waiting = stage.waiting(stage.newcomer(client), None)
    with stage.within(2.5, "closing"):
        client.close()
    assert isinstance(waiting.error(), AcquireCancelled)
    stage.until(lambda: stage.unchanged(before), "L4: the waiting claim stays", stage.soon)
    assert stage.stored("kit/other") == []
    assert not other.valid()
    assert all(lease.valid() for lease in leases)
    assert isinstance(stage.work(stage.newcomer(client).try_acquire).error(), AcquireCancelled)


@scenario("L4-counts")
def counts(stage: Stage) -> None:
    """Threads, file descriptors and claims return to their earlier count, whatever the clients did."""
    _busy_client(stage, "warm")
    gc.collect()
    before, rows = footprint(), stage.harness.residue()
    for turn in range(3):
        _busy_client(stage, f"turn-{turn}")
    gc.collect()
    stage.until(lambda: footprint() - before == Counter(), f"{before} again, not {footprint()}")
    left = {name: stage.stored(name) for turn in range(3) for name in (f"turn-{turn}", f"turn-{turn}/lost")}
    # A request that a slow server had not answered when its client was closed may still be on its way.
    stage.until(lambda: stage.harness.residue() == rows, f"L4: of these names: {left}")


def _busy_client(stage: Stage, name: str) -> None:
    """Hold, wait, time out, lose, release, close."""
    part, ttl = stage.shape.holders[0], stage.long_ttl
    with stage.harness.client() as client, stage.harness.client() as other:
        leases = [part.lock(client, name, ttl=ttl) for part in stage.shape.holders]
        held = [lock.acquire(5.0) for lock in leases]
        newcomer = stage.shape.newcomer.lock(other, name)
        other.inspect(name)  # connected before the short wait, which includes connecting
        error = stage.work(lambda: newcomer.acquire(0.05)).error()
        # a store that connects for it may take longer on a busy machine; neither may leave anything
        assert isinstance(error, AcquireTimeout | BackendError), f"{error!r}"
        waiting = stage.work(lambda: newcomer.acquire(30.0).release())
        lost = part.lock(client, name + "/lost", ttl=ttl).acquire()
        client.evict(name + "/lost", lost.claim_id, reason="kit", now=True)
        lost.release()
        for lease in held:
            lease.release()
        waiting.result()


@scenario("L4-collected")
def collected(stage: Stage) -> None:
    """A dropped lease warns with the source location of its acquire; its claim goes when validity ends."""
    client = stage.client()
    ttl = 2 * stage.harness.short_ttl
    lock = stage.holder(client, ttl=ttl)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program = {"__name__": "somebody", "lock": lock}
        exec(compile("\n\nlease = lock.acquire()", "somebody.py", "exec"), program)  # noqa: S102
        began = time.monotonic()
        del program
        gc.collect()
    told = [warning for warning in caught if issubclass(warning.category, ResourceWarning)]
    assert len(told) == 1
    assert (told[0].filename, told[0].lineno) == ("somebody.py", 3), "it names another line"
    assert stage.name in str(told[0].message)
    stage.until(lambda: stage.stored() == [], "the claim of a dropped lease goes")
    took = time.monotonic() - began
    assert took >= 0.8 * ttl, (
        f"gone after {took:.2f} s of {ttl:g}: whoever works under it is not alone any more"
    )


class _Drops:
    """A plugin that counts the leases that were collected unreleased."""

    def __init__(self) -> None:
        self._told = threading.Semaphore(0)

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        if event.kind == "dropped":
            self._told.release()

    def one_more(self) -> bool:
        """Collect garbage until one more is told of, in vain for 10 s at the most."""
        for _ in range(20):
            gc.collect()
            if self._told.acquire(timeout=0.5):
                return True
        return False


@scenario("L4-collected-owner", (MUTEX,))
def collected_owner(stage: Stage) -> None:
    """A lease referenced only by its own callback, or by the thread that took it, is collected like any."""
    drops = _Drops()
    client = stage.client(plugins=[drops])

    def lock(of: str, **options: Any) -> Lock:
        return stage.holder(client, name=f"{stage.name}/{of}", ttl=_LONG_TTL, **options)

    class Owner:
        def __init__(self, of: str, **options: Any) -> None:
            self.lease = lock(of, **options).acquire(5.0)
            self.lease.on_lost(self.stop)

        def stop(self) -> None:
            """Told of the loss."""

    class Doubly(Owner):
        def __init__(self) -> None:
            super().__init__("option", on_lost=self.stop)

    class Thread(threading.Thread):
        def run(self) -> None:
            self.lease = lock("thread").acquire(5.0)

    def thread() -> None:
        thread = Thread()
        thread.start()
        thread.join()

    for drop in (lambda: Owner("callback"), Doubly, thread):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            drop()
            assert drops.one_more(), "L4: nobody has the lease, and it is still renewed"


@scenario("L4-collected-at-once", (MUTEX,))
def collected_at_once(stage: Stage) -> None:
    """A lease ends with its last reference, whatever its acquire met: no cycle keeps it until a collection.

    A signal handler that raises on the way into ``lock.acquire().release()`` drops the lease. If anything
    kept it, the same thread would get DeadlockDetected for waiting for itself.
    """
    client, faults = stage.faulty()
    lock, new = stage.holder(client), stage.holder(client, name=f"{stage.name}/new")

    def last(lock: Lock) -> weakref.ref[Lease]:
        lease = lock.acquire(5.0)
        seen = weakref.ref(lease)
        lease.release()
        return seen

    def waited() -> weakref.ref[Lease]:
        other = stage.take(stage.holder(stage.client()))
        waiting = stage.queued(lock, lambda: last(lock))
        other.release()
        return waiting.result()

    def met(fault: Fault) -> weakref.ref[Lease]:
        faults.add("acquire", fault)
        return last(lock)

    ways: dict[str, Callable[[], weakref.ref[Lease]]] = {
        "of a name that is new": lambda: last(new),
        "at once": lambda: last(lock),
        "that waited": waited,
        "that was refused first": lambda: met(refuse),
        "whose answer was lost first": lambda: met(drop_reply),
    }
    client.driver()
    enabled = gc.isenabled()
    gc.disable()
    try:
        for way, acquire in ways.items():
            assert acquire()() is None, f"L4: a cycle keeps the lease of an acquire {way}"
    finally:
        if enabled:
            gc.enable()


def _late(client: Client, stage: Stage) -> dict[str, Callable[[], object]]:
    lock = stage.holder(client, ttl=stage.harness.ttl)
    return {
        "acquire": lambda: lock.acquire(stage.harness.request_timeout),
        "acquire without timeout": lambda: lock.acquire(None),
        "try_acquire": lock.try_acquire,
        "inspect": lambda: client.inspect(stage.name),
        "names": client.names,
        "evict": lambda: client.evict(stage.name, "0" * 12, reason="kit"),
        "resize": lambda: client.resize(stage.name, 2),
        "check": client.check,
        "record": lambda: client.record(stage.name),
    }


@scenario("L2-deadlines-black-hole", (MUTEX,))
def deadlines(stage: Stage) -> None:
    """Against a store that never answers, each call returns in time, with an error that says so."""
    patience = stage.harness.request_timeout
    client, faults = stage.faulty(request_timeout=patience)
    client.driver()
    faults.always(black_hole)
    for what, call in _late(client, stage).items():
        with stage.within(2 * patience + 0.4, what):
            error = stage.work(call).error()
        assert isinstance(error, BackendError | AcquireTimeout), f"{what}: {error!r}"
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: something stays", stage.soon)


@scenario("L2-timeout", (MUTEX,))
def timeout_kept(stage: Stage) -> None:
    """If the store never answers, an acquire returns soon after its timeout, however long a request takes."""
    client, faults = stage.faulty(request_timeout=_LONG_REQUEST)
    client.driver()
    lock = stage.holder(client)
    faults.always(black_hole)
    for timeout in (0.1, 0.5):
        with stage.within(timeout + 0.5 * _LONG_REQUEST, f"acquire(timeout={timeout})"):
            error = stage.work(partial(lock.acquire, timeout)).error()
        assert isinstance(error, BackendError | AcquireTimeout), f"{error!r}"
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: something stays", stage.soon)


@scenario("L2-deadlines-held", (MUTEX, READERS))
def deadlines_held(stage: Stage) -> None:
    """On a silent store confirm, extend, release and close are in time; an ABANDONED claim goes later."""
    patience = stage.harness.request_timeout
    client, faults = stage.faulty(request_timeout=patience)
    lease = stage.take(stage.holder(client, ttl=stage.long_ttl / 2))
    faults.always(black_hole)
    calls: list[tuple[str, Callable[[], object]]] = [("confirm", lease.confirm)]
    if not stage.harness.capabilities.fixed_ttl:
        calls.append(("extend", lambda: lease.extend(stage.long_ttl)))
    for what, call in calls:
        with stage.within(patience + 0.5, what):
            assert isinstance(stage.work(call).error(), BackendError), what
    assert lease.valid(), "no answer is not loss"
    with stage.within(patience + 0.5, "release"):
        report = lease.release()
    assert report.outcome == "ABANDONED"
    assert report.expires_by is not None
    assert not lease.valid()
    assert [layer.layer for layer in report.layers] == ["normal", "emergency"]
    faults.heal()
    stage.until(lambda: stage.stored() == [], "L4: the abandoned claim stays", stage.soon)
    again = stage.take(stage.holder(client))
    faults.always(black_hole)
    with stage.within(2.5 + 1.0, "close"):
        client.close()
    faults.heal()
    assert not again.valid()


@scenario("L2-asked-again", (MUTEX, READERS))
def asked_again(stage: Stage) -> None:
    """When the reply to ``confirm`` or ``extend`` is lost, the client asks again and returns the answer."""
    client, faults = stage.faulty()
    lease = stage.take(stage.holder(client, ttl=stage.long_ttl / 2))
    faults.add("acquire", drop_reply)
    lease.confirm()
    if not stage.harness.capabilities.fixed_ttl:
        longer = stage.long_ttl
        faults.add("extend", drop_reply)
        lease.extend(longer)
        assert lease.ttl == longer
    assert lease.valid()
    assert lease.release().outcome == "RELEASED"
    assert stage.stored() == []


@scenario("L2-outage-while-waiting", (MUTEX,))
def outage_while_waiting(stage: Stage) -> None:
    """A waiter that sleeps while the store goes away notices the outage by itself and survives it."""
    holders = stage.fill()  # with deadlines far away: at that of who is before it, it would ask anyway
    client, faults = stage.faulty()
    waiting = stage.work(lambda: stage.kept(stage.newcomer(client).acquire()))
    stage.until(lambda: len(stage.stored()) > len(holders), "it is queued")
    asked = faults.log.count("acquire")
    faults.always(refuse, "acquire", "renew")
    stage.until(lambda: faults.log.count("acquire") >= asked + 3, "it asks for itself")
    assert not waiting.done
    faults.heal()
    for holder in holders:
        holder.release()
    waiting.result().release()


@scenario("L2-slow-store", (MUTEX, READERS))
def slow_store(stage: Stage) -> None:
    """A store that refuses for a while does not end a patient wait, which succeeds when the store is back."""
    client, faults = stage.faulty()
    client.driver()
    faults.always(refuse, "acquire")
    waiting = stage.work(lambda: stage.kept(stage.holder(client).acquire(20.0)))
    stage.until(lambda: faults.log.count("acquire") >= 3, "it tries again")
    assert not waiting.done
    faults.heal()
    with stage.within(2.0, "being served again"):
        waiting.result().release()
