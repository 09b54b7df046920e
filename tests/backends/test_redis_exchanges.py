"""The hot calls of the Redis store as exchanges: step by step without a server, and on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time

import pytest

pytest.importorskip("redis")

from lockkit.errors import BackendUnavailable, ConfigError, PermissionDenied
from lockkit.store.exchanges import Connect, Drop, Introduce, Pause, Send, Start
from lockkit.store.performing_aio import OnLoop
from lockkit.store.spi import ABSENT, RELEASED, Granted, OpenOptions, Refused, Unknown
from lockkit.testing.claims import claim
from lockkit.testing.interrupts import CtrlC
from lockkit_redis.address import parse
from lockkit_redis.backend import open_store
from lockkit_redis.connection import pack
from lockkit_redis.exchanges import RedisExchanges
from lockkit_redis.keys import Keys
from lockkit_redis.private import error_of, slot_of
from lockkit_redis.server import Fresh, Sentinel, Server
from lockkit_redis.store import RedisStore
from lockkit_redis.topology import Cluster
from support.by_hand import ByHand
from support.calls_on_loop import every_call
from support.handlers import Handler
from support.servers.redis import RedisServer
from support.servers.started import started

HOUR = 3_600_000
SLOT = slot_of(Keys.of("default", "a").queue.encode())
GRANT = [b"G", b"1700000000000", b"7"]
INDEXED = [1, 0, 1]
HELLO = [b"server", b"redis", b"mode", b"standalone"]
NOW = [b"1700000000", b"0"]


@pytest.fixture
def no_io(monkeypatch):
    """Fail the test if the code connects, sleeps or starts a thread."""

    def forbidden(*_args, **_options):
        raise AssertionError("an exchange does no I/O")

    for name in (
        "socket.socket.connect",
        "lockkit_redis.store.connect",
        "time.sleep",
        "threading.Thread.start",
    ):
        monkeypatch.setattr(name, forbidden)


@pytest.fixture
def store(no_io):
    return RedisStore(parse("redis://host"), OpenOptions())


@pytest.fixture
def calls(store):
    return RedisExchanges(store)


@pytest.fixture
def server(store):
    (server,) = store.servers()
    return server


def replies(first, count):
    return [first, *[1] * (count - 1)]


# -- one server


def test_an_acquire_is_one_request_and_its_reply(calls, server):
    began = time.monotonic()
    play = ByHand(calls.acquire(claim(), True, 2.0))

    assert isinstance(play.step, Send)
    assert play.step.to is server
    assert play.step.end == pytest.approx(began + 2.0, abs=0.5)
    assert b"EVALSHA" in play.step.packed
    assert play.step.replies == 4, "the name is noted in the index, in the same row"
    assert play.hear([GRANT, *INDEXED]) is None
    assert play.result.fence == 7


def test_a_request_for_a_name_in_the_index_has_one_reply(calls):
    ByHand(calls.acquire(claim(), True, 2.0)).hear([GRANT, *INDEXED])
    play = ByHand(calls.acquire(claim(), True, 2.0))

    assert play.step.replies == 1
    play.hear([GRANT])
    assert isinstance(play.result, Granted)


def test_nothing_is_done_before_the_first_step(calls, store):
    calls.acquire(claim(), True, 2.0)

    assert not store.unsure


def test_a_script_that_the_server_does_not_know_is_sent_whole(calls, server):
    play = ByHand(calls.acquire(claim(), True, 2.0))
    again = play.hear(replies(error_of("NOSCRIPT No matching script"), 4))

    assert again.to is server
    assert b"EVALSHA" not in again.packed
    assert b"redis.call" in again.packed
    play.hear([GRANT, *INDEXED])
    assert isinstance(play.result, Granted)


def test_a_connection_that_breaks_leaves_the_outcome_unknown(calls, store):
    one = claim()
    with pytest.raises(Unknown, match="reset by peer"):
        ByHand(calls.acquire(one, True, 2.0)).fail(ConnectionResetError("reset by peer"))
    assert one.token in store.unsure

    play = ByHand(calls.release(one, 2.0))
    assert play.step.packed.count(b"$1\r\n1\r\n") == 2, "graceful, and with a tombstone"
    play.hear([1])
    assert play.result == RELEASED
    assert not store.unsure


def test_where_no_connection_is_to_be_had_nothing_was_done(calls, store):
    refusal = Refused(BackendUnavailable("cannot reach it", hint=""))
    with pytest.raises(Refused) as told:
        ByHand(calls.acquire(claim(), True, 2.0)).fail(refusal)

    assert told.value is refusal
    assert not store.unsure


def test_an_exchange_that_is_dropped_half_way_remembers_its_claim(calls, store):
    """As after a cancellation: the request may have been sent."""
    one = claim()
    exchange = calls.acquire(one, True, 2.0)
    next(exchange)
    exchange.close()

    assert one.token in store.unsure


def test_a_demoted_primary_is_refused_and_its_connections_are_dropped(calls, server):
    play = ByHand(calls.release(claim(), 2.0))

    assert play.hear([error_of("READONLY You can't write")]) == Drop(server)
    with pytest.raises(Refused, match="it is a replica"):
        play.hear(None)


def test_an_emergency_release_has_a_connection_of_its_own(calls, server):
    play = ByHand(calls.emergency_release(claim(), 2.0))

    assert play.step.to == Fresh(server)
    assert not play.step.keep([1])
    play.hear([0])
    assert play.result == ABSENT


def test_renewals_of_several_names_go_in_one_row(calls):
    beats = [(claim(f"n{at}"), at) for at in range(3)]
    play = ByHand(calls.renew(beats, 2.0))

    assert play.step.replies == 4
    noting = play.hear([b"H", b"H", [b"L", b"absent", b""], NOW])
    assert b"ZADD" in noting.packed
    play.hear(INDEXED)
    assert [each.state for each in play.result] == ["HELD", "HELD", "LOST"]


# -- opening


def opening(url):
    store = RedisStore(parse(url), OpenOptions())
    (server,) = store.servers()
    return ByHand(RedisExchanges(store).opening(server, time.monotonic() + 2.0)), server


def test_a_connection_logs_in_with_its_first_words(no_io):
    play, server = opening("redis://user:secret@host:7000/3")
    assert play.step[:1] == (("host", 7000),)
    assert isinstance(play.step, Connect)

    step = play.hear("the connection")
    assert isinstance(step, Introduce)
    assert step.connection == "the connection"
    assert step.packed.startswith(pack("AUTH", "user", "secret"))
    assert step.packed.endswith(pack("SELECT", 3))
    assert step.replies == step.packed.count(b"*") == 5

    play.hear([b"OK", HELLO, b"OK", NOW, b"OK"])
    assert play.result == "the connection"
    assert server.reckoned(server._clock.now()) == pytest.approx(1_700_000_000_000, abs=10_000)


@pytest.mark.parametrize(
    "wrong, kind, says",
    [
        (error_of("WRONGPASS invalid username-password pair"), PermissionDenied, "password is wrong"),
        (error_of("LOADING Redis is loading the dataset in memory"), BackendUnavailable, "still loading"),
    ],
)
def test_a_login_that_is_refused_is_told(no_io, wrong, kind, says):
    play, _ = opening("redis://user:secret@host")
    play.hear("the connection")
    with pytest.raises(Refused, match=says) as told:
        play.hear([wrong, HELLO, b"OK", NOW])
    assert isinstance(told.value.error, kind)


@pytest.mark.parametrize("reply", [1, None, [], b"", error_of("MOVED 99999 a:b"), error_of("MOVED")])
def test_a_login_with_replies_of_another_protocol_is_refused(no_io, reply):
    play, _ = opening("redis+sentinel://host/kit")
    play.hear([[b"host", b"6379"]])
    play.hear("the connection")
    with pytest.raises(Refused):
        play.hear([reply] * play.step.replies)


def test_a_connection_that_cannot_be_made_is_a_refusal(no_io):
    play, _ = opening("redis://host")
    with pytest.raises(Refused, match=r"cannot reach redis://host.*Connection refused"):
        play.fail(ConnectionRefusedError(111, "Connection refused"))


def test_the_sentinels_are_asked_one_after_the_other(no_io):
    play, _ = opening("redis+sentinel://one,two/kit?sentinel_password=secret")
    assert isinstance(play.step.to, Sentinel)
    assert play.step.to.place == ("one", 26379)
    assert not play.step.keep([])

    step = play.fail(ConnectionResetError("reset by peer"))
    assert step.to.place == ("two", 26379)
    assert step.packed.startswith(pack("AUTH", "secret"))
    assert step.replies == 2
    step = play.hear([b"OK", [b"10.0.0.5", b"6379"]])
    assert step == Connect(("10.0.0.5", 6379), step.end)
    step = play.hear("the connection")
    assert step.packed.endswith(pack("ROLE"))
    play.hear([HELLO, b"OK", NOW, [b"master"]])
    assert play.result == "the connection"


def test_a_primary_that_is_not_promoted_yet_is_refused(no_io):
    play, _ = opening("redis+sentinel://one/kit")
    play.hear([[b"10.0.0.5", b"6379"]])
    play.hear("the connection")
    with pytest.raises(Refused, match="it is a replica"):
        play.hear([HELLO, b"OK", NOW, [b"slave"]])


def test_sentinels_that_know_no_such_primary_are_told(no_io):
    play, _ = opening("redis+sentinel://one/kit")
    with pytest.raises(Refused, match="knows no 'kit'") as told:
        play.hear([None])
    assert isinstance(told.value.error, ConfigError)
    assert not told.value.retry


def test_a_demoted_primary_behind_sentinels_is_looked_for_once_more(no_io):
    store = RedisStore(parse("redis+sentinel://one/kit"), OpenOptions())
    (server,) = store.servers()
    play = ByHand(RedisExchanges(store).release(claim(), 2.0))

    assert play.hear([error_of("READONLY You can't write")]) == Drop(server)
    assert play.hear(None).to is server
    play.hear([1])
    assert play.result == RELEASED


# -- a Cluster


@pytest.fixture
def cluster(store):
    """A map on which node 1 has every slot."""
    store.topology = topology = Cluster(
        parse("redis+cluster://one:1"), lambda address, on: Server(address, "me", store.clock, cluster=on)
    )
    play = ByHand(topology.read(time.monotonic() + 1.0))
    assert b"SLOTS" in play.step.packed
    assert play.hear([[[0, 16383, [b"one", 1, b"id"]]]]) is None
    return topology


@pytest.fixture
def moving(calls, cluster, store):
    """An acquire whose first request is under way, of a name in the index."""
    store.index.noted(("a",), store.clock.now(), [])
    return ByHand(calls.acquire(claim("a"), True, 2.0))


def port(step):
    return step.to.address.hosts[0][1]


def latest(packed):
    """The time until which an acquire may arrive."""
    return int(re.search(rb"\$13\r\n(\d{13})\r\n", packed)[1])


def test_a_moved_slot_is_followed_at_once_and_the_request_is_packed_for_the_clock_of_its_node(
    moving, cluster
):
    first = moving.step
    cluster._node_at(("two", 2)).heard(latest(first.packed) + HOUR)
    second = moving.hear([error_of(f"MOVED {SLOT} two:2")])

    assert (port(first), port(second)) == (1, 2)
    assert latest(second.packed) - latest(first.packed) > HOUR // 2
    assert second.end <= first.end + 0.1
    moving.hear([GRANT])
    assert moving.result.fence == 7


def test_the_next_call_knows_where_the_slot_is(moving, calls, cluster):
    moving.hear([error_of(f"MOVED {SLOT} two:2")])
    moving.hear([GRANT])

    assert cluster.stale
    cluster._read_at = 0.0
    play = ByHand(calls.release(claim("a"), 2.0))
    assert isinstance(play.step, Start)
    assert play.step.name == "lockkit-redis-map"
    assert port(play.hear(None)) == 2


def test_a_slot_that_moves_for_ever_is_a_refusal(moving, store):
    for number in range(2, 6):
        assert port(moving.hear([error_of(f"MOVED {SLOT} other:{number}")])) == number
    with pytest.raises(Refused, match="Cluster"):
        moving.hear([error_of(f"MOVED {SLOT} other:6")])
    assert not store.unsure, "the refusal is definite"


def test_nothing_is_followed_when_the_time_is_over(calls, cluster, store):
    store.index.noted(("a",), store.clock.now(), [])
    play = ByHand(calls.acquire(claim("a"), True, 0.0))
    with pytest.raises(Refused):
        play.hear([error_of(f"MOVED {SLOT} two:2")])


def test_a_slot_on_its_way_is_asked_for_where_it_goes_and_the_map_stays(moving, cluster):
    step = moving.hear([error_of(f"ASK {SLOT} two:2")])

    assert port(step) == 2
    assert step.packed.startswith(pack("ASKING"))
    assert step.replies == 2
    moving.hear([b"OK", GRANT])
    assert moving.result.fence == 7
    assert not cluster.stale
    assert cluster.at(Keys.of("default", "a").queue).node == "one:1"


def test_a_slot_half_on_its_way_is_asked_for_again_where_it_was(moving):
    moving.hear([error_of(f"ASK {SLOT} two:2")])
    assert isinstance(moving.hear([b"OK", error_of("TRYAGAIN Multiple keys request")]), Pause)
    step = moving.hear(None)

    assert port(step) == 1
    assert b"ASKING" not in step.packed
    moving.hear([GRANT])
    assert isinstance(moving.result, Granted)


def test_a_node_that_does_not_know_the_script_learns_it_behind_a_redirection(moving):
    moving.hear([error_of(f"ASK {SLOT} two:2")])
    step = moving.hear([b"OK", error_of("NOSCRIPT No matching script")])

    assert port(step) == 2
    assert step.packed.startswith(pack("ASKING") + b"*")
    assert b"redis.call" in step.packed
    moving.hear([b"OK", GRANT])
    assert isinstance(moving.result, Granted)


def test_renewals_of_a_moved_slot_are_sent_to_its_node_at_once(calls, cluster):
    play = ByHand(calls.renew([(claim("a"), 1), (claim("b"), 2)], 2.0))
    assert play.step.replies == 3
    step = play.hear([error_of(f"MOVED {SLOT} two:2"), b"H", NOW])

    assert (port(step), step.replies) == (2, 1)
    step = play.hear([b"H"])
    while step is not None:  # the map, and the index
        step = play.hear(INDEXED if isinstance(step, Send) else None)
    assert [each.state for each in play.result] == ["HELD", "HELD"]


def test_a_map_that_cannot_be_read_in_the_background_is_read_by_the_next_call(calls, cluster):
    cluster.stale, cluster._read_at = True, 0.0
    play = ByHand(calls.release(claim("a"), 2.0))
    assert isinstance(play.step, Start)
    with pytest.raises(KeyboardInterrupt):
        play.fail(KeyboardInterrupt())

    assert isinstance(ByHand(calls.release(claim("a"), 2.0)).step, Start)


def test_a_signal_as_the_reading_of_the_map_begins_leaves_it_to_the_next_call(calls, cluster):
    def strike():
        raise CtrlC

    def begun(at):
        cluster.stale, cluster._read_at, cluster._reading = True, 0.0, False
        handler = Handler(at, strike, "look_again", "lockkit_redis/topology.py")
        with contextlib.suppress(CtrlC), handler:
            ByHand(calls.release(claim("a"), 2.0))
        return handler.seen

    for at in range(1, begun(0) + 1):
        begun(at)
        if at > 1:
            assert isinstance(ByHand(calls.release(claim("a"), 2.0)).step, Start), at


def test_the_map_is_read_by_one_at_a_time(calls, cluster):
    cluster.stale, cluster._read_at = True, 0.0
    first, second = (ByHand(calls.release(claim("a"), 2.0)) for _ in range(2))
    assert isinstance(first.step, Start)
    assert isinstance(second.step, Send)

    reading = ByHand(first.step.make())
    reading.hear([[[0, 16383, [b"two", 2, b"id"]]]])
    assert not cluster.stale
    assert port(ByHand(calls.release(claim("a"), 2.0)).step) == 2


# -- on an event loop


real = started(RedisServer)


@pytest.fixture
def opened(real):
    real.cli("FLUSHALL")
    with contextlib.closing(open_store(real.url(), OpenOptions())) as store:
        yield store


def on_a_loop(store, work, monkeypatch):
    """Run the work on a loop, and fail the test if the code starts a thread or blocks meanwhile."""

    def forbidden(*_args, **_options):
        raise AssertionError("it starts a thread, or blocks")

    async def run():
        monkeypatch.setattr(threading.Thread, "start", forbidden)
        monkeypatch.setattr(time, "sleep", forbidden)
        monkeypatch.setattr("lockkit_redis.store.connect", forbidden)
        performer = OnLoop(store.extras.exchanges, "here")
        try:
            return await work(performer)
        finally:
            await performer.close()
            monkeypatch.undo()

    return asyncio.run(run())


def test_fifty_names_at_a_time_are_locked_on_a_loop_without_a_thread(opened, monkeypatch):
    async def work(performer):
        calls = opened.extras.exchanges
        await asyncio.gather(*(every_call(calls, performer.perform, f"n{at}") for at in range(50)))

    before = {*threading.enumerate()}
    on_a_loop(opened, work, monkeypatch)
    assert before.issuperset(threading.enumerate())
    assert opened.names("", 2.0, deep=True) == []


def test_what_the_loop_locks_a_thread_sees(opened, monkeypatch):
    calls, one = opened.extras.exchanges, claim()

    async def work(performer):
        return await performer.perform(calls.acquire(one, True, 5.0))

    fence = on_a_loop(opened, work, monkeypatch).fence
    assert [each.fence for each in opened.inspect("a", 2.0).claims] == [fence]
    assert opened.release(one, 2.0) == RELEASED
