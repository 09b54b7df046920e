"""The time limit that the releases of several locks share."""

from __future__ import annotations

from lockkit.facts import LayerReport, ReleaseReport
from lockkit.protocol.sharing import Sharing


def report(outcome, *layers):
    return ReleaseReport("a", "1", 1, outcome, "normal", tuple(LayerReport(*layer) for layer in layers))


def test_a_single_release_may_use_all_of_it():
    assert Sharing(2.0, 1).next() == 2.0


def test_each_may_use_half_of_what_is_left_and_the_last_one_all():
    sharing = Sharing(2.0, 3)
    shares = []
    for _ in range(3):
        shares.append(sharing.next())
        sharing.took(report("ABANDONED", ("normal", "UNKNOWN", shares[-1])))

    assert shares == [1.0, 0.5, 0.5]


def test_neither_an_answered_release_nor_a_cleanup_costs_anything():
    sharing = Sharing(2.0, 3)
    sharing.took(report("RELEASED", ("normal", "DONE", 1.5)))
    sharing.took(report("ABANDONED", ("cleanup", "DONE", 9.0), ("normal", "UNKNOWN", 0.5)))

    assert sharing.next() == 0.75


def test_what_is_too_short_for_a_request_is_nothing():
    assert Sharing(0.08, 2).next() == 0.0
