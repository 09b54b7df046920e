"""The time limits of a task, its own or those of its application. Celery 5.7 copies the latter to the task; up to 5.6.3 only the worker knows them."""

from __future__ import annotations

from typing import Any

__all__ = ["time_limits"]


def time_limits(task: Any, conf: Any) -> tuple[float | None, float | None]:
    """The hard and the soft time limit of a task in seconds; None for none.

    Args:
        task: The task, or its class.
        conf: The configuration of the application.
    """
    hard, soft = task.time_limit, task.soft_time_limit
    return conf.task_time_limit if hard is None else hard, conf.task_soft_time_limit if soft is None else soft
