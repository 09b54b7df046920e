"""Queues in which a client waited a moment ago: looking there for a free lock is probably in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Crowds"]

K = TypeVar("K")
_QUEUES = 16_384
"""Queues that are remembered at most."""
_MOMENT = 1.0
"""Seconds for which a queue is believed to have waiters still."""


class Crowds(Generic[K]):
    """The queues of one client, each by a key.

    Args:
        now: The clock.

    Attributes:
        waited_at: When a claim of this client was last seen waiting, by queue.
    """

    __slots__ = ("_now", "waited_at")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.waited_at: dict[K, float] = {}

    def note(self, queue: K) -> None:
        """Note that a claim of this client waits in a queue."""
        if len(self.waited_at) >= _QUEUES:
            self.waited_at.clear()
        self.waited_at[queue] = self._now()

    def likely(self, queue: K) -> bool:
        """Whether a claim of this client waited in a queue a moment ago."""
        at = self.waited_at.get(queue)
        return at is not None and self._now() - at < _MOMENT
