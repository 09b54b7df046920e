"""Exchanges on an event loop: real sockets, a protocol of one word per request and per reply."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from lockkit.errors import ConfigError
from lockkit.lib import prompt_future
from lockkit.lib.bell import Bell
from lockkit.store import awake, connecting_aio, connections_aio, performing_aio, pool_aio
from lockkit.store.awake import Awake
from lockkit.store.connections_aio import LoopConnection
from lockkit.store.exchanges import Await, Connect, Drop, Introduce, Pause, Send, Start, Together
from lockkit.store.performing_aio import OnLoop
from lockkit.store.spi import Refused
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from support.handlers import Handler
from support.loops import HOW, cancelling, descriptors, loops, run_on
from support.virtual_loop import SeededLoop
from support.words import Parser, said, serving, soon
from support.working import WorkClock


@pytest.fixture(params=loops().values(), ids=loops().keys())
def new_loop(request):
    return request.param


@pytest.fixture
def words():
    with serving() as words:
        yield words


@pytest.fixture
def on_loop(new_loop, words):
    """Runs a coroutine function with a performer on its own loop; closes it, and looks for remains."""

    def run(work, exchanges=None, **options):
        before = descriptors()

        async def checked(performer):
            try:
                return await work(performer)
            finally:
                await performer.close()
                assert not performer._connections
                assert not any(pool.size for pool in performer._pools.values())

        result = run_on(new_loop, exchanges or Parser(), checked, **options)
        for each in words.connections:
            each.join(30)
        assert descriptors() <= before
        return result

    return run


async def heard(words, word, times=1):
    """Wait until the server has heard a word."""
    await asyncio.to_thread(until, lambda: words.heard.count(word) >= times, f"{word!r} is heard")


def test_an_exchange_waits_for_a_bell_that_any_thread_may_ring(on_loop):
    async def work(performer):
        def waiting(seconds):
            return (yield Await(bell, seconds))

        bell = Bell()
        assert await performer.perform(waiting(0.0)) is False
        bell.ring()
        assert await performer.perform(waiting(30.0)) is True, "rung before"
        task = asyncio.ensure_future(performer.perform(waiting(30.0)))
        await asyncio.sleep(0)
        await asyncio.to_thread(bell.ring)
        assert await task is True

    on_loop(work)


def test_a_request_goes_out_on_an_opened_connection_and_its_replies_come_back(on_loop, words):
    async def work(performer):
        assert await performer.perform(said(words.place, b"one", b"two")) == [b"one", b"two"]
        assert await performer.perform(said(words.place, b"three")) == [b"three"]

    on_loop(work)
    assert words.heard == [b"hello", b"one", b"two", b"three"]
    assert len(words.connections) == 1


def test_replies_in_pieces_are_put_together(on_loop, words):
    class Slow(Parser):
        def parser(self):
            return Slow()

        def feed(self, data):
            return [word for at in range(len(data)) for word in super(Slow, self).feed(data[at : at + 1])]

    async def work(performer):
        assert await performer.perform(said(words.place, *[b"x" * 3000] * 50)) == [b"x" * 3000] * 50
        assert await performer.perform(said(words.place, b"one")) == [b"one"]

    on_loop(work, Slow())
    assert len(words.connections) == 1


def test_each_call_has_a_connection_and_calls_in_a_row_share_one(on_loop, words):
    async def work(performer):
        tasks = [performer.perform(said(words.place, b"%d" % at)) for at in range(8)]
        assert await asyncio.gather(*tasks) == [[b"%d" % at] for at in range(8)]
        assert len(words.connections) == 8
        for _ in range(8):
            await performer.perform(said(words.place, b"x"))
        assert len(words.connections) == 8

    on_loop(work)


def test_a_call_starts_no_task_and_no_thread(on_loop, words, monkeypatch):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))

        def forbidden(*_):
            raise AssertionError

        asyncio.get_running_loop().set_task_factory(forbidden)
        monkeypatch.setattr(threading.Thread, "start", forbidden)
        await performer.perform(said(words.place, b"second"))
        asyncio.get_running_loop().set_task_factory(None)
        monkeypatch.undo()

    on_loop(work)


# -- a loop that stays awake for a moment


@pytest.fixture
def turns(monkeypatch):
    """The turns of the loop in which a request stays awake, as they happen; each request may stay awake."""
    monkeypatch.setattr(awake, "_PROCESSORS", 2)
    seen = []
    real = LoopConnection._stay_awake

    def counting(connection, *arguments):
        seen.append(connection)
        real(connection, *arguments)

    monkeypatch.setattr(LoopConnection, "_stay_awake", counting)
    return seen


def test_a_loop_stays_awake_until_the_reply_comes(on_loop, words, turns):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        # Most requests of a host that is busy are in vain, and the next ones are not awake then.
        for _ in range(300):
            await performer.perform(said(words.place, b"next"))
            await asyncio.sleep(0)
            assert not awake._process.until, "it stays awake no longer than for the reply"

    on_loop(work)
    assert turns


def test_a_loop_does_not_stay_awake_for_ever_where_the_clock_stands_still(on_loop, words, turns, monkeypatch):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        monkeypatch.setattr(connections_aio, "time", WorkClock())
        monkeypatch.setattr(awake, "time", connections_aio.time)
        monkeypatch.setattr(Awake, "until", lambda _: float("inf"))
        await asyncio.sleep(0)  # the last turn of the first request
        turns.clear()
        waiting = asyncio.create_task(performer.perform(said(words.place, b"hush", end=float("inf"))))
        await heard(words, b"hush")
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(turns) == 101
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    on_loop(work)


def test_a_request_that_is_cancelled_stays_awake_no_longer(on_loop, words, turns, monkeypatch):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        monkeypatch.setattr(Awake, "until", lambda _: float("inf"))
        turns.clear()
        waiting = asyncio.create_task(performer.perform(said(words.place, b"hush")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert turns, "it stays awake"
        turns.clear()
        waiting.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(turns) <= 2
        with pytest.raises(asyncio.CancelledError):
            await waiting

    on_loop(work)


# -- replies that do not come, or are not wanted


def test_a_connection_that_owes_a_reply_is_not_used_again(on_loop, words):
    async def work(performer):
        for _ in range(2):
            with pytest.raises(TimeoutError):  # long enough for a connection on a busy machine
                await performer.perform(said(words.place, b"hush", end=time.monotonic() + 1.0))
        assert await performer.perform(said(words.place, b"again")) == [b"again"]

    on_loop(work)
    assert len(words.connections) == 3
    assert len(words.resets) == 2


def test_a_later_request_has_its_own_end(on_loop, words):
    async def work(performer):
        await performer.perform(said(words.place, b"far", end=time.monotonic() + 60))
        with pytest.raises(TimeoutError):
            await performer.perform(said(words.place, b"hush", end=time.monotonic() + 0.05))
        await performer.perform(said(words.place, b"near", end=time.monotonic() + 2.0))
        end = time.monotonic() + 2.5
        with pytest.raises(TimeoutError):
            await performer.perform(said(words.place, b"hush", end=end))
        assert time.monotonic() >= end - 0.1, "the timer of the request before is not this one's"

    on_loop(work)


def test_nothing_is_sent_after_the_end(on_loop, words):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        with pytest.raises(TimeoutError):
            await performer.perform(said(words.place, b"late", end=time.monotonic()))

    on_loop(work)
    assert words.heard == [b"hello", b"first"]


def test_a_connection_is_closed_if_its_replies_say_so(on_loop, words):
    async def work(performer):
        assert await performer.perform(said(words.place, b"x", keep=lambda replies: replies != [b"x"])) == [
            b"x"
        ]
        await performer.perform(said(words.place, b"y"))

    on_loop(work)
    assert len(words.connections) == 2


def test_the_error_of_a_step_is_thrown_into_the_exchange(on_loop, words):
    async def work(performer):
        with pytest.raises(ConnectionError, match="closed the connection"):
            await performer.perform(said(words.place, b"bye"))

    on_loop(work)


def test_where_a_server_hangs_up_its_parser_says_why(on_loop, words):
    async def work(performer):
        with pytest.raises(RuntimeError, match="because"):
            await performer.perform(said(words.place, b"because", b"bye"))

    on_loop(work)


def test_a_reply_that_nobody_asked_for_ends_the_connection(on_loop, words):
    async def work(performer):
        with pytest.raises(ConnectionError, match="without a request"):
            await performer.perform(said(words.place, b"unasked"))
        for at in range(3):
            assert await performer.perform(said(words.place, b"%d" % at)) == [b"%d" % at]

    on_loop(work)
    assert len(words.connections) == 2


def test_a_reply_that_comes_while_a_connection_is_free_ends_it(on_loop):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        async def work(performer):
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(performer.perform(said(listening.getsockname(), b"x")))
            peer, _ = await asyncio.to_thread(listening.accept)
            peer.setblocking(False)
            for word in (b"hello\n", b"x\n"):
                await loop.sock_recv(peer, 100)
                await loop.sock_sendall(peer, word)
            await task
            await loop.sock_sendall(peer, b"stray\n")
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(peer, 100)
            peer.close()

        on_loop(work)


def test_a_connection_that_was_closed_while_the_loop_stood_still_is_not_used(on_loop, words, monkeypatch):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        (connection,) = performer._connections
        connection._sock.sendall(b"bye\n")  # not by way of the loop, which stands still
        words.connections[0].join(30)
        connection.since -= 2.0
        assert await performer.perform(said(words.place, b"second")) == [b"second"]

    on_loop(work)
    assert len(words.connections) == 2


def test_a_connection_that_is_not_used_is_closed(on_loop, words, monkeypatch):
    monkeypatch.setattr(performing_aio, "SURPLUS", 0.1)
    monkeypatch.setattr(pool_aio, "SURPLUS", 0.1)
    monkeypatch.setattr(pool_aio, "UNUSED", 0.2)

    async def work(performer):
        await asyncio.gather(*[performer.perform(said(words.place, b"x")) for _ in range(3)])
        await asyncio.wait_for(performer._emptied(), 30)
        assert performer._reaper is None
        await performer.perform(said(words.place, b"y"))

    on_loop(work)
    assert len(words.connections) == 4


@pytest.mark.parametrize("known", [True, False], ids=["lent", "in nobody's hands"])
def test_the_end_of_the_loop_does_not_wait_for_a_connection_that_nobody_uses(on_loop, words, known):
    """A signal handler has ended the call that took it. What still comes, such as a release, is served."""

    async def work(performer):
        await performer.perform(said(words.place, b"x"))
        (connection,) = performer._connections
        (pool,) = performer._pools.values()
        assert pool.free() is connection
        if not known:
            pool._lent.clear()
        connection.since -= 2.0
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_asyncgens(), 30)
        assert not performer._connections
        assert await performer.perform(said(words.place, b"y")) == [b"y"]
        assert not pool._free

    on_loop(work)


@pytest.mark.parametrize("entered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("closed", [False, True], ids=["end of the loop", "close"])
def test_the_end_does_not_wait_for_a_call_that_was_interrupted_connecting(on_loop, words, entered, closed):
    """A signal handler has ended the call just before or after the time limit of its connect."""

    async def work(performer):
        await performer.perform(said(words.place, b"x"))
        limit = asyncio.timeout(0.1)
        if entered:
            async with limit:
                pass
        performer._connecting.add(limit)
        end = performer.close() if closed else asyncio.get_running_loop().shutdown_asyncgens()
        await asyncio.wait_for(end, 30)
        assert not performer._connections

    on_loop(work)


def test_of_the_connections_of_a_burst_one_stays(on_loop, words, monkeypatch):
    monkeypatch.setattr(performing_aio, "SURPLUS", 0.1)
    monkeypatch.setattr(pool_aio, "SURPLUS", 0.1)
    monkeypatch.setattr(pool_aio, "_FAR", 60.0)

    async def work(performer):
        await asyncio.gather(*[performer.perform(said(words.place, b"x")) for _ in range(9)])
        for _ in range(600):
            if len(performer._connections) == 1:
                break
            await asyncio.sleep(0.05)
        await performer.perform(said(words.place, b"y"))

    on_loop(work)
    assert len(words.connections) == 8


class Lent:
    """A connection whose request is under way."""

    asked, broken, since = True, False, 0.0

    def usable(self, _now):
        return True

    def close(self):
        pass


@pytest.mark.parametrize("delay, most", [(0.02, 20), (0.001, 8)], ids=["far", "near"])
def test_more_connections_are_opened_to_a_server_that_is_far_away(monkeypatch, delay, most):
    loop = SeededLoop(1)
    monkeypatch.setattr(pool_aio, "time", SimpleNamespace(monotonic=loop.time))
    made = []

    async def make(_end):
        made.append(Lent())
        return made[-1]

    async def work():
        pool = pool_aio.LoopPool(loop, make, "here", 20, prompt_future.Deliveries(loop))

        async def call():
            connection = pool.free() or await pool.take(loop.time() + 60)
            await asyncio.sleep(delay)
            pool.keep(connection)

        await asyncio.gather(*[call() for _ in range(200)])
        return pool.size

    try:
        assert loop.run_until_complete(work()) == most == len(made)
    finally:
        loop.close()


@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["at once", "in the queue"])
@pytest.mark.parametrize("what", ["connection", "permit"])
def test_what_a_call_that_was_cut_short_did_not_give_back_is_taken_back(
    on_loop, words, monkeypatch, what, seconds
):
    monkeypatch.setattr(pool_aio, "_LOST", seconds)

    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        (pool,) = performer._pools.values()
        lost = pool.free()
        assert lost is not None
        if what == "permit":
            pool.lost(lost)
            pool._opening[pool_aio.Permit()] = time.monotonic()
        second = performer.perform(said(words.place, b"second", end=time.monotonic() + 2.0))
        assert await second == [b"second"]
        assert len(performer._connections) == pool.size == 1

    on_loop(work, most=1)


# -- opening


def test_where_no_connection_can_be_opened_nothing_is_sent(on_loop):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        place = unused.getsockname()

    async def work(performer):
        for _ in range(3):
            with pytest.raises(Refused, match=r"no connection: .*refused"):
                await performer.perform(said(place, b"x"))

    on_loop(work)


def test_a_connection_whose_opening_fails_is_reset(on_loop, words):
    def opening(route, end):
        yield Introduce((yield Connect(route, end)), b"hush\n", time.monotonic() + 0.05)

    async def work(performer):
        with pytest.raises(TimeoutError):
            await performer.perform(said(words.place, b"x"))
        await performer._emptied()

    exchanges = Parser()
    exchanges.opening = opening
    on_loop(work, exchanges)
    assert len(words.resets) == 1


def _full(listening):
    """Fill the queue of a server that does not accept. Returns the connections."""
    waiting = []
    while True:
        plug = socket.socket(listening.family)
        plug.settimeout(0.3)
        waiting.append(plug)
        try:
            plug.connect(listening.getsockname())
        except OSError:  # it waits in vain, or the queue is full
            return waiting


@pytest.fixture
def silent():
    """A place that does not answer those who connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as stack:
        for plug in _full(listening):
            stack.enter_context(plug)
        yield listening.getsockname()


