"""One thread's bell: rings are kept, once, and new ones reach the alarm. The flag that any thread awaits."""

from __future__ import annotations

import threading

from lockkit.lib.bell import Bell, Flag
from support.striking import LONG, strike_each_place


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


def test_a_flag_is_an_event_that_wakes_all_that_wait():
    flag = Flag()
    assert isinstance(flag, threading.Event)
    assert not flag.wait(0.0)
    woken = []
    threads = [threading.Thread(target=lambda: woken.append(flag.wait(LONG))) for _ in range(3)]
    for thread in threads:
        thread.start()
    flag.set()
    for thread in threads:
        thread.join(LONG)
    assert woken == [True] * 3
    assert flag.wait()
    assert flag.is_set()
    assert "set" in repr(flag)
    flag.clear()
    assert not flag.wait(0.01)


def test_a_wait_that_a_signal_handler_interrupts_keeps_no_thread_from_setting_the_flag():
    for where, flag in strike_each_place(Flag, lambda flag: flag.wait(0.001)):
        thread = threading.Thread(target=flag.set, daemon=True)
        thread.start()
        thread.join(LONG)
        assert not thread.is_alive(), where
        assert flag.wait(LONG), where
