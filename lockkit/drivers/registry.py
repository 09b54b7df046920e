"""The holds that an engine's locks have taken, by name: for reentrancy, and for seeing that a thread waits for itself."""

from __future__ import annotations

import threading

from lockkit.hold import Hold

__all__ = ["Registry"]

_FEW = 64
"""Names with holds up to which nobody looks for those that have fallen."""


class Registry:
    """The holds of one engine. Thread-safe; a signal handler may come in between anywhere, and use it itself."""

    __slots__ = ("_holds", "_most", "_mutex")

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._holds: dict[str, list[Hold]] = {}
        self._most = _FEW

    def of(self, name: str) -> list[Hold]:
        """The holds of a name."""
        return self._holds.get(name, [])

    def add(self, hold: Hold) -> None:
        """Note a hold."""
        name = hold.claim.terms.name
        with self._mutex:
            before = self._holds.get(name)
            self._holds[name] = [*(old for old in before if old.standing), hold] if before else [hold]
            if len(self._holds) > self._most:
                self._forget_the_fallen()

    def remove(self, hold: Hold) -> None:
        """Forget a hold."""
        name = hold.claim.terms.name
        with self._mutex:
            holds = self._holds.get(name, ())
            others = [other for other in holds if other is not hold]
            if others:
                self._holds[name] = others
            elif holds and self._holds.get(name) is holds:  # else a signal handler has locked the same name
                self._holds.pop(name, None)

    def _forget_the_fallen(self) -> None:
        """Forget holds that were lost or collected, which nobody removes; at doubling sizes, so it costs next to nothing."""
        standing = {name: [hold for hold in holds if hold.standing] for name, holds in self._holds.items()}
        self._holds = {name: holds for name, holds in standing.items() if holds}
        self._most = max(_FEW, 2 * len(self._holds))