def test_the_end_holds_while_a_server_does_not_accept(on_loop, silent):
    async def work(performer):
        began = time.monotonic()
        with pytest.raises(Refused, match="timed out"):
            await performer.perform(said(silent, b"x", end=began + 0.1))
        assert time.monotonic() - began < 30

    on_loop(work)


def _found(*places):
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]


def test_the_addresses_of_a_name_race(on_loop, words, silent, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refuses = unused.getsockname()
    monkeypatch.setattr(connecting_aio, "_STAGGER", 0.02)
    monkeypatch.setattr(socket, "getaddrinfo", _found(refuses, silent, words.place, silent))

    async def work(performer):
        assert await performer.perform(said(("several", 1), b"x")) == [b"x"]

    on_loop(work)


def test_the_family_of_an_ip_address_is_found_out_once(on_loop, words, monkeypatch):
    looked_up, plain = [], socket.getaddrinfo

    def noting(*place, **options):
        looked_up.append(place)
        return plain(*place, **options)

    monkeypatch.setattr(connecting_aio.socket, "getaddrinfo", noting)

    async def work(performer):
        await asyncio.gather(*[performer.perform(said(words.place, b"word")) for _ in range(3)])

    on_loop(work)
    assert looked_up == [words.place]
    assert len(words.connections) == 3


def test_a_name_that_is_not_resolved_holds_nothing_up_and_is_asked_for_once(on_loop, monkeypatch):
    free, asked = threading.Event(), []

    def never(*_, **__):
        asked.append(threading.current_thread())
        free.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", never)

    async def work(performer):
        for _ in range(2):
            calls = [
                performer.perform(said(("name", 1), b"x", end=time.monotonic() + 0.05)) for _ in range(3)
            ]
            for refused in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(refused, Refused)
                assert "timed out" in str(refused)
        waiting = asyncio.ensure_future(performer.perform(said(("name", 1), b"x")))
        await asyncio.sleep(0)
        free.set()
        with pytest.raises(Refused, match="name resolution"):
            await waiting
        assert len(asked) == 1

    on_loop(work)
    asked[0].join(30)


def test_a_name_is_resolved(on_loop, words):
    async def work(performer):
        assert await performer.perform(said(("localhost", words.place[1]), b"x")) == [b"x"]

    on_loop(work)


def test_a_unix_socket_whose_queue_is_full_is_asked_again(on_loop, tmp_path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen(0)

    async def work(performer):
        loop = asyncio.get_running_loop()
        first, *others = _full(listening)
        task = asyncio.ensure_future(performer.perform(said(str(tmp_path / "socket"), b"x")))
        await asyncio.sleep(0.05)
        assert not task.done()
        listening.setblocking(False)
        for plug in (first, *others, (await loop.sock_accept(listening))[0]):
            plug.close()
        peer, _ = await loop.sock_accept(listening)
        assert await loop.sock_recv(peer, 100) == b"hello\n"
        peer.close()
        with pytest.raises(Refused):
            await task

    with listening:
        on_loop(work)


def test_a_path_that_is_no_socket_is_an_error(on_loop, tmp_path):
    async def work(performer):
        for path in (str(tmp_path / "none"), str(tmp_path / ("x" * 200))):
            with pytest.raises(Refused):
                await performer.perform(said(path, b"x"))

    on_loop(work)


# -- many calls


def test_calls_beyond_the_limit_wait_for_their_turn_in_order(on_loop, words):
    done = []

    async def one(performer, at):
        await performer.perform(said(words.place, b"%d" % at))
        done.append(at)

    async def work(performer):
        await asyncio.gather(*[one(performer, at) for at in range(30)])

    on_loop(work, most=1)
    assert len(words.connections) == 1
    assert done == sorted(done)


@pytest.mark.parametrize("how", ["answered", "cut off", "too late", "no turn"])
def test_the_loop_does_not_stand_still_while_many_calls_end_at_once(on_loop, words, monkeypatch, how):
    """Requests before a server's pause are all answered, or all fail: each task then works for 0.3 ms."""
    clock, many = WorkClock(), 40
    monkeypatch.setattr(prompt_future, "time", clock)
    monkeypatch.setattr(pool_aio, "_FEW", many)  # as to a server that is far away

    async def work(performer):
        await asyncio.gather(*(performer.perform(said(words.place, b"first")) for _ in range(many)))
        lasts = 0.3 if how in ("too late", "no turn") else 5.0
        word, end = b"slow" if how == "answered" else b"hush", time.monotonic() + lasts
        calls = [performer.perform(said(words.place, word, end=end)) for _ in range(many)]
        tasks = [asyncio.create_task(clock.work_after(each)) for each in calls]
        await asyncio.sleep(0)  # all of them are sent, or wait for a connection
        clock.watch()
        if how == "answered":
            words.gate.set()
            unread = {connection._sock for connection in performer._connections}
            while unread:  # something else keeps the loop busy until all answers are there
                unread -= {*select.select(unread, [], [], 5)[0]}
        elif how == "cut off":
            for connection in performer._connections:
                connection._transport.abort()
        else:
            select.select([], [], [], end - time.monotonic())  # as above
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)  # the last look

    on_loop(work, **({"most": 2} if how == "no turn" else {}))
    assert clock.longest <= 0.001 + clock.EACH + 1e-9
    assert clock.turns >= (many - 2) * clock.EACH / (0.001 + clock.EACH)


def test_a_call_whose_turn_does_not_come_is_refused(on_loop, words):
    async def work(performer):
        first = asyncio.ensure_future(
            performer.perform(said(words.place, b"hush", end=time.monotonic() + 1.5))
        )
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="1 requests are under way"):
            await performer.perform(said(words.place, b"x", end=time.monotonic() + 0.05))
        with pytest.raises(TimeoutError):
            await first
        assert await performer.perform(said(words.place, b"y")) == [b"y"]

    on_loop(work, most=1)
    assert b"x" not in words.heard


