"""The hot calls of the Redis store on an event loop: real servers, cancellation everywhere, failures."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

pytest.importorskip("redis")

from lockkit.errors import ConfigError
from lockkit.store.spi import ABSENT, RELEASED, Granted, Lapsed, OpenOptions, Refused, Unknown
from lockkit.testing.claims import claim
from lockkit.testing.processes import PATIENCE
from lockkit_redis.backend import open_store
from lockkit_redis.connection import pack
from lockkit_redis.keys import Keys
from lockkit_redis.requests import ask, send
from support.calls_on_loop import BUDGET, Cutting, every_call, run, sweeping
from support.loops import HOW, cancelling, loops
from support.servers.proxy import Proxy
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster, RedisSentinels
from support.servers.started import started


@pytest.fixture(params=loops().values(), ids=loops().keys())
def new_loop(request):
    return request.param


real = started(RedisServer)


@pytest.fixture
def opened(real):
    real.cli("FLUSHALL")
    with contextlib.closing(open_store(real.url(), OpenOptions())) as store:
        yield store


@pytest.fixture
def proxy(real):
    real.cli("FLUSHALL")
    with Proxy((real.host, real.port)) as proxy:
        yield proxy


@pytest.fixture
def far(proxy):
    """A store whose requests and replies may be held."""
    with contextlib.closing(open_store(f"redis://{proxy.address}", OpenOptions())) as store:
        yield store


def echo(store, word):
    """An exchange whose reply is its request."""
    (server,) = store.store.topology.servers()
    return send(server, pack("ECHO", word), time.monotonic() + BUDGET)


# -- every way to a server


@pytest.mark.parametrize("way", ["url", "socket_url"])
def test_every_call_works(new_loop, real, way):
    real.cli("FLUSHALL")
    with contextlib.closing(open_store(getattr(real, way)(), OpenOptions())) as store:
        run(new_loop, store, lambda calls, perform, _: every_call(calls, perform))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_call_works_over_tls(new_loop, host):
    with RedisServer(tls=True) as server:
        made = server.certificates
        url = server.url().replace("127.0.0.1", host)
        files = f"ca_file={made.ca}&cert_file={made.client}&key_file={made.client_key}"
        with contextlib.closing(open_store(f"{url}?{files}", OpenOptions())) as store:
            run(new_loop, store, lambda calls, perform, _: every_call(calls, perform))


def test_a_server_that_wants_a_certificate_or_has_one_of_nobody_is_refused_as_by_a_thread(new_loop):
    with RedisServer(tls=True) as server:
        made = server.certificates
        files = f"ca_file={made.ca}&cert_file={made.client}&key_file={made.client_key}"
        with contextlib.closing(open_store(f"{server.url()}?{files}", OpenOptions())) as store:

            async def work(calls, perform, _):
                with pytest.raises(Refused) as told:
                    await perform(calls.acquire(claim(), True, BUDGET))
                return told.value

            for context, retry in ((None, None), ("strange", False)):
                import ssl

                strange = ssl.create_default_context()
                if context is None:
                    strange.load_verify_locations(made.ca)
                calls = store.extras.exchanges
                known, calls.tls = calls.tls, strange
                refused = run(new_loop, store, work)
                calls.tls = known
                assert server.address in str(refused.error)
                if retry is not None:
                    assert refused.retry is retry
                    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.error)


def test_fifty_names_at_a_time_take_no_more_connections_than_the_limit(new_loop, opened, real):
    async def work(calls, perform, performer):
        await asyncio.gather(*[every_call(calls, perform, f"n{at}") for at in range(50)])
        return len(performer._connections)

    assert run(new_loop, opened, work, most=8) <= 8
    assert opened.names("", 2.0, deep=True) == []


def test_a_path_that_is_no_socket_is_a_mistake_in_the_url(new_loop, real, opened, tmp_path):
    (tmp_path / "file").touch()
    server = opened.store.topology.servers()[0]
    server.address = server.address._replace(socket=str(tmp_path / "file"))

    async def work(calls, perform, _):
        with pytest.raises(Refused, match="this is no socket") as refused:
            await perform(calls.acquire(claim(), True, BUDGET))
        assert isinstance(refused.value.error, ConfigError)
        assert not refused.value.retry

    run(new_loop, opened, work)


# -- cancellation


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize("call", ["acquire", "renew", "release", "abandon", "emergency_release"])
def test_a_call_cancelled_at_any_suspension_twice_in_a_row_leaves_nothing(
    new_loop, proxy, far, real, call, cold, how
):
    proxy.delay = 0.002  # the reply to a request that is cancelled comes when the next ones are under way

    async def proved(perform):
        words = [f"word {at}" for at in range(3)]
        told = await asyncio.gather(*[perform(echo(far, word)) for word in words])
        assert told == [[word.encode()] for word in words]

    work = sweeping(call, how, proved, cold=cold, abandon_asks=True)
    swept = run(new_loop, far, work, proxy.port)
    assert swept >= (4 if cold or call == "emergency_release" else 1)
    assert far.inspect("swept", 2.0).claims == ()
    assert far.store.unsure == {}


@pytest.mark.parametrize("how", HOW)
def test_a_call_cancelled_while_a_connection_with_tls_is_opened_leaves_nothing(new_loop, how):
    with RedisServer(tls=True) as server:
        made = server.certificates
        files = f"ca_file={made.ca}&cert_file={made.client}&key_file={made.client_key}"
        with contextlib.closing(open_store(f"{server.url()}?{files}", OpenOptions())) as store:

            async def work(calls, perform, performer):
                at = 0
                while True:
                    at += 1
                    one = claim("swept")
                    for pool in performer._pools.values():
                        pool.drop()
                    result, seen = await cancelling(
                        perform(calls.acquire(one, True, BUDGET)), at, at + 1, how=how
                    )
                    assert await perform(echo(store, "word")) == [b"word"]
                    assert await perform(calls.abandon(one, BUDGET)) in (RELEASED, ABSENT)
                    if seen < at:
                        return at - 1
                    assert isinstance(result, asyncio.CancelledError)

            assert run(new_loop, store, work, server.port) >= 4
            assert store.inspect("swept", 2.0).claims == ()


# -- servers that fail


def test_a_server_that_dies_leaves_the_outcome_unknown_and_is_used_again_when_it_is_back(new_loop):
    with RedisServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:

        async def work(calls, perform, _):
            one = claim()
            await perform(echo(store, "warm"))
            server.pause()
            call = asyncio.ensure_future(perform(calls.acquire(one, True, BUDGET)))
            await asyncio.sleep(0.02)
            server.kill()
            with pytest.raises(Unknown):
                await call
            with pytest.raises(Refused, match="refused"):
                await perform(calls.acquire(claim(), True, BUDGET))
            server.start()
            await perform(calls.abandon(one, BUDGET))
            assert isinstance(await perform(calls.acquire(one, True, BUDGET)), Lapsed)
            await every_call(calls, perform)

        run(new_loop, store, work)


@pytest.mark.parametrize("to_server", [True, False], ids=["requests", "replies"])
def test_where_nothing_comes_through_each_call_ends_in_time(new_loop, proxy, far, to_server):
    async def work(calls, perform, _):
        await perform(echo(far, "warm"))
        proxy.hold(to_server=to_server, to_client=not to_server)
        one = claim()
        began = time.monotonic()
        for _ in range(2):  # over a connection that stands, and over one that cannot introduce itself
            with pytest.raises((Unknown, Refused), match="timed out"):
                await perform(calls.acquire(one, True, 0.1))
        assert time.monotonic() - began < 10
        proxy.heal()
        await perform(calls.abandon(one, BUDGET))
        await every_call(calls, perform, "b")

    run(new_loop, far, work, proxy.port)
    assert far.inspect("a", 2.0).claims == ()


def test_a_reply_that_is_cut_short_is_none(new_loop, real):
    with (
        Cutting((real.host, real.port)) as proxy,
        contextlib.closing(open_store(f"redis://{proxy.address}", OpenOptions())) as store,
    ):

        async def work(calls, perform, _):
            one = claim("cut")
            for cut in (0, 1, 5, 12):
                proxy.passed_on = None
                await perform(echo(store, "warm"))
                proxy.passed_on = cut
                with pytest.raises(Unknown):
                    await perform(calls.acquire(one, True, BUDGET))
                with pytest.raises(Refused):
                    await perform(calls.acquire(claim("cut"), True, BUDGET))
            proxy.passed_on = None
            assert isinstance(await perform(calls.acquire(one, True, BUDGET)), Granted)
            assert await perform(calls.release(one, BUDGET)) == RELEASED

        run(new_loop, store, work, proxy.port)


def test_a_server_with_too_many_clients_says_so(new_loop):
    with RedisServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        server.cli("CONFIG", "SET", "maxclients", 1)

        async def work(calls, perform, _):
            for _ in range(3):
                with pytest.raises(Refused, match="limit of clients"):
                    await perform(calls.acquire(claim(), True, BUDGET))
            server.cli("CONFIG", "SET", "maxclients", 1000)
            await every_call(calls, perform)

        run(new_loop, store, work)


# -- several servers


cluster = started(RedisCluster)


def test_a_slot_that_moves_is_followed(new_loop, cluster):
    here, there, _ = cluster.nodes
    with contextlib.closing(open_store(cluster.url(), OpenOptions(namespace="moved"))) as store:
        names = (f"n{at}" for at in range(1000))
        name = next(each for each in names if cluster.node_of(Keys.of("moved", each).queue) is here)
        slot = here.cli("CLUSTER", "KEYSLOT", Keys.of("moved", name).queue)

        async def work(calls, perform, _):
            await every_call(calls, perform, name)
            cluster.move(slot, here, there)
            one = claim(name)  # MOVED
            assert isinstance(await perform(calls.acquire(one, True, BUDGET)), Granted)
            assert there.cli("EXISTS", Keys.of("moved", name).queue)
            cluster.move(slot, there, here)
            assert await perform(calls.release(one, BUDGET)) == RELEASED

        run(new_loop, store, work)


def test_a_slot_on_its_way_is_asked_for_where_it_goes(new_loop, cluster):
    here, there, _ = cluster.nodes
    with contextlib.closing(open_store(cluster.url(), OpenOptions(namespace="asked"))) as store:
        names = (f"n{at}" for at in range(1000))
        name = next(each for each in names if cluster.node_of(Keys.of("asked", each).queue) is here)
        key = Keys.of("asked", name).record
        packed = pack("SET", key, "word", "GET")

        async def work(_, perform, __):
            with cluster.on_its_way(here.cli("CLUSTER", "KEYSLOT", key), here, there):
                server = store.store.topology.at(key)
                for reply in (None, b"word"):
                    asked, replies = await perform(ask(server, packed, time.monotonic() + BUDGET))
                    assert asked.node == there.address
                    assert replies[0] == reply
                with there.connect() as client:
                    client.execute_command("ASKING")
                    assert client.execute_command("DEL", key) == 1

        run(new_loop, store, work)


def test_calls_to_all_nodes_work_at_a_time_and_the_map_is_read_again_in_a_task(new_loop, cluster):
    with contextlib.closing(open_store(cluster.url(), OpenOptions())) as store:

        async def work(calls, perform, performer):
            store.store.topology.stale, store.store.topology._read_at = True, 0.0
            await asyncio.gather(*[every_call(calls, perform, f"n{at}") for at in range(30)])
            end = time.monotonic() + PATIENCE
            while store.store.topology.stale:  # a read that a busy machine has failed is repeated
                assert time.monotonic() < end, "the map is not read"
                await asyncio.sleep(0.1)
                await every_call(calls, perform, "n0")
            assert len({route.node for route in performer._pools if hasattr(route, "node")}) == 3

        run(new_loop, store, work)


def test_a_failover_behind_sentinels_is_followed(new_loop):
    with RedisSentinels() as group, contextlib.closing(open_store(group.url(), OpenOptions())) as store:

        async def work(calls, perform, _):
            await every_call(calls, perform)
            await asyncio.to_thread(group.fail_over)
            one = claim("after")
            end = time.monotonic() + PATIENCE
            while True:  # the first call may use a connection to the old primary
                try:
                    answer = await perform(calls.acquire(one, True, BUDGET))
                    break
                except (Refused, Unknown):
                    assert time.monotonic() < end, "nobody else serves"
                    await asyncio.sleep(0.1)
            assert isinstance(answer, Granted)
            assert await perform(calls.release(one, BUDGET)) == RELEASED

        run(new_loop, store, work)
