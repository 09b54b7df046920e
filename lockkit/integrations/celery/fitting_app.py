"""Whether the lock of a task fits the configuration of its application: time limits, and the visibility timeout of the broker."""

from __future__ import annotations

from typing import Any

from lockkit import durations
from lockkit.errors import ConfigError
from lockkit.integrations.celery.options import LockOptions
from lockkit.integrations.celery.visibility import visibility_timeout

__all__ = ["check"]


def check(task: str, options: LockOptions, limits: Any, conf: Any) -> None:
    """Refuse a lock that cannot keep its promise under this configuration.

    Args:
        task: The task.
        options: The options of its lock.
        limits: Has the ``time_limit`` and ``soft_time_limit`` of the task.
        conf: The configuration of the application.

    Raises:
        ConfigError: The hold would end before the task's time limit, or the store would keep the claim of a dead worker for longer than the
            broker keeps its message.
    """
    for name in ("time_limit", "soft_time_limit"):
        limit = getattr(limits, name, None)
        if options.max_hold is not None and limit is not None and limit > options.max_hold:
            raise ConfigError(
                f"task {task}: its {name} of {limit} s is above its max_hold of {durations.exact(options.max_hold)}, so the lock would be given to "
                "the next task while this one still runs",
                hint=f"raise max_hold above {limit} s, or lower {name}",
            )
    visibility = visibility_timeout(conf)
    if options.ttl is not None and visibility is not None and options.ttl > visibility:
        raise ConfigError(
            f"task {task}: its ttl of {durations.exact(options.ttl)} is above the visibility timeout of the broker, "
            f"{durations.exact(visibility)}: after the death of a worker its message comes back while its claim still blocks",
            hint="lower ttl, or raise broker_transport_options['visibility_timeout']",
        )
