"""The hot calls of the etcd store on an event loop: real servers, cancellation everywhere, failures."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from lockkit.store.spi import RELEASED, Granted, Lapsed, OpenOptions, Refused, Unknown
from lockkit.testing.claims import claim
from lockkit.testing.processes import PATIENCE, installed
from lockkit_etcd.backend import open_store
from lockkit_etcd.transport import Get
from support.calls_on_loop import BUDGET, Cutting, every_call, run, sweeping
from support.loops import HOW, loops
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser, covered
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


@pytest.fixture(params=loops().values(), ids=loops().keys())
def new_loop(request):
    return request.param


@pytest.fixture(scope="module")
def real():
    with EtcdServer() as made:
        for at in range(3):
            made.call("kv/put", {"key": b"word/%d" % at, "value": b"%d" % at})
        yield made


@pytest.fixture
def proxy(real):
    real.call("kv/deleterange", covered("lockkit/"))
    with Proxy((real.host, real.port)) as proxy:
        yield proxy


@pytest.fixture
def far(proxy):
    """A store whose requests and replies may be held."""
    with contextlib.closing(open_store(f"etcd://{proxy.address}", OpenOptions())) as store:
        yield store


# -- every way to a server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_call_works(new_loop, real, host):
    url = real.url().replace("127.0.0.1", host)
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        run(new_loop, store, lambda calls, perform, _: every_call(calls, perform))


def test_every_call_works_over_tls(new_loop):
    with EtcdServer(tls=True) as server:
        url = f"{server.url()}?ca_file={server.certificates.ca}"
        with contextlib.closing(open_store(url, OpenOptions())) as store:
            run(new_loop, store, lambda calls, perform, _: every_call(calls, perform))


def test_fifty_names_at_a_time_take_no_more_connections_than_the_limit(new_loop, real):
    with contextlib.closing(open_store(real.url(), OpenOptions(namespace="fifty"))) as opened:

        async def work(calls, perform, performer):
            await asyncio.gather(*[every_call(calls, perform, f"n{at}") for at in range(50)])
            return len(performer._connections)

        assert run(new_loop, opened, work, most=8) <= 8
        assert opened.names("", 2.0) == []


def test_an_expired_login_is_renewed(new_loop):
    user = EtcdUser("locker", "secret", {"lockkit/default/": "READWRITE"})
    with (
        EtcdServer(users=[user]) as server,
        contextlib.closing(open_store(server.url("locker", "secret"), OpenOptions())) as store,
    ):
        (member,) = store.store.transport._members

        async def work(calls, perform, _):
            await every_call(calls, perform)
            before = member.token
            await asyncio.to_thread(server.restart, lose_data=False)  # the server forgets its logins
            await every_call(calls, perform, "b")
            assert member.token != before

        run(new_loop, store, work)


# -- cancellation


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize("call", ["acquire", "renew", "release", "abandon", "emergency_release"])
def test_a_call_cancelled_at_any_suspension_twice_in_a_row_leaves_nothing(
    new_loop, proxy, far, real, call, cold, how
):
    proxy.delay = 0.003  # the reply to a request that is cancelled comes when the next ones are under way

    async def proved(perform):
        """Each call hears the answer to its own question."""
        end = time.monotonic() + BUDGET
        asked = [perform(far.store.transport.range(Get(b"word/%d" % at), end)) for at in range(3)]
        told = await asyncio.gather(*asked)
        assert [each.kvs[0].value for each in told] == [b"%d" % at for at in range(3)]

    work = sweeping(call, how, proved, cold=cold, abandon_asks=False)
    assert run(new_loop, far, work, proxy.port) >= (3 if cold or call == "emergency_release" else 1)
    assert far.inspect("swept", 2.0).claims == ()
    assert far.store.entries == {}


# -- servers that fail


def test_a_server_that_dies_leaves_the_outcome_unknown_and_is_used_again_when_it_is_back(new_loop):
    with EtcdServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:

        async def work(calls, perform, _):
            one = claim()
            await every_call(calls, perform)
            server.pause()
            call = asyncio.ensure_future(perform(calls.acquire(one, True, BUDGET)))
            await asyncio.sleep(0.02)
            server.kill()
            with pytest.raises((Unknown, Refused)):
                await call
            with pytest.raises(Refused, match="refused"):
                await perform(calls.acquire(claim(), True, BUDGET))
            await asyncio.to_thread(server.start)
            await perform(calls.abandon(one, BUDGET))
            assert isinstance(await perform(calls.acquire(one, True, BUDGET)), Lapsed)
            await every_call(calls, perform, "b")

        run(new_loop, store, work)


@pytest.mark.parametrize("to_server", [True, False], ids=["requests", "replies"])
def test_where_nothing_comes_through_each_call_ends_in_time(new_loop, proxy, far, to_server):
    async def work(calls, perform, _):
        await every_call(calls, perform, "b")
        proxy.hold(to_server=to_server, to_client=not to_server)
        one = claim()
        began = time.monotonic()
        for _ in range(2):
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
        contextlib.closing(open_store(f"etcd://{proxy.address}", OpenOptions())) as store,
    ):

        async def work(calls, perform, _):
            one = claim("cut")
            for cut in (0, 1, 15, 60, 200):
                proxy.passed_on = None
                await every_call(calls, perform, "warm")
                proxy.passed_on = cut
                with pytest.raises((Unknown, Refused)):
                    await perform(calls.acquire(one, True, BUDGET))
            proxy.passed_on = None
            assert isinstance(await perform(calls.acquire(one, True, BUDGET)), Granted)
            assert await perform(calls.release(one, BUDGET)) == RELEASED

        run(new_loop, store, work, proxy.port)


def test_the_death_of_the_leader_is_outlived(new_loop):
    with EtcdCluster() as cluster, contextlib.closing(open_store(cluster.url(), OpenOptions())) as store:

        async def work(calls, perform, _):
            one = claim()
            fence = (await perform(calls.acquire(one, True, BUDGET))).fence
            await asyncio.to_thread(cluster.kill_leader)
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    (renewed,) = await perform(calls.renew([(one, fence)], BUDGET))
                    break
                except (Refused, Unknown):
                    assert time.monotonic() < end, "nobody else leads"
                    await asyncio.sleep(0.1)
            assert renewed.state == "HELD"
            assert await perform(calls.release(one, BUDGET)) == RELEASED
            await every_call(calls, perform, "b")

        run(new_loop, store, work)
