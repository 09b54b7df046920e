"""Changes by compare-and-swap: read, compute, write unless somebody else wrote meanwhile; else repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import jitter
from lockkit.store.notes import note_text
from lockkit.store.spi import NOTE_LIMIT, Refused

__all__ = ["ROUNDS", "annotate", "overtaken", "swapped"]

T = TypeVar("T")

_FIRST, _LONGEST = 0.0005, 0.05
"""Seconds: the longest pause after the first attempt in vain, doubled each time, and its limit."""
ROUNDS = 16
"""Attempts after which a call is refused because another client was faster each time."""


def overtaken(what: str) -> Refused:
    """The refusal of a call because another client was faster in every attempt."""
    return Refused(BackendUnavailable(f"other clients keep changing {what}", hint="try again"))


def swapped(attempt: Callable[[], tuple[T] | None], what: str, end: float) -> T:
    """Repeat a change by compare-and-swap until no other client was faster, with pauses in between.

    Args:
        attempt: Reads, computes, and writes if nobody else wrote meanwhile. Returns its result in a
            tuple; None if another client was faster.
        what: What is changed, for the error.
        end: When to give up, on ``time.monotonic()``.

    Raises:
        Refused: Another client was faster each time.
    """
    longest = _FIRST
    while (done := attempt()) is None:
        pause = longest * jitter()
        if time.monotonic() + pause >= end:
            raise overtaken(what)
        time.sleep(pause)
        longest = min(2 * longest, _LONGEST)
    return done[0]


def annotate(name: str, patch: Mapping[str, object], attempt: Callable[[], bool | None]) -> bool:
    """Annotate a claim of a name. See :meth:`lockkit.store.spi.Backend.annotate`.

    Args:
        name: The lock.
        patch: The change to a note.
        attempt: Reads the claim and writes its note with the patch (:func:`lockkit.store.notes.patched`).
            Returns True if it wrote the note, False if there is no such claim, None if another client
            changed the claim meanwhile.

    Raises:
        ConfigError: The patch is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        Refused: Another client was faster each time.
    """
    note_text(patch, NOTE_LIMIT)
    for _ in range(ROUNDS):
        done = attempt()
        if done is not None:
            return done
    raise overtaken(f"the note of {name!r}")
