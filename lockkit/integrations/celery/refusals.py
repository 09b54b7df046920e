"""The decision what becomes of a task that did not get its lock, from facts alone."""

from __future__ import annotations

from typing import Literal

from lockkit.errors import AcquireTimeout, BackendUnavailable, Drained, LockkitError, OutcomeUnknown
from lockkit.integrations.celery.options import LockOptions

__all__ = ["PASSING", "UNAVAILABLE", "Next", "is_twin", "what_next"]

Next = Literal["again", "skip", "drop", "run", "fail"]
"""Send the task again; return a Skipped; leave the task to its twin; run it without its lock; let it fail."""
UNAVAILABLE = (BackendUnavailable, OutcomeUnknown)
"""The store cannot be used now."""
PASSING = (AcquireTimeout, Drained, *UNAVAILABLE)
"""Errors that may be over when the task is tried again."""


def what_next(
    options: LockOptions, error: LockkitError, left: float | None, *, twin: bool, sendable: bool
) -> Next:
    """Decide what becomes of a task that did not get its lock.

    Args:
        options: The options of the task.
        error: Why it did not get the lock.
        left: The seconds that are left of its wait; None if it has no limit.
        twin: Whether another delivery of the same message holds the lock. Its result must not be overwritten.
        sendable: Whether the task can be sent again: it came in a message.
    """
    if isinstance(error, UNAVAILABLE):
        if options.unavailable != "retry":
            return "run" if options.unavailable == "run" else "fail"
    elif not isinstance(error, PASSING):
        return "fail"
    elif isinstance(error, Drained):
        if options.on_busy != "retry":
            return "fail"
    elif twin and (options.on_duplicate == "skip" or options.on_busy in ("skip", "fail")):
        return "drop"
    elif options.on_busy != "retry":
        return "skip" if options.on_busy == "skip" else "fail"
    return "again" if sendable and (left is None or left > 0.0) else "fail"


def is_twin(error: LockkitError, task_id: str | None) -> bool:
    """Whether the holder that was in the way runs the same message: the broker has delivered it twice."""
    return task_id is not None and error.holder is not None and error.holder.owner.task_id == task_id
