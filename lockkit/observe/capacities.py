"""Capacities that a resize changed: the permitted total weight of holds that overlapped.

A claim has the capacity that its caller gives, and each resize changes that of all claims in the queue, but
not of later ones. A larger capacity counts from the call of the resize, a smaller one from its answer,
because a grant may come before or after a concurrent resize. Claims that held before a shrink continue to
hold, so what counts is the capacity when the last one of the holds began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lockkit.observe.past import PastHold, PastResize

__all__ = ["capacity_range", "least"]


def capacity_range(holds: Sequence[PastHold], resized: Sequence[PastResize], skew: float) -> tuple[int, int]:
    """The smallest and the largest capacity that may have been in force at the last grant of these holds.

    The largest one allows for grants that were read late: the last grant came after all the calls.

    Args:
        holds: Holds of one lock that overlapped.
        resized: The changes of its capacity.
        skew: Seconds by which the clocks of two hosts may differ.
    """
    last = max(holds, key=lambda hold: hold.began)
    called = max(hold.began - hold.waited for hold in holds)
    one_boot = len({hold.owner.boot_id for hold in holds}) == 1
    if one_boot:
        last = max(holds, key=lambda hold: hold.began_boottime)
        called = max(hold.began_boottime - hold.waited for hold in holds)
        boot = last.owner.boot_id
    else:
        boot = ""
    until = last.began_boottime if one_boot else last.began
    wall = last.began - until
    low, high = [], []
    for hold in holds:
        low.append(min(_capacities(hold, resized, skew, boot, until, until, wall)))
        high.append(max(_capacities(hold, resized, skew, boot, called, until, wall)))
    return min(low), min(high)


def least(hold: PastHold, resized: Sequence[PastResize], skew: float) -> int:
    """The least capacity that a hold may ever have had."""
    call = hold.began - hold.waited
    return min([hold.capacity, *(each.capacity for each in resized if each.at + each.lasted >= call - skew)])


def _capacities(
    hold: PastHold,
    resized: Sequence[PastResize],
    skew: float,
    boot: str,
    sure: float,
    until: float,
    wall: float,
) -> Iterator[int]:
    """The capacities that a claim may have had at some moment from ``sure`` to ``until``.

    Times are CLOCK_BOOTTIME of ``boot``, or of wall clocks if that is empty; ``wall`` converts to those.
    """
    found = [hold.capacity]
    before = hold.capacity
    for each in sorted(resized, key=lambda one: one.at):
        exact = bool(boot) and each.boot_id == boot
        off = 0.0 if exact else skew
        asked = each.boottime if exact else each.at - wall
        answered = asked + each.lasted
        call = hold.began_boottime - hold.waited if boot else hold.began - hold.waited
        counts = asked if each.capacity > before else answered
        if answered + off < call or asked - off > until:
            continue
        if counts + off <= sure and asked - off >= call:
            found = []  # this one was in force by then, whatever was before
        found.append(each.capacity)
        before = each.capacity
    yield from found
