"""Exchanges on blocking connections: real sockets, a protocol of one word per request and per reply."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockkit.lib.bell import Bell
from lockkit.store.connections import Timed
from lockkit.store.exchanges import Await, Connect, Drop, Introduce, Pause, Send, Start, Together, in_parallel
from lockkit.store.performing import Blocking
from lockkit.store.spi import Refused
from lockkit.testing.children import in_child
from lockkit.testing.interrupts import Bomb, CtrlC
from support.handlers import Handler
from support.words import opened, said, serving, soon


class Words(Timed):
    """A connection of a protocol whose requests and replies end with a newline."""

    def exchange(self, packed, end, replies):
        self._until(end)
        self._socket.sendall(packed)
        said = b""
        while said.count(b"\n") < replies:
            self._until(end)
            block = self._socket.recv(100)
            if not block:
                raise ConnectionError("hung up")
            said += block
        return said.split(b"\n")[:-1]

    introduce = exchange


def connect(step):
    return Words(socket.create_connection(step.place, timeout=step.end - time.monotonic()))


@pytest.fixture
def there():
    with serving() as words:
        performer = Blocking(connect, opened, "here")
        performer.place = words.place
        performer.server = words
        try:
            yield performer
        finally:
            performer.close()


def test_a_request_goes_out_on_an_opened_connection_and_its_replies_come_back(there):
    assert there.perform(said(there.place, b"one", b"two")) == [b"one", b"two"]
    assert there.perform(said(there.place, b"three")) == [b"three"]

    assert there.server.heard == [b"hello", b"one", b"two", b"three"]
    assert len(there.server.connections) == 1


def test_a_connection_that_owes_a_reply_is_not_used_again(there):
    def hushed(route):
        try:
            yield Send(route, b"hush\n", time.monotonic() + 0.5)
        except TimeoutError:
            return (yield from said(route, b"again"))

    assert there.perform(hushed(there.place)) == [b"again"]
    assert len(there.server.connections) == 2


def test_a_connection_is_closed_if_its_replies_say_so(there):
    assert there.perform(said(there.place, b"x", keep=lambda replies: replies != [b"x"])) == [b"x"]
    there.perform(said(there.place, b"y"))

    assert len(there.server.connections) == 2


def test_the_error_of_a_step_is_thrown_into_the_exchange(there):
    with pytest.raises(ConnectionError, match="hung up"):
        there.perform(said(there.place, b"bye"))


def test_where_no_connection_can_be_opened_nothing_is_sent():
    performer = Blocking(connect, opened, "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        place = unused.getsockname()

    with pytest.raises(Refused, match="no connection"):
        performer.perform(said(place, b"x"))


def test_a_connection_whose_opening_fails_is_reset(there):
    made = []

    def opening(route, end):
        made.append((yield Connect(route, end)))
        yield Introduce(made[0], b"bye\n", end)

    performer = Blocking(connect, opening, "here")
    with pytest.raises(ConnectionError):
        performer.perform(said(there.place, b"x"))

    assert made[0].fileno() == -1


def test_the_free_connections_of_a_route_can_be_dropped(there):
    def dropped(route):
        yield from said(route, b"one")
        yield Drop(route)
        yield Drop("another")
        yield from said(route, b"two")

    there.perform(dropped(there.place))

    assert len(there.server.connections) == 2


def test_a_connection_in_use_while_its_route_is_dropped_is_not_used_again(there):
    def dropped(route):
        yield Send(route, b"one\n", soon(), 1, lambda _: there.perform(iter_drop(route)) is None)
        yield from said(route, b"two")

    def iter_drop(route):
        yield Drop(route)

    there.perform(dropped(there.place))

    assert len(there.server.connections) == 2


def test_an_exchange_pauses(there):
    def pausing():
        before = time.monotonic()
        yield Pause(0.02)
        return time.monotonic() - before

    assert there.perform(pausing()) >= 0.02


def test_an_exchange_waits_for_a_bell(there):
    bell = Bell()

    def waiting(seconds):
        return (yield Await(bell, seconds))

    assert there.perform(waiting(0.0)) is False
    with ThreadPoolExecutor() as pool:
        work = pool.submit(there.perform, waiting(30.0))
        bell.ring()
        assert work.result(30.0) is True


@pytest.mark.parametrize("threads", [True, False])
def test_an_exchange_is_started_apart(there, monkeypatch, threads):
    there.perform(said(there.place, b"first"))  # the server starts a thread for each connection
    done = threading.Event()

    def apart():
        yield from said(there.place, b"apart")
        done.set()

    def starts():
        yield Start(apart, "apart")

    def none(_thread):
        raise RuntimeError("can't start new thread")

    if not threads:
        monkeypatch.setattr(threading.Thread, "start", none)
    there.perform(starts())

    assert done.wait(30 if threads else 0)


@pytest.mark.parametrize("threads", [True, False])
def test_exchanges_are_performed_together_and_waited_for(there, monkeypatch, threads):
    there.perform(said(there.place, b"first"))  # the server starts a thread for each connection
    met, by = threading.Barrier(3 if threads else 1), []

    def one():
        met.wait(30)
        yield from said(there.place, b"one")
        by.append(threading.current_thread())

    def together():
        yield Together([one, one, one], "together", soon())
        return len(by)

    def none(_thread):
        raise RuntimeError("can't start new thread")

    if not threads:
        there.perform(said(there.place, b"second"))
        monkeypatch.setattr(threading.Thread, "start", none)

    assert there.perform(together()) == 3
    assert by.count(threading.current_thread()) == (1 if threads else 3)


def test_of_exchanges_performed_together_those_that_take_too_long_go_on_by_themselves(there):
    go_on, over = threading.Event(), threading.Event()

    def slow():
        go_on.wait(30)
        over.set()
        yield from ()

    def together():
        yield Together([lambda: said(there.place, b"own"), slow], "together", time.monotonic() + 0.02)
        return over.is_set()

    assert there.perform(together()) is False
    go_on.set()
    assert over.wait(30)


def test_a_closed_performer_sends_nothing(there):
    there.close()

    with pytest.raises(Refused, match="closed"):
        there.perform(said(there.place, b"x"))
    assert there.server.heard == []


def test_a_forked_child_sends_nothing(there):
    there.perform(said(there.place, b"parent"))

    def child():
        with pytest.raises(Refused, match="forked"):
            there.perform(said(there.place, b"child"))
        with pytest.raises(Refused, match="forked"):
            there.open(there.place, soon())

    in_child(child)
    in_child(child, same_pid=True)
    assert there.server.heard == [b"hello", b"parent"]


def test_a_signal_between_two_steps_closes_the_exchange():
    def strike():
        raise CtrlC

    def struck(at):
        done = []

        def pausing():
            try:
                for _ in range(3):
                    yield Pause(0.0)
            finally:
                done.append(True)

        performer = Blocking(connect, opened, "here")
        handler = Handler(at, strike, file="store/performing.py")
        kept = None
        try:
            with handler:
                performer.perform(pausing())
        except CtrlC as interrupt:
            kept = interrupt  # and with it the frame of `perform`
        return handler.seen, done, kept

    seen, done, _ = struck(0)
    assert seen >= 3  # the number depends on the version of Python
    assert done
    for at in range(2, seen + 1):  # at the first place nothing has begun
        _, done, kept = struck(at)
        assert kept is not None
        assert done, at


def test_a_signal_during_a_request_leaves_no_connection_that_owes_a_reply(there):
    def struck(at):
        there.perform(said(there.place, b"first"))  # so that a connection is at hand
        bomb = Bomb(at, beside=(__name__,))
        try:
            with bomb:
                there.perform(said(there.place, b"struck"))
        except CtrlC:
            pass
        return bomb

    functions = {code.co_name for code, _ in struck(1 << 30)._met}
    assert {"perform", "_send", "at_hand", "exchange", "keep"} <= functions
    at = 0
    while struck(at := at + 1).where:
        assert there.perform(said(there.place, b"next")) == [b"next"], at
    assert at > 10


def test_work_in_parallel_begins_in_order_so_the_last_items_are_those_that_have_to_wait(there):
    begun = []

    def work(item):
        begun.append(item)
        yield from ()

    there.perform(in_parallel(list(range(6)), work, 1, "test", time.monotonic() + 30.0))

    assert begun == [0, 1, 2, 3, 4, 5]
