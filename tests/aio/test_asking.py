"""Requests to release, news of the holder and reasons on the asyncio face."""

from __future__ import annotations

import asyncio

import pytest

from lockkit.errors import AcquireTimeout, ConfigError, NotHeld
from support.aio import client_of, in_a_loop, soon


@in_a_loop
async def test_a_request_to_release_can_be_awaited(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        async with client.lock("a", ttl=max(2.0, harness.short_ttl)).acquire() as lease:
            told = []
            lease.on_release_requested(told.append)
            waiters = [asyncio.ensure_future(lease.release_requested.wait()) for _ in range(2)]
            assert not lease.release_requested.is_set()
            request = await other.ask_release("a", lease.claim_id, "the card is needed")
            async with asyncio.timeout(30):
                await asyncio.gather(*waiters)
                await lease.release_requested  # at once from now on
            assert lease.release_requested.is_set()
            assert lease.release_requests == (request,)
            assert lease.valid()
            await soon(lambda: told == [request])
        with pytest.raises(NotHeld, match="has no claim"):
            await other.ask_release("a", lease.claim_id, "again")


@in_a_loop
async def test_news_of_the_holder_is_told_without_waiting(harness):
    async with client_of(harness) as client, client_of(harness) as other:
        async with client.lock("a", ttl=max(2.0, harness.short_ttl)).acquire(
            reason="nightly reindex"
        ) as lease:
            assert (await other.inspect("a")).holders[0].reason == "nightly reindex"
            lease.beat(0.4, "epoch 4/10")
            with harness.client() as third:
                await soon(lambda: third.inspect("a").holders[0].progress)
                assert third.inspect("a").holders[0].progress[:2] == (0.4, "epoch 4/10")
            with pytest.raises(AcquireTimeout, match="nightly reindex"):
                await other.lock("a").acquire(timeout=0)
        with pytest.raises(NotHeld):
            lease.beat(0.5)


@in_a_loop
async def test_a_coroutine_function_is_refused_as_a_callback(harness):
    async def told(request):
        """Never called."""

    async with client_of(harness) as client, client.lock("a").acquire() as lease:
        with pytest.raises(ConfigError, match="plain function"):
            lease.on_release_requested(told)
        with pytest.raises(ConfigError, match="a function"):
            lease.on_release_requested(7)
        with pytest.raises(ConfigError, match="reason"):
            client.lock("b").acquire(reason="")
        with pytest.raises(ConfigError, match="belongs to lockkit"):
            await client.annotate("a", lease.claim_id, {"lockkit": None})
