"""The decision about a task that did not get its lock, from facts alone."""

from __future__ import annotations

from typing import Literal

from lockkit.errors import AcquireTimeout, BackendUnavailable, Drained, LockkitError, OutcomeUnknown
from lockkit.integrations.celery.options import LockOptions

__all__ = ["PASSING", "UNAVAILABLE", "Next", "is_twin", "what_next"]

Next = Literal["again", "skip", "drop", "run", "fail"]
"""Send the task again; return a Skipped; drop the message, because another delivery of it runs; run the task without its lock; let it fail."""
UNAVAILABLE = (BackendUnavailable, OutcomeUnknown)
"""The store cannot be used now."""
PASSING = (AcquireTimeout, Drained, *UNAVAILABLE)
"""Errors after which another try may succeed."""


def what_next(
    options: LockOptions, error: LockkitError, left: float | None, *, twin: bool, sendable: bool
) -> Next:
    """Decide what happens to a task that did not get its lock.

    Args:
        options: The options of the task.
        error: Why it did not get the lock.
        left: The seconds that are left of its wait; None if it has no limit.
        twin: Whether another delivery of the same message holds the lock. Its result must not be overwritten.
        sendable: Whether the task can be sent again: it came in a message.
    """
    mode: str = "fail"
    if isinstance(error, UNAVAILABLE):
        mode = options.unavailable
    elif isinstance(error, Drained):
        mode = "retry" if options.on_busy == "retry" else "fail"
    elif isinstance(error, AcquireTimeout):
        mode = (twin and options.on_duplicate) or options.on_busy
    if mode == "retry" and sendable and (left is None or left > 0.0):
        return "again"
    if mode == "run":
        return "run"
    if twin:
        return "drop"
    return "skip" if mode == "skip" else "fail"


def is_twin(error: LockkitError, task_id: str | None) -> bool:
    """Whether the holder that was in the way runs the same message: the broker has delivered it twice."""
    return task_id is not None and error.holder is not None and error.holder.owner.task_id == task_id
