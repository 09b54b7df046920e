"""A task's time limits, or its application's, which Celery copies to it from 5.7 on, not up to 5.6.3."""

from __future__ import annotations

from typing import Any

__all__ = ["time_limits"]


def time_limits(task: Any, conf: Any) -> tuple[float | None, float | None]:
    """The hard and the soft time limit of a task, or of a task's class, in seconds; None for none."""
    hard, soft = task.time_limit, task.soft_time_limit
    return conf.task_time_limit if hard is None else hard, conf.task_soft_time_limit if soft is None else soft
