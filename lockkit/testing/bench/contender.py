"""A contender of the benchmark: one kind of lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Contender"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One kind of lock.

    Attributes:
        acquire: Takes the lock, and waits as long as necessary. Its result is the argument of ``release``.
        release: Releases the lock.
    """

    name: str
    acquire: Callable[[], Any]
    release: Callable[[Any], object]

    def both(self) -> None:
        """Acquire and release, once."""
        self.release(self.acquire())
