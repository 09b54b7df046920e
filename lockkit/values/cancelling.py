"""Cancelling a wait from another thread."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.errors import ConfigError

__all__ = ["Cancel", "check_cancel"]


class Cancel:
    """A switch with which one thread ends the waits of others.

        stop = lockkit.Cancel()
        lock.acquire(cancel=stop)  # raises AcquireCancelled once a thread or handler calls stop.cancel()

    A wait in a queue, and a pause after a failure, end at once on every store; a request under way is
    answered first, or takes its time limit. The background removes the claim. A grant that is read before the
    switch wins, so ``acquire`` may still return a lease. One switch serves any number of waits, and stays on.

    A ``threading.Event`` does not serve here, because it cannot wake a thread that waits for something else.
    """

    __slots__ = ("_on", "_rings")

    def __init__(self) -> None:
        self._on = False
        self._rings: dict[int, Callable[[], None]] = {}

    def cancel(self) -> None:
        """End all waits with this switch, later ones too. Never blocks; any thread or handler may call it."""
        self._on = True  # first: a wait looks at this after it has given its bell
        for ring in list(self._rings.values()):
            ring()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._on

    def attach(self, ring: Callable[[], None]) -> int:
        """Call a function, which neither blocks nor raises, at each :meth:`cancel`; return its number."""
        number = id(ring)
        self._rings[number] = ring
        return number

    def detach(self, number: int) -> None:
        """Do not call the function with this number any more."""
        self._rings.pop(number, None)

    def __repr__(self) -> str:
        return f"<Cancel {'cancelled' if self._on else 'not cancelled'}>"


def check_cancel(cancel: object, name: str) -> None:
    """Refuse what cannot cancel a wait.

    Raises:
        ConfigError: The argument is no :class:`Cancel`.
    """
    if not isinstance(cancel, Cancel):
        raise ConfigError(
            f"cancel must be a lockkit.Cancel, not {cancel!r}",
            name=name,
            hint="stop = lockkit.Cancel(); lock.acquire(cancel=stop); and in another thread stop.cancel()",
        )
