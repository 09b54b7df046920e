"""Single calls of a store, for tests of a backend without a client. Each checks the kind of the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lockkit.plugins import PluginManager
from lockkit.store.spi import Backend, Claim, Granted, OpenOptions, Queued, Renewal, Terms, Unknown
from lockkit.values.names import new_token

__all__ = ["BUDGET", "claim", "open_store", "queue", "renew", "settled", "states", "take"]

T = TypeVar("T")
BUDGET = 2.0
"""Seconds for each call."""


def open_store(url: str, **options: Any) -> Backend:
    """Open a store as a client does, with :class:`lockkit.store.spi.OpenOptions`. The caller closes it."""
    return PluginManager(()).open(url, OpenOptions(**options))


def claim(
    name: str = "a", *, wait: bool = True, note: Mapping[str, object] | None = None, **terms: Any
) -> Claim:
    """A claim that no store has seen; ``terms`` are those of :class:`lockkit.store.spi.Terms`."""
    return Claim(new_token(), Terms(name, **terms), wait, note)


def take(store: Backend, name: str = "a", *, budget: float = BUDGET, **options: Any) -> tuple[Claim, int]:
    """Acquire a lock that is free. Returns the claim and its fence."""
    one = claim(name, **options)
    answer = store.acquire(one, True, budget)
    assert isinstance(answer, Granted), answer
    return one, answer.fence


def queue(store: Backend, name: str = "a", *, budget: float = BUDGET, **options: Any) -> Claim:
    """Queue for a lock that is held. Returns the claim."""
    one = claim(name, **options)
    answer = store.acquire(one, True, budget)
    assert isinstance(answer, Queued), answer
    return one


def renew(store: Backend, one: Claim, fence: int | None = None) -> Renewal:
    """Renew one claim: with the fence of its lease, or without one for a waiter."""
    return store.renew([(one, fence)], BUDGET)[0]


def states(store: Backend, name: str = "a") -> list[str]:
    """The states of the queue, in its order."""
    return [info.state for info in store.inspect(name, BUDGET).claims]


def settled(call: Callable[[], T]) -> T:
    """Repeat a call, up to three times, while its outcome is unknown, as after a closed connection."""
    for _ in range(3):
        with contextlib.suppress(Unknown):
            return call()
    raise AssertionError("three times no answer")
