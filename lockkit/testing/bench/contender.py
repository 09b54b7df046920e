"""One way of excluding others, as the benchmark sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Contender"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of excluding others.

    Attributes:
        acquire: Takes the lock, waiting as long as it must; returns what ``release`` is given.
        release: Lets it go.
    """

    name: str
    acquire: Callable[[], Any]
    release: Callable[[Any], object]

    def both(self) -> None:
        """Acquire and release, once."""
        self.release(self.acquire())
