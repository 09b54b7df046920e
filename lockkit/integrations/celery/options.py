"""The options of a locked task, and their checks, which need neither Celery's worker nor a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from lockkit.config.settings import nearest
from lockkit.errors import ConfigError
from lockkit.integrations.celery.signatures import Body
from lockkit.lib.loops import is_coroutine_function
from lockkit.notes.members import fitting_members, weights
from lockkit.shared.options import check_holds, fitting, whole
from lockkit.sync.decorator import check_template, fields_of
from lockkit.values import durations
from lockkit.values.names import check_name
from lockkit.values.sizes import parse

__all__ = ["NAMES", "LockOptions", "OnBusy", "OnDuplicate", "OnUnavailable", "checked"]

OnBusy = Literal["retry", "skip", "wait", "fail"]
OnDuplicate = Literal["retry", "skip"]
OnUnavailable = Literal["retry", "fail", "run"]
_ON_BUSY = ("retry", "skip", "wait", "fail")
_ON_UNAVAILABLE = ("retry", "fail", "run")


@dataclass(frozen=True, slots=True)
class LockOptions:
    """The lock of a task, and what happens while it cannot be had. Durations are in seconds.

    Attributes:
        lock: The template of the lock's name.
        capacity: The permits of the semaphore; None for a plain lock.
        permits: The permits that a run takes.
        pool: The name of the pool of which a run takes members.
        members: The members of the pool; None for those of the configuration.
        count: The number of members.
        each: How much of each member's capacity to take; None for whole members.
        gpu: The number of GPUs of the worker's host.
        gpu_mem: The memory of each GPU to take; None for whole ones.
        ttl: How long the store keeps a dead worker's claim; None for the configured ttl, or else 60 s.
        on_busy: The fate of a task whose lock is busy.
        max_wait: How long a task waits in all, over all its retries; None for ever.
        on_duplicate: The fate of a message whose twin holds the lock; None for that of any other.
        on_unavailable: The fate of a task whose store cannot be used.
        max_hold: As in :class:`~lockkit.shared.options.Options`; so are the next two.
        fence_as: The parameter of the function that gets the fence.
    """

    lock: str | None = None
    capacity: int | None = None
    permits: int = 1
    pool: str | None = None
    members: Sequence[str] | Mapping[str, int] | None = None
    count: int = 1
    each: int | None = None
    gpu: int | None = None
    gpu_mem: str | int | None = None
    ttl: float | None = None
    on_busy: OnBusy = "retry"
    max_wait: float | None = None
    on_duplicate: OnDuplicate | None = None
    on_unavailable: OnUnavailable | None = None
    max_hold: float | None = None
    min_hold: float | None = None
    lock_delay: float | None = None
    fence_as: str | None = None

    @property
    def waits(self) -> bool:
        """Whether a task whose lock is busy tries again, now or later."""
        return self.on_busy in ("retry", "wait")

    @property
    def unavailable(self) -> OnUnavailable:
        """The treatment of a task whose store cannot be used: the task is retried if a busy one is."""
        return self.on_unavailable or ("retry" if self.on_busy == "retry" else "fail")


NAMES = tuple(field.name for field in dataclasses.fields(LockOptions))
"""The names of the options, which are attributes of the task's class."""


def checked(task: str, given: Mapping[str, Any], body: Body | None) -> LockOptions:
    """Check the options of a task.

    Args:
        task: The task, for errors.
        given: The options that were given.
        body: The function of the task; None for a base class, which has none and need not name a lock.

    Raises:
        ConfigError: An option is invalid, or does not fit the function or another one; says what to change.
    """
    try:
        options = LockOptions(**given)
        _check_what(options, complete=body is not None)
        options = _checked_times(options)
        _check_choices(options)
        if body is not None:
            _check_body(options, body)
    except ConfigError as error:
        error.message = f"task {task}: {error.message}"
        error.args = (error.message,)
        raise
    return options


def _check_what(options: LockOptions, *, complete: bool) -> None:
    """Check the choice of lock, pool or GPUs."""
    what = [name for name in ("lock", "pool", "gpu") if getattr(options, name) is not None]
    if len(what) > 1:
        raise ConfigError(
            f"{' and '.join(what)} are given together", hint="give one of them; a task holds one kind of lock"
        )
    if complete and not what:
        raise ConfigError(
            "LockedTask needs to know what to lock",
            hint='give lock="invoice:{invoice_id}", pool="licences" or gpu=1',
        )
    if options.lock is not None and not isinstance(options.lock, str):
        raise ConfigError(
            f"lock must be the name of a lock, or a template of one, not {options.lock!r}",
            hint='lock="invoice:{invoice_id}"',
        )
    _check_beside(options, "lock", {"capacity": None, "permits": 1})
    _check_beside(options, "pool", {"members": None, "count": 1, "each": None})
    _check_beside(options, "gpu", {"gpu_mem": None})
    if options.capacity is not None:
        fitting(options.permits, options.capacity, options.lock or "semaphore")
    elif options.permits != 1:
        raise ConfigError(f"permits={options.permits!r} needs a capacity", hint="capacity=4, permits=2")
    if options.pool is not None:
        check_name(options.pool)
        whole(options.count, "count", options.pool)
        if options.members is not None:
            fitting_members(weights(options.members, options.pool), options.count, options.each, options.pool)
        elif options.each is not None:
            whole(options.each, "each", options.pool)
    if options.gpu is not None:
        whole(options.gpu, "gpu", "gpu")
    if options.gpu_mem is not None:
        parse(options.gpu_mem, what="gpu_mem")


