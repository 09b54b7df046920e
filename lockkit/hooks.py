"""The names of the hooks, and the marker with which plugins tag their implementations.

from lockkit.hooks import hookimpl

@hookimpl
def lockkit_cleanup(context): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GPUS", "HOOKS", "PROJECT", "hookimpl", "of_gpus"]

PROJECT = "lockkit"
HOOKS = (
    "lockkit_alert",
    "lockkit_backends",
    "lockkit_cleanup",
    "lockkit_commands",
    "lockkit_devices",
    "lockkit_event",
    "lockkit_health",
    "lockkit_owner_alive",
    "lockkit_settings",
    "lockkit_sink",
    "lockkit_stats",
)
"""The names of all hooks, which :mod:`lockkit.plugins.specs` defines."""
GPUS = "lockkit.gpu.plugin"
"""lockkit's own plugin for GPUs. Core and command line know it by this name, and import nothing of it."""
_MARK = f"{PROJECT}_impl"

F = TypeVar("F", bound="Callable[..., object]")


@overload
def hookimpl(function: F) -> F: ...


@overload
def hookimpl(
    function: None = ...,
    *,
    hookwrapper: bool = ...,
    optionalhook: bool = ...,
    tryfirst: bool = ...,
    trylast: bool = ...,
    specname: str | None = ...,
    wrapper: bool = ...,
) -> Callable[[F], F]: ...


def hookimpl(
    function: F | None = None,
    *,
    hookwrapper: bool = False,
    optionalhook: bool = False,
    tryfirst: bool = False,
    trylast: bool = False,
    specname: str | None = None,
    wrapper: bool = False,
) -> F | Callable[[F], F]:
    """Mark an implementation of a hook. Without a function, returns a decorator with these options.

    The mark is that of ``pluggy.HookimplMarker("lockkit")``, set without pluggy: lockkit's own stores have
    it, too, and a program with no other plugins never imports pluggy.

    Args:
        function: The implementation.
        hookwrapper: pluggy's; refused when the plugin is registered.
        optionalhook: Whether lockkit may have no hook of that name.
        tryfirst: Call it before the others.
        trylast: Call it after the others.
        specname: The name of the hook, if the function has another one.
        wrapper: pluggy's; refused when the plugin is registered.
    """

    def mark(function: F) -> F:
        options = {
            "wrapper": wrapper,
            "hookwrapper": hookwrapper,
            "optionalhook": optionalhook,
            "tryfirst": tryfirst,
            "trylast": trylast,
            "specname": specname,
        }
        setattr(function, _MARK, options)
        return function

    return mark if function is None else mark(function)


def of_gpus(name: str) -> Any:
    """A function that the plugin for GPUs offers to core and command line. The caller knows its type.

    Args:
        name: A key of ``lockkit.gpu.plugin.OFFERED``, which says where the function is found.
    """
    return getattr(import_module(GPUS), name)
