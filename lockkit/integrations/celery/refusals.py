"""The decision about a task that did not get its lock, from facts alone."""

from __future__ import annotations

from typing import Any, Literal

from lockkit.errors import AcquireTimeout, BackendUnavailable, Drained, LockkitError, OutcomeUnknown
from lockkit.facts import ClaimInfo, LockInfo
from lockkit.integrations.celery.options import LockOptions

__all__ = ["PASSING", "UNAVAILABLE", "Next", "is_earlier", "is_twin", "stands", "what_next"]

Next = Literal["again", "back", "skip", "drop", "run", "fail"]
"""Send the task again; requeue its message; return a Skipped; drop the message; run unlocked; let it fail."""
UNAVAILABLE = (BackendUnavailable, OutcomeUnknown)
"""The store cannot be used now."""
PASSING = (AcquireTimeout, Drained, *UNAVAILABLE)
"""Errors after which another try may succeed."""


def what_next(
    options: LockOptions,
    error: LockkitError,
    left: float | None,
    *,
    twin: bool,
    sendable: bool,
    late: bool,
    earlier: bool = False,
) -> Next:
    """Decide what happens to a task that did not get its lock.

    A twin with an unacknowledged message is the only one that can do the work if the lock's holder has died,
    so it is neither dropped nor failed unless the options say so. Nor is it sent as a new message, which
    would outlive the holder and run again, perhaps delivered twice. ``max_wait`` does not count for it.

    A task that sent itself again (``self.retry()``, ``autoretry_for``, ``self.replace()``) may find its own
    earlier run, or its ``min_hold``. That run cannot do its work: it is sent again whatever ``on_busy`` says.

    Args:
        options: The options of the task.
        error: Why it did not get the lock.
        left: The seconds that are left of its wait; None if it has no limit.
        twin: Whether another delivery of the same message holds the lock. Its result must not be overwritten.
        sendable: Whether the task can be sent again: it came in a message.
        late: Whether its message is acknowledged only when the run has ended, so that it can be given back.
        earlier: Whether an earlier run of the same task, which sent this message, holds the lock.
    """
    mode: str = "fail"
    if isinstance(error, UNAVAILABLE):
        mode = options.unavailable
    elif isinstance(error, Drained):
        mode = "retry" if options.on_busy == "retry" else "fail"
    elif isinstance(error, AcquireTimeout):
        mode = "retry" if earlier else (twin and options.on_duplicate) or options.on_busy
    if mode == "run":
        return "run"
    if twin and late and options.on_duplicate != "skip":
        return "back"
    if mode == "retry" and sendable and (left is None or left > 0.0):
        return "again"
    if twin:
        return "drop"
    return "skip" if mode == "skip" else "fail"


def is_twin(error: LockkitError, request: Any) -> bool:
    """Whether the holder that was in the way runs the same message: the broker has delivered it twice.

    Args:
        error: Why the lock was not taken.
        request: Celery's request of the run; None for a direct call.
    """
    return _runs_same(error, request) and not is_earlier(error, request)


def is_earlier(error: LockkitError, request: Any) -> bool:
    """Whether the holder is an earlier run of this task, which sent this message (see :func:`is_twin`)."""
    if not _runs_same(error, request):
        return False
    assert error.holder is not None
    # A replacing message has the task's id, and counts retries anew. Only its second delivery is marked.
    replaces = bool(request.replaced_task_nesting) and not (request.delivery_info or {}).get("redelivered")
    return replaces or error.holder.owner.retries < request.retries


def _runs_same(error: LockkitError, request: Any) -> bool:
    task_id = None if request is None else request.id
    return task_id is not None and error.holder is not None and error.holder.owner.task_id == task_id


def stands(held: ClaimInfo | None, now: LockInfo | None) -> bool:
    """Whether a claim that was in the way still is, for all that is known the claim of a living process.

    Args:
        held: The claim that was in the way.
        now: The queue of its lock, read later; None if it could not be read.
    """
    if held is None or now is None:
        return False
    return any(
        claim.claim_id == held.claim_id and claim.state == "HELD" and claim.alive is not False
        for claim in now.claims
    )
