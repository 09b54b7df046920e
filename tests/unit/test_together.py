"""Locks taken together: all of several, or any of them, on the memory store and on the embedded one."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
import time
import warnings

import pytest

import lockkit
from lockkit.errors import (
    AcquireCancelled,
    AcquireTimeout,
    BackendUnavailable,
    CapacityMismatch,
    ConfigError,
    DeadlockDetected,
    LeaseLost,
    NotHeld,
)
from lockkit.notes.members import pool_name
from lockkit.store.spi import Renewal, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit.testing.took import Took


def queued(client, name):
    """A function that says whether somebody waits for a name."""
    return lambda: any(claim.state == "WAITING" for claim in client.inspect(name).claims)


def nothing_left(client):
    return lambda: not any(client.inspect(name).claims for name in client.names())


# -- all of them


def test_all_of_holds_locks_of_every_kind_and_releases_them_last_first(client):
    released = []

    class Watch:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            released.append(context.name)

    with lockkit.connect(client.config.url, plugins=[Watch()]) as own:
        locks = [own.rwlock("c").read(), own.semaphore("b", 3, permits=2), own.lock("a")]
        leases = own.all_of(locks).acquire()
        assert leases.names == ("a", "b", "c")
        assert leases.valid()
        assert [lease.name for lease in leases] == ["a", "b", "c"]
        assert leases.fences == {lease.name: lease.fence for lease in leases}
        assert client.all_of([client.lock("a"), client.lock("d")]).try_acquire() is None
        assert client.inspect("d").claims == ()
        report = leases.release()
    assert released == ["c", "b", "a"]
    assert report.outcome == "RELEASED"
    assert list(report.by_name) == ["a", "b", "c"]
    assert leases.release() == report == leases.report
    assert not leases.valid()
    with pytest.raises(NotHeld):
        leases.ensure_held()


@pytest.mark.parametrize("stacked", [False, True])
def test_the_background_does_not_take_a_slow_release_for_one_that_was_cut_short(url, stacked):
    released = []

    class Slow:
        @lockkit.hookimpl
        def lockkit_cleanup(self, context):
            released.append((context.name, context.reason))
            for _ in range(8):
                leases.look(None)  # as the end of any other `with` does
                time.sleep(0.05)

    with lockkit.connect(url, plugins=[Slow()]) as own, contextlib.ExitStack() as stack:
        leases = own.all_of([own.lock(name) for name in "abc"]).acquire()
        if stacked:
            stack.enter_context(leases)
            stack.close()
        else:
            leases.release()
    assert released == [(name, "normal") for name in "cba"]


def test_a_lock_that_is_given_twice_counts_once(client):
    lock = client.lock("a")
    with client.all_of([lock, client.lock("a"), lock]).acquire() as leases:
        assert leases.names == ("a",)


@pytest.mark.parametrize(
    "locks",
    [
        lambda client, _: [],
        lambda client, _: "a",
        lambda client, _: ["a"],
        lambda client, _: client.lock("a"),
        lambda client, _: [client.rwlock("a")],
        lambda client, _: [client.rwlock("a").read(), client.rwlock("a").write()],
        lambda client, _: [client.semaphore("a", 2), client.semaphore("a", 2, permits=2)],
        lambda client, other: [client.lock("a"), other.lock("b")],
    ],
)
@pytest.mark.parametrize("call", ["all_of", "any_of"])
def test_what_cannot_be_taken_together_is_refused_before_any_io(url, locks, call):
    client, other = lockkit.connect(url), lockkit.connect(url)
    with pytest.raises(ConfigError):
        getattr(client, call)(locks(client, other))
    assert not client.is_open
    assert not other.is_open


def test_any_of_takes_at_most_64_locks_and_no_reentrant_one(client):
    client.any_of([client.lock(f"{n}") for n in range(64)]).acquire().release()
    with pytest.raises(ConfigError, match="at most 64"):
        client.any_of([client.lock(f"{n}") for n in range(65)])
    with pytest.raises(ConfigError, match="reentrant"):
        client.any_of([client.lock("a", reentrant=True)])


def test_a_timeout_of_all_of_is_for_all_names_the_lock_and_leaves_nothing(client, other):
    with other.lock("b").acquire():
        began = time.monotonic()
        with pytest.raises(AcquireTimeout) as caught:
            client.all_of([client.lock(name) for name in "abc"], timeout=0.3).acquire()
        assert time.monotonic() - began < 30
        assert caught.value.name == "b"
        assert caught.value.holder is not None
        assert client.inspect("a").claims == client.inspect("c").claims == ()
        assert len(client.inspect("b").claims) == 1
        with pytest.raises(AcquireTimeout, match="'b' is busy"):
            client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=0)
    assert nothing_left(client)()


def test_two_that_give_their_locks_in_opposite_orders_do_not_wait_for_each_other(url):
    def work(names):
        with lockkit.connect(url) as client:
            for _ in range(30):
                with client.all_of([client.lock(name) for name in names], timeout=20).acquire() as leases:
                    leases.ensure_held()

    works = [Work(lambda names=names: work(names)) for names in ("abc", "cba", "bca")]
    for each in works:
        each.result(30.0)


def test_what_is_held_is_renewed_while_it_waits_for_the_rest(client, other):
    lease = other.lock("b").acquire()
    work = Work(lambda: client.all_of([client.lock("a", ttl=2.0), client.lock("b")]).acquire(timeout=20))
    until(queued(other, "b"))
    (held,) = other.inspect("a").claims
    until(lambda: other.inspect("a").claims[0].renewed > held.renewed + 2.2)
    assert other.inspect("a").claims[0].claim_id == held.claim_id
    lease.release()
    leases = work.result()
    assert leases.valid()
    leases.release()


def test_a_lock_that_is_evicted_while_it_waits_for_the_rest_ends_it(client, other):
    lease = other.lock("b").acquire()
    work = Work(lambda: client.all_of([client.lock("a", ttl=3.0), client.lock("b")]).acquire(timeout=20))
    until(queued(other, "b"))
    other.evict("a", other.inspect("a").claims[0].claim_id, reason="test")
    error = work.error()
    assert isinstance(error, LeaseLost)
    assert error.name == "a"
    assert len(other.inspect("b").claims) == 1
    lease.release()
    until(nothing_left(other))


def test_the_worst_outcome_is_that_of_all(client, other):
    leases = client.all_of([client.lock("a"), client.lock("b")]).acquire()
    other.evict("a", leases[0].claim_id, reason="test", now=True)
    report = leases.release()
    assert report.outcome == "LOST"
    assert not report.released
    assert report.by_name["b"].released


def test_one_loss_is_the_loss_of_all(client):
    told = []
    leases = client.all_of([client.lock(name) for name in "abc"]).acquire()

    def body():
        with leases:
            lost = leases.lost
            assert not lost.is_set()
            leases[1].simulate_loss()
            leases[2].simulate_loss()
            assert lost.is_set()
            assert not leases.valid()
            assert leases[0].valid()

    leases.on_lost(lambda: told.append(leases.lost_because))
    with pytest.raises(LeaseLost):
        body()
    assert told == ["lapsed"]
    assert leases.report is not None
    assert nothing_left(client)()


def test_a_simulated_loss_is_that_of_each(client):
    leases = client.all_of([client.lock(name) for name in "abc"]).acquire()
    told = []
    leases.on_lost(lambda: told.append(leases.lost_because))
    leases[2].on_lost(leases.release)  # which ends all of them
    for lease in leases:
        lease.on_lost(lambda name=lease.name: told.append(name))

    leases.simulate_loss()

    assert sorted(told) == ["a", "b", "c", "lapsed"], "the callbacks have returned"
    assert leases.lost.is_set()
    assert [lease.lost_because for lease in leases] == ["lapsed"] * 3
    with pytest.raises(LeaseLost):
        leases.simulate_loss()
    assert nothing_left(client)()


def test_leases_of_which_one_is_over_lose_nothing_more(client):
    leases = client.all_of([client.lock("a"), client.lock("b")]).acquire()
    leases[1].release()

    with pytest.raises(NotHeld, match="'b'"):
        leases.simulate_loss()

    assert leases[0].valid()
    leases.release()


def test_the_error_of_the_body_wins_over_a_loss(client):
    def body():
        with client.all_of([client.lock("a"), client.lock("b")]).acquire() as leases:
            leases[0].simulate_loss()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert nothing_left(client)()


def test_the_short_form_keeps_leases_for_each_thread(client):
    both = client.all_of([client.lock("a"), client.lock("b")])
    with both:
        assert both.lease.names == ("a", "b")
        with pytest.raises(NotHeld):
            Work(lambda: both.lease).result()
    with pytest.raises(NotHeld):
        _ = both.lease
    assert nothing_left(client)()


def test_the_short_form_ends_with_an_exit_stack_in_another_thread(client):
    with contextlib.ExitStack() as stack:
        both = stack.enter_context(client.all_of([client.lock("a"), client.lock("b")]))
        assert both.lease.valid()
        assert stack.enter_context(client.any_of([client.lock("a"), client.lock("c")])).lease.name == "c"
        stack.enter_context(client.pool("p", ["0"]))
        elsewhere = stack.pop_all()
    Work(elsewhere.close).result()
    assert nothing_left(client)()


def test_a_level_of_a_reentrant_lock_that_this_thread_holds_is_one_of_them(client, other):
    outer = client.lock("a", reentrant=True)
    with outer.acquire() as lease:
        with client.all_of([outer, client.lock("b")]).acquire() as leases:
            assert leases.fences["a"] == lease.fence
        assert lease.valid()
        with other.lock("b").acquire():
            assert client.all_of([outer, client.lock("b")]).try_acquire() is None
            with pytest.raises(AcquireTimeout):
                client.all_of([outer, client.lock("b")]).acquire(timeout=0.05)
        assert lease.valid()
    until(nothing_left(client))  # what a late timeout leaves goes in the background


def test_a_released_level_of_a_reentrant_lock_is_no_longer_valid(client):
    lock = client.lock("r", reentrant=True)
    with lock.acquire() as outer:
        inner, together = lock.acquire(), client.all_of([lock]).acquire()
        inner.release()
        together.release()
        assert not inner.valid()
        assert not together.valid()
        assert outer.valid()


def test_a_thread_does_not_wait_for_a_lock_that_it_holds(client):
    with client.lock("b").acquire():
        with pytest.raises(DeadlockDetected):
            client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=5)
        assert client.inspect("a").claims == ()
        with pytest.raises(DeadlockDetected):
            client.any_of([client.lock("b")]).acquire(timeout=5)
        with client.any_of([client.lock("b"), client.lock("c")]).acquire(timeout=5) as lease:
            assert lease.name == "c"


def test_another_capacity_is_an_error_that_names_the_lock(client, other):
    with other.semaphore("b", 3, permits=3).acquire():
        with pytest.raises(CapacityMismatch) as caught:
            client.all_of([client.lock("a"), client.semaphore("b", 2)]).acquire(timeout=5)
        assert caught.value.name == "b"
        assert client.inspect("a").claims == ()


@pytest.mark.parametrize("kind", ["all_of", "any_of"])
def test_the_hint_of_an_error_names_the_same_store_as_that_of_a_single_lock(client, other, kind):
    held = other.lock("b").acquire()
    with pytest.raises(AcquireTimeout) as single:
        client.lock("b").acquire(timeout=0.01)
    with pytest.raises(AcquireTimeout) as caught:
        getattr(client, kind)([client.lock("b")]).acquire(timeout=0.01)
    assert caught.value.hint == single.value.hint
    held.release()


def test_a_client_that_closes_ends_the_wait_and_leaves_nothing(client, url):
    with lockkit.connect(url) as own:
        lease = client.lock("b").acquire()
        all_of = Work(lambda: own.all_of([own.lock("a"), own.lock("b")]).acquire())
        any_of = Work(lambda: own.any_of([own.lock("b"), own.lock("c")]).acquire())
        c = client.lock("c").try_acquire() or any_of.result()
        until(queued(client, "b"))
        own.close()
        assert isinstance(all_of.error(), AcquireCancelled)
        if c.name == "c" and not c.report:
            any_of.error()
            c.release()
    lease.release()
    until(nothing_left(client))


def test_leases_that_are_dropped_are_each_told_and_given_back(client):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        client.all_of([client.lock(name, ttl=0.5) for name in "ab"]).acquire()
        gc.collect()
    assert len(caught) == 2
    assert all(warning.filename == __file__ for warning in caught)
    until(nothing_left(client))


def test_a_lease_that_outlives_the_others_goes_on(client):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        kept = client.all_of([client.lock("a"), client.lock("b")]).acquire()[0]
        gc.collect()
    assert kept.valid()
    kept.release()


def test_copies_and_detached_leases(client):
    leases = client.all_of([client.lock("a"), client.lock("b")]).acquire().detach()
    copies = pickle.loads(pickle.dumps(leases))
    assert [copy.name for copy in copies] == ["a", "b"]
    assert client.lock("a").try_acquire() is None
    assert isinstance(Work(lambda: client.lock("a").acquire(timeout=0.05)).error(), AcquireTimeout)
    with pytest.raises(AcquireTimeout):  # not DeadlockDetected, because another thread may release it
        client.lock("a").acquire(timeout=0.05)
    assert Work(leases.release).result().released


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_forked_child_the_leases_are_inert(client):
    with client.all_of([client.lock("a"), client.lock("b")]).acquire() as leases:

        def child():
            report = leases.release()
            return leases.valid(), report.outcome

        assert in_child(child) == [False, "KEPT"]
        assert leases.valid()


# -- any of them


def test_any_of_takes_the_first_that_is_free(client, other):
    with other.lock("a").acquire(), client.any_of([client.lock(name) for name in "abc"]).acquire() as lease:
        assert lease.name == "b"
        assert client.inspect("c").claims == ()
        assert len(client.inspect("a").claims) == 1
    assert nothing_left(client)()


def test_any_of_waits_in_all_queues_and_leaves_the_others_when_one_is_granted(client, other):
    held = {name: other.lock(name).acquire() for name in "abc"}
    work = Work(lambda: client.any_of([client.lock(name) for name in "abc"]).acquire(timeout=20))
    for name in "abc":
        until(queued(other, name))
    held["b"].release()
    lease = work.result()
    assert lease.name == "b"
    assert lease.valid()
    assert [len(other.inspect(name).claims) for name in "abc"] == [1, 1, 1]
    lease.release()
    assert other.inspect("b").claims == ()
    held["a"].release()
    held["c"].release()


def test_when_two_come_free_at_once_one_is_kept_and_the_other_given_back(client, other):
    for _ in range(10):
        held = [other.lock(name).acquire() for name in "ab"]
        work = Work(lambda: client.any_of([client.lock(name) for name in "ab"]).acquire(timeout=20))
        until(queued(other, "b"))
        for lease in held:
            lease.release()
        lease = work.result()
        assert sum(len(other.inspect(name).claims) for name in "ab") == 1
        lease.release()


def test_a_timeout_of_any_of_names_them_and_leaves_nothing(client, other):
    held = [other.lock(name).acquire() for name in "abcde"]
    locks = [client.lock(name) for name in "abcde"]
    with Took() as took, pytest.raises(AcquireTimeout, match="none of 'a', 'b', 'c' and 2 more came free in"):
        client.any_of(locks).acquire(timeout=0.3)
    assert took.seconds < 1.4  # one after the other they take 1.5 s
    with pytest.raises(AcquireTimeout, match="each of 'a', 'b', 'c' and 2 more is busy"):
        client.any_of(locks, timeout=0).acquire()
    assert client.any_of(locks).try_acquire() is None
    assert all(len(other.inspect(name).claims) == 1 for name in "abcde")
    for lease in held:
        lease.release()


def test_the_counters_add_up(client, other):
    with other.lock("b").acquire(), client.all_of([client.lock("x"), client.lock("y")]):
        client.all_of([client.lock("a"), client.lock("b")]).try_acquire()
        client.any_of([client.lock("b")]).try_acquire()
        with pytest.raises(AcquireTimeout):
            client.any_of([client.lock("b")]).acquire(timeout=0.05)
    stats = client.stats()
    assert stats["attempts"] == 5
    assert (stats["acquired"], stats["busy"], stats["timeouts"]) == (2, 2, 1)


def test_on_wait_is_told_of_each_lock_that_is_waited_for(client, other):
    held = [other.lock(name).acquire() for name in "ab"]
    told = []
    work = Work(
        lambda: client.any_of([client.lock(name) for name in "ab"]).acquire(
            timeout=20, on_wait=lambda waiting: told.append(waiting.name)
        )
    )
    until(lambda: {"a", "b"} <= set(told))
    held[0].release()
    work.result().release()
    held[1].release()
    with pytest.raises(ConfigError):
        client.any_of([client.lock("a")]).acquire(on_wait=3)


def test_a_function_of_the_user_that_raises_leaves_nothing(client, other):
    held = other.lock("b").acquire()

    def refuse(waiting):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.all_of([client.lock("a"), client.lock("b")]).acquire(on_wait=refuse)
    until(lambda: client.inspect("a").claims == ())
    until(lambda: len(client.inspect("b").claims) == 1)
    held.release()


# -- a store that does not answer


class Silent:
    """Makes the memory store of a client answer nothing, from some moment on, to requests for some names.

    ``spent`` is how many seconds this thread would have waited for answers.
    """

    def __init__(self, client, *names):
        self.names = set(names)
        self.spent = 0.0
        self._thread = threading.get_ident()
        self._clock = client.driver().clock
        store = client.driver().backend
        for call in ("acquire", "release", "abandon", "emergency_release"):
            setattr(store, call, self._wrapped(getattr(store, call), at=call == "acquire"))

    def _wrapped(self, call, *, at):
        def ask(claim, *rest, **more):
            if claim.terms.name not in self.names:
                return call(claim, *rest, **more)
            if threading.get_ident() == self._thread:
                self._clock.advance(rest[at])
                self.spent += rest[at]
            raise Unknown(BackendUnavailable("no answer"))

        return ask


@pytest.fixture
def silent():
    with lockkit.connect(
        f"memory://{os.urandom(8).hex()}", request_timeout=1.0, clock=ShiftedClock()
    ) as client:
        yield client


def test_the_releases_of_all_wait_no_longer_for_a_store_that_does_not_answer_than_one(silent):
    names = "abcdef"
    leases = silent.all_of([silent.lock(name, ttl=60) for name in names]).acquire()
    faulty = Silent(silent, *names)

    report = leases.release()

    assert {one.outcome for one in report.reports} == {"ABANDONED"}
    assert faulty.spent < 1.0 + 0.5
    faulty.names.clear()
    until(lambda: not [name for name in names if silent.inspect(name).claims])


def test_a_lock_whose_server_answers_is_released_after_one_whose_server_does_not(silent):
    leases = silent.all_of([silent.lock(name, ttl=60) for name in "abc"]).acquire()
    faulty = Silent(silent, "c")

    report = leases.release()

    assert {name: one.outcome for name, one in report.by_name.items()} == {
        "a": "RELEASED",
        "b": "RELEASED",
        "c": "ABANDONED",
    }
    faulty.names.clear()


@pytest.mark.parametrize(
    "take",
    [
        lambda client: client.all_of([client.lock(name) for name in "abc"]),
        lambda client: client.any_of([client.lock(f"b{n}") for n in range(60)] + [client.lock("b")]),
        lambda client: client.pool("p", ["a", "b"]),
    ],
)
def test_a_timeout_is_kept_while_the_store_does_not_answer(silent, take):
    faulty = Silent(silent, "b", *(f"b{n}" for n in range(60)), pool_name("p", "a"), pool_name("p", "b"))
    with pytest.raises((AcquireTimeout, BackendUnavailable)) as caught:
        take(silent).acquire(timeout=0.4)
    assert faulty.spent < 0.4 + 0.5
    assert caught.value.name is not None
    faulty.spent = 0.0
    until(lambda: silent.inspect("a").claims == silent.inspect(pool_name("p")).claims == ())
    with pytest.raises(BackendUnavailable):
        take(silent).try_acquire()
    assert faulty.spent < 1.0 + 0.5
    faulty.names.clear()
    until(nothing_left(silent))


def a_pool_of_64(client):
    return client.pool("p", [f"{n:02}" for n in range(64)])


def many_locks(client):
    return [client.lock(f"a{n:02}") for n in range(64)]


@pytest.mark.parametrize(
    "take, last",
    [
        (lambda client, **how: client.all_of(many_locks(client)).acquire(**how), "a63"),
        (lambda client, **how: client.any_of(many_locks(client)).acquire(**how), None),
        (lambda client, **how: a_pool_of_64(client).acquire(64, **how), pool_name("p", "63")),
    ],
    ids=["all_of", "any_of", "pool"],
)
def test_a_timeout_is_kept_although_each_of_many_requests_is_answered_soon(silent, take, last):
    others = [] if last else [lock.acquire().detach() for lock in many_locks(silent)]
    clock, store = silent.driver().clock, silent.driver().backend
    spent, me = [0.0], threading.get_ident()

    def slow(call):
        def ask(*given, **more):
            if threading.get_ident() == me:
                clock.advance(0.03)
                spent[0] += 0.03
            return call(*given, **more)

        return ask

    for call in ("acquire", "release", "abandon"):
        setattr(store, call, slow(getattr(store, call)))
    with pytest.raises(AcquireTimeout) as caught:
        take(silent, timeout=1.0)
    assert caught.value.name != last
    assert spent[0] < 1.0 + 0.5
    for other in others:
        other.release()
    until(nothing_left(silent))


def test_a_lock_that_lapses_while_it_waits_for_the_rest_is_taken_again_and_not_handed_over(silent):
    """Like a process that was stopped, also if the heartbeat has not noticed before the last grant."""
    first, last = (silent.lock(name, ttl=30, process_bound=False) for name in "ab")
    lease = last.acquire()
    work = Work(lambda: silent.all_of([first, last]).acquire(timeout=3600))
    until(queued(silent, "b"))
    (lapsed,) = silent.inspect("a").holders
    silent.driver().clock.advance(600.0)
    leases = work.result()
    assert leases.fences["a"] > lapsed.fence
    assert lease.lost.wait(30)
    leases.release()


@pytest.mark.parametrize("kind", ["all_of", "pool"])
def test_what_a_request_has_got_is_bound_to_its_process_only_once_it_has_all(silent, kind):
    """Otherwise a process that is stopped while it waits would keep it for as long as it is stopped."""
    bound = {"ttl": 30, "process_bound": True}
    taken = {
        "all_of": lambda: silent.all_of([silent.lock(name, **bound) for name in "ab"]).acquire(timeout=3600),
        "pool": lambda: silent.pool("p", ["a", "b"], **bound).acquire(2, timeout=3600),
    }[kind]
    a, b = (name if kind == "all_of" else pool_name("p", name) for name in "ab")
    other = (
        silent.lock(b).acquire() if kind == "all_of" else silent.pool("p", ["a", "b"]).acquire(among=["b"])
    )
    work = Work(taken)
    until(queued(silent, b))
    (had,) = silent.inspect(a).holders
    assert (had.process_bound, had.ttl) == (False, 6.0)
    other.release()
    leases = work.result()
    for name in (a, b):
        (now,) = silent.inspect(name).holders
        assert (now.process_bound, now.ttl, now.deadline) == (True, 30.0, None)
    assert {lease.ttl for lease in leases} == {30.0}
    leases.release()


@pytest.mark.parametrize("answer", ["evicted", "unanswered"])
def test_the_last_request_of_several_decides_whether_they_are_handed_over(silent, answer):
    store, locks = silent.driver().backend, [silent.lock(name, process_bound=True) for name in "ab"]
    extend, asked = store.extend, []

    def once(*given):
        asked.append(given)
        if len(asked) > 1:
            return extend(*given)
        if answer == "unanswered":
            raise Unknown(BackendUnavailable("no answer"))
        return Renewal("LOST", why="evicted")

    store.extend = once
    if answer == "unanswered":
        with silent.all_of(locks).acquire() as leases:
            assert leases.valid()
            assert [each.process_bound for name in "ab" for each in silent.inspect(name).holders] == [
                True
            ] * 2
    else:
        with pytest.raises(LeaseLost, match="'a'"):
            silent.all_of(locks).acquire()
    until(nothing_left(silent))


@pytest.mark.parametrize("kind", ["all_of", "any_of", "pool"])
def test_tries_that_are_each_answered_soon_take_no_longer_than_one_request_may(silent, kind):
    others = [lock.acquire().detach() for lock in many_locks(silent)] if kind == "any_of" else []
    clock, store = silent.driver().clock, silent.driver().backend
    asked, acquire, me = [0], store.acquire, threading.get_ident()

    def slow(*given, **more):
        if threading.get_ident() == me:
            clock.advance(0.03)
            asked[0] += 1
        return acquire(*given, **more)

    store.acquire = slow
    pool = a_pool_of_64(silent)
    take = {
        "all_of": silent.all_of(many_locks(silent)).try_acquire,
        "any_of": silent.any_of(many_locks(silent)).try_acquire,
        "pool": lambda: pool.try_acquire(64),
    }[kind]
    with pytest.raises(BackendUnavailable, match="to answer for the locks before"):
        take()
    assert asked[0] * 0.03 < 1.0 + 0.3
    for other in others:
        other.release()
    until(nothing_left(silent))


def test_a_short_timeout_is_enough_for_two_free_locks(silent):
    clock, acquire = silent.driver().clock, silent.driver().backend.acquire

    def slow(*given, **more):
        clock.advance(0.03)
        return acquire(*given, **more)

    silent.driver().backend.acquire = slow
    silent.all_of([silent.lock("a"), silent.lock("b")]).acquire(timeout=0.01).release()


def test_what_is_given_back_to_a_store_that_does_not_answer_any_more_keeps_nobody_waiting(silent):
    faulty = Silent(silent)
    held = silent.lock("z").acquire().detach()
    locks = [silent.lock(f"{n}") for n in range(30)]

    def fall_silent(waiting):
        faulty.names = {f"{n}" for n in range(30)}

    with pytest.raises(AcquireTimeout):
        silent.all_of([*locks, silent.lock("z")]).acquire(0.3, on_wait=fall_silent)
    assert faulty.spent < 0.5
    faulty.names.clear()
    held.release()
    until(nothing_left(silent))


def taking(client):
    """Each way to take locks together, with the names of the locks that it then holds."""
    a, b = client.lock("a"), client.lock("b", reason="their own", note={"mine": 1})
    return [
        (client.all_of([b, a]), ["a", "b"]),
        (client.any_of([b, a]), ["b"]),
        (client.pool("p", ["x", "y"], reason="their own", note={"mine": 1}), [pool_name("p", "x")]),
    ]


def test_the_reason_of_an_acquire_is_kept_with_each_lock_of_it(client, other):
    for several, names in taking(client):
        for call in (several.acquire, several.try_acquire):
            with call(reason="nightly"):
                claims = [other.inspect(name).holders[0] for name in names]
                assert {claim.reason for claim in claims} == {"nightly"}
                assert claims[-1].note["mine"] == 1, "the note of the lock stays"


def test_without_a_reason_each_lock_has_its_own(client, other):
    for several, names in taking(client):
        with several.acquire():
            assert other.inspect(names[-1]).holders[0].reason == "their own"


def test_those_behind_the_gate_of_a_pool_see_the_reason_of_the_request_that_is_at_it(client, other):
    with client.pool("p", ["x"]).acquire():
        waiting = Work(lambda: other.pool("p", ["x"], reason="their own").acquire(reason="by hand").release())
        until(lambda: other.inspect(pool_name("p")).holders)
        (gate,) = other.inspect(pool_name("p")).holders
        assert (gate.reason, gate.note["pool"]["count"]) == ("by hand", 1)
    waiting.result()


@pytest.mark.parametrize("bad", ["", "x" * 201, "two\nlines", 7])
def test_a_reason_that_cannot_be_kept_is_refused_before_anything_is_asked(bad, tmp_path):
    client = lockkit.connect(f"sqlite:{tmp_path}/none.db")
    for several, _ in taking(client):
        for call in (several.acquire, several.try_acquire):
            with pytest.raises(ConfigError, match="reason"):
                call(reason=bad)
    assert client._opening.engine is None, "the store was not opened"


def test_only_the_thread_that_took_them_is_told_that_it_holds_them(client, other):
    for several, names in taking(client):
        assert not several.held()
        with several.acquire() as leases:
            assert several.held()
            assert not Work(several.held).result()
            assert not next(again for again, same in taking(other) if same == names).held()
            leases.release()
            assert not several.held()


def test_all_of_several_are_held_only_together_and_any_of_them_one_by_one(client):
    (both, _), (either, _), (pool, _) = taking(client)
    with client.lock("b").acquire():
        assert (both.held(), either.held(), pool.held()) == (False, True, False)
        with client.lock("a").acquire():
            assert both.held()
    with client.pool("p", ["y", "x"]).acquire(among=["y"]) as leases:
        assert pool.held()
        leases.release()
    assert not pool.held()
