"""The holds of an engine by name, for reentrant locks and for the detection of self-deadlocks."""

from __future__ import annotations

from _thread import RLock

from lockkit.protocol.hold import Hold

__all__ = ["Registry"]

_FEW = 64
"""The number of names from which on the registry is searched for holds that were lost or collected."""


class Registry:
    """The holds of one engine. Thread-safe, also if a signal handler interrupts a call and uses the registry.

    Attributes:
        holds: The holds by name. Each list is replaced, never changed.
    """

    __slots__ = ("__weakref__", "_most", "_mutex", "holds")

    def __init__(self) -> None:
        self._mutex = RLock()
        self.holds: dict[str, list[Hold]] = {}
        self._most = _FEW

    def change(self, name: str, *, new: Hold | None = None, old: Hold | None = None) -> None:
        """Add a hold of a name, remove another, and forget that name's lost or collected holds."""
        holds = self.holds
        with self._mutex:
            while True:
                before = holds.get(name)
                after = [] if new is None else [new]
                if before and before != [old]:
                    after = [hold for hold in before if hold is not old and hold.standing] + after
                # CPython runs no handler from here to the assignment: nothing is called. An earlier one may
                # have locked the same name, so compare first.
                if (holds[name] if name in holds else None) is before:  # noqa: SIM401 (get is a call)
                    if after:
                        holds[name] = after
                    elif before is not None:
                        del holds[name]
                    break
            if new is not None and len(holds) > self._most:
                self._forget_fallen()

    def _forget_fallen(self) -> None:
        """Search all names each time that their number has doubled, so that this costs next to nothing."""
        for name in list(self.holds):
            self.change(name)
        self._most = max(_FEW, 2 * len(self.holds))
