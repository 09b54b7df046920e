"""A network store's hot calls on an event loop: plain, cancelled at each suspension, with cut replies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from lockkit.store.base import ExchangingBackend
from lockkit.store.performing_aio import OnLoop
from lockkit.store.spi import ABSENT, RELEASED, Busy, Exchanges, Granted, Lapsed, Queued
from lockkit.testing.claims import claim
from support.loops import How, cancelling, descriptors, run_on
from support.servers.proxy import Flow, ProxiedConnection, Proxy

__all__ = ["BUDGET", "Cutting", "Perform", "every_call", "run", "sweeping"]

T = TypeVar("T")
Perform: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Performs one exchange."""
Work: TypeAlias = Callable[[Exchanges, Perform, OnLoop], Awaitable[T]]

BUDGET = 5.0


def run(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    store: ExchangingBackend,
    work: Work[T],
    *ports: int,
    **options: Any,
) -> T:
    """Run work(calls, perform, performer), and check that no connection to these ports is left, or to any."""
    before = descriptors(*ports)

    async def with_calls(performer: OnLoop) -> T:
        return await work(store.exchanges, performer.perform, performer)

    result = run_on(new_loop, store.exchanges, with_calls, **options)
    assert descriptors(*ports) <= before
    return result


async def every_call(calls: Exchanges, perform: Perform, name: str = "a") -> None:
    """Make each call, with the answers that a lock of which nobody else knows leads to."""
    held, waits = claim(name), claim(name)
    granted = await perform(calls.acquire(held, True, BUDGET))
    assert isinstance(granted, Granted)
    assert isinstance(await perform(calls.acquire(claim(name, wait=False), True, BUDGET)), Busy)
    assert isinstance(await perform(calls.acquire(waits, True, BUDGET)), Queued)
    beats = [(held, granted.fence), (waits, None)]
    assert [each.state for each in await perform(calls.renew(beats, BUDGET))] == ["HELD", "WAITING"]
    assert await perform(calls.release(held, BUDGET)) == RELEASED
    taken = await perform(calls.acquire(waits, False, BUDGET))
    assert taken.fence > granted.fence
    assert await perform(calls.emergency_release(waits, BUDGET)) == RELEASED
    assert await perform(calls.abandon(waits, BUDGET)) == ABSENT
    assert isinstance(await perform(calls.acquire(waits, True, BUDGET)), Lapsed)


def sweeping(
    call: str, how: How, proved: Callable[[Perform], Awaitable[None]], *, cold: bool, abandon_asks: bool
) -> Work[int]:
    """Cancel a call at its first suspension and the next, then at its second and the next, to its last.

    Args:
        call: The call.
        how: When to cancel.
        proved: Makes some calls at a time, and checks that each of them gets its own answer.
        cold: Whether the call has to open a connection.
        abandon_asks: Whether an abandon sends a request also where it knows of nothing to remove.

    Returns:
        Work for :func:`run`, which gives the number of suspensions. No claim (name ``swept``) is left.
    """

    async def work(calls: Exchanges, perform: Perform, performer: OnLoop) -> int:
        at = 0
        while True:
            at += 1
            one, fence = claim("swept"), 0
            if call != "acquire":
                fence = (await perform(calls.acquire(one, True, BUDGET))).fence
            if cold:
                for pool in performer._pools.values():  # noqa: SLF001 (nothing else closes connections in use)
                    pool.drop()
            exchange: Any
            if call == "acquire":
                exchange = calls.acquire(one, True, BUDGET)
            elif call == "renew":
                exchange = calls.renew([(one, fence)], BUDGET)
            else:
                exchange = getattr(calls, call)(one, BUDGET)
            result, seen = await cancelling(_coroutine(perform, exchange), at, at + 1, how=how)
            await proved(perform)
            again, _ = await cancelling(_coroutine(perform, calls.abandon(one, BUDGET)), 1, 2, how=how)
            assert isinstance(again, asyncio.CancelledError) or not abandon_asks
            await proved(perform)
            assert await perform(calls.abandon(one, BUDGET)) in (RELEASED, ABSENT)
            if seen < at:
                return at - 1
            assert isinstance(result, asyncio.CancelledError)

    return work


async def _coroutine(perform: Perform, exchange: object) -> Any:
    return await perform(exchange)


class Cutting(Proxy):
    """Passes on so many bytes of each piece of the replies, and resets the connection; None for all bytes."""

    passed_on: int | None = None

    def passing(self, link: ProxiedConnection, flow: Flow, data: bytes) -> None:
        if self.passed_on is None or flow.to_server:
            flow.put(data)
            return
        flow.put(data[: self.passed_on])
        self.loop.call_soon(link.reset)
