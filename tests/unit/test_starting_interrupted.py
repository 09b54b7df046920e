"""Threads of the background, and a signal handler that raises while they are started."""

from __future__ import annotations

import threading
import time

from lockkit.clock import SYSTEM
from lockkit.drivers.callbacks import CALLBACKS
from lockkit.drivers.dispatch import Dispatcher
from lockkit.drivers.ticker import Ticker
from lockkit.events import Counters
from lockkit.facts import Event
from lockkit.testing.interrupts import Bomb, CtrlC

LONG = 20.0
"""Seconds to wait for what is to happen at once."""


def strike_each_place(prepare, do):
    """Do something with what was prepared for it, again and again, struck at each place in turn; yields place and prepared."""
    for at in range(1, 1000):
        prepared = prepare()
        bomb = Bomb(at, beside=("threading",))
        try:
            with bomb:
                do(prepared)
        except CtrlC:
            pass
        yield bomb.where, prepared
        if not bomb.where:
            assert at > 1
            return


def gone(name):
    """Whether all threads of this name end."""
    end = time.monotonic() + LONG
    while any(thread.name == name for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(thread.name == name for thread in threading.enumerate())


def test_a_ticker_whose_start_was_cut_short_starts_again_and_ends():
    def prepare():
        turn = threading.Event()

        def work():
            turn.set()
            return SYSTEM.now() + 1e9

        return Ticker("lockkit-struck", work, SYSTEM), turn

    for where, (ticker, turn) in strike_each_place(prepare, lambda it: it[0].start()):
        ticker.start()
        for _ in range(2):  # the second ring finds the older of two threads gone, if there were two
            turn.clear()
            ticker.poke(SYSTEM.now())
            assert turn.wait(LONG), where
        ticker.close()
        ticker.join(LONG)
    assert gone("lockkit-struck")


def test_a_plugin_hears_of_an_event_after_the_start_of_its_thread_was_cut_short():
    class Hears:
        def __init__(self):
            self.heard = []
            self.second = threading.Event()

        def lockkit_event(self, event):
            self.heard.append(event.name)
            if event.name == "second":
                self.second.set()

    def prepare():
        plugin = Hears()
        return Dispatcher(Counters(), SYSTEM, [("hears", plugin.lockkit_event)]), plugin

    for where, (dispatcher, plugin) in strike_each_place(
        prepare, lambda it: it[0].tell(Event("skipped", "first"))
    ):
        dispatcher.tell(Event("skipped", "second"))
        assert plugin.second.wait(LONG), where
        dispatcher.close(LONG)
    assert gone("lockkit-event-hears")


def test_a_callback_is_called_after_the_start_of_its_thread_was_cut_short():
    for where, _ in strike_each_place(list, lambda _: CALLBACKS.run(lambda: None, "struck")):
        called = threading.Event()
        CALLBACKS.run(called.set, "after it")
        assert called.wait(LONG), where
    assert gone("lockkit-on-lost")
    end = time.monotonic() + LONG
    while CALLBACKS._threads:  # the last one may not have begun yet
        assert time.monotonic() < end
        time.sleep(0.01)
