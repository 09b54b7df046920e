"""The short read of a waiter on the embedded store: the answer of the whole queue, or none where needed."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest

from lockkit.store.spi import OpenOptions, Queued
from lockkit.testing.claims import claim, take
from lockkit_sqlite import acquiring
from lockkit_sqlite.backend import open_store


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "locks.db")


@pytest.fixture
def store(file):
    with contextlib.closing(open_store(f"sqlite:{file}", OpenOptions())) as opened:
        yield opened


@pytest.fixture
def queue(store):
    """A holder and three waiters."""
    holder, _ = take(store)
    waiters = [claim() for _ in range(3)]
    for each in waiters:
        assert isinstance(store.acquire(each, True, 2.0), Queued)
    return [holder, *waiters]


def read_shortly(store, one):
    return acquiring._behind(store._opened, one, time.monotonic() + 2.0)


def what_counts(answer):
    holder = answer.holder
    return (*answer[:-1], holder.claim_id, holder.state, holder.fence, holder.position, holder.owner)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_the_answer_is_that_of_the_whole_queue(store, queue, place, monkeypatch):
    mine = queue[place]
    short = read_shortly(store, mine)
    monkeypatch.setattr(acquiring, "_behind", lambda *_: None)
    whole = acquiring._ask(store._opened, mine, None, time.monotonic() + 2.0, acquiring._Stored())
    assert short is not None
    assert short.position == place
    assert what_counts(short) == what_counts(whole)


def test_it_notes_the_fence_with_which_the_waiter_asks_first(store, queue):
    placed = store._opened.placed
    fence = placed.pop(queue[2].token)
    read_shortly(store, queue[2])
    assert placed[queue[2].token] == fence


@pytest.mark.parametrize(
    "place, change",
    [
        (1, "deadline = 1"),
        (3, "deadline = 1"),
        (0, "boot = 'another'"),
        (3, "boot = '~'"),
        (3, "boot = '!'"),
        (0, "weight = 2"),
        (3, "capacity = 2"),
        (3, "min_reader = 3"),
        (3, "state = 1"),
        (1, "state = 1"),
        (2, "state = 1"),
        (2, "evicted = 1"),
        (2, "deadline = deadline - 3000000"),
        (2, "token = 'another'"),
    ],
)
def test_whatever_must_be_dealt_with_has_the_whole_queue_read(store, queue, file, place, change):
    assert read_shortly(store, queue[2]) is not None
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        cursor = connection.execute(f"UPDATE entries SET {change} WHERE token = ?", (queue[place].token,))
        assert cursor.rowcount == 1
    assert read_shortly(store, queue[2]) is None


def test_the_first_of_a_queue_has_all_of_it_read(store, queue):
    store.release(queue[0], 2.0)
    assert read_shortly(store, queue[1]) is None
