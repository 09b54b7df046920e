"""Parts by which the simulation holds a client's requests: framing, lines, a clock that a server follows."""

from __future__ import annotations

import pytest

from support.simulation.clock import VirtualClock
from support.simulation.resp import Cut, Failure, shown, values

ROW = b'*2\r\n$1\r\nG\r\n:17\r\n$-1\r\n+OK\r\n-NOSCRIPT no\r\n*-1\r\n$9\r\n{"a":"\r\n"\r\n'


def test_values_are_told_apart_whatever_is_in_them():
    assert values(ROW) == [[b"G", 17], None, b"OK", Failure("NOSCRIPT no"), None, b'{"a":"\r\n"']


@pytest.mark.parametrize("size", range(1, len(ROW)))
def test_a_row_that_breaks_off_is_whole_only_between_two_values(size):
    part = ROW[:size]
    try:
        found = values(part)
    except Cut:
        return
    assert found == values(ROW)[: len(found)]


def test_what_is_shown_can_be_read():
    assert shown(values(ROW)) == "[[G, 17], None, OK, NOSCRIPT no, None, {...}]"


def test_time_goes_in_whole_microseconds_and_never_stands_while_somebody_waits_for_it():
    clock, seen = VirtualClock(), []
    clock.lead(seen.append)
    clock.forward(0.1)
    clock.forward(1e-9)
    clock.forward(1 / 3)
    clock.forward(0.0)
    assert seen == [100.0, 100.1, 100.100001, 100.433335]
