"""A decorator that declares a locked task and refuses a wrong one at once, when its module is imported.

``@app.task(base=LockedTask, ...)`` refuses it only when Celery finalizes the application, or at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery, shared_task

from lockkit.errors import ConfigError
from lockkit.integrations.celery.misspelt import check_names
from lockkit.integrations.celery.options import (
    NAMES,
    OnBusy,
    OnDuplicate,
    OnUnavailable,
    checked,
)
from lockkit.integrations.celery.signatures import body_of_function
from lockkit.integrations.celery.task import LockedTask

__all__ = ["locked_task"]


class _OfBase:
    """The type of the default of an option: the value that the base class has."""

    def __repr__(self) -> str:
        return "as in base"


_OF_BASE: Any = _OfBase()


def locked_task(  # noqa: D417 (LockedTask describes the options)
    app: Celery | None = None,
    *,
    base: type[LockedTask] = LockedTask,
    bind: bool = False,
    lock: str | None = _OF_BASE,
    capacity: int | None = _OF_BASE,
    permits: int = _OF_BASE,
    pool: str | None = _OF_BASE,
    members: Sequence[str] | Mapping[str, int] | None = _OF_BASE,
    count: int = _OF_BASE,
    each: int | None = _OF_BASE,
    gpu: int | None = _OF_BASE,
    gpu_mem: str | int | None = _OF_BASE,
    ttl: float | None = _OF_BASE,
    on_busy: OnBusy = _OF_BASE,
    max_wait: float | None = _OF_BASE,
    on_duplicate: OnDuplicate | None = _OF_BASE,
    on_unavailable: OnUnavailable | None = _OF_BASE,
    max_hold: float | None = _OF_BASE,
    min_hold: float | None = _OF_BASE,
    lock_delay: float | None = _OF_BASE,
    fence_as: str | None = _OF_BASE,
    **options: Any,
) -> Callable[[Callable[..., Any]], LockedTask]:
    """Decorate a function, which becomes a task that runs only while it holds a lock.

    For example::

        @locked_task(app, lock="invoice:{invoice_id}", on_busy="skip", acks_late=True)
        def bill(invoice_id): ...

    Args:
        app: The application; None to share the task among all applications, as ``@shared_task`` does.
        base: The class of the task, which has the options that are left out.
        bind: Whether the function gets the task as its first argument.
        lock: As in :class:`LockedTask`; so are the others.
        options: The options of ``app.task``.

    Raises:
        ConfigError: At decoration, if an option is not allowed, or does not fit the function.
    """
    given = locals()
    if app is not None and not isinstance(app, Celery):
        raise ConfigError(
            "locked_task needs parentheses, and an application or None", hint='@locked_task(app, lock="...")'
        )
    stated = {name: given[name] for name in NAMES if given[name] is not _OF_BASE}
    inherited = {name: getattr(base, name) for name in NAMES}

    def decorate(function: Callable[..., Any]) -> LockedTask:
        name = str(options.get("name") or getattr(function, "__qualname__", function))
        check_names(name, options, dir(base))
        checked(name, {**inherited, **stated}, body_of_function(function, bound=bind))
        declare = shared_task if app is None else app.task
        task: LockedTask = declare(base=base, bind=bind, **stated, **options)(function)
        return task

    return decorate
