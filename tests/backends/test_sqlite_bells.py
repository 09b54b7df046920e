"""Readers of a bell of the embedded store: the waiting thread if alone; no turn is missed at changes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

import lockkit
from lockkit.lib.bell import Bell
from lockkit.store.spi import POLL_CAP
from lockkit.testing.processes import until
from lockkit.testing.took import Took
from lockkit_sqlite import pulse, watcher
from lockkit_sqlite.pulse import ALIVE, DEAD
from lockkit_sqlite.pulses import BellWatch, Listener, Pulses
from lockkit_sqlite.watcher import Watcher
from support import turns
from support.turns import AT_ONCE, LONG


@pytest.fixture
def listener(monkeypatch):
    """A listener of the test's own, whose keeper has not started."""
    fresh = Listener()
    monkeypatch.setattr("lockkit_sqlite.store.LISTENER", fresh)
    return fresh


@pytest.fixture
def store(tmp_path, listener):
    tmp_path.chmod(0o700)
    with contextlib.closing(lockkit.testing.claims.open_store(f"sqlite:{tmp_path}/db")) as opened:
        yield opened


def entered(folder):
    """The FIFOs of a process that has a store open."""
    pulses = Pulses(Watcher(), str(folder), 0o600)
    pulses.users.add(Bell)  # any object
    return pulses


@pytest.fixture
def fifos(tmp_path):
    """The FIFOs of a second process, as this one sees them, and that process's own."""
    tmp_path.chmod(0o700)
    here, there = entered(tmp_path / "pulses"), entered(tmp_path / "pulses")
    here.name()
    yield here, there
    for each in (here, there):
        each.abandon()
        each.watcher.forget()


class Turn(turns.Turn):
    """A waiter whose store knows who listens."""

    def reads(self):
        return self.reader._pulses.watcher._reader is self.reader


def test_who_waits_alone_listens_itself(store, listener):
    turn = Turn(store)
    with turn.listening():
        until(turn.reads)
        turn.come()
        assert turn.woken()
    assert listener.watcher._reader is None, "the keeper took part in it"


def test_a_turn_that_came_before_its_thread_waits_is_not_missed(store):
    turn = Turn(store)
    turn.come()
    with turn.listening():
        assert turn.woken()


def test_who_is_not_alone_any_more_leaves_the_listening_to_the_keeper_and_all_hear(store, listener):
    """The others must not depend on what else that thread does, in a signal handler for example."""
    first, second = Turn(store, "a"), Turn(store, "b")
    with contextlib.ExitStack() as stack:
        stack.enter_context(first.listening())
        until(first.reads)
        stack.enter_context(second.listening())
        until(lambda: listener.watcher._reader is listener.watcher)
        first.come()
        assert first.woken()
        second.come()
        assert second.woken()
    until(lambda: listener.watcher._reader is None)


def test_a_watch_without_a_thread_has_the_keeper_listen_each_time(store, listener):
    for turn in (Turn(store, "a"), Turn(store, "b"), Turn(store, "c")):
        heard = threading.Event()
        watch = store.watch(turn.name, turn.blockers, heard.set, turn.claim)
        until(lambda: listener.watcher._reader is listener.watcher)
        turn.come()
        assert heard.wait(AT_ONCE)
        watch.close()
        until(lambda: listener.watcher._reader is None)


def test_a_watch_without_a_thread_hears_whoever_listens(store):
    turn, heard = Turn(store), threading.Event()
    with turn.listening():
        until(turn.reads)
        other = Turn(store, "b")
        watch = store.watch("b", other.blockers, heard.set, other.claim)
        until(lambda: not turn.reads())
        other.come()
        assert heard.wait(AT_ONCE)
        watch.close()
        turn.come()
        assert turn.woken()


def test_a_ring_of_the_bell_ends_the_wait_of_who_listens(store):
    turn = Turn(store)
    with turn.listening():
        until(turn.reads)
        turn.bell.ring()  # as a heartbeat does, or the end of the client
        assert turn.woken()


def test_the_wait_of_who_listens_ends_in_time(store):
    turn = Turn(store)
    with turn.listening(seconds=0.05):
        turn.thread.join(AT_ONCE)
        assert turn.answer is False


def test_who_was_cut_off_before_it_could_leave_is_gone_when_its_watch_is(store, listener):
    turn = Turn(store)
    reader = store.extras.listen("a", turn.blockers, turn.bell.ring, turn.claim)
    listener.watcher._enter(reader)  # and Ctrl-C, and nothing after
    reader.close()
    with turn.listening():
        until(turn.reads)


