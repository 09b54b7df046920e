"""Deadlocks among threads and tasks of several clients, on the memory store and on the embedded one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lockkit import aio
from lockkit.errors import ConfigError, DeadlockDetected, LeaseLost
from lockkit.lib.noted import RESERVED
from lockkit.protocol import cycles
from lockkit.protocol.cycles import KEY
from lockkit.testing.processes import until
from lockkit.testing.stage import Work


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Tests really wait for these times: claims announce and second looks follow in tenths of a second."""
    monkeypatch.setattr(cycles, "_BEFORE_TELLING", 0.1)
    monkeypatch.setattr(cycles, "BETWEEN", 0.2)


def holds_then_waits(client, first, then, *, detect=False, both=None):
    """A thread that holds one lock and then waits for another; it waits before that for ``both`` to hold."""

    def work():
        with client.lock(first).acquire():
            if both is not None:
                both.wait(30)
            with then().acquire(timeout=30, detect_deadlock=detect):
                return first

    return Work(work)


def told(client, name):
    """A function that says whether a waiter of a name has told what its thread or task holds."""
    return lambda: any(KEY in claim.note.get(RESERVED, {}) for claim in client.inspect(name).waiters)


def crossed(client, other, *, detect=(False, False)):
    both = threading.Barrier(2)
    one = holds_then_waits(client, "a", lambda: client.lock("b"), detect=detect[0], both=both)
    two = holds_then_waits(other, "b", lambda: other.lock("a"), detect=detect[1], both=both)
    until(told(client, "a"), "a's waiter tells")
    until(told(client, "b"), "b's waiter tells")
    return one, two


def test_two_threads_that_wait_for_each_other_are_found(client, other):
    assert client.deadlocks() == []
    one, two = crossed(client, other)
    (found,) = client.deadlocks()
    assert [claim.name for claim in found.holders] == ["a", "b"]
    assert {claim.name for claim in found.waiters} == {"a", "b"}
    assert f"{client.owner} holds 'a' and waits for 'b'" in str(found)
    assert found.ends == ""
    client.evict("a", found.holders[0].claim_id, reason="test", now=True)
    assert two.result() == "b"
    assert isinstance(one.error(), LeaseLost)
    assert client.deadlocks() == []


@pytest.mark.parametrize("detect", [(True, True), (True, False)])
def test_exactly_one_wait_of_a_deadlock_ends_with_an_error(client, other, detect):
    one, two = crossed(client, other, detect=detect)
    ends = one.error(20), two.error(20)
    assert {type(end) for end in ends} == {DeadlockDetected, type(None)}
    if detect == (True, False):
        assert isinstance(ends[0], DeadlockDetected)


def test_the_error_tells_the_cycle_in_words(client, other):
    one, two = crossed(client, other, detect=(True, False))
    error = one.error(20)
    assert isinstance(error, DeadlockDetected)
    assert error.name == "b"
    assert f"{other.owner} holds 'b' and waits for 'a'" in str(error)
    assert error.holder.name == "b"
    assert two.result() == "b"


def test_all_of_any_of_and_a_pool_take_part(client, other):
    both = threading.Barrier(2)
    one = holds_then_waits(
        client, "a", lambda: client.any_of([client.lock("c"), client.lock("d")]), both=both
    )

    def two():
        with other.all_of([other.lock("c"), other.lock("d")]).acquire():
            both.wait(30)
            # It gets "b" and waits for "a" in one all_of, so it also holds "b", which no lease shows yet.
            with other.all_of([other.lock("0"), other.lock("a")]).acquire(detect_deadlock=True):
                pass

    error = Work(two).error(20)
    assert isinstance(error, DeadlockDetected)
    assert "'c', 'd'" in str(error)
    assert error.name == "a"
    assert one.result() == "a"


@pytest.mark.parametrize("own_first", [True, False])
def test_a_place_that_the_thread_itself_holds_is_none_of_those_it_waits_for(client, other, own_first):
    both = threading.Barrier(2)
    names = ["a", "b"] if own_first else ["b", "a"]
    places = [client.lock(name) for name in names]
    one = holds_then_waits(client, "a", lambda: client.any_of(places), both=both, detect=True)
    two = holds_then_waits(other, "b", lambda: other.lock("a"), both=both)
    assert isinstance(one.error(20), DeadlockDetected)
    assert two.result() == "b"


