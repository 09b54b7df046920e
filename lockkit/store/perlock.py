"""A cache, by lock, of what a store derives from the lock's terms: packed words, deadlines in the store's units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lockkit.store.spi import Terms

__all__ = ["PerLock"]

T = TypeVar("T")


class PerLock(Generic[T]):
    """A function of a lock's terms, computed once for each lock. Thread-safe.

    All claims of a lock share one ``Terms`` object, so the object itself is the key: hashing its fields would cost as much as
    most of the functions.

    Args:
        derive: The function.
        most: Locks that are remembered at all; beyond that all are forgotten.
    """

    __slots__ = ("_derive", "_known", "_most")

    def __init__(self, derive: Callable[[Terms], T], most: int = 16_384) -> None:
        self._derive = derive
        self._most = most
        self._known: dict[int, tuple[Terms, T]] = {}

    def __call__(self, terms: Terms) -> T:
        """The value for these terms."""
        known = self._known.get(id(terms))
        if known is None or known[0] is not terms:
            if len(self._known) >= self._most:
                self._known.clear()
            known = self._known[id(terms)] = terms, self._derive(terms)
        return known[1]