def test_a_call_waits_for_its_turn_only_as_long_as_its_request_could_still_be_answered(monkeypatch):
    """Otherwise, at a slow server, each of many calls would get its turn nearly too late, and so on."""
    loop = SeededLoop(1)
    monkeypatch.setattr(pool_aio, "time", SimpleNamespace(monotonic=loop.time))

    async def make(_end):
        return Lent()

    async def work():
        pool = pool_aio.LoopPool(loop, make, "here", 1, prompt_future.Deliveries(loop))
        await pool.take(loop.time() + 8)
        end = loop.time() + 8
        with pytest.raises(Refused, match="1 requests are under way"):
            await pool.take(end)
        return end - loop.time()

    try:
        assert loop.run_until_complete(work()) == pytest.approx(2.0)
    finally:
        loop.close()


def test_a_call_takes_the_place_of_one_that_fails(on_loop, words):
    async def work(performer):
        first = asyncio.ensure_future(
            performer.perform(said(words.place, b"hush", end=time.monotonic() + 1.0))
        )
        await asyncio.sleep(0)
        others = [performer.perform(said(words.place, b"%d" % at)) for at in range(3)]
        assert await asyncio.gather(*others) == [[b"0"], [b"1"], [b"2"]]
        with pytest.raises(TimeoutError):
            await first

    on_loop(work, most=1)


