"""The plugin manager: loads plugins one by one and keeps the list that ``lockkit plugins`` shows.

A plugin that cannot be loaded, or breaks the contract, is reported once and skipped with its hooks. lockkit's
own stores are plugins like any other, except that each is imported only when its URL scheme is used.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Literal

from lockkit._version import __version__
from lockkit.config.config import Config, refuse
from lockkit.config.layers import canonical
from lockkit.errors import ConfigError, PluginError
from lockkit.hooks import PROJECT
from lockkit.lib.forks import IMPORTS
from lockkit.lib.mutex import Mutex
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.plugins.calling import Implementation, Outcome, call_each, from_signal
from lockkit.plugins.discovery import Installed, installed
from lockkit.plugins.offers import BACKENDS, complete, scrubbed, usable
from lockkit.plugins.providers import DEVICES, SHIPPED, DeviceProvider, providers
from lockkit.plugins.registry import Registry
from lockkit.plugins.stores import SCHEMES, ShippedStore, scheme_of, unknown_scheme
from lockkit.plugins.tables import SETTINGS_HOOK, has_table, misfit
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit.values.redaction import declare

__all__ = ["PluginInfo", "PluginManager"]

_log = logging.getLogger("lockkit.plugins")
_reported: set[str] = set()
_CLEANUP = "lockkit_cleanup"


class PluginInfo(NamedTuple):
    """One plugin, as ``lockkit plugins`` shows it.

    Attributes:
        dist: The distribution of the plugin; "" for a plugin passed in code.
        version: The version of that distribution.
        source: ``store`` or ``shipped`` (lockkit's own), ``installed`` (an entry point) or ``code``.
        hooks: The hooks that the plugin implements, sorted.
        import_time: Seconds that the import took; None if the plugin was not imported (here).
        error: The reason why the plugin, or a part of it, was skipped.
        disabled: Whether the configuration disables the plugin.
    """

    name: str
    dist: str = ""
    version: str = ""
    source: Literal["store", "shipped", "installed", "code"] = "code"
    hooks: tuple[str, ...] = ()
    import_time: float | None = None
    error: str | None = None
    disabled: bool = False


class PluginManager:
    """All plugins of one client. Thread-safe once built; safe to use in a forked child.

    Args:
        plugins: Modules and objects to add to the installed plugins. A broken one raises PluginError.
        disabled: Names of plugins or distributions to leave out. ``all`` means every installed plugin, but
            not lockkit's own stores and not ``plugins``.
        raise_errors: Raise errors instead of reporting and skipping, for the development of plugins.
        discover: The source of the entry points.

    Raises:
        PluginError: One of ``plugins`` is broken, or any plugin is and ``raise_errors`` is set.
    """

    def __init__(
        self,
        plugins: Iterable[object] = (),
        *,
        disabled: Collection[str] = (),
        raise_errors: bool = False,
        discover: Callable[[], Sequence[Installed]] = installed,
    ) -> None:
        self._disabled = frozenset(map(canonical, disabled))
        self._raise = raise_errors
        self._mutex = Mutex()
        self._infos: dict[str, PluginInfo] = {}
        self._calls: dict[str, tuple[Implementation, ...]] = {}
        self._offered: dict[str, tuple[str, BackendSpec]] | None = None
        self._devices: dict[str, list[DeviceProvider]] = {}
        self._registry = Registry()
        entries = discover()
        self._stores = {store.name: store for store in SCHEMES.values()}
        modules = {*SHIPPED.values(), *(store.module for store in SCHEMES.values())}
        for entry in entries:
            if canonical(entry.dist) != PROJECT or entry.value not in modules:
                self._add_installed(entry)
        for plugin in plugins:
            self.register(plugin)

    def register(self, plugin: object, name: str | None = None) -> str:
        """Register a module or an object as a plugin. Returns its name.

        Raises:
            PluginError: The object is not a plugin, or breaks the contract.
        """
        with self._mutex.of_this_process():
            default = getattr(plugin, "__name__", None) or type(plugin).__name__
            name = self._free(name or str(default))
            self._add(PluginInfo(name), plugin)
            self._offered = None
            return name

    # -- hooks ---------------------------------------------------------------------------------------------

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """The implementations of a hook in call order, with its keywords. Fast: one look-up in a dict."""
        calls = self._calls.get(hook)
        if calls is None:
            with self._mutex.of_this_process():
                calls = self._calls[hook] = self._registry.implementations(hook)
        return calls

    def notify(self, hook: str, /, **keywords: object) -> list[Outcome]:
        """Call every implementation of a hook once, whatever the others do, and return the results.

        A plugin's exception is logged, and returned with its name. After all calls, that of a signal handler
        (``lockkit.plugins.calling.from_signal``) is raised again, and with ``raise_errors`` the first one.
        """
        implementations = self.implementations(hook)
        if not implementations:
            return []
        outcomes = call_each(hook, implementations, keywords)
        if self._raise:
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
        return outcomes

    # -- settings ------------------------------------------------------------------------------------------

    def check_settings(self, config: Config) -> None:
        """Let every plugin read and check its own table ``[plugins.<dist>]``.

        A plugin without a table that it needs is reported and left out, as if it could not be loaded. It is
        refused if the store in use is its own, or if it has a cleanup hook: the next holder may rely on that.

        Raises:
            ConfigError: A table is wrong, or one of those is missing; the message is that of the first one.
            PluginError: A table is missing, and ``raise_errors`` is set.
        """
        refuse(self.misfits(config))

    def misfits(self, config: Config) -> list[ConfigError]:
        """The plugins' errors about their own tables. Leaves out plugins as ``check_settings`` does."""
        found: list[ConfigError] = []
        for plugin, call in self.implementations(SETTINGS_HOOK):
            error = misfit(plugin, call, config)
            if error is None:
                continue
            if self._needed(plugin, config):
                found.append(error)
            else:
                self._leave_out(plugin, f"not used: {error.message}")
        return found

    def _needed(self, plugin: str, config: Config) -> bool:
        """Whether a plugin that refuses its settings must not be left out."""
        info = self._infos[plugin]
        if info.source == "code" or has_table(info.dist, config) or _CLEANUP in info.hooks:
            return True
        if BACKENDS not in info.hooks:
            return False
        offered = self._collect().get(config.url.partition(":")[0].lower())
        return offered is not None and offered[0] == plugin

    def _leave_out(self, plugin: str, problem: str) -> None:
        """Report a plugin, and call none of its hooks from now on."""
        with self._mutex.of_this_process():
            self._report(plugin, problem)
            self._registry.leave(plugin)
            self._infos[plugin] = self._infos[plugin]._replace(hooks=())
            self._calls.clear()
            self._offered = None

    def judging(self) -> set[str]:
        """The canonical names of the distributions whose plugins check their own table."""
        return {canonical(self._infos[plugin].dist) for plugin, _ in self.implementations(SETTINGS_HOOK)}

    # -- stores --------------------------------------------------------------------------------------------

    def backend(self, url: str) -> BackendSpec:
        """The store of a URL, with its capabilities for this URL. Imports no other of lockkit's own stores.

        Raises:
            ConfigError: No plugin offers the scheme (the error says what to install), or the URL is wrong.
            PluginError: The plugin that offers the scheme cannot be loaded.
        """
        spec = self._find(scheme_of(url))[1]
        return spec if spec.declared is None else spec._replace(capabilities=spec.declared(url))

    def backends(self) -> Mapping[str, BackendSpec]:
        """All offered URL schemes with their stores; imports all stores.

        A scheme belongs to lockkit's own store, or to the plugin that was registered first. Another plugin
        that offers the same scheme is reported.
        """
        return {scheme: spec for scheme, (_, spec) in self._collect().items()}

    def open(self, url: str, options: OpenOptions) -> Backend:
        """Open the store of a URL.

        Raises:
            ConfigError: As for :meth:`backend`, or the client library is missing, with what to install.
            PluginError: The store lacks calls of the interface.
            Refused: The store cannot be opened.
        """
        backend: Backend | None = None
        try:
            with self._store_of(url) as spec:
                backend = spec.open(url, options)
            return complete(spec, backend)
        except BaseException:
            if backend is not None and hasattr(backend, "close"):  # a signal handler may have raised
                backend.close()
            raise

    def check(self, url: str) -> None:
        """Check that the store of a URL could be opened, as far as possible without connecting.

        Raises:
            ConfigError, Refused: As for :meth:`open`.
        """
        with self._store_of(url) as spec:
            if spec.check is not None:
                spec.check(url)

    def adopt(self, url: str, options: OpenOptions) -> str:
        """Make a store usable that was moved or restored; see :class:`~lockkit.store.spi.BackendSpec`.

        Raises:
            ConfigError: As for :meth:`open`, or the store cannot be moved.
            Refused: The store may be in use under another name.
        """
        with self._store_of(url) as spec:
            if spec.adopt is None:
                raise ConfigError(
                    f"the store {spec.name} is in no folder", hint="only an embedded store can be moved"
                )
            return spec.adopt(url, options)

    @contextmanager
    def _store_of(self, url: str) -> Iterator[BackendSpec]:
        """The store of a URL; in the block, a missing client library becomes a ConfigError."""
        scheme = scheme_of(url)
        plugin, spec = self._find(scheme)
        try:
            with scrubbed(url):
                yield spec
        except ImportError as error:
            if spec.extra is None:
                raise PluginError(f"the store {spec.name} cannot be opened: {error}") from error
            dist = self._infos[plugin].dist or PROJECT
            raise ConfigError(
                f"{scheme}: URLs need {(error.name or 'a library').partition('.')[0]},"
                " which is not installed",
                hint=f'pip install "{dist}[{spec.extra}]"',
            ) from error

    def distribution(self, url: str) -> str:
        """The distribution of a URL's store; the settings of the store are in ``[plugins.<dist>]``."""
        return self._infos[self._find(scheme_of(url))[0]].dist or PROJECT

    def _find(self, scheme: str) -> tuple[str, BackendSpec]:
        store = SCHEMES.get(scheme)
        if store is not None and self._offered is None:
            with self._mutex.of_this_process():
                self._add_store(store)
                for spec in self._offers(store.name):
                    if scheme in spec.schemes:
                        return store.name, spec
        offered = self._collect()
        if scheme in offered:
            return offered[scheme]
        info = self._infos.get(store.name) if store else None
        if info is not None and info.disabled:
            raise ConfigError(
                f"the plugin for {scheme}: URLs, {info.name}, is disabled",
                hint="remove it from disable_plugins or LOCKKIT_DISABLE_PLUGINS",
            )
        if info is not None and info.error is not None:
            raise PluginError(f"the plugin for {scheme}: URLs cannot be used: {info.error}")
        raise unknown_scheme(scheme, offered)

    def _collect(self) -> Mapping[str, tuple[str, BackendSpec]]:
        with self._mutex.of_this_process():
            if self._offered is None:
                found: dict[str, tuple[str, BackendSpec]] = {}
                for store in self._stores.values():
                    self._add_store(store)
                for name in sorted(self._infos, key=lambda name: self._infos[name].source != "store"):
                    for spec in self._offers(name):
                        for scheme in spec.schemes:
                            if scheme in found or not self._allowed(name, scheme):
                                self._report(name, f"another plugin already offers the URL scheme {scheme}:")
                            else:
                                found[scheme] = (name, spec)
                                declare(scheme, spec.harmless)
                self._offered = found
            return self._offered

    # -- devices -------------------------------------------------------------------------------------------

    def devices(self) -> tuple[DeviceProvider, ...]:
        """The device providers of all plugins, in the order of the hook's calls: lockkit's own come last.

        A provider with the name of another one, and an object that is none, are reported and left out.
        """
        with self._mutex.of_this_process():
            self._add_shipped()
            calls = self.implementations(DEVICES)
            for plugin, call in calls:
                if plugin not in self._devices:  # each is asked once: a provider may have opened a driver
                    names = [one.name for found in self._devices.values() for one in found]
                    self._devices[plugin] = providers(call, names, partial(self._report, plugin))
            return tuple(one for plugin, _ in calls for one in self._devices[plugin])

    def add_shipped(self) -> None:
        """Add lockkit's own plugins that are no stores: those for cards."""
        with self._mutex.of_this_process():
            self._add_shipped()

    def skipped(self) -> list[PluginInfo]:
        """The plugins known to be skipped, in part or as a whole. Imports no more of them."""
        return [info for info in list(self._infos.values()) if info.error is not None]

    def describe(self) -> list[PluginInfo]:
        """All plugins, loaded or not, by source and name; imports all stores, and lockkit's own plugins."""
        self._collect()
        self.devices()
        with self._mutex.of_this_process():
            return sorted(self._infos.values(), key=lambda info: (info.source, info.name))

    # -- loading -------------------------------------------------------------------------------------------

    def _add_installed(self, entry: Installed) -> None:
        info = PluginInfo(self._free(entry.name, entry.dist), entry.dist, entry.version, "installed")
        disabled = not self._disabled.isdisjoint({"all", canonical(entry.name), canonical(entry.dist)})
        self._load(info, entry.load, disabled=disabled)

    def _add_store(self, store: ShippedStore) -> None:
        if store.name in self._infos or not _is_there(store.module):
            return
        info = PluginInfo(store.name, PROJECT, __version__, "store")
        self._load(info, lambda: _imported(store.module), disabled=store.name in self._disabled)

    def _add_shipped(self) -> None:
        for name, module in SHIPPED.items():
            if name not in self._infos:
                info = PluginInfo(name, PROJECT, __version__, "shipped")
                self._load(info, partial(_imported, module), disabled=name in self._disabled)

    def _load(self, info: PluginInfo, load: Callable[[], object], *, disabled: bool) -> None:
        self._infos[info.name] = info._replace(disabled=disabled)
        if disabled:
            return
        start = time.perf_counter()
        try:
            plugin = load()
            info = self._infos[info.name] = info._replace(import_time=time.perf_counter() - start)
            self._add(info, plugin)
        except BaseException as error:
            if from_signal(error):
                del self._infos[info.name]
                raise
            if self._raise:
                raise (
                    error if isinstance(error, PluginError) else PluginError(f"plugin {info.name}: {error!r}")
                ) from error
            told = error.message if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            self._report(info.name, f"not loaded: {told}")

    def _add(self, info: PluginInfo, plugin: object) -> None:
        if info.source == "store" and isinstance(plugin, ModuleType):
            hooks = self._registry.enter_store(info.name, plugin)
        else:
            hooks = self._registry.enter(info.name, plugin)
        self._infos[info.name] = info._replace(hooks=hooks)
        self._calls.clear()

    def _offers(self, name: str) -> list[BackendSpec]:
        """The stores that one plugin offers for this API version. Errors in the offer are reported."""
        return [
            spec
            for plugin, call in self.implementations(BACKENDS)
            if plugin == name
            for spec in usable(call, partial(self._report, name))
        ]

    def _allowed(self, name: str, scheme: str) -> bool:
        store = SCHEMES.get(scheme)
        return store is None or store.name == name or store.name not in self._infos

    def _report(self, name: str, problem: str) -> None:
        if self._raise:
            raise PluginError(f"plugin {name}: {problem}")
        if self._infos[name].error is None:
            self._infos[name] = self._infos[name]._replace(error=problem)
        told = f"plugin {name}: {problem}"
        if told not in _reported:
            _reported.add(told)
            _log.warning("%s", printable(told))

    def _free(self, name: str, dist: str = "") -> str:
        if name not in self._infos and name not in self._stores and name not in SHIPPED:
            return name
        candidates = (
            f"{dist or 'code'}.{name}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 100)))
        )
        return next(candidate for candidate in candidates if candidate not in self._infos)


def _is_there(module: str) -> bool:
    """Whether a top-level module can be imported, without importlib.util, whose import takes 1 of 100 ms."""
    # The import system passes over one without it, too.
    finds = [getattr(finder, "find_spec", None) for finder in sys.meta_path]
    return module in sys.modules or any(find is not None and find(module, None) is not None for find in finds)


def _imported(module: str) -> ModuleType:
    with IMPORTS:
        return import_module(module)
