"""A cache of values that a store computes from a lock's terms: packed arguments, times in its units."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lockkit.store.spi import Terms

__all__ = ["per_lock"]

T = TypeVar("T")


def per_lock(derive: Callable[[Terms], T], most: int = 16_384) -> Callable[[Terms], T]:
    """A function of a lock's terms that is computed once for each lock. Thread-safe.

    All claims of a lock share one ``Terms`` object, so the object itself is the key: hashing its fields would
    cost as much as most such functions.

    Args:
        derive: The function.
        most: The largest number of locks in the cache; beyond that the cache is emptied.
    """
    known: dict[int, tuple[Terms, T]] = {}

    def derived(terms: Terms) -> T:
        found = known.get(id(terms))
        if found is None or found[0] is not terms:
            if len(known) >= most:
                known.clear()
            found = known[id(terms)] = terms, derive(terms)
        return found[1]

    return derived
