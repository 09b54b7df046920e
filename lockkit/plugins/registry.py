"""The registered plugins of one client, and the implementations of their hooks in the order of their calls.

pluggy keeps the plugins, checks them and orders their hooks. Its import, with ``inspect``, takes an eighth of
the time of a short ``lockkit run``, so it waits for the first plugin that is not one of lockkit's own stores.
Those have only the hook ``lockkit_backends``, without arguments or options: nothing to check or order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lockkit.hooks import HOOKS
from lockkit.lib.forks import IMPORTS
from lockkit.plugins.calling import Implementation, callables
from lockkit.plugins.offers import BACKENDS

if TYPE_CHECKING:
    from types import ModuleType

    import pluggy

__all__ = ["Registry"]


class Registry:
    """Plugins by name. Not thread-safe; the manager calls it under its mutex."""

    def __init__(self) -> None:
        self._pm: pluggy.PluginManager | None = None
        self._stores: dict[str, Callable[..., object]] = {}

    def enter(self, name: str, plugin: object) -> tuple[str, ...]:
        """Register a plugin, completely or not at all. Returns the names of its hooks, sorted.

        Raises:
            PluginError: The object is not a plugin, or breaks the contract.
        """
        with IMPORTS:
            from lockkit.plugins import contract
        if self._pm is None:
            self._pm = contract.specified()
        return contract.enter(self._pm, name, plugin)

    def enter_store(self, name: str, module: ModuleType) -> tuple[str, ...]:
        """Register one of lockkit's own stores. Returns the name of its hook.

        Raises:
            PluginError: The module offers no stores.
        """
        offer = getattr(module, BACKENDS, None)
        if offer is None:
            return self.enter(name, module)  # which says what is wrong
        self._stores[name] = offer
        return (BACKENDS,)

    def leave(self, name: str) -> None:
        """Remove a plugin with its hooks, if it is registered."""
        if self._stores.pop(name, None) is None and self._pm is not None:
            self._pm.unregister(name=name)

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """The implementations of a hook in call order, each adapted to take all of the hook's keywords.

        Raises:
            AttributeError: There is no such hook.
        """
        if hook not in HOOKS:
            raise AttributeError(f"lockkit has no hook {hook}")
        stores = tuple(self._stores.items()) if hook == BACKENDS else ()
        if self._pm is None:
            return stores
        caller = getattr(self._pm.hook, hook)
        return (*callables(caller.get_hookimpls(), caller.spec.argnames), *stores)
