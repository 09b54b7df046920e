"""A cache of what a store derives from the terms of a lock: packed words, deadlines in its own units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from lockkit.store.spi import Terms

__all__ = ["PerLock"]

T = TypeVar("T")


class PerLock(Generic[T]):
    """What is derived from the terms of a lock, worked out once for each lock. Thread-safe.

    All claims of a lock share one object of terms, so that object is the key: to hash its fields would cost as much as to
    derive most things anew.

    Args:
        derive: Works it out.
        most: Locks that are remembered at all; beyond it all are forgotten and worked out anew.
    """

    __slots__ = ("_derive", "_known", "_most")

    def __init__(self, derive: Callable[[Terms], T], most: int = 16_384) -> None:
        self._derive = derive
        self._most = most
        self._known: dict[int, tuple[Terms, T]] = {}

    def __call__(self, terms: Terms) -> T:
        """What is derived from these terms."""
        known = self._known.get(id(terms))
        if known is None or known[0] is not terms:
            if len(self._known) >= self._most:
                self._known.clear()
            known = self._known[id(terms)] = terms, self._derive(terms)
        return known[1]
