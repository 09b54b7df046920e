"""A client's background threads: no error between two turns ends them, as no other thread does their work."""

from __future__ import annotations

import _thread
import math
import sys
import threading

import pytest

from lockkit.drivers.ticker import Ticker
from lockkit.lib.clock import SYSTEM
from lockkit.store.starting import start
from lockkit.testing.processes import until

LONG = 30.0
"""Seconds to wait for what is to happen at once."""
TURNS = 3


class Starved:
    """A clock whose answer there is no memory for, once."""

    def __init__(self, at):
        self.left = at

    def now(self):
        self.left -= 1
        if self.left == -1:
            raise MemoryError
        return SYSTEM.now()


@pytest.mark.parametrize("at", range(2 * TURNS))
def test_a_thread_that_ran_out_of_memory_between_two_turns_goes_on(at, monkeypatch):
    ended, turns, done = [], [], threading.Event()

    def end(uncaught):
        ended.append(uncaught.exc_type)
        done.set()

    monkeypatch.setattr(threading, "excepthook", end)

    def turn():
        turns.append(at)
        if len(turns) < TURNS:
            return 0.0
        done.set()
        return math.inf

    ticker = Ticker("turns", turn, Starved(at))
    try:
        assert ticker.poke(0.0)
        assert done.wait(LONG)
        assert not ended, f"the thread ended after {len(turns)} turns"
    finally:
        ticker.close()
        ticker.join(LONG)


@pytest.mark.parametrize("begun", [False, True])
def test_a_thread_whose_start_runs_out_of_memory_works_once(begun, monkeypatch):
    ran, first = [], threading.Event()
    run, unraisable = threading.Thread.start, []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def start_without_memory(thread):
        if begun:
            run(thread)
            assert first.wait(LONG)
        raise MemoryError

    def target():
        ran.append(threading.get_ident())
        first.set()

    monkeypatch.setattr(threading.Thread, "start", start_without_memory)
    before = _thread._count()
    start(target, "works once")
    assert first.wait(LONG)
    until(lambda: _thread._count() <= before, "all threads have ended")
    assert len(ran) == 1
    assert not unraisable
