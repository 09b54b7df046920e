"""Unanswered requests: repeated while time is left, and never reported as done or not done by a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lockkit.errors import LockkitError, OutcomeUnknown
from lockkit.store.spi import Refused, Unknown

__all__ = ["FIRST_PAUSE", "perform"]

FIRST_PAUSE = 0.02
"""Seconds between the first two requests; each further pause is twice as long, up to half a second."""
_LONGEST = 0.5

_A = TypeVar("_A")


def perform(
    call: Callable[[float], _A], where: str, timeout: float, *, certain: Callable[[_A], bool] = lambda _: True
) -> _A:
    """Make a call, and repeat it while it is not answered and time is left.

    Args:
        call: The call; no copy of it may have a second effect.
        where: The resource, for messages.
        timeout: Seconds. One request may take longer, if its client lets it.
        certain: Whether an answer also says what became of earlier, unanswered requests of the same call.

    Raises:
        OutcomeUnknown: No answer, or one that does not say what became of an earlier request.
        LockkitError: The error of a refusal.
    """
    end = time.monotonic() + timeout
    pause = FIRST_PAUSE
    doubt: LockkitError | None = None
    trouble: Refused | Unknown
    while True:
        try:
            answer = call(end)
        except Unknown as unknown:
            doubt, trouble = unknown.error, unknown
        except Refused as refused:
            trouble = refused
        else:
            if doubt is not None and not certain(answer):
                raise _in_doubt(where, doubt, "a newer holder has opened it since")
            return answer
        if not trouble.retry or time.monotonic() + pause >= end:
            if doubt is None:
                raise trouble.error from trouble.__cause__
            raise _in_doubt(where, doubt, "there was no answer")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def _in_doubt(where: str, doubt: LockkitError, why: str) -> OutcomeUnknown:
    error = OutcomeUnknown(
        f"whether {where} was changed is not known: {why} ({doubt.message})",
        hint="read it under a new lease before you decide",
    )
    error.__cause__ = doubt
    return error
