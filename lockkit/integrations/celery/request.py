"""A request of Celery's worker that hands on how its message was serialized, and notes why the worker ends a pool process, before it does so."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from celery.worker.request import Request

from lockkit.facts import Reason

__all__ = ["LockedRequest", "cause_of"]

_MOST = 1000
"""The number of causes that are kept; most are never asked for, because the pool process has released its lock by itself."""
_causes: OrderedDict[str, tuple[Reason, str]] = OrderedDict()


class LockedRequest(Request):
    """The worker's view of one message of a locked task. Releases nothing, because the process that holds the lock still runs."""

    def __init__(self, message: Any, *args: Any, **keywords: Any) -> None:
        super().__init__(message, *args, **keywords)
        about = self.request_dict
        # Some brokers keep the type apart from the other properties, and Celery then does not hand it on.
        about["properties"] = {**about["properties"], "content_type": message.content_type}

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 (Celery's signature)
        """Note a hard time limit. billiard calls this before it sends the process a signal."""
        if not soft:
            _note(self.id, "time_limit", f"its hard time limit ({timeout} s) was over")
        super().on_timeout(soft, timeout)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Note a revocation with ``terminate=True``."""
        _note(self.id, "revoked", "it was revoked with terminate")
        super().terminate(pool, signal)


def cause_of(task_id: str, otherwise: Reason) -> tuple[Reason, str]:
    """The reason for the end of a task's process, as a word and in words; ``otherwise`` and nothing if the worker did not end it for the task's sake."""
    return _causes.get(task_id, (otherwise, ""))


def _note(task_id: str, reason: Reason, words: str) -> None:
    _causes[task_id] = (reason, words)
    while len(_causes) > _MOST:
        _causes.popitem(last=False)
