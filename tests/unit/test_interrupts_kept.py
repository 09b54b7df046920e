"""L4: lockkit keeps no exception of a Ctrl-C, which would keep all frames on its way, and their leases."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import sys
import threading
import time
import warnings

import pytest

import lockkit
from lockkit.errors import LeaseLost
from lockkit.lib.leaving import Exit
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit.testing.scenarios.interrupted import unraisable

TTL = 1.5  # the holds must not lapse by themselves on a machine that stands still for a second
WHERE_SIGNALS_ARE = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="from CPython 3.12 on the tracer may strike where no signal can"
)
numbers = itertools.count(1)


@pytest.fixture
def client():
    with lockkit.connect("memory:") as client:
        yield client


@pytest.fixture(autouse=True)
def no_collector():
    """With the cyclic garbage collector off, an object lives until the last reference to it is gone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Each run has names of its own, because an interrupted one may be held for its ttl.


def named(kind):
    return f"{kind}{next(numbers)}"


def nested(client):
    with client.lock(named("a"), ttl=TTL).acquire(20.0), client.lock(named("b"), ttl=TTL).acquire(20.0):
        pass


def short(client):
    with client.lock(named("a"), ttl=TTL), client.lock(named("r"), ttl=TTL, reentrant=True):
        pass


def by_hand(client):
    lease = client.semaphore(named("c"), 2, ttl=TTL).acquire(20.0)
    try:
        lease.release()
    finally:
        lease.release()


def together(client):
    locks = client.lock(named("a"), ttl=TTL), client.rwlock(named("r"), ttl=TTL).read()
    with client.all_of(locks).acquire(20.0):
        pass


def any_after_a_wait(client):
    a, b = client.lock(named("a"), ttl=TTL), client.lock(named("b"), ttl=TTL)
    with a.acquire(20.0) as first, b.acquire(20.0) as second:
        first.detach()
        second.detach()
        with client.any_of([a, b]).acquire(20.0, on_wait=lambda waiting: second.release()):
            pass


def from_a_pool(client):
    pool = client.pool(named("p"), {"0": 2, "1": 2}, ttl=TTL)
    with pool.acquire(2, each=2, timeout=20.0):
        pass


FORMS = [nested, short, by_hand, together, any_after_a_wait, from_a_pool]


def places(form, client):
    form(client)  # everything lazy has happened
    count = Bomb(1 << 30)
    with count:
        form(client)
    return count


def strike(form, client, bomb):
    with warnings.catch_warnings(), unraisable():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with bomb:
                form(client)
        except CtrlC:
            pass
    where = f"after Ctrl-C at {bomb.where} and {bomb.again or 'no more'}"
    assert not [ref for ref in bomb.raised if ref() is not None], f"something keeps the exception {where}"
    return bool(bomb.where)


@WHERE_SIGNALS_ARE
@pytest.mark.parametrize("form", FORMS)
def test_l4_an_interrupt_at_any_place_is_kept_by_nothing(client, form):
    count = places(form, client)

    struck = [strike(form, client, Bomb(at)) for at in count.places(300, random.Random(1))]

    assert sum(struck) > 60, "the bomb hardly ever went off"


@pytest.mark.full
@WHERE_SIGNALS_ARE
@pytest.mark.parametrize("form", FORMS)
def test_l4_two_interrupts_at_any_two_places_are_kept_by_nothing(client, form):
    count, chance = places(form, client), random.Random(2)

    for at in count.places(100, chance):
        strike(form, client, Bomb(at, chance.randint(1, 60)))


@WHERE_SIGNALS_ARE
@pytest.mark.parametrize("keeps", [False, True], ids=["collected", "kept"])
def test_l4_a_short_form_that_was_interrupted_is_free_at_once(client, keeps):
    """Whether its frames are collected as garbage, or kept by the traceback of their interruption."""
    count, kept = places(short, client), []

    for at in count.places(250, random.Random(3)):
        name = named("a")
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            try:
                with Bomb(at), client.lock(name, ttl=600.0):
                    pass
            except CtrlC as error:
                if keeps:
                    kept.append(error)
            gc.collect()
            until(lambda name=name: not client.inspect(name).claims, f"the lock is free after place {at}")


