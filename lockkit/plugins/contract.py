"""The contract of a plugin, checked while pluggy registers it, completely or not at all."""

from __future__ import annotations

import inspect

import pluggy

from lockkit.errors import PluginError
from lockkit.hooks import HOOKS, PROJECT
from lockkit.plugins import specs

__all__ = ["enter", "specified"]


def specified() -> pluggy.PluginManager:
    """A manager of pluggy's with lockkit's hooks and no plugins."""
    pm = pluggy.PluginManager(PROJECT)
    pm.add_hookspecs(specs)
    return pm


def enter(pm: pluggy.PluginManager, name: str, plugin: object) -> tuple[str, ...]:
    """Register a plugin, completely or not at all. Returns the names of its hooks, sorted.

    Raises:
        PluginError: The object is not a plugin, or breaks the contract.
    """
    if plugin is None or inspect.isclass(plugin):
        raise PluginError(f"plugin {name} must be a module or an instance, not {plugin!r}")
    try:
        pm.register(plugin, name)
        return _examined(pm, name, plugin)
    except BaseException as error:
        # Before pluggy 1.7 a failed registration keeps the hooks that were registered before the failure.
        if pm.get_plugin(name) is plugin:
            pm.unregister(plugin, name)
        if isinstance(error, (ValueError, pluggy.PluginValidationError)):
            raise PluginError(f"plugin {name}: {' '.join(str(error).split())}") from error
        raise


def _examined(pm: pluggy.PluginManager, name: str, plugin: object) -> tuple[str, ...]:
    """The hooks of a plugin that was just registered; raises PluginError if one of them cannot be called."""
    try:
        pm.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {name}: {error}", hint=f"the hooks are {', '.join(HOOKS)}") from error
    callers = pm.get_hookcallers(plugin) or []
    for caller in callers:
        for impl in caller.get_hookimpls():
            if impl.plugin is not plugin:
                continue
            if impl.wrapper or impl.hookwrapper:
                raise PluginError(
                    f"plugin {name}: {caller.name} is a hook wrapper, which lockkit does not support"
                )
            if inspect.iscoroutinefunction(impl.function):
                raise PluginError(f"plugin {name}: {caller.name} must be a plain function, not async")
    if not callers:
        raise PluginError(
            f"plugin {name}: there are no hooks in {plugin!r}",
            hint="mark its functions with lockkit.hooks.hookimpl",
        )
    return tuple(sorted(caller.name for caller in callers))
