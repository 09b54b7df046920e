"""Validity as arithmetic: a Hold, a clock, and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.facts import Capabilities
from lockkit.lib.leaving import Level
from lockkit.protocol.hold import Hold, span
from lockkit.store.spi import Claim, Terms
from lockkit.testing.children import in_child
from lockkit.testing.interrupts import Bomb, CtrlC

CAN = Capabilities(scope="host", drift=0.01, margin=0.1)
SPAN = 10 * 0.99 - 0.1
seconds = st.floats(0, 100)


def hold(basis=100.0, capabilities=CAN, **terms):
    return Hold(Claim("a" * 32, Terms("x", **{"ttl": 10.0, **terms})), 7, basis, capabilities, wall=1e9)


def test_validity_ends_before_the_ttl_by_drift_and_margin():
    one = hold()
    assert span(10, CAN.drift, CAN.margin) == pytest.approx(SPAN)
    assert one.expires == pytest.approx(100 + SPAN)
    assert one.valid(100)
    assert one.valid(100 + SPAN - 1e-6)
    assert not one.valid(100 + SPAN)
    assert not one.valid(1e12)


def test_max_hold_ends_it_whatever_was_renewed():
    one = hold(max_hold=15.0)
    assert one.renewed(109, 109)
    assert one.expires == one.latest
    assert one.valid(one.latest - 0.001)
    assert not one.valid(one.latest)
    assert one.overdue(one.latest) == "max_hold"
    assert one.overdue(one.latest - 0.001) == ""


@given(longest=st.floats(0.01, 1e6), drift=st.floats(0, 0.1), rounded=st.floats(0, 0.001))
def test_s3_max_hold_is_over_before_a_store_with_a_faster_clock_has_counted_it(longest, drift, rounded):
    """The store counts from its grant, in milliseconds, and lets the next one in."""
    can = CAN._replace(drift=drift)
    one = hold(capabilities=can, max_hold=longest, process_bound=True)
    counted = (longest - rounded) / (1.0 + drift)
    assert not one.valid(one.since + counted)
    assert one.latest > one.since + 0.9 * longest - 0.0021  # what is left for rounding, and a little


def test_a_renewal_counts_from_when_it_was_sent():
    one = hold()
    assert one.renewed(105, 108)
    assert one.expires == pytest.approx(105 + SPAN)


def test_an_older_answer_that_comes_later_shortens_nothing():
    one = hold()
    assert one.renewed(106, 107)
    assert one.renewed(103, 108)
    assert one.basis == 106


def test_an_answer_read_after_the_end_moves_nothing():
    one = hold()
    assert not one.renewed(109, 100 + SPAN)
    assert one.basis == 100
    assert not one.extended(one.claim, 109, 100 + SPAN)


@pytest.mark.parametrize("over", ["lose", "end"])
def test_what_is_over_stays_over(over):
    one = hold()
    assert one.lose("evicted") if over == "lose" else one.end() == "unused"
    assert not one.valid(100)
    one.renewed(101, 101)
    assert not one.extended(one.claim, 101, 101)
    assert not one.valid(101)
    assert one.basis == 100
    assert not one.lose("lost")
    assert one.lost_why == ("evicted" if over == "lose" else "")
    assert one.overdue(1e6) == ""


def test_the_event_is_set_whenever_it_is_first_asked_for():
    before, after = hold(), hold()
    event = before.lost
    assert not event.is_set()
    before.lose("lost")
    after.lose("lost")
    assert event.is_set()
    assert before.lost is event
    assert after.lost.is_set()


def test_a_released_hold_is_not_lost():
    one = hold()
    one.end()
    assert not one.lost.is_set()


def test_an_extension_counts_with_the_longer_ttl():
    one = hold()
    longer = Claim(one.claim.token, Terms("x", ttl=20.0))
    assert one.extended(longer, 101, 102)
    assert one.expires == pytest.approx(101 + span(20, CAN.drift, CAN.margin))
    assert one.claim is longer


def test_a_process_bound_hold_is_silent_but_not_over():
    one = hold(process_bound=True)
    assert not one.valid(200)
    assert one.overdue(200) == ""
    assert one.renewed(200, 200)
    assert one.valid(200)


def test_it_is_not_valid_in_a_forked_child():
    one = hold()
    assert in_child(lambda: one.valid(100)) is False
    assert in_child(lambda: one.valid(100), same_pid=True) is False
    assert one.valid(100)


class Handle:
    def __init__(self):
        self.level = Level(self)


def levels(one, count):
    handles = [Handle() for _ in range(count)]
    assert all(one.enter(handle) for handle in handles)
    return handles


def test_the_last_handle_that_is_left_releases_and_being_left_twice_is_being_left_once():
    one = hold()
    outer, inner = levels(one, 2)
    inner.level.left = True
    assert not one.leave()
    assert not one.leave(), "a second release of the inner level must not leave the outer one"
    assert not one.given_up
    outer.level.left = True
    assert one.given_up, "a release that was cut short before it began is known"
    assert one.leave()
    assert one.leave(), "a release that was cut short goes on"
    assert not one.enter(Handle())


def test_a_level_that_nobody_has_any_more_is_none():
    one = hold()
    outer, inner = levels(one, 2)
    del inner
    outer.level.left = True
    assert one.leave()


def test_a_hold_whose_handles_are_all_gone_is_collected_and_not_given_up():
    one = hold()
    (handle,) = levels(one, 1)
    del handle
    assert one.collected
    assert not one.given_up


def test_a_hold_of_which_one_handle_was_left_and_the_other_is_gone_is_collected():
    one = hold()
    outer, inner = levels(one, 2)
    outer.level.left = True
    assert not one.collected
    del inner
    assert one.collected, "whoever still has the outer handle does not work under it"
    assert not one.given_up


def test_taking_over_leaves_nothing_to_enter():
    one = hold()
    kept = levels(one, 2)
    assert one.take_over()
    assert not one.take_over()
    assert one.leave()
    assert not one.enter(kept[0])


@given(
    st.lists(
        st.tuples(st.sampled_from(["renew", "extend", "lose", "end", "wait"]), seconds, seconds), max_size=20
    )
)
def test_once_invalid_never_valid_again_and_never_beyond_what_was_answered(steps):
    one, now, invalid, newest = hold(0.0), 0.0, False, 0.0
    ttl = 10.0
    for what, ago, passes in steps:
        now += passes / 10
        sent = max(0.0, now - ago)
        if what == "renew":
            one.renewed(sent, now)
        elif what == "extend":
            ttl += 1
            one.extended(Claim("a" * 32, Terms("x", ttl=ttl)), sent, now)
        elif what == "lose":
            one.lose("lost")
        elif what == "end":
            one.end()
        newest = max(newest, sent)
        assert one.expires <= newest + span(ttl, CAN.drift, CAN.margin) + 1e-9
        assert not (invalid and one.valid(now))
        invalid = invalid or not one.valid(now)


def test_ctrl_c_in_an_extension_leaves_a_hold_with_the_old_times_or_with_the_new_ones():
    def extended(at):
        one, longer = hold(), hold(ttl=100.0).claim
        bomb = Bomb(at)
        with contextlib.suppress(CtrlC), bomb:
            one.extended(longer, 105.0, 106.0)
        return one, bomb

    one, untouched = extended(1 << 30)
    new = (one.basis, one.expires)
    old = (100.0, hold().expires)

    assert untouched.seen > 3
    for at in range(1, untouched.seen + 1):
        one, bomb = extended(at)
        assert (one.basis, one.expires) in (old, new), bomb.where