def _check_beside(options: LockOptions, main: str, others: Mapping[str, object]) -> None:
    if getattr(options, main) is None and any(
        getattr(options, one) is not None for one in ("lock", "pool", "gpu")
    ):
        for name, usual in others.items():
            if getattr(options, name) != usual:
                raise ConfigError(f"{name} is for {main}=, which is not given", hint=f"leave out {name}")


def _checked_times(options: LockOptions) -> LockOptions:
    changed: dict[str, float] = {}
    for name in ("ttl", "max_wait", "max_hold", "min_hold", "lock_delay"):
        value = getattr(options, name)
        if value is not None:
            changed[name] = durations.seconds(value, what=name, zero=name in ("min_hold", "lock_delay"))
    timed = dataclasses.replace(options, **cast("dict[str, Any]", changed))
    check_holds(timed.min_hold or 0.0, timed.max_hold, None)
    return timed


def _check_choices(options: LockOptions) -> None:
    """Check what happens while the lock cannot be had."""
    _check_choice("on_busy", options.on_busy, _ON_BUSY)
    if options.max_wait is not None and not options.waits and options.unavailable != "retry":
        raise ConfigError(
            f"max_wait is given, but on_busy={options.on_busy!r} never waits",
            hint='leave out max_wait, or write on_busy="retry"',
        )
    if options.on_duplicate is not None:
        _check_choice("on_duplicate", options.on_duplicate, ("retry", "skip"))
        _check_alone(options, "on_duplicate", "a copy of the message would take what is still free")
    if options.on_unavailable is None:
        return
    _check_choice("on_unavailable", options.on_unavailable, _ON_UNAVAILABLE)
    if options.on_unavailable == "run" and options.lock is None and (options.gpu or options.pool):
        kind = "gpu" if options.gpu else "pool"
        raise ConfigError(
            f'on_unavailable="run" is not for {kind}=: '
            "without its lock the task would not know what it may use",
            hint='leave it out, or write on_unavailable="retry"',
        )
    if options.on_unavailable == "run" and options.fence_as is not None:
        raise ConfigError(
            'on_unavailable="run" and fence_as are given together, '
            "but a task that runs without its lock has no fence",
            hint="leave out one of them",
        )


def _check_alone(options: LockOptions, name: str, why: str) -> None:
    """Refuse an option that keeps its promise only for one holder at a time."""
    several = next((one for one in ("capacity", "pool", "gpu") if getattr(options, one) is not None), None)
    if several is not None:
        raise ConfigError(
            f"{name} is for a plain lock, and {several}= lets several runs hold at once: {why}",
            hint=f"leave out {name}, or take a plain lock",
        )


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        close = nearest(str(value), allowed)
        known = " | ".join(allowed)
        raise ConfigError(
            f"{name} must be one of {known}, not {value!r}",
            hint=f"did you mean {close!r}?" if close else None,
        )


def _check_body(options: LockOptions, body: Body) -> None:
    if is_coroutine_function(body.function):
        raise ConfigError(
            f"{body.name} is a coroutine function: Celery would call it and never run it",
            hint="write a plain function, which may call asyncio.run(...)",
        )
    if options.lock is not None:
        check_template(options.lock, body.signature, body.name)
    if options.fence_as is not None:
        _check_alone(options, "fence_as", "a fence keeps none of them out")
        _check_fence(options.fence_as, options.lock or "", body)


def _check_fence(name: str, template: str, body: Body) -> None:
    parameter = body.signature.parameters.get(name)
    if parameter is None or parameter.kind in (
        parameter.POSITIONAL_ONLY,
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    ):
        raise ConfigError(
            f"{body.name} has no keyword argument {name!r} for the fence",
            hint=f"def {body.name}(..., {name}=0)",
        )
    if parameter.default is parameter.empty:
        raise ConfigError(
            f"the argument {name!r} of {body.name}, which gets the fence, needs a default: "
            "whoever sends the task does not give it",
            hint=f"{name}=0",
        )
    if name in fields_of(template):
        raise ConfigError(
            f"the template {template!r} needs {name!r}, which is known only once the lock is held"
        )
