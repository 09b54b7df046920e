"""The sums of the report: what lies in the period, what is idle, and what is not known."""

from __future__ import annotations

import pytest

from lockkit.facts import Owner
from lockkit.notes.members import pool_name
from lockkit.observe.past import History, PastHold, PastWait, StoreKey
from lockkit.observe.usage import card_of, uses

KEY = StoreKey("redis://box", "default")
ANN = Owner(user="ann", host="box", pid=1)


def hold(began, ended, *, waited=0.0, idle=0.0, end="released", name="a", owner=ANN):
    return PastHold(KEY, name, f"{began:012.0f}", 1, owner, began, waited, ended, end, idle=idle)


def one(*holds, waits=(), since=100.0, until=200.0):
    (use,) = uses(History(holds, waits), since, until)
    return use


@pytest.mark.parametrize(
    "began, ended, held",
    [(110, 120, 10), (90, 120, 20), (190, 250, 10), (50, 300, 100), (100, 200, 100)],
)
def test_only_what_lies_in_the_period_counts(began, ended, held):
    assert one(hold(began, ended)).held == held


def test_a_hold_outside_of_the_period_does_not_count():
    assert uses(History((hold(10, 20), hold(300, 310))), 100.0, 200.0) == []


def test_a_hold_is_idle_for_no_longer_than_it_is_held_in_the_period():
    assert one(hold(90, 120, idle=25.0)).idle == 20.0
    assert one(hold(110, 150, idle=25.0)).idle == 25.0


def test_a_hold_that_stands_counts_until_the_end_and_one_whose_end_is_unknown_not_at_all():
    assert one(hold(150, None, end="")).held == 50.0
    for end in ("unknown", "untold"):
        use = one(hold(150, None, end=end))
        assert (use.held, use.holds, use.open) == (0.0, 1, 1)


def test_waits_count_with_a_grant_and_in_vain():
    waits = (PastWait(KEY, "a", ANN, "timeout", 150.0, 60.0), PastWait(KEY, "a", ANN, "busy", 300.0, 9.0))
    use = one(hold(110, 120, waited=20.0), waits=waits)
    assert (use.waited, use.in_vain) == (10.0 + 50.0, 1)


def test_users_and_locks_are_told_apart_and_who_held_for_longest_comes_first():
    bob = ANN._replace(user="bob")
    found = uses(History((hold(110, 120), hold(130, 160, owner=bob), hold(110, 115, name="b"))), 100.0, 200.0)
    assert [(use.user, use.name, use.held) for use in found] == [
        ("bob", "a", 30.0),
        ("ann", "a", 10.0),
        ("ann", "b", 5.0),
    ]


def test_the_card_behind_a_lock_is_known_by_its_uuid():
    assert card_of("a") is None
    assert card_of(pool_name("gpus", "GPU-1234")) == "GPU-1234"
    assert card_of(pool_name("licences", "one")) is None