@pytest.mark.parametrize("how", HOW)
def test_a_call_that_is_cancelled_as_its_turn_comes_passes_it_on(on_loop, words, how):
    async def work(performer):
        first = asyncio.ensure_future(performer.perform(said(words.place, b"first")))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(
            cancelling(performer.perform(said(words.place, b"second")), 1, how=how)
        )
        await asyncio.sleep(0)
        third = performer.perform(said(words.place, b"third"))
        assert await third == [b"third"]
        assert await first == [b"first"]
        cancelled, _ = await second
        assert isinstance(cancelled, asyncio.CancelledError)

    on_loop(work, most=1)
    assert words.heard == [b"hello", b"first", b"third"]
    assert len(words.connections) == 1


def test_a_connection_that_ends_as_it_is_passed_on_is_not_used(on_loop, words):
    async def work(performer):
        def ends(_):
            (connection,) = performer._connections
            return asyncio.get_running_loop().call_soon(connection.eof_received) is not None

        first = asyncio.ensure_future(performer.perform(said(words.place, b"first", keep=ends)))
        await asyncio.sleep(0)
        assert await performer.perform(said(words.place, b"second")) == [b"second"]
        assert await first == [b"first"]

    on_loop(work, most=1)
    assert len(words.connections) == 2


def test_the_free_connections_of_a_route_can_be_dropped(on_loop, words):
    def dropped(route):
        yield from said(route, b"one")
        yield Drop(route)
        yield Drop("another")
        yield from said(route, b"two")

    async def work(performer):
        await performer.perform(dropped(words.place))

    on_loop(work)
    assert len(words.connections) == 2


