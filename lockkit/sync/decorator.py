"""The decorator behind ``client.locked``: run a function while it holds a lock named from its arguments."""

from __future__ import annotations

import contextlib
import functools
import inspect
import string
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Set
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar

from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.facts import Skipped
from lockkit.sync.locks import Lock
from lockkit.values.names import check_name

if TYPE_CHECKING:
    from lockkit.aio.locks import AsyncLock

__all__ = [
    "check_function",
    "check_template",
    "fields_of",
    "filled",
    "locked",
    "locked_coroutine",
    "name_of",
    "refuse_what_is_not_done",
]

P = ParamSpec("P")
R = TypeVar("R")
_MAKERS = tuple(
    make(lambda: None).__code__  # type: ignore[arg-type, return-value]
    for make in (contextlib.contextmanager, contextlib.asynccontextmanager)
)
"""The code of every function that ``@contextmanager`` and ``@asynccontextmanager`` return."""
_INSIDE = "take the lock inside it: with client.lock(...).acquire():"


def locked(
    make: Callable[[str], Lock],
    count: Callable[[Skipped], None],
    template: str,
    on_busy: Literal["raise", "skip"],
) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
    """The decorator behind :meth:`lockkit.sync.client.Client.locked`."""
    _check_arguments(template, on_busy)

    def decorate(function: Callable[P, R]) -> Callable[P, R | Skipped]:
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{function.__qualname__} is a coroutine function; this client is not asynchronous",
                hint="decorate it with the client of lockkit.aio.connect()",
            )
        signature = _checked(function, template)

        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R | Skipped:
            lock = make(name_of(template, signature, *args, **keywords))
            try:
                lease = lock.acquire()
            except AcquireTimeout as busy:
                if on_busy == "raise":
                    raise
                return _skipped(lock.name, busy, count)
            with lease:
                result = function(*args, **keywords)
                refuse_what_is_not_done(result, function.__qualname__, lock.name)
                return result

        return call

    return decorate


def locked_coroutine(
    make: Callable[[str], AsyncLock],
    count: Callable[[Skipped], None],
    template: str,
    on_busy: Literal["raise", "skip"],
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | Skipped]]]:
    """The decorator behind :meth:`lockkit.aio.AsyncClient.locked`."""
    _check_arguments(template, on_busy)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R | Skipped]]:
        signature = _checked(function, template)
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{function.__qualname__} is not a coroutine function, so it would block the event loop",
                hint="write `async def`, or decorate it with the client of lockkit.connect()",
            )

        @functools.wraps(function)
        async def call(*args: P.args, **keywords: P.kwargs) -> R | Skipped:
            lock = make(name_of(template, signature, *args, **keywords))
            try:
                lease = await lock.acquire()
            except AcquireTimeout as busy:
                if on_busy == "raise":
                    raise
                return _skipped(lock.name, busy, count)
            async with lease:
                result = await function(*args, **keywords)
                refuse_what_is_not_done(result, function.__qualname__, lock.name)
                return result

        return call

    return decorate


def _check_arguments(template: object, on_busy: str) -> None:
    """Refuse arguments that never fit, for instance the function itself: ``@client.locked`` without a name.

    Raises:
        ConfigError: The template is no text, or ``on_busy`` has another value.
    """
    if not isinstance(template, str):
        raise ConfigError(
            f"a name template must be a str, not {template!r}", hint='@client.locked("job:{id}")'
        )
    if on_busy not in ("raise", "skip"):
        raise ConfigError(f"on_busy must be 'raise' or 'skip', not {on_busy!r}")


def _checked(function: Callable[..., object], template: str) -> inspect.Signature:
    """The signature of a function that can be decorated with a template.

    Raises:
        ConfigError: The function would return before its work is done, or the template does not fit it.
    """
    check_function(function)
    signature = inspect.signature(function)
    check_template(template, signature, function.__qualname__)
    return signature


def check_function(function: Callable[..., object]) -> None:
    """Refuse what cannot be decorated so that the lock is held while it works.

    Raises:
        ConfigError: The object is no function, or the function would return before its work is done.
    """
    if not hasattr(function, "__qualname__") or isinstance(function, classmethod | staticmethod):
        raise ConfigError(
            f"only functions can be decorated, not {function!r}",
            hint="decorate below @classmethod and @staticmethod",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{function.__qualname__} is a generator function: its body would run after the lock is released",
            hint=_INSIDE,
        )
    if getattr(function, "__code__", None) in _MAKERS:
        raise ConfigError(
            f"{function.__qualname__} returns a context manager: its body would run after the lock is "
            "released",
            hint=_INSIDE,
        )


