"""Threads of the background, and a signal handler that raises while they are started."""

from __future__ import annotations

import threading
import time

from lockkit.drivers.callbacks import CALLBACKS
from lockkit.drivers.dispatch import Dispatcher
from lockkit.drivers.ticker import Ticker
from lockkit.facts import Event
from lockkit.lib.clock import SYSTEM
from lockkit.store.polling import Polling
from lockkit.store.starting import OneThread
from lockkit.values.events import Counters
from support.striking import LONG, gone, left, strike_each_place


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


def test_a_thread_of_which_there_is_to_be_one_works_once_at_a_time_wherever_its_start_was_cut_short():
    class Work:
        def __init__(self):
            self.go, self.began, self.at_work, self.most = threading.Event(), threading.Event(), 0, 0
            self.thread = OneThread(self.run, "lockkit-one")

        def run(self):
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self.began.set()
            self.go.wait(LONG)
            self.at_work -= 1

    for where, work in strike_each_place(Work, lambda work: work.thread.start()):
        for _ in range(3):
            work.thread.start()
        assert work.began.wait(LONG), where
        work.go.set()
        assert gone("lockkit-one"), where
        assert work.most == 1, where


def test_a_thread_that_is_started_while_it_ends_works_once_more():
    ends, rounds = threading.Event(), []

    def run():
        rounds.append(1)
        if len(rounds) == 1:
            ends.wait(LONG)

    thread = OneThread(run, "lockkit-one")
    thread.start()
    while not rounds:
        time.sleep(0.001)
    thread.start()
    ends.set()
    assert gone("lockkit-one")
    assert len(rounds) == 2


def test_a_thread_that_looks_for_others_looks_although_the_start_was_cut_short():
    def watch(polling):
        polling.watch("a", lambda _: True, lambda: None)

    class Looks:
        def __init__(self):
            self.looked = threading.Event()
            self.polling = Polling(self.look, 0.001)

        def look(self, name, budget, known):
            self.looked.set()
            return 1, None

    for where, looks in strike_each_place(Looks, lambda looks: watch(looks.polling)):
        watch(looks.polling)
        assert looks.looked.wait(LONG), where
        assert left("lockkit-polling", 1), where
        looks.polling.close()
        assert gone("lockkit-polling")