def test_a_free_alternative_is_no_deadlock(client, other):
    """``d`` is held by a thread that waits for nothing."""
    with other.lock("d").acquire().detach() as d:
        both = threading.Barrier(2)
        one = holds_then_waits(
            client, "a", lambda: client.any_of([client.lock("c"), client.lock("d")]), both=both, detect=True
        )
        two = holds_then_waits(other, "c", lambda: other.lock("a"), both=both, detect=True)
        until(told(client, "a"), "a's waiter tells")
        until(told(client, "c"), "c's waiter tells")
        until(told(client, "d"), "d's waiter tells")
        assert client.deadlocks() == []
        d.release()
        assert one.result() == "a"
        assert two.result() == "c"


def test_a_detached_lease_makes_no_edge(client, other):
    both = threading.Barrier(2)

    def work():
        lease = client.lock("a").acquire().detach()
        both.wait(30)
        with client.lock("b").acquire(timeout=30):
            lease.release()

    one = Work(work)
    two = holds_then_waits(other, "b", lambda: other.lock("a"), both=both, detect=True)
    until(told(client, "a"), "a's waiter tells")
    assert client.deadlocks() == []
    for claim in client.inspect("a").holders:
        client.evict("a", claim.claim_id, reason="test", now=True)
    assert two.result() == "b"
    one.result()


def test_a_lease_that_another_thread_detaches_meanwhile_makes_no_edge_any_more(client, other):
    both, leases = threading.Barrier(2), []

    def work():
        leases.append(client.lock("a").acquire())
        both.wait(30)
        with client.lock("b").acquire(timeout=30):
            return "a"

    one = Work(work)
    two = holds_then_waits(other, "b", lambda: other.lock("a"), both=both)
    until(told(client, "a"), "a's waiter tells")
    until(told(client, "b"), "b's waiter tells")
    assert len(client.deadlocks()) == 1
    leases[0].detach()
    until(lambda: client.inspect("b").waiters[0].note[RESERVED][KEY] == {"holds": []}, "it tells so")
    assert client.deadlocks() == []
    leases[0].release()
    assert two.result() == "b"
    assert one.result() == "a"


def test_a_short_wait_tells_nothing(client, other, monkeypatch):
    monkeypatch.setattr(cycles, "_BEFORE_TELLING", 20.0)  # shorter than this is the wait on any machine
    with other.lock("b").acquire().detach() as b:
        one = holds_then_waits(client, "a", lambda: client.lock("b"))
        until(lambda: client.inspect("b").waiters, "it waits")
        assert client.inspect("b").waiters[0].note == {}
        b.release()
    one.result()


def test_a_note_of_the_user_stays_and_a_claim_that_queues_again_tells_again(client, other):
    b = other.lock("b").acquire().detach()

    def work():
        with client.lock("a").acquire(), client.lock("b").acquire(30, note={"mine": 1}, reason="why"):
            pass

    one = Work(work)
    until(told(client, "b"), "it tells")
    seen = client.inspect("b").waiters[0]
    assert seen.note["mine"] == 1
    assert seen.note[RESERVED]["reason"] == "why"
    client.evict("b", seen.claim_id, reason="test")
    until(told(client, "b"), "it queues again, and tells again")
    b.release()
    one.result()


def test_a_task_is_found_as_a_thread_is(url, other):
    async def main():
        async with aio.connect(url) as client:
            async with client.lock("a").acquire():
                two = holds_then_waits(other, "b", lambda: other.lock("a"))
                await asyncio.to_thread(until, lambda: other.inspect("a").waiters, "it waits")
                with pytest.raises(DeadlockDetected, match="holds 'a' and waits for 'b'") as raised:
                    await client.lock("b").acquire(timeout=30, detect_deadlock=True)
                assert str(raised.value).startswith("this task waits for 'b' in a deadlock")
                assert await client.deadlocks() == []
            return two

    assert asyncio.run(main()).result() == "b"


def test_detect_deadlock_is_a_bool(client):
    for lock in (client.lock("a"), client.all_of([client.lock("a")]), client.any_of([client.lock("a")])):
        with pytest.raises(ConfigError, match="detect_deadlock must be True or False"):
            lock.acquire(detect_deadlock="yes")
    with pytest.raises(ConfigError, match="detect_deadlock must be True or False"):
        client.pool("p", ["0"]).acquire(detect_deadlock=None)
