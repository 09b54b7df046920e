"""The choice of requests that busy-wait for their replies, on a clock that stops between its steps."""

from __future__ import annotations

import pytest

from lockkit.store import awake
from lockkit.store.awake import Awake


class Clock:
    """A stand-in for the module :mod:`time`."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(awake, "time", clock)
    monkeypatch.setattr(awake, "_PROCESSORS", 2)
    monkeypatch.setattr(awake._process, "until", 0.0)
    return clock


def stays(connection, *, in_vain):
    """One request: whether it stays awake, and if so, how that ends."""
    until = connection.until()
    if until:
        connection.over(in_vain=in_vain)
    return until > 0.0


def asleep(connection):
    """The requests that go to sleep at once before one stays awake in vain again."""
    count = 0
    while not stays(connection, in_vain=True):
        count += 1
    return count


def test_a_request_stays_awake_for_a_tenth_of_a_millisecond(clock):
    assert Awake().until() == pytest.approx(clock.now + 0.0001)


def test_while_replies_come_soon_every_request_stays_awake():
    connection = Awake()
    assert all(stays(connection, in_vain=False) for _ in range(1000))


def test_after_one_in_vain_more_and_more_of_the_next_ones_do_not():
    connection = Awake()
    assert [asleep(connection) for _ in range(11)] == [0, 1, 3, 7, 15, 31, 63, 127, 255, 255, 255]


def test_one_reply_that_comes_soon_keeps_the_next_ones_awake():
    connection = Awake()
    for _ in range(3):
        asleep(connection)
    while not stays(connection, in_vain=False):
        pass
    assert all(stays(connection, in_vain=False) for _ in range(10))


def test_one_request_of_a_process_at_a_time_stays_awake(clock):
    one, two = Awake(), Awake()
    assert one.until()
    assert not two.until()
    one.over(in_vain=False)
    assert two.until()
    clock.now += 0.001  # its end was never noted
    assert one.until()


def test_none_where_it_cannot_help(monkeypatch):
    assert not Awake(ever=False).until()
    monkeypatch.setattr(awake, "_PROCESSORS", 1)
    assert not Awake().until()
