"""The watch over held cards, on simulated cards that a file steers, and on a driver that hangs."""

from __future__ import annotations

import json
import os
import threading

import pytest

import lockkit
import lockkit.gpu
from lockkit.facts import Alert
from lockkit.gpu import watching
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.noticing import news_in
from lockkit.gpu.simulated import STATE_FILE, SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.processes import until
from lockkit.values.sizes import GIB

CARDS = [card.uuid for card in SimulatedProvider(2).snapshot().devices]
THREAD = "lockkit-gpu-watch"
MINE = {"pid": os.getpid(), "memory": "9GiB"}


class Heard:
    """A plugin that keeps the events about cards, and the alerts."""

    def __init__(self):
        self.events, self.alerts = [], []

    @hookimpl
    def lockkit_event(self, event):
        if event.kind.startswith("gpu_"):
            self.events.append(event)

    @hookimpl
    def lockkit_alert(self, alert):
        self.alerts.append(alert)


def threads():
    return [one for one in threading.enumerate() if one.name == THREAD]


@pytest.fixture(autouse=True)
def no_thread():
    until(lambda: not threads())
    yield
    until(lambda: not threads())


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def clock():
    clock = ShiftedClock()
    clock.freeze()
    return clock


@pytest.fixture
def connect(tmp_path, monkeypatch, heard, clock):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = []

    def connect(*plugins, **settings):
        settings = {"clock": clock, "ttl": 36000, **settings}
        made.append(lockkit.connect(f"memory://{os.urandom(8).hex()}", plugins=[heard, *plugins], **settings))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def say(tmp_path):
    def say(**cards):
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps({name.removeprefix("card"): facts for name, facts in cards.items()}))
        fresh.replace(tmp_path / STATE_FILE)

    return say


def pool(client):
    return lockkit.gpu.pool(client, simulate=2)


def opened():
    """Wait until the drivers watch all cards that are held."""
    until(lambda: all(group._watches for group in watching._watcher().groups))


def look(clock, times=1):
    """The thread's looks of each half minute, here and now. The thread waits for its bell meanwhile."""
    for _ in range(times):
        clock.advance(watching.LOOK_EVERY)
        watching._watcher().look()


def test_an_error_that_a_driver_reports_while_a_card_is_held_is_told_and_asked_for(
    connect, say, clock, heard
):
    say(card0={"events": ["Xid 48"]})
    with pool(connect()).acquire(ids=["0"], timeout=30) as leases:
        opened()
        say(card0={"events": ["Xid 48", "Xid 79"], "faults": ["the card must be reset"]})
        assert watching.faults(CARDS[0]) == ("Xid 79",)  # at once, and without a look at all cards
        assert watching.faults(CARDS[1]) == ()
        look(clock, 2)
        assert watching.faults(CARDS[0]) == ("Xid 79", "the card must be reset")
        until(lambda: len(heard.events) == len(heard.alerts) == 2)
        first = heard.events[0]
        assert (first.kind, first.reason, first.fence) == ("gpu_faulty", "Xid 79", leases[0].fence)
        assert first.data["gpu"] == f"GPU 0 (Simulated GPU), {CARDS[0][:12]}"
        assert (heard.alerts[0].kind, heard.alerts[0].priority) == ("gpu_faulty", "P1")
    assert watching.faults(CARDS[0]) == ()


def test_the_faults_can_be_asked_for_in_the_release_while_the_card_is_still_held(connect, say):
    seen = []

    class Cleans:
        @hookimpl
        def lockkit_cleanup(self, context):
            seen.append(watching.faults(CARDS[0]))

    with pool(connect(Cleans())).acquire(ids=["0"], timeout=30):
        opened()
        say(card0={"events": ["Xid 79"]})
    assert seen == [("Xid 79",)]


def test_the_thread_looks_by_the_clock_and_ends_with_the_last_card(connect, say, clock, heard):
    client = connect()
    assert not threads()
    first = pool(client).acquire(timeout=30)
    until(threads)
    second = pool(client).acquire(timeout=30)
    opened()
    (thread,) = threads()
    say(card0={"faults": ["it hums"]}, card1={"faults": ["it rattles"]})
    clock.advance(watching.LOOK_EVERY)
    watching.look_soon()
    until(lambda: len(heard.events) == 2)
    first.release()
    until(lambda: len(watching._watcher().groups) == 1)
    assert threads() == [thread]
    second.release()
    thread.join(20)
    assert not threads()


def test_a_card_that_is_held_and_idle_is_an_event_and_its_note_says_since_when(connect, clock, heard):
    client = connect()
    began = clock.wall()
    with pool(client).acquire(timeout=5, ids=["0"]) as leases:
        opened()
        look(clock, 2)
        told = news_in(client.inspect(leases.names[0]).holders[0].note)
        assert told.idle_since is None
        look(clock)
        told = news_in(client.inspect(leases.names[0]).holders[0].note)
        assert told.idle_since == pytest.approx(began + 30, abs=1)
        look(clock, 37)
        assert heard.events == []
        look(clock, 5)
        until(lambda: heard.events and heard.alerts)
        (event,), (alert,) = heard.events, heard.alerts
        assert (event.kind, event.duration, event.data["uuid"]) == ("gpu_idle", 1200.0, CARDS[0])
        assert isinstance(alert, Alert)
        assert (alert.kind, alert.priority) == ("gpu_idle", "P2")


