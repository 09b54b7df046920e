"""Whether a task's lock fits the application's time limits and the broker's visibility timeout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from lockkit.integrations.celery.app_facts import LockedFacts, Setup
from lockkit.integrations.celery.checks import refuse
from lockkit.integrations.celery.options import LockOptions
from lockkit.integrations.celery.time_limits import time_limits
from lockkit.integrations.celery.visibility import visibility_timeout

__all__ = ["check", "unchecked"]

_unchecked: ContextVar[bool] = ContextVar("lockkit_celery_unchecked", default=False)


def check(task: str, options: LockOptions, limits: Any, conf: Any) -> None:
    """Refuse a lock that cannot keep its promise under this configuration.

    Args:
        task: The task.
        options: The options of its lock.
        limits: Has the ``time_limit`` and ``soft_time_limit`` of the task.
        conf: The configuration of the application.

    Raises:
        ConfigError: A time limit exceeds ``max_hold``, or the ttl exceeds the broker's visibility timeout.
    """
    if _unchecked.get():
        return
    hard, soft = time_limits(limits, conf)
    facts = LockedFacts(
        task,
        ttl=options.ttl or 0.0,  # lockkit's own configuration is not read while modules are imported
        max_hold=options.max_hold,
        time_limit=hard,
        soft_time_limit=soft,
    )
    refuse(Setup(visibility_timeout=visibility_timeout(conf)), facts, "ttl", "time-limit")


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Accept tasks that :func:`check` would refuse, for those who list all mistakes of an application."""
    token = _unchecked.set(True)
    try:
        yield
    finally:
        _unchecked.reset(token)
