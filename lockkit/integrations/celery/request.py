"""A request of Celery's worker that hands on its serializer, and notes why the worker ends a process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from celery.worker.request import Request

from lockkit.facts import Reason

__all__ = ["LockedRequest", "cause_of"]

_MOST = 1000
"""The number of causes kept; most are never used, because the pool process releases its lock itself."""
_causes: OrderedDict[str, tuple[Reason, str]] = OrderedDict()


class LockedRequest(Request):
    """The worker's view of a locked task's message. Releases nothing: the lock's process still runs."""

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
    """Why a task's process ended, as a word and in words; ``otherwise`` and "" if not for the task."""
    return _causes.get(task_id, (otherwise, ""))


def _note(task_id: str, reason: Reason, words: str) -> None:
    _causes[task_id] = (reason, words)
    while len(_causes) > _MOST:
        _causes.popitem(last=False)