def test_a_connection_in_use_while_its_route_is_dropped_is_not_used_again(on_loop, words):
    async def in_use(performer):
        def one(route):
            yield Send(route, b"one\n", soon(), 1, lambda _: performer._pools[route].drop() is None)
            yield from said(route, b"two")

        await performer.perform(one(words.place))

    on_loop(in_use)
    assert len(words.connections) == 2


# -- other steps


def test_an_exchange_pauses(on_loop):
    def pausing():
        before = time.monotonic()
        yield Pause(0.02)
        return time.monotonic() - before

    async def work(performer):
        assert await performer.perform(pausing()) >= 0.015  # the timers of uvloop count whole milliseconds

    on_loop(work)


def test_an_exchange_is_started_apart(on_loop, words):
    async def work(performer):
        done = asyncio.Event()

        def apart():
            assert asyncio.current_task().get_name() == "apart"
            yield from said(words.place, b"apart")
            done.set()

        def starts():
            yield Start(apart, "apart")
            return done.is_set()

        assert await performer.perform(starts()) is False
        gc.collect()
        await asyncio.wait_for(done.wait(), 30)

    on_loop(work)


def test_exchanges_are_performed_together_and_waited_for(on_loop, words):
    async def work(performer):
        tasks = []

        def one():
            yield from said(words.place, b"one")
            tasks.append(asyncio.current_task())

        def together():
            yield Together([one, one, one], "together", soon())
            return len(tasks)

        assert await performer.perform(together()) == 3
        assert tasks.count(asyncio.current_task()) == 1

    on_loop(work)


