"""A store's calls as a test makes them: on a claim of their own, and sure of the kind of answer.

Everything else is said of the public face; these are for tests of a backend without a client before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lockkit.names import new_token
from lockkit.plugins import PluginManager
from lockkit.store.spi import Backend, Claim, Granted, OpenOptions, Queued, Renewal, Terms, Unknown

__all__ = ["BUDGET", "claim", "open_store", "queue", "renew", "settled", "states", "take"]

T = TypeVar("T")
BUDGET = 2.0
"""Seconds for each call."""


def open_store(url: str, **options: Any) -> Backend:
    """Open a store as a client does; ``options`` are those of :class:`lockkit.store.spi.OpenOptions`. Close it."""
    return PluginManager(()).open(url, OpenOptions(**options))


def claim(
    name: str = "a", *, wait: bool = True, note: Mapping[str, object] | None = None, **terms: Any
) -> Claim:
    """A claim that no store has seen; ``terms`` are those of :class:`lockkit.store.spi.Terms`."""
    return Claim(new_token(), Terms(name, **terms), wait, note)


def take(store: Backend, name: str = "a", **options: Any) -> tuple[Claim, int]:
    """Hold a lock that is free: the claim and its fence."""
    one = claim(name, **options)
    answer = store.acquire(one, True, BUDGET)
    assert isinstance(answer, Granted), answer
    return one, answer.fence


def queue(store: Backend, name: str = "a", **options: Any) -> Claim:
    """Stand in line for a lock that is held."""
    one = claim(name, **options)
    answer = store.acquire(one, True, BUDGET)
    assert isinstance(answer, Queued), answer
    return one


def renew(store: Backend, one: Claim, fence: int | None = None) -> Renewal:
    """Renew one claim: for its lease, or for a waiter."""
    return store.renew([(one, fence)], BUDGET)[0]


def states(store: Backend, name: str = "a") -> list[str]:
    """The states of the queue, in its order."""
    return [info.state for info in store.inspect(name, BUDGET).claims]


def settled(call: Callable[[], T]) -> T:
    """As the protocol does: ask again while the outcome is unknown, as on a connection that the server has closed."""
    for _ in range(3):
        with contextlib.suppress(Unknown):
            return call()
    raise AssertionError("three times no answer")
