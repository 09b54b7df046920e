"""kill -9 and SIGSTOP of holders and waiters: who gets in, when, and who learns what."""

from __future__ import annotations

import time

import pytest

AT_ONCE = 20.0
"""Seconds for a hand-off where deaths are seen at once: far below the ttl of 60, even on a busy machine."""


def leave(cast, holders, how):
    """Have as many holders leave as the newcomer needs."""
    for holder in holders[: cast.shape.leaves]:
        how(holder)


def timed(actor, limit):
    began = time.monotonic()
    result = actor.result()
    took = time.monotonic() - began
    assert took < limit, f"it took {took:.2f} s"
    return result


@pytest.mark.parametrize("bound", [False, True], ids=["ttl", "process-bound"])
def test_l1_kill_9_of_a_holder_lets_the_waiter_in_at_once(cast, bound):
    holders = cast.holders(ttl=60, process_bound=bound)
    waiter = cast.waiter()
    leave(cast, holders, lambda holder: holder.kill())
    assert timed(waiter, AT_ONCE) > 0
    survivors = holders[cast.shape.leaves :]
    assert all(survivor.run("lease.confirm(); result = lease.valid()") for survivor in survivors)


def test_l1_after_kill_9_a_try_succeeds_at_once(cast):
    holders = cast.holders(ttl=60)
    newcomer = cast.actor()
    lock = "lease = shape.newcomer.lock(client, NAME).try_acquire(); result = lease is not None"
    assert newcomer.run(lock) is False
    leave(cast, holders, lambda holder: holder.kill())
    assert newcomer.run(lock) is True


def test_l1_lock_delay_of_the_dead_goes_on_blocking(cast):
    holders = cast.holders(ttl=60, lock_delay=0.6)
    waiter = cast.waiter()
    began = time.monotonic()
    leave(cast, holders, lambda holder: holder.kill())
    waiter.result()
    assert 0.5 <= time.monotonic() - began <= 0.6 + AT_ONCE


def test_l5_kill_9_of_a_waiter_changes_nothing_for_the_others(cast):
    holders = cast.holders(ttl=60)
    first, second = cast.waiter(), cast.waiter()
    first.kill()
    assert second.busy()
    assert all(holder.run("lease.confirm(); result = lease.valid()") for holder in holders)
    leave(cast, holders, lambda holder: holder.run("lease.release()"))
    timed(second, AT_ONCE)


def test_l5_kill_9_of_the_waiter_that_was_just_woken_passes_the_lock_on(cast):
    holders = cast.holders(ttl=60)
    woken, next_ = cast.waiter(), cast.waiter()
    woken.stop()  # it is rung, and never answers
    leave(cast, holders, lambda holder: holder.run("lease.release()"))
    if cast.shape.newcomer.weight == cast.shape.newcomer.capacity:
        time.sleep(0.2)
        assert next_.busy(), "it overtook a waiter that may yet answer"
    woken.kill()
    timed(next_, AT_ONCE)


def test_l5_kill_9_of_a_middle_waiter_lets_nobody_in_early(cast):
    holders = cast.holders(ttl=60)
    first, middle, last = cast.waiter(), cast.waiter(), cast.waiter()
    middle.kill()
    time.sleep(0.2)
    assert first.busy()
    assert last.busy()
    for holder in holders:
        holder.run("lease.release()")
    fence = timed(first, AT_ONCE)
    first.run("lease.release()")
    assert timed(last, AT_ONCE) > fence


def test_l1_kill_9_of_everybody_leaves_a_lock_that_can_be_taken(cast):
    actors = [*cast.holders(ttl=60), cast.waiter(), cast.waiter()]
    for actor in actors:
        actor.kill()
    cast.holders(ttl=60)
    assert [state for state, _ in cast.rows()] == [1] * len(cast.shape.holders)


WATCHED = """
told = []
lease = shape.holders[0].lock(
    client, NAME, ttl={ttl}, process_bound={bound}, on_lost=lambda: told.append(1)).acquire(40)
seen = []
def look():
    last = boottime()
    while not seen:
        valid, now = lease.valid(), boottime()
        if now - last > {gap}:
            seen.append(valid)
        last = now
        time.sleep(0.005)
threading.Thread(target=look, daemon=True).start()
result = lease.fence
"""


def test_s3_the_first_answer_after_a_stop_past_the_ttl_is_no(cast):
    holder = cast.actor()
    fence = holder.run(WATCHED.format(ttl=2.0, bound=False, gap=2.0))
    others = [cast.actor() for _ in cast.shape.holders[1:]]
    for at, other in enumerate(others, 1):
        other.run(f"lease = shape.holders[{at}].lock(client, NAME, ttl=60).acquire(40)")
    waiter = cast.waiter()
    holder.stop()
    stopped = time.monotonic()
    for other in others[: cast.shape.leaves - 1]:
        other.run("lease.release()")
    assert timed(waiter, 2.0 + AT_ONCE) > fence
    time.sleep(max(0.0, stopped + 2.2 - time.monotonic()))
    holder.resume()
    code = """
while not seen: time.sleep(0.005)
lease.lost.wait(30)
time.sleep(0.3)  # time for a second telling, or for a resurrection
client.driver().dispatcher.flush(30)
result = [seen, lease.valid(), len(told), lease.lost_because]
"""
    assert holder.run(code)[:3] == [[False], False, 1]
    assert holder.run("result = lease.release().outcome") == "LOST"
    assert waiter.run("lease.confirm(); result = lease.valid()"), "the successor was touched"


def test_s3_a_process_bound_holder_that_was_stopped_has_lost_nothing(cast):
    holder = cast.actor()
    fence = holder.run(WATCHED.format(ttl=0.6, bound=True, gap=0.6))
    newcomer = cast.actor()
    if len(cast.shape.holders) > 1:
        cast.actor().run("lease = shape.holders[1].lock(client, NAME, ttl=60).acquire(40)")
    holder.stop()
    time.sleep(1.2)
    assert newcomer.run("result = shape.newcomer.lock(client, NAME).try_acquire() is None"), (
        "it was overtaken"
    )
    holder.resume()
    code = """
while not seen: time.sleep(0.005)
end = time.monotonic() + 30
while not lease.valid() and time.monotonic() < end: time.sleep(0.005)
result = [lease.valid(), lease.fence, told, lease.lost.is_set()]
"""
    assert holder.run(code) == [True, fence, [], False]
    assert holder.run("result = lease.release().outcome") == "RELEASED"


def test_l5_a_stopped_waiter_loses_its_place_and_is_never_told_that_it_holds(mutex):
    (holder,) = mutex.holders(ttl=60)
    slow = mutex.waiter(then="[lease.fence, lease.valid()]")
    next_ = mutex.waiter()
    slow.stop()
    holder.run("lease.release()")
    fence = next_.result()  # the offer stands for six seconds
    slow.resume()
    time.sleep(0.3)
    assert slow.busy(), "it took an offer that had lapsed"
    next_.run("lease.release()")
    later, valid = slow.result()
    assert later > fence
    assert valid
