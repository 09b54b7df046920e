"""Tombstones: tokens that were abandoned, so that a late copy of their acquire grants nothing (S12)."""

from __future__ import annotations

from lockkit.store.spi import Why

__all__ = ["LASTING", "Tombstones"]

LASTING = 60.0
"""Seconds for which a late copy of an abandoned acquire is recognised."""


class Tombstones:
    """The tokens that were abandoned, each with the reason to answer to a late call.

    No mutex is needed, because each step is one operation on a dict.

    Args:
        stones: Until when each token is remembered (on the store's clock), and the reason; oldest first.
        lasting: Seconds for which a token is remembered.
        most: The largest number of tokens that are remembered; beyond that the oldest are forgotten.
    """

    __slots__ = ("_lasting", "_most", "stones")

    def __init__(
        self,
        stones: dict[str, tuple[float, Why]] | None = None,
        *,
        lasting: float = LASTING,
        most: float = float("inf"),
    ) -> None:
        self.stones = {} if stones is None else stones
        self._lasting = lasting
        self._most = most

    def __len__(self) -> int:
        return len(self.stones)

    def bury(self, token: str, now: float, why: Why = "late") -> None:
        """Remember that a token was abandoned, and forget tokens whose time is over."""
        stones = self.stones
        stones[token] = now + self._lasting, why
        try:
            oldest = next(iter(stones))
            while stones[oldest][0] <= now or len(stones) > self._most:
                del stones[oldest]
                oldest = next(iter(stones))
        except (KeyError, RuntimeError, StopIteration):  # another thread is forgetting them
            return

    def why(self, token: str, now: float) -> Why | None:
        """The reason to answer for a token that was abandoned; None for any other token."""
        found = self.stones.get(token)
        return found[1] if found is not None and found[0] > now else None
