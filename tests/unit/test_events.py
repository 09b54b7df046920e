"""Events of attempts and releases that end badly, with real clients, and counters as plugins read them."""

from __future__ import annotations

import gc
import os
import threading

import pytest

import lockkit
from lockkit.errors import AcquireTimeout, DeadlockDetected
from lockkit.testing.processes import until
from lockkit.values.events import Counters


class Listener:
    def __init__(self):
        self.events = []
        self.readers = []
        self._heard = threading.Condition()

    @lockkit.hookimpl
    def lockkit_event(self, event):
        with self._heard:
            self.events.append(event)
            self._heard.notify_all()

    @lockkit.hookimpl
    def lockkit_stats(self, stats):
        self.readers.append(stats)

    def first(self, kind):
        """The first event of a kind, awaited."""
        with self._heard:
            assert self._heard.wait_for(lambda: any(event.kind == kind for event in self.events), 20)
            return next(event for event in self.events if event.kind == kind)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def client(listener):
    with lockkit.connect("memory:", plugins=[listener]) as client:
        yield client


def test_the_end_of_a_wait_says_how_long_it_took(client, listener):
    with client.lock("a").acquire():
        done = []

        def waits():
            with pytest.raises(AcquireTimeout):
                client.lock("a").acquire(timeout=0.05)
            done.append(True)

        thread = threading.Thread(target=waits)
        thread.start()
        thread.join(30)
        assert done

    assert 0.05 <= listener.first("timeout").duration < 20


def test_an_attempt_that_fails_is_an_event(client, listener):
    lock = client.lock("a")
    with lock.acquire(), pytest.raises(DeadlockDetected):
        lock.acquire(timeout=1)

    event = listener.first("failed")

    assert (event.name, event.data["error"]) == ("a", "DeadlockDetected")


def test_an_attempt_that_is_cut_short_is_an_event(client, listener):
    def interrupt(_waiting):
        raise KeyboardInterrupt

    with client.lock("a").acquire():
        errors = []

        def waits():
            try:
                client.lock("a").acquire(timeout=20, on_wait=interrupt)
            except KeyboardInterrupt as error:
                errors.append(error)

        thread = threading.Thread(target=waits)
        thread.start()
        thread.join(30)
        assert errors

    assert listener.first("cancelled").data["error"] == "KeyboardInterrupt"


def test_a_release_says_how_each_layer_ended(client, listener):
    client.lock("a").acquire().release()

    layers = listener.first("released").data["layers"]

    assert set(layers) == {"normal"}
    assert layers["normal"]["outcome"] == "DONE"


def test_a_release_that_finds_its_claim_gone_is_an_event(client, listener):
    lease = client.lock("a").acquire()
    client.evict("a", lease.claim_id, reason="test", now=True)
    lease.release()

    event = listener.first("absent")

    assert event.claim_id == lease.claim_id
    assert event.data["stolen"]
    assert event.data["layers"]["normal"]["outcome"] == "ABSENT"


def test_a_plugin_reads_the_counters_also_when_the_client_is_gone(listener):
    client = lockkit.connect("memory:", plugins=[listener])
    client.lock("a").acquire().release()
    (reader,) = listener.readers
    assert not reader.final
    assert reader() == client.stats()

    client.close()
    del client

    until(
        lambda: gc.collect() is not None and reader.final
    )  # a thread that ends may refer to it for a moment
    assert reader()["released"] == 1


def test_a_forked_child_has_counters_of_its_own(listener):
    with lockkit.connect("memory:", plugins=[listener]) as client:
        client.lock("a").acquire().release()
        child = os.fork()
        if not child:
            code = 1
            try:
                client.lock("b").acquire().release()
                code = [reader()["released"] for reader in listener.readers] != [1, 1]
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_readers_of_the_same_counters_are_equal():
    counters = Counters()

    assert {counters.reader(), counters.reader()} == {counters.reader()}
    assert counters.reader() != Counters().reader()