def name_of(template: str, signature: inspect.Signature, *args: object, **keywords: object) -> str:
    """The name of the lock of one call.

    Raises:
        ConfigError, AttributeError, LookupError, ValueError: As :func:`filled`.
    """
    args = tuple(_OfSkip(template, one) if isinstance(one, Skipped) else one for one in args)
    named = {
        key: _OfSkip(template, one) if isinstance(one, Skipped) else one for key, one in keywords.items()
    }
    bound = signature.bind(*args, **named)
    bound.apply_defaults()
    return filled(template, bound.arguments)


class _OfSkip:
    """A skipped call's result as an argument; refuses to be part of a name, which would change each time."""

    def __init__(self, template: str, skipped: Skipped) -> None:
        self._template = template
        self._skipped = skipped

    def _refuse(self, *_: object) -> NoReturn:
        raise ConfigError(
            f"{self._template!r}: a lock would be named after an argument, but the call that it was to come "
            f"from was skipped, because {self._skipped.name!r} was busy",
            hint="look first whether that call ran (a Skipped is falsy; Celery: skipped_in), or name the "
            "lock after another argument",
        )

    __getattr__ = __getitem__ = __repr__ = __str__ = _refuse


def filled(template: str, values: Mapping[str, object]) -> str:
    """A name template with values in its fields.

    Raises:
        ConfigError: The text of a value may differ between equal calls, which would lock different names.
        AttributeError, LookupError, ValueError: A value has no such part, or the format does not fit it.
    """
    formatter = string.Formatter()
    for _, field, _, conversion in formatter.parse(template):
        if field is None:
            continue
        value, _ = formatter.get_field(field, (), values)
        unsteady = _unsteady(value, repr if conversion in ("r", "a") else str)
        if unsteady is not None:
            raise ConfigError(
                f"{template!r}: a lock would be named after a {type(unsteady).__name__}, whose text may "
                "differ between equal calls",
                hint=f"name a part of it, such as {{{field}[id]}} or {{{field}.id}}",
            )
    return template.format(**values)


def _unsteady(value: object, text: Callable[[object], str]) -> object:
    """The value or part that has no order, or whose text is an object's address; None if there is none."""
    if value is None or isinstance(value, str | bytes | int | float):
        return None
    if isinstance(value, list | tuple):
        parts = (_unsteady(part, repr) for part in value)
        return next((part for part in parts if part is not None), None)
    return value if isinstance(value, Mapping | Set) or " at 0x" in text(value) else None


def _skipped(name: str, busy: AcquireTimeout, count: Callable[[Skipped], None]) -> Skipped:
    skipped = Skipped(name, busy.holder)
    count(skipped)
    return skipped


def refuse_what_is_not_done(result: object, function: str, name: str) -> None:
    """Refuse a result whose work would continue after the function's return; close or cancel it if possible.

    Raises:
        ConfigError: The result is a coroutine, a generator, a contextlib manager, or an unfinished Future.
    """
    instead = _INSIDE
    if isinstance(result, CoroutineType):
        kind, instead = "a coroutine", "run it in the function: asyncio.run(...)"
        result.close()
    elif isinstance(result, GeneratorType):
        kind, instead = "a generator", "return a list, or take the lock inside the generator"
        result.close()
    elif isinstance(result, AsyncGeneratorType):
        kind = "an asynchronous generator"
    elif isinstance(result, contextlib._GeneratorContextManagerBase):  # noqa: SLF001 (no public name)
        kind = "a context manager"
    elif isinstance(result, Awaitable) or hasattr(result, "add_done_callback"):
        done, cancel = getattr(result, "done", None), getattr(result, "cancel", None)
        if callable(done) and done():
            return
        kind, instead = "an awaitable or a future", "wait for it in the function, and return its result"
        if callable(cancel):
            cancel()
    else:
        return
    raise ConfigError(
        f"{function} returned {kind}, which would run after the lock {name!r} is released",
        name=name,
        hint=instead,
    )


def check_template(template: str, signature: inspect.Signature, function: str) -> None:
    """Refuse a name template that does not fit the function, already when the function is decorated.

    Raises:
        ConfigError: The template is malformed, names an unknown argument, or has no field and is no name.
    """
    fields = _parsed(template)
    for field in fields:
        root = _root(field)
        if root not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise ConfigError(
                f"{template!r}: {function} has no argument {root!r}", hint=f"its arguments: {known}"
            )
        if root == field and signature.parameters[root].kind is inspect.Parameter.VAR_KEYWORD:
            raise ConfigError(
                f"{template!r}: {root!r} are all other keyword arguments of {function}, which have no order",
                hint=f"name each that matters: {{{root}[...]}}",
            )
    if not fields:
        check_name(template)


def fields_of(template: str) -> list[str]:
    """The arguments that a name template needs.

    Raises:
        ConfigError: The template is malformed.
    """
    return [_root(field) for field in _parsed(template)]


def _parsed(template: str) -> list[str]:
    try:
        return [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"not a name template: {template!r}: {error}") from None


def _root(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]