def test_of_exchanges_performed_together_those_that_take_too_long_go_on_by_themselves(on_loop, words):
    async def work(performer):
        over = asyncio.Event()
        late = asyncio.Event()

        def slow():
            while not late.is_set():
                yield Pause(0.01)
            over.set()

        def together():
            yield Together([lambda: said(words.place, b"own"), slow], "together", time.monotonic() + 0.02)
            return over.is_set()

        assert await performer.perform(together()) is False
        late.set()
        await asyncio.wait_for(over.wait(), 30)

    on_loop(work)


def test_what_a_cancelled_call_has_started_goes_on(on_loop, words):
    async def work(performer):
        over = asyncio.Event()

        def slow():
            yield Pause(0.05)
            over.set()

        def together():
            yield Together([lambda: said(words.place, b"hush"), slow], "together", soon())

        call = asyncio.ensure_future(performer.perform(together()))
        await heard(words, b"hush")
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await asyncio.wait_for(over.wait(), 30)

    on_loop(work)


# -- the end


def test_a_closed_performer_sends_nothing_and_ends_what_is_under_way(on_loop, words):
    ended = []

    def endless():
        try:
            yield Pause(3600.0)
        finally:
            ended.append(True)

    def starts():
        yield Start(endless, "endless")

    async def work(performer):
        await performer.perform(starts())
        pending = [performer.perform(said(words.place, b"hush")) for _ in range(3)]
        pending = [asyncio.ensure_future(each) for each in pending]
        await heard(words, b"hush", 2)
        await performer.close()
        await performer.close()
        told = await asyncio.gather(*pending, return_exceptions=True)
        assert {type(each) for each in told} == {ConnectionError, Refused}
        with pytest.raises(Refused, match="closed"):
            await performer.perform(said(words.place, b"x"))

    on_loop(work, most=2)
    assert ended
    assert b"x" not in words.heard


