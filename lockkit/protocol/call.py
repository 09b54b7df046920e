"""Arguments of an acquire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from lockkit.facts import Waiting
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.cancelling import Cancel

__all__ = ["TRY", "Call", "OnWait"]

OnWait: TypeAlias = Callable[[Waiting], None]
"""A function called in the waiting thread or loop on each report of the place, at least every poll cap."""


class Call(NamedTuple):
    """Arguments of an acquire: the same for each of the locks that it takes.

    Attributes:
        timeout: Seconds to wait in all; None for ever, 0 not to wait.
        note: A JSON object for the claim, checked and with the reason in it; None for that of the lock.
        reason: Why several locks are taken; None for the reason of each lock, if it has one.
        on_wait: Called for each report of the place in the queue.
        cancel: Ends the wait from another thread.
        detect: Whether to look for deadlocks with other threads, tasks and processes during the wait.
        tries: Whether a definite "busy" is an answer, None, and no error.
    """

    timeout: float | None = None
    note: Mapping[str, object] | None = None
    reason: str | None = None
    on_wait: OnWait | None = None
    cancel: Cancel | None = None
    detect: bool = False
    tries: bool = False


TRY = Call(0.0, tries=True)
