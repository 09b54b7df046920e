"""Connections as several stores have them: in time, with an end for each call, and lent by a pool."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from lockkit.store.budgets import left
from lockkit.store.connecting import in_time, is_address
from lockkit.store.connections import ConnectionPool, Timed
from lockkit.store.spi import Refused
from lockkit.testing.children import in_child
from lockkit.testing.processes import until

# -- in time


def test_what_is_left_of_a_budget_is_a_moment_when_it_is_over(monkeypatch):
    monkeypatch.setattr("lockkit.store.budgets.time.monotonic", lambda: 100.0)

    assert left(102.5) == 2.5
    assert 0.0 < left(100.0) == left(50.0) < 0.1


def test_what_connects_in_time_is_returned_and_its_error_is_raised():
    assert in_time(lambda: "made", list, 5.0, "dial") == "made"

    def refused():
        raise ConnectionRefusedError("no")

    with pytest.raises(ConnectionRefusedError, match="no"):
        in_time(refused, list, 5.0, "dial")


def test_a_connection_that_comes_too_late_is_closed():
    go, closed = threading.Event(), threading.Event()

    def make():
        go.wait(30)
        return "late"

    with pytest.raises(TimeoutError):
        in_time(make, lambda made: made == "late" and closed.set(), 0.01, "dial")
    go.set()

    assert closed.wait(30)


def test_without_another_thread_it_connects_in_the_callers(monkeypatch):
    def none(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)

    assert in_time(threading.get_ident, list, 5.0, "dial") == threading.get_ident()


def test_an_address_needs_no_name_server():
    assert is_address("127.0.0.1")
    assert is_address("::1")
    assert not is_address("localhost")


# -- a socket


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    line = Timed(ours)
    yield line, theirs
    line.close()
    theirs.close()


def test_a_call_ends_in_time_whatever_the_one_before_it_was_allowed(pair):
    line, theirs = pair
    theirs.send(b"x")
    line.receive(time.monotonic() + 60)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        line.receive(began + 0.1)
    assert 0.09 <= time.monotonic() - began < 30.0  # not the minute of the first


def test_a_call_is_not_cut_short_by_what_the_one_before_it_was_allowed(pair):
    line, theirs = pair
    theirs.send(b"x")
    line.receive(time.monotonic() + 0.2)

    timer = threading.Timer(0.4, theirs.send, [b"y"])
    timer.start()
    assert line.receive(time.monotonic() + 20) == b"y"
    timer.join()


def test_a_connection_is_quiet_until_something_comes_that_nobody_asked_for(pair):
    line, theirs = pair
    assert line.quiet()
    theirs.send(b"x")
    assert not line.quiet()


def test_a_connection_that_the_other_side_has_closed_is_not_quiet(pair):
    line, theirs = pair
    theirs.close()

    assert not line.quiet()


def test_a_call_in_another_thread_can_be_ended(pair):
    line, _ = pair
    ended = []

    def receive():
        try:
            line.receive(time.monotonic() + 30)
        except ConnectionError as error:
            ended.append(str(error))

    thread = threading.Thread(target=receive)
    thread.start()
    line.interrupt()
    thread.join(30)

    assert ended == ["the server has closed the connection"]


def test_a_reset_throws_away_what_was_sent_and_not_read():
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Timed(socket.create_connection(server.getsockname()))
        accepted, _ = server.accept()
        with accepted:
            line.reset()
            accepted.settimeout(5)
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)


# -- a pool


class Made:
    """A connection that keeps count of what becomes of it."""

    def __init__(self):
        self.ends = []
        self.is_quiet = True

    def quiet(self):
        return self.is_quiet

    def reset(self):
        self.ends.append("reset")

    def close(self):
        self.ends.append("closed")


@pytest.fixture
def now(monkeypatch):
    at = [100.0]
    monkeypatch.setattr("lockkit.store.connections.time.monotonic", lambda: at[0])
    return at


def test_who_gives_a_connection_back_has_it_again(now):
    pool = ConnectionPool(lambda budget: Made(), "here")
    one = pool.take(1.0)
    other = pool.take(1.0)
    pool.keep(one)

    assert other is not one
    assert pool.take(1.0) is one


def test_one_that_lay_idle_is_looked_at_and_reset_if_the_server_has_closed_it(now):
    pool = ConnectionPool(lambda budget: Made(), "here")
    one = pool.take(1.0)
    one.is_quiet = False
    pool.keep(one)
    assert pool.take(1.0) is one, "it was given back just now"
    pool.keep(one)
    now[0] += 2.0

    assert pool.take(1.0) is not one
    assert one.ends == ["reset"]


def test_what_a_crowd_has_left_is_closed_though_no_call_follows(monkeypatch):
    monkeypatch.setattr("lockkit.store.connections._SURPLUS", 0.05)
    pool = ConnectionPool(lambda budget: Made(), "here")
    crowd = [pool.take(1.0) for _ in range(6)]
    for each in crowd:
        pool.keep(each)

    until(lambda: [each.ends for each in crowd] == [["closed"]] * 4 + [[]] * 2 and reapers() == [])


def test_the_thread_that_closes_them_ends_with_the_pool(monkeypatch):
    monkeypatch.setattr("lockkit.store.connections._SURPLUS", 3600.0)
    pool = ConnectionPool(lambda budget: Made(), "here")
    for each in [pool.take(1.0) for _ in range(6)]:
        pool.keep(each)
    until(reapers)
    pool.close()

    until(lambda: reapers() == [])


def reapers():
    return [each for each in threading.enumerate() if each.name == "lockkit-connections"]


def test_once_closed_it_lends_nothing_and_keeps_nothing(now):
    pool = ConnectionPool(lambda budget: Made(), "here")
    free, used = pool.take(1.0), pool.take(1.0)
    pool.keep(free)
    pool.close()
    assert free.ends == ["closed"]
    assert used.ends == []
    pool.keep(used)
    assert used.ends == ["closed"]
    with pytest.raises(Refused, match="here: this store is closed"):
        pool.take(1.0)


def test_another_process_gets_none_of_them():
    pool = ConnectionPool(lambda budget: Made(), "here")
    pool.keep(pool.take(1.0))

    def child():
        with pytest.raises(Refused, match="here is not open in this process") as told:
            pool.take(1.0)
        return [pool.at_hand(), told.value.retry]

    assert in_child(child) == in_child(child, same_pid=True) == [None, False]