def test_a_close_gives_calls_in_progress_some_time(on_loop, words):
    async def work(performer):
        await performer.perform(said(words.place, b"warm"))
        call = asyncio.ensure_future(performer.perform(said(words.place, b"word")))
        await asyncio.sleep(0)
        await performer.close(5.0)
        assert await call == [b"word"]

    on_loop(work)


def test_a_close_interrupts_a_call_that_connects(on_loop, silent):
    async def work(performer):
        call = asyncio.ensure_future(performer.perform(said(silent, b"x")))
        await asyncio.sleep(0.01)
        await performer.close()
        with pytest.raises(Refused):
            await call

    on_loop(work)


def test_the_end_of_the_loop_closes_the_connections(new_loop, words):
    before = descriptors()

    async def main():
        performer = OnLoop(Parser(), "here")
        await performer.perform(said(words.place, b"x"))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    words.connections[0].join(30)
    gc.collect()
    assert descriptors() <= before


def test_connections_of_a_loop_that_is_closed_can_be_closed(new_loop, words):
    before, loop = descriptors(), new_loop()
    performer = None

    async def main():
        nonlocal performer
        performer = OnLoop(Parser(), "here")
        await performer.perform(said(words.place, b"x"))

    loop.run_until_complete(main())
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        loop.close()
        performer.abort()
        words.connections[0].join(30)
        gc.collect()
    assert descriptors() <= before