def test_l4_a_lease_whose_with_was_cut_short_goes_although_the_release_of_another_is_interrupted_then(client):
    """Ctrl-C strikes before the inner ``with`` and as the outer one ends: only the first has the lease."""
    count = places(nested, client)

    for at in count.within(Exit.__get__):
        for then in range(1, 60):
            strike(nested, client, Bomb(at, then))

    end = time.monotonic() + TTL + 30.0
    while left := [name for name in client.names() if client.inspect(name).claims]:
        assert time.monotonic() < end, f"{left} stay"
        time.sleep(0.01)


def test_s10_a_memory_store_answers_other_threads_while_the_exception_that_interrupted_a_call_is_kept(client):
    def calls(client):
        name = named("a")
        with client.lock(name, ttl=TTL).acquire(20.0) as lease:
            lease.confirm()
            lease.extend(2 * TTL)
            client.evict(name, lease.claim_id, reason="over")
            client.resize("c", 3)

    def answered():
        asked = threading.Thread(target=client.inspect, args=("a",), daemon=True)
        asked.start()
        asked.join(30.0)
        return not asked.is_alive()

    permit = client.semaphore("c", 2).acquire()
    count = Bomb(1 << 30, beside=("contextlib",))
    with contextlib.suppress(LeaseLost), count:
        calls(client)
    for at in range(1, count.seen + 1):
        bomb, free = Bomb(at, beside=("contextlib",)), True
        with warnings.catch_warnings(), unraisable():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                with contextlib.suppress(LeaseLost), bomb:
                    calls(client)
            except CtrlC:
                free = answered()
        assert free, f"the store's mutex was taken after Ctrl-C at {bomb.where}"
    permit.release()


def test_a_bomb_strikes_nowhere_that_leaves_the_with_of_a_generator_open():
    """CPython looks for no signal where an exception is thrown into a generator."""
    mutex = threading.Lock()

    def steps():
        with mutex:
            yield

    def throws():
        generator = steps()
        next(generator)
        with contextlib.suppress(KeyError):
            generator.throw(KeyError)

    count = Bomb(1 << 30, beside=(__name__,))
    with count:
        throws()
    for at in range(1, count.seen + 1):
        bomb = Bomb(at, beside=(__name__,))
        with contextlib.suppress(CtrlC), bomb:
            throws()
        assert not mutex.locked(), bomb.where


def test_a_bomb_strikes_nowhere_between_a_call_that_raises_and_the_handling_of_its_exception():
    """CPython looks for no signal there."""
    mutex = threading.Lock()

    def handles():
        try:
            mutex.release()
        except RuntimeError:
            return

    count = Bomb(1 << 30, beside=(__name__,))
    with count:
        handles()

    assert count.within(handles) == [1], "only the start of the function"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("what", ["lost", "release_requested"])
def test_a_wait_for_an_event_that_a_signal_interrupts_keeps_no_other_thread(client, what, together):
    """S6. The thread that tells of it is the one that renews all claims of the client."""
    struck = []
    for at in range(1, 100):
        lock = client.lock(named("a"), ttl=TTL)
        taken = client.all_of([lock]).acquire() if together else lock.acquire()
        event = getattr(taken, what)
        with contextlib.suppress(CtrlC), Bomb(at, beside=("threading",)) as bomb:
            event.wait(0.001)
        struck.append((bomb.where, taken, event))
        if not bomb.where:
            break
    assert len(struck) > 5
    for _, taken, _ in struck:
        lease = taken[0] if together else taken
        if what == "lost":
            client.evict(lease.name, lease.claim_id, reason="test", now=True)
        else:
            client.ask_release(lease.name, lease.claim_id, "test")
    for where, taken, event in struck:
        until(event.is_set, f"it is told, after Ctrl-C at {where}", 30.0)
        taken.release()
