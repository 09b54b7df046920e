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
        with self._mutex:
            self._change(hold.claim.terms.name, hold, None)
            if len(self._holds) > self._most:  # at doubling sizes, so it costs next to nothing
                for name in list(self._holds):
                    self._change(name, None, None)
                self._most = max(_FEW, 2 * len(self._holds))

    def remove(self, hold: Hold) -> None:
        """Forget a hold."""
        with self._mutex:
            self._change(hold.claim.terms.name, None, hold)

    def _change(self, name: str, new: Hold | None, old: Hold | None) -> None:
        """Add a hold, remove another, and forget those that were lost or collected, which nobody removes."""
        holds = self._holds
        while True:
            before = holds.get(name)
            after = [hold for hold in before if hold is not old and hold.standing] if before else []
            if new is not None:
                after.append(new)
            # No signal is let through from here on, for want of a call: a handler before has perhaps locked the same name.
            if (holds[name] if name in holds else None) is before:  # noqa: SIM401 (get is a call)
                if after:
                    holds[name] = after
                elif before is not None:
                    del holds[name]
                return