def test_calls_that_a_closed_loop_has_left_behind_are_ended_without_a_word(new_loop, words):
    before, loop = descriptors(), new_loop()

    async def main():
        performer = OnLoop(Parser(), "here", most=1)
        calls = [performer.perform(said(words.place, b"hush")) for _ in range(2)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await heard(words, b"hush")
        return performer, tasks

    performer, tasks = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        loop.close()
        performer.abort()
        for task in tasks:
            task.get_coro().close()
            task._log_destroy_pending = False
        words.connections[0].join(30)
        del performer, tasks, task
        gc.collect()
    assert descriptors() <= before


def test_another_loop_is_refused(new_loop, words):
    async def made():
        return OnLoop(Parser(), "here")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        performer = runner.run(made())
        with (
            asyncio.Runner() as other,
            pytest.raises(Refused, match="opened on another event loop") as refused,
        ):
            other.run(performer.perform(said(words.place, b"x")))
    assert isinstance(refused.value.error, ConfigError)
    assert not words.heard


def test_a_forked_child_sends_nothing_and_leaves_the_connections_of_its_parent_alone(on_loop, words):
    async def work(performer):
        await performer.perform(said(words.place, b"first"))
        slow = asyncio.ensure_future(performer.perform(said(words.place, b"slow")))
        await heard(words, b"slow")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            child = os.fork()
        if not child:
            try:
                call = performer.perform(said(words.place, b"child"))
                with pytest.raises(Refused, match="forked"):
                    call.send(None)
                slow.get_coro().close()  # as when the child lets go of all
                performer.abort()
                with pytest.raises(StopIteration):
                    performer.close().send(None)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        assert await performer.perform(said(words.place, b"second")) == [b"second"]
        words.gate.set()
        assert await asyncio.wait_for(slow, 30) == [b"slow"], "the loop still listens"

    on_loop(work)
    assert b"child" not in words.heard
    assert len(words.connections) == 2


# -- cancellation


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_a_cancellation_at_any_suspension_leaves_no_reply_to_a_later_call(on_loop, words, how, cold):
    struck = []

    def noting(at):
        try:
            yield from said(words.place, b"slow")
        except BaseException as error:
            struck.append((at, type(error)))
            raise

    async def work(performer):
        at = 0
        while True:
            at += 1
            if cold:
                for pool in performer._pools.values():
                    pool.drop()
            else:
                await performer.perform(said(words.place, b"warm"))
            words.gate.clear()
            opening = asyncio.get_running_loop().call_later(0.05, words.gate.set)
            result, seen = await cancelling(performer.perform(noting(at)), at, at + 1, how=how)
            # The server has not replied yet, and does so when the next requests are under way.
            later = [b"%d-%d" % (at, each) for each in range(5)]
            calls = [performer.perform(said(words.place, word)) for word in later]
            assert await asyncio.gather(*calls) == [[word] for word in later]
            opening.cancel()
            words.gate.set()
            if seen < at:
                return at - 1
            assert isinstance(result, asyncio.CancelledError)

    assert on_loop(work) >= (3 if cold else 1)
    assert {kind for _, kind in struck} == {asyncio.CancelledError}


# A signal may strike between the call of a coroutine function and its `await`.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
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

        handler = Handler(at, strike, "_perform", "store/performing_aio.py")

        async def main():
            performer = OnLoop(Parser(), "here")
            with handler:
                await performer.perform(pausing())

        kept = None
        try:
            asyncio.run(main())
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


class TimeLimit(Exception):
    """A soft time limit, as Celery's: an event loop survives it."""


@pytest.mark.parametrize(
    "callback, word, then",
    [
        *[
            (callback, word, then)
            for then in range(3)
            for callback, word in [
                (LoopConnection.data_received, b"x"),
                (prompt_future.PromptFuture.deliver, b"x"),
                (prompt_future.Deliveries.deliver, b"x"),
                (LoopConnection.connection_lost, b"bye"),
                (LoopConnection._fail, b"bye"),
            ]
        ],
        (LoopConnection._expire, b"hush", 0),
    ],
    ids=lambda each: getattr(each, "__qualname__", None),
)
def test_l4_a_signal_handler_that_raises_where_the_loop_calls_a_connection_leaves_nothing_waiting(
    new_loop, words, callback, word, then, monkeypatch
):
    monkeypatch.setattr(awake, "_PROCESSORS", 1)  # as many places in each run

    async def main(bomb):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        performer = OnLoop(Parser(), "here")
        await performer.perform(said(words.place, b"first"))
        with bomb, contextlib.suppress(TimeLimit, OSError, Refused):
            try:
                await performer.perform(said(words.place, word, end=time.monotonic() + 0.3))
            finally:  # a connection that ended is closed in another turn of the loop
                for _ in range(3):
                    await asyncio.sleep(0)
        with contextlib.suppress(TimeLimit):  # it may wait for its turn of the loop
            await asyncio.sleep(0)
        for _ in range(2):  # the first one may meet a connection that has just ended
            with contextlib.suppress(OSError, Refused):
                assert await performer.perform(said(words.place, b"again")) == [b"again"]
        await performer.close()
        assert not performer._connections

    def run(bomb):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main(bomb))

    for _ in range(20):  # on a busy machine the request may end before its reply comes
        count = Bomb(1 << 30)
        run(count)
        if places := count.within(callback):
            break
    assert places
    for at in places:
        bomb = Bomb(at, then, error=TimeLimit)
        error = Work(lambda bomb=bomb: run(bomb)).error(30.0)
        assert error is None, f"{error!r} after {bomb.where} and {bomb.again or 'no more'}"
