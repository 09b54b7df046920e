"""The decorator behind ``client.locked``: run a function only while it holds a lock named from its arguments."""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.facts import Skipped
from lockkit.locks import Lock
from lockkit.names import check_name

__all__ = ["locked"]

P = ParamSpec("P")
R = TypeVar("R")


def locked(
    make: Callable[[str], Lock],
    count: Callable[[Skipped], None],
    template: str,
    on_busy: Literal["raise", "skip"],
) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
    """The decorator behind :meth:`lockkit.client.Client.locked`."""
    if on_busy not in ("raise", "skip"):
        raise ConfigError(f"on_busy must be 'raise' or 'skip', not {on_busy!r}")

    def decorate(function: Callable[P, R]) -> Callable[P, R | Skipped]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(
                f"{function.__qualname__} is a generator function: its body would run after the lock is released",
                hint="take the lock inside it: with client.lock(...).acquire():",
            )
        if not hasattr(function, "__qualname__"):
            raise ConfigError(
                f"only functions can be decorated, not {function!r}", hint="decorate below @classmethod"
            )
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{function.__qualname__} is a coroutine function; this client is not asynchronous"
            )
        signature = inspect.signature(function)
        _check_template(template, signature, function.__qualname__)

        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R | Skipped:
            bound = signature.bind(*args, **keywords)
            bound.apply_defaults()
            lock = make(template.format(**bound.arguments))
            try:
                lease = lock.acquire()
            except AcquireTimeout as busy:
                if on_busy == "raise":
                    raise
                skipped = Skipped(lock.name, busy.holder)
                count(skipped)
                return skipped
            with lease:
                return function(*args, **keywords)

        return call

    return decorate


def _check_template(template: str, signature: inspect.Signature, function: str) -> None:
    """Refuse a name template that does not fit the function, when it is defined rather than when it is called."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"not a name template: {template!r}: {error}") from None
    for field in fields:
        root = field.partition(".")[0].partition("[")[0]
        if root not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise ConfigError(
                f"{template!r}: {function} has no argument {root!r}", hint=f"its arguments: {known}"
            )
    if not fields:
        check_name(template)
