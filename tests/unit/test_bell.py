"""The bell of one thread: rings are kept, once, and the alarm goes with those that are new."""

from __future__ import annotations

import threading

from lockkit.bell import Bell


def test_a_ring_is_kept_for_the_next_wait_and_only_once():
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.0)


def test_whether_it_has_rung_can_be_asked_without_waiting():
    bell = Bell()
    assert not bell.rung()
    bell.ring()
    assert bell.rung()
    assert not bell.rung()


def test_a_ring_wakes_who_waits():
    bell = Bell()
    threading.Timer(0.02, bell.ring).start()
    assert bell.wait(30.0)


def test_the_alarm_goes_with_a_new_ring_after_it_can_be_seen():
    bell, seen = Bell(), []
    bell.alarm = lambda: seen.append(bell.rung())
    bell.ring()
    assert seen == [True]


def test_a_ring_that_was_kept_already_raises_no_alarm():
    bell, alarms = Bell(), []
    bell.ring()
    bell.alarm = lambda: alarms.append(1)
    bell.ring()
    assert alarms == []