def test_what_ctrl_c_took_from_who_listens_is_made_up_for(fifos, monkeypatch):
    """Ctrl-C strikes between the moments in which the bell is read and the waiters are rung."""
    here, there = fifos
    bell, key = Bell(), b"abcdef"
    watch = here.watch(key, [], bell.ring, reads=True)

    def torn(self):
        os.read(self.descriptor.fileno(), 100)
        raise KeyboardInterrupt

    there.ring(here.name(), key)
    with monkeypatch.context() as patched:
        patched.setattr(pulse.Pulse, "rings", torn)
        with pytest.raises(KeyboardInterrupt):
            watch.wait(bell, LONG)
    assert watch.wait(bell, LONG)


@pytest.mark.parametrize("at", [(Pulses, "_open"), (BellWatch, "ring")], ids=["it-begins", "it-rings"])
def test_a_watch_that_ctrl_c_hits_as_it_begins_is_gone(fifos, monkeypatch, at):
    here, there = fifos

    def torn(*_):
        raise KeyboardInterrupt

    here.ring(here.name(), b"abcdef")
    with monkeypatch.context() as patched:
        patched.setattr(*at, torn)
        with pytest.raises(KeyboardInterrupt):
            here.watch(b"abcdef", [there.name()], print, reads=True)
    assert not here.watcher._waiters
    assert not here._watches


def test_ctrl_c_while_listening_costs_no_wake(tmp_path):
    """On the main thread, where signals land; the next wait hears."""
    tmp_path.chmod(0o700)

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    url = f"sqlite:{tmp_path}/db"
    try:
        with lockkit.connect(url) as holder, lockkit.connect(url) as client:
            for turn in range(8):
                held = holder.lock("a", ttl=300).acquire()
                timer = threading.Timer(0.005 * turn, os.kill, (os.getpid(), signal.SIGUSR1))
                with pytest.raises(KeyboardInterrupt):
                    client.lock("a", ttl=300).acquire(on_wait=lambda _, timer=timer: timer.start())
                timer.join()
                threading.Timer(0.05, held.release).start()
                with Took() as took:
                    client.lock("a", ttl=300).acquire(timeout=30).release()
                assert took.seconds < 0.75 * POLL_CAP, "it was not woken: the poll cap covered it"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_hundreds_of_hand_offs_among_threads_of_three_clients_need_no_poll_cap(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    late, wait = [], watcher.Watcher.wait

    def watched(self, waiter, bell, seconds):
        rung = wait(self, waiter, bell, seconds)
        if not rung:
            late.append(seconds)
        return rung

    monkeypatch.setattr(watcher.Watcher, "wait", watched)
    counts = []

    def work(client, names):
        for turn in range(25):
            client.lock(names[turn % len(names)]).acquire(timeout=60).release()
            counts.append(turn)

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lockkit.connect(f"sqlite:{tmp_path}/db")) for _ in range(3)]
        threads = [
            threading.Thread(target=work, args=(clients[at % 3], names))
            for at, names in enumerate([("a",), ("a", "b"), ("b", "a"), ("a",), ("b",), ("a", "b", "c")] * 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert len(counts) == 300
    assert late == []


def test_a_bell_that_may_have_been_full_wakes_everybody(fifos):
    """While nobody waits nobody reads it, and a ring that found it full is lost."""
    here, there = fifos
    there.ring(here.name(), b"......")
    while not _full(there, here.name()):
        pass
    bell = Bell()
    watch = here.watch(b"abcdef", [], bell.ring, reads=True)
    assert not bell.rung()
    assert watch.wait(bell, AT_ONCE)


def _full(pulses, name):
    try:
        os.write(pulses._watched[name].descriptor.fileno(), b"......")
    except BlockingIOError:
        return True
    return False


def test_a_fifo_that_was_put_back_is_alive_and_rung(fifos):
    """The other process has the one that was removed open still."""
    here, there = fifos
    name = here.name()
    bell = Bell()
    watch = here.watch(b"abcdef", [], bell.ring, reads=True)
    assert there.health(name) == ALIVE
    Path(here._folder, name).unlink()
    here.heal()
    assert there.health(name) == ALIVE
    assert there.ring(name, b"abcdef") == ALIVE
    assert watch.wait(bell, AT_ONCE)


def test_a_process_that_ended_is_dead_although_its_fifo_is_still_open_here(fifos):
    here, there = fifos
    name = there.name()
    assert here.health(name) == ALIVE
    there.pulse.descriptor.close()
    assert here.health(name) == DEAD
    assert here.ring(name, b"abcdef") == DEAD


def test_few_fifos_of_others_stay_open(fifos, tmp_path):
    here, _ = fifos
    others = [entered(tmp_path / "pulses") for _ in range(20)]
    for each in others:
        assert here.health(each.name()) == ALIVE
    assert len(here._watched) == len(here._idle) == 8
    watch = here.watch(b"abcdef", [each.name() for each in others], print, reads=True)
    assert len(here._watched) == 20
    watch.close()
    assert len(here._watched) == len(here._idle) == 8
    here.leave(Bell, lambda _: True)
    assert not here._watched
    for each in others:
        each.abandon()
