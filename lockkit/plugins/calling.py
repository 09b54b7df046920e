"""Calls of hooks, one by one, so that no implementation can stop the next.

pluggy's own call stops at the first implementation that raises. Here each implementation is called, whatever
the others did. Ctrl-C and the exceptions of signal handlers, unlike those of plugins, go to the user.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import CodeType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.log import Log

if TYPE_CHECKING:
    from pluggy import HookImpl

__all__ = [
    "Implementation",
    "Outcome",
    "call_each",
    "call_within",
    "callables",
    "for_devices",
    "from_signal",
    "hook_of",
    "only_for_devices",
]

_log = Log("lockkit.plugins")
_told: set[tuple[str, str, type[BaseException]]] = set()

F = TypeVar("F", bound=Callable[..., object])
_FOR_DEVICES = "lockkit_for_devices"

Implementation: TypeAlias = tuple[str, Callable[..., object]]
"""A plugin's name and its implementation of a hook, which takes the hook's keywords."""


class Outcome(NamedTuple):
    """The result of one implementation of a hook: its return value, or its exception."""

    plugin: str
    value: object = None
    error: BaseException | None = None


def callables(implementations: Sequence[HookImpl], arguments: Sequence[str]) -> tuple[Implementation, ...]:
    """The implementations in the order of their calls, each adapted to take all of the hook's keywords."""
    return tuple(
        (impl.plugin_name, _fit(impl.function, tuple(impl.argnames), arguments))
        for impl in reversed(implementations)
    )


def _fit(
    function: Callable[..., object], wanted: tuple[str, ...], arguments: Sequence[str]
) -> Callable[..., object]:
    if set(wanted) == set(arguments):
        return function

    def call(**keywords: object) -> object:
        return function(**{name: keywords[name] for name in wanted})

    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call


def hook_of(implementation: Implementation) -> object:
    """The plugin's own function behind an implementation, the same for all clients of the plugin."""
    hook: object = getattr(implementation[1], "__wrapped__", implementation[1])
    return hook


def only_for_devices(hook: F) -> F:
    """Mark a cleanup hook as only for locks with devices, so that plain locks do not pay for it."""
    setattr(hook, _FOR_DEVICES, True)
    return hook


def for_devices(hook: object) -> bool:
    """Whether a cleanup hook is marked by :func:`only_for_devices`."""
    return getattr(hook, _FOR_DEVICES, False) is True


def call_each(
    hook: str, implementations: Sequence[Implementation], keywords: dict[str, object]
) -> list[Outcome]:
    """Call every implementation once and return the results. Errors are logged, event hooks' only once.

    An exception of a signal handler (:func:`from_signal`) is raised again after the last implementation.
    """
    outcomes: list[Outcome] = []
    interrupted: BaseException | None = None
    for plugin, function in implementations:
        try:
            outcomes.append(Outcome(plugin, function(**keywords)))
        except BaseException as error:
            outcomes.append(Outcome(plugin, error=error))
            if from_signal(error):
                interrupted = interrupted or error
            else:
                _tell(plugin, hook, error)
    if interrupted is not None:
        raise interrupted
    return outcomes


def call_within(
    seconds: float, hook: str, implementations: Sequence[Implementation], keywords: dict[str, object]
) -> list[Outcome]:
    """Call every implementation once, all at the same time, each on a daemon thread of its own.

    Returns the results after ``seconds`` at the latest; an implementation that has not returned has a
    TimeoutError. Errors are not logged, because the caller reports them.
    """
    results: dict[str, Outcome] = {}

    def call(plugin: str, function: Callable[..., object]) -> None:
        try:
            results[plugin] = Outcome(plugin, function(**keywords))
        except BaseException as error:
            results[plugin] = Outcome(plugin, error=error)

    threads = [
        threading.Thread(target=call, args=one, name=f"lockkit-{hook}-{one[0]}", daemon=True)
        for one in implementations
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    late = TimeoutError(f"{hook} has not returned within {seconds:g} s")
    return [results.get(plugin) or Outcome(plugin, error=late) for plugin, _ in implementations]


def _tell(plugin: str, hook: str, error: BaseException) -> None:
    # Log only the first traceback: a broken event hook may raise several times a second.
    first = (plugin, hook, type(error)) not in _told
    _told.add((plugin, hook, type(error)))
    level = logging.ERROR if first or hook != "lockkit_event" else logging.DEBUG
    _log.log(level, "plugin %s: %s raised %r", plugin, hook, error, exc_info=error if first else None)


def from_signal(error: BaseException) -> bool:
    """Whether an exception that left a plugin came from a signal handler, not from the plugin itself.

    Only the main thread runs signal handlers. There a KeyboardInterrupt counts, as Ctrl-C looks like a
    plugin's own, and so does an exception whose traceback passes through an installed handler, such as the
    SystemExit of a SIGTERM handler. A plugin's own ``sys.exit()`` is an error like any other.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    import signal  # here: it takes half a millisecond, and a program that has handlers has imported it

    handlers = {code for number in signal.valid_signals() if (code := _code(signal.getsignal(number)))}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    plain = hasattr(handler, "__code__") or hasattr(handler, "__func__")
    function: object = handler if plain else getattr(type(handler), "__call__", None)  # noqa: B004 (not asking whether)
    code: object = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None
