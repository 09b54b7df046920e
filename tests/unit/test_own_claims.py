"""A wait of a thread for a claim that it has itself, through another client, is reported at once."""

from __future__ import annotations

import logging
import threading

import pytest

from lockkit import AcquireTimeout, connect
from lockkit.facts import ClaimInfo, Owner
from lockkit.protocol.denials import in_the_way


@pytest.fixture
def clients():
    """Two clients of this process on one store, as a notebook cell that is run twice makes them."""
    with connect("memory://own") as first, connect("memory://own") as second:
        yield first, second


def held_and_line(client):
    return client.lock("x").acquire(), held_and_line.__code__.co_firstlineno + 1


def test_a_wait_of_the_same_thread_is_logged_at_once(clients, caplog):
    first, second = clients
    lease, line = held_and_line(first)
    with caplog.at_level(logging.WARNING, "lockkit"), pytest.raises(AcquireTimeout):
        second.lock("x").acquire(timeout=0.05)
    assert f"{__file__}:{line}" in caplog.text
    lease.release()


def test_a_wait_of_another_thread_is_ordinary(clients, caplog):
    first, second = clients
    lease, _ = held_and_line(first)

    def wait():
        with pytest.raises(AcquireTimeout):
            second.lock("x").acquire(timeout=0.05)

    with caplog.at_level(logging.WARNING, "lockkit"):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert caplog.text == ""
    lease.release()


@pytest.mark.parametrize(
    "process, words", [("stopped", ", which is stopped, 3 s"), ("gone", ", which has ended, 3 s")]
)
def test_a_holder_that_cannot_answer_is_described_as_such(process, words):
    claim = ClaimInfo("x", "0" * 12, "HELD", Owner("ann", "box", 7), 1, 0, since=7.0, process=process)
    assert in_the_way(claim, 10.0) == f"held by ann@box pid 7{words}"
