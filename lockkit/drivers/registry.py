"""The holds that an engine's locks have taken, by name: for reentrancy, and for seeing that a thread waits for itself."""

from __future__ import annotations

from _thread import RLock

from lockkit.hold import Hold

__all__ = ["Registry"]

_FEW = 64
"""Names with holds up to which nobody looks for those that have fallen."""


class Registry:
    """The holds of one engine. Thread-safe; a signal handler may come in between anywhere, and use it itself.

    Attributes:
        holds: The holds by name. Each list is replaced, never changed.
    """

    __slots__ = ("_most", "_mutex", "holds")

    def __init__(self) -> None:
        self._mutex = RLock()
        self.holds: dict[str, list[Hold]] = {}
        self._most = _FEW

    def change(self, name: str, *, new: Hold | None = None, old: Hold | None = None) -> None:
        """Add a hold of a name, remove another, and forget those that were lost or collected, which nobody removes."""
        holds = self.holds
        with self._mutex:
            while True:
                before = holds.get(name)
                after = [] if new is None else [new]
                if before and before != [old]:
                    after = [hold for hold in before if hold is not old and hold.standing] + after
                # No signal is let through from here on, for want of a call: a handler before has perhaps locked the same name.
                if (holds[name] if name in holds else None) is before:  # noqa: SIM401 (get is a call)
                    if after:
                        holds[name] = after
                    elif before is not None:
                        del holds[name]
                    break
            if new is not None and len(holds) > self._most:
                self._forget_fallen()

    def _forget_fallen(self) -> None:
        """Look at all names, at doubling sizes, so that it costs next to nothing."""
        for name in list(self.holds):
            self.change(name)
        self._most = max(_FEW, 2 * len(self.holds))
