"""The reason with which the lock of a task is released, by how the task ended."""

from __future__ import annotations

from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from lockkit.facts import Reason

__all__ = ["reason_of"]

_REASONS: tuple[tuple[type[BaseException], Reason], ...] = (
    (Retry, "retry"),
    (Ignore, "ignore"),
    (Reject, "reject"),
    (SoftTimeLimitExceeded, "soft_time_limit"),
    (SystemExit, "exit"),
    (KeyboardInterrupt, "exit"),
)


def reason_of(error: BaseException) -> Reason:
    """``retry``, ``ignore``, ``reject``, ``soft_time_limit``, ``exit`` (worker ends) or ``task_failure``."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "task_failure")