def test_a_holder_that_uses_more_than_it_declared_is_named(connect, say, clock, heard):
    client = connect()
    with (
        pool(client).acquire(memory="4GiB", ids=["1"], timeout=30) as leases,
        pool(client).acquire(memory="4GiB", ids=["1"], timeout=30) as other,
    ):
        opened()
        stranger = {"pid": os.getppid(), "memory": "12GiB"}
        say(card1={"processes": [MINE | {"memory": "8GiB"}, stranger]})
        look(clock)
        assert heard.events == []  # what this process has declared in all
        other.release()
        look(clock)
        until(lambda: heard.events)
        (event,) = heard.events
        assert (event.kind, event.reason) == ("gpu_overused", "8 GiB used, 4 GiB declared")
        assert event.data["holder"] == str(client.owner)
        assert (event.data["used"], event.data["declared"]) == (8 * GIB, 4 * GIB)
        assert news_in(client.inspect(leases.names[0]).holders[0].note).used == 8 * GIB


@pytest.mark.parametrize("end", ["its client is closed", "its lease is released by itself"])
def test_the_thread_ends_at_once_however_the_last_card_was_released(connect, end):
    client = connect()
    leases = pool(client).acquire(timeout=30)
    opened()
    assert threads()

    if end == "its client is closed":
        client.close()
    else:
        leases[0].release()

    until(lambda: not threads())  # and not with its next look, in half a minute


def test_what_a_container_cannot_tell_is_no_overuse(connect, say, clock, heard):
    with pool(connect()).acquire(memory="4GiB", ids=["1"], timeout=30):
        say(card1={"processes": [{"memory": "12GiB"}]})
        look(clock)
        assert heard.events == []


def test_lost_cards_are_not_reported_as_idle(connect, clock, heard):
    leases = pool(connect(gpu_idle_after=60)).acquire(timeout=30)
    leases[0].simulate_loss()
    look(clock, 5)
    assert heard.events == []
    leases.release()


@pytest.mark.filterwarnings("ignore:the lease of:ResourceWarning")
def test_a_lease_that_is_dropped_is_watched_no_more(connect):
    pool(connect()).acquire(timeout=30)
    watching.look_soon()
    until(lambda: not watching._watcher().groups)


def test_nothing_is_watched_if_the_configuration_says_so(connect, say):
    with pool(connect(gpu_watch=False)).acquire(ids=["0"], timeout=30):
        assert not watching._watcher().groups
        assert watching.faults(CARDS[0]) == ()


def test_a_thread_that_cannot_be_started_keeps_nobody_from_a_card(connect, monkeypatch):
    def start(target, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watching, "start", start)
    with pool(connect()).acquire(timeout=30) as leases:
        assert leases.valid()
    monkeypatch.undo()
    watching.look_soon()
    until(lambda: not watching._watcher().groups)


def test_a_forked_child_watches_nothing(connect):
    with pool(connect()).acquire(ids=["0"], timeout=30):
        opened()
        child = os.fork()
        if child == 0:
            os._exit(len(watching._watcher().groups) + len(watching.faults(CARDS[0])) + len(threads()))
        assert os.waitpid(child, 0)[1] == 0


class Hangs:
    """A driver that answers until it is stopped, and then hangs in every call."""

    name = "hangs"

    def __init__(self):
        self.stopped, self.free, self.calls, self.watches = threading.Event(), threading.Event(), 0, 0

    def call(self):
        self.calls += 1
        if self.stopped.is_set():
            self.free.wait()

    def snapshot(self):
        self.call()
        return Snapshot(0.0, (Device("HUNG-1", 0, "Slow card", 8 * GIB, 0, 0, 0, ()),))

    def watch(self, uuids):
        self.call()
        self.watches += 1
        return self

    def faults(self, uuid):
        return ()

    def close(self):
        self.call()
        self.watches -= 1

    @hookimpl
    def lockkit_devices(self):
        return [self]


def test_a_driver_that_hangs_costs_one_thread_and_no_release_waits_for_it(connect, clock, monkeypatch, heard):
    monkeypatch.setattr(watching, "PATIENCE", 0.05)
    driver = Hangs()
    client = connect(driver, disable_plugins=["gpu"], gpu_patience=0.05)
    before = set(threading.enumerate())
    try:
        first = lockkit.gpu.pool(client).acquire(timeout=60)
        opened()
        driver.stopped.set()
        look(clock, 3)
        calls = driver.calls
        look(clock, 3)
        assert driver.calls == calls
        hanging = [one for one in set(threading.enumerate()) - before if one.name.endswith("-hangs")]
        assert len(hanging) == 1
        first.release()
        assert first.report
        until(lambda: not watching._watcher().groups)
        assert not threads()
    finally:
        driver.free.set()


def test_a_watch_that_a_slow_driver_opens_too_late_is_closed(connect, clock, monkeypatch):
    monkeypatch.setattr(watching, "PATIENCE", 0.05)
    driver = Hangs()
    group = watching.WatchedCards([driver], [], ["HUNG-1"], [], connect().config)
    driver.stopped.set()
    group.open()
    assert group._watches == {}
    group.open()
    assert driver.calls == 1  # and none that waits behind the first
    driver.stopped.clear()
    driver.free.set()
    until(lambda: driver.calls == 2 and driver.watches == 0)
    until(lambda: watching.has_returned(driver))
    group.open()
    assert driver.watches == 1
    group.close()
    assert driver.watches == 0
