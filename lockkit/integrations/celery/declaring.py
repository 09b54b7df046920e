"""A decorator that declares a locked task and refuses what is wrong with it at once, when its module is imported.

``@app.task(base=LockedTask, ...)`` refuses the same, but Celery makes such a task only when the application is finalized: at the start of a worker,
or when the task is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, shared_task

from lockkit.errors import ConfigError
from lockkit.integrations.celery.options import NAMES, check_names, checked
from lockkit.integrations.celery.signatures import body_of_function
from lockkit.integrations.celery.task import LockedTask

__all__ = ["locked_task"]


def locked_task(
    app: Celery | None = None, *, base: type[LockedTask] = LockedTask, bind: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], LockedTask]:
    """Decorate a function, which becomes a task that runs only while it holds a lock.

        @locked_task(app, lock="invoice:{invoice_id}", on_busy="skip", acks_late=True)
        def bill(invoice_id): ...

    Args:
        app: The application; None to share the task among all applications, as ``@shared_task`` does.
        base: The class of the task.
        bind: Whether the function gets the task as its first argument.
        options: The options of :class:`LockedTask` and those of ``app.task``.

    Raises:
        ConfigError: At decoration, if an option is not allowed, or does not fit the function.
    """
    if app is not None and not isinstance(app, Celery):
        raise ConfigError(
            "locked_task needs parentheses, and an application or None", hint='@locked_task(app, lock="...")'
        )
    given = {name: options.get(name, getattr(base, name)) for name in NAMES}

    def decorate(function: Callable[..., Any]) -> LockedTask:
        name = str(options.get("name") or getattr(function, "__qualname__", function))
        check_names(name, options, dir(base))
        checked(name, given, body_of_function(function, bound=bind))
        declare = shared_task if app is None else app.task
        task: LockedTask = declare(base=base, bind=bind, **options)(function)
        return task

    return decorate
