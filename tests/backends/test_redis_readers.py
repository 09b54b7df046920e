"""Readers of a client's subscription on Redis: the waiting thread if alone; no turn is missed at changes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.lib.bell import Bell
from lockkit.store.spi import POLL_CAP
from lockkit.testing.processes import until
from lockkit.testing.took import Took
from lockkit_redis import subscription, wakes
from lockkit_redis.connection import Connection
from support import turns
from support.turns import AT_ONCE, LONG


@pytest.fixture
def standing(store):
    """The subscription stands, and nobody reads it."""
    taken = Turn(store, "first")
    with taken.listening():
        until(lambda: store._wakes._standing)
    until(lambda: store._wakes._reader is None)
    # For a moment new waiters ask the server, too, and on a busy machine an answer that is late wakes them.
    store._wakes._stood_at -= 60
    return store


class Turn(turns.Turn):
    """A waiter whose store knows who listens."""

    def reads(self):
        return self.store._wakes._reader is self.reader


@contextlib.contextmanager
def paused(server):
    server.pause()
    try:
        yield
    finally:
        server.resume()


def test_who_waits_alone_reads_and_is_woken_by_nobody_else(standing):
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        turn.come()
        assert turn.woken()
    assert standing._wakes._reader is None, "the keeper took no part in it"


def test_a_waiter_whose_call_raises_keeps_nobody_from_being_woken(standing, caplog):
    def fails():
        raise ValueError("a bad callback")

    bad, good = Turn(standing, "bad"), Turn(standing, "good")
    gone = standing._wakes._subscription
    watch = standing.watch("bad", bad.blockers, fails, bad.claim)
    with good.listening():
        bad.come()
        until(lambda: "a bad callback" in caplog.text)
        good.come()
        assert good.woken()
    assert standing._wakes._subscription is gone
    watch.close()


def test_a_turn_that_came_before_its_thread_waits_is_not_missed(standing):
    turn = Turn(standing)
    turn.come()
    with turn.listening():
        assert turn.woken()


def test_who_is_not_alone_any_more_leaves_the_reading_to_the_keeper_and_all_hear(standing):
    """The others must not depend on what else that thread does, in a signal handler for example."""
    first, second = Turn(standing, "a"), Turn(standing, "b")
    with contextlib.ExitStack() as stack:
        stack.enter_context(first.listening())
        until(first.reads)
        stack.enter_context(second.listening())
        until(lambda: standing._wakes._reader is standing._wakes._keeper)
        first.come()
        assert first.woken()
        second.come()
        assert second.woken()


def test_two_that_are_called_by_one_fence_are_two(standing):
    """Two nodes of a Cluster may give the same."""
    turn, other = Turn(standing), threading.Event()
    with turn.listening():
        until(turn.reads)
        standing.watch("a", turn.blockers, other.set, turn.claim)
        until(lambda: not turn.reads())
        turn.come()
        assert turn.woken()
        assert other.wait(AT_ONCE)


def test_a_watch_without_a_thread_hears_whoever_reads(standing):
    heard = [threading.Event() for _ in range(3)]
    alone, beside, after = (Turn(standing, name) for name in "abc")
    for turn, event in zip((alone, beside, after), heard, strict=True):
        turn.event = event

    def watch(turn):
        turn.watch = standing.watch(turn.name, turn.blockers, turn.event.set, turn.claim)

    watch(alone)
    alone.come()
    assert alone.event.wait(AT_ONCE)
    alone.watch.close()
    until(lambda: standing._wakes._reader is None)
    reader = Turn(standing, "d")
    with reader.listening():
        until(reader.reads)
        watch(beside)
        beside.come()
        assert beside.event.wait(AT_ONCE)
        beside.watch.close()
        watch(after)
    after.come()
    assert after.event.wait(AT_ONCE)


def test_a_ring_of_the_bell_ends_the_wait_of_who_reads(standing):
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        turn.bell.ring()  # as a heartbeat does, or the end of the client
        assert turn.woken()


def test_the_wait_of_who_reads_ends_in_time(standing):
    turn = Turn(standing)
    with turn.listening(seconds=0.05):
        turn.thread.join(AT_ONCE)
        assert turn.answer is False


def test_a_connection_that_is_cut_under_who_reads_is_made_again_and_made_up_for(server, standing):
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        until(lambda: not turn.reads())
        turn.come()
        assert turn.woken()
    until(lambda: standing._wakes._standing)


def test_a_connection_that_is_silent_is_given_up_by_who_reads(server, standing, monkeypatch):
    monkeypatch.setattr(subscription, "_PING", 0.1)
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        gone = standing._wakes._subscription
        with paused(server):
            until(lambda: standing._wakes._subscription is not gone)
        turn.come()
        assert turn.woken()


@pytest.fixture
def pings(monkeypatch):
    """The connections that got a PING: one every 20 ms, which a busy machine may not answer in time."""
    sent = []
    ask, hear = subscription.Subscription._ask_for_life, subscription.Subscription.hear

    def asked(self):
        ask(self)
        sent.append(self)

    def heard(self, seconds):
        if self._pinged:
            select.select([self._connection.fileno()], [], [], LONG)
        return hear(self, seconds)

    monkeypatch.setattr(subscription, "_PING", 0.02)
    monkeypatch.setattr(subscription.Subscription, "_ask_for_life", asked)
    monkeypatch.setattr(subscription.Subscription, "hear", heard)
    return sent


def test_a_connection_that_answers_is_kept(standing, pings):
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        kept = standing._wakes._subscription
        until(lambda: len(pings) >= 10)
        assert turn.reads()
        assert set(pings) == {kept}


def test_a_connection_that_nobody_reads_is_kept_if_it_answers(standing, pings, monkeypatch):
    monkeypatch.setattr(wakes, "_LOOK", 0.03)
    standing._wakes._due.ring()  # from here on the keeper looks more often
    kept = standing._wakes._subscription
    until(lambda: len(pings) >= 10)
    assert set(pings) == {kept}


def test_a_connection_that_is_cut_again_and_again_is_made_again_as_soon_as_the_first_time(server, standing):
    with Turn(standing).listening():
        took = []
        for _ in range(7):
            gone = standing._wakes._subscription
            time.sleep(0.2)  # it stands for longer than the pause before it was
            server.cli("CLIENT", "KILL", "TYPE", "PUBSUB")
            cut = time.monotonic()
            until(lambda gone=gone: standing._wakes._subscription not in (gone, None))
            took.append(time.monotonic() - cut)
            until(lambda: standing._wakes._standing)
        assert min(took[4:]) < 0.7, "the pause has grown to a second each time"


class Due(Bell):
    """The bell of the keeper. ``rests``: the keeper has nothing to do."""

    def __init__(self):
        super().__init__()
        self.rests = threading.Event()

    def wait(self, seconds):
        if self.rung():
            return True
        self.rests.set()
        return super().wait(seconds)


def test_the_keeper_leaves_the_reading_to_a_waiter_whose_thread_has_yet_to_wait(store, monkeypatch):
    due = store._wakes._due = Due()
    stands, looked = threading.Event(), threading.Event()

    def make_up(*_):
        stands.set()
        assert looked.wait(LONG)

    monkeypatch.setattr(wakes.Wakes, "_make_up", make_up)
    with Turn(store, "first").listening():
        assert stands.wait(LONG)
    store._wakes._stood_at -= 60  # it has stood for a while
    turn = Turn(store)
    reader = store.extras.listen("a", turn.blockers, turn.bell.ring, turn.claim)
    looked.set()
    until(lambda: due.rests.is_set() or store._wakes._reader is not None)
    assert store._wakes._reader is None
    reader.close()


def test_a_keeper_that_is_awake_before_it_is_known_why_makes_the_subscription_anew(store, monkeypatch):
    """A reader that gives up rings first: its Ctrl-C may come again."""
    monkeypatch.setattr(wakes, "_LOOK", 10 * LONG)
    lock, asks, early = threading.RLock(), threading.Event(), threading.Event()

    class Mutex:
        def __enter__(self):
            if threading.current_thread().name == "lockkit-redis-wakes":
                asks.set()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    class Rings(Due):
        def ring(self):
            asks.clear()
            super().ring()
            if early.is_set():
                assert asks.wait(LONG)

    store._wakes._mutex, store._wakes._due = Mutex(), Rings()
    with Turn(store, "first").listening():
        until(lambda: store._wakes._standing)
    assert store._wakes._due.rests.wait(LONG)
    gone = store._wakes._subscription
    early.set()
    store._wakes._give_up(gone, subscription.Gone("its reader was interrupted"))
    early.clear()
    until(lambda: store._wakes._subscription not in (gone, None))


def test_no_waiter_reads_a_subscription_that_ends_under_the_keeper(standing, monkeypatch):
    """A reader of what has ended notices nothing, and keeps all others from reading the next one."""
    turn, entered = Turn(standing), []
    parked = standing.watch("b", turn.blockers, turn.bell.ring, turn.claim)
    until(lambda: standing._wakes._reader is standing._wakes._keeper)
    reader = standing.extras.listen("a", turn.blockers, turn.bell.ring, turn.claim)
    leave = wakes.Wakes._leave

    def left(self, one):
        leave(self, one)
        if one is self._keeper:
            entered.append(self._enter(reader))

    def cut(*_):
        parked.close()
        raise ConnectionError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(wakes.Wakes, "_leave", left)
        patched.setattr(subscription.Subscription, "hear", cut)
        standing._wakes._subscription.nudge()
        until(lambda: entered)
    assert entered[0] is None
    reader.close()


def test_what_is_said_and_means_nothing_is_not_heeded(standing):
    rubbish = [
        b"x",
        5,
        None,
        [],
        [b"message"],
        [b"message", b"c", [b"f"]],
        [b"message", b"c", b"f", b"g"],
        [None],
    ]
    standing._wakes._pass_on(rubbish)


def test_a_watch_that_ctrl_c_hit_as_it_began_is_gone(standing, monkeypatch):
    def torn(*_):
        raise KeyboardInterrupt

    turn = Turn(standing)
    with monkeypatch.context() as patched:
        patched.setattr(wakes.Wakes, "_make_up", torn)
        standing._wakes._stood_at = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            standing.extras.listen("a", turn.blockers, turn.bell.ring, turn.claim)
    assert not standing._wakes._watches


def test_closing_the_store_ends_the_wait_and_the_thread(server, standing):
    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        standing.close()
        until(lambda: not standing._wakes._thread.running, "the thread ends", AT_ONCE)


def test_what_ctrl_c_took_from_who_reads_is_made_up_for(standing, monkeypatch):
    """The Ctrl-C lands between the moment in which bytes are read and the one in which they are taken in."""
    feed = Connection._feed

    def torn(self, block):
        if b"message" in block:
            raise KeyboardInterrupt
        feed(self, block)

    turn = Turn(standing)
    with turn.listening():
        until(turn.reads)
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_feed", torn)
            turn.come()
            turn.thread.join(AT_ONCE)
        assert turn.answer is None, "it was not torn"
    with turn.listening():
        assert turn.woken()


def test_who_was_cut_off_before_it_could_leave_is_gone_when_its_watch_is(standing):
    turn = Turn(standing)
    reader = standing.extras.listen("a", turn.blockers, turn.bell.ring, turn.claim)
    standing._wakes._enter(reader)  # and Ctrl-C, and nothing after
    reader.close()
    with turn.listening():
        until(turn.reads)


def test_ctrl_c_while_reading_costs_a_connection_and_no_wake(server):
    """On the main thread, where signals land; the next wait hears, and so do those of other threads."""

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with lockkit.connect(server.url()) as holder, lockkit.connect(server.url()) as client:
            for turn in range(8):
                held = holder.lock("a", ttl=300).acquire()
                timer = threading.Timer(0.02 + 0.01 * turn, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                with pytest.raises(KeyboardInterrupt):
                    client.lock("a", ttl=300).acquire()
                timer.join()
                threading.Timer(0.05, held.release).start()
                with Took() as took:
                    client.lock("a", ttl=300).acquire(timeout=30).release()
                assert took.seconds < 0.75 * POLL_CAP, "it was not woken: the poll cap covered it"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_hundreds_of_hand_offs_among_threads_of_three_clients_need_no_poll_cap(server, monkeypatch):
    late = []
    wait = wakes.Wakes.wait

    def watched(self, watch, bell, seconds):
        rung = wait(self, watch, bell, seconds)
        if not rung:
            late.append(seconds)
        return rung

    monkeypatch.setattr(wakes.Wakes, "wait", watched)
    counts = []

    def work(client, names):
        for turn in range(25):
            client.lock(names[turn % len(names)]).acquire(timeout=60).release()
            counts.append(turn)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lockkit.connect(server.url())) for _ in range(3)]
        threads = [
            threading.Thread(target=work, args=(clients[at % 3], names))
            for at, names in enumerate([("a",), ("a", "b"), ("b", "a"), ("a",), ("b",), ("a", "b", "c")] * 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(counts) == 25 * len(threads)
    assert late == []
