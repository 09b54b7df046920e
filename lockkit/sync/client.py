"""The synchronous face: ``connect`` and the client.

Every program that might lock something pays for ``import lockkit``. So ``connect`` imports what only a client
needs: the config layers, the plugin manager, the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from lockkit.errors import ConfigError
from lockkit.facts import Capabilities, Reason, Scope, Skipped
from lockkit.lib.clock import SYSTEM, Clock
from lockkit.lib.forks import IMPORTS, after_logging
from lockkit.lib.printable import printable
from lockkit.shared.copies import LeaseCopy, handle_of
from lockkit.shared.operating import Operations
from lockkit.shared.options import DEFAULT, Default, Options, Settings, checked_timeout, fitting
from lockkit.store.queue import RW_CAPACITY
from lockkit.sync.locks import Lock, RWLock, build
from lockkit.values.habits import Answering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.config.config import Config
    from lockkit.plugins import PluginManager
    from lockkit.sync.composites import AllOf, AnyOf
    from lockkit.sync.pools import Pool

__all__ = ["Client", "connect"]

P = ParamSpec("P")
R = TypeVar("R")


class Client(Operations, Answering):
    """A connection to one store, in one namespace. Thread-safe, reusable after fork, opened at its first use.

    A forked child starts afresh, with its own connection and without its parent's leases.

    Attributes:
        config: The settings in force, each with its source.
        plugins: The plugin manager.
        capabilities: The capabilities of the store.
        owner: This process, as other clients see it.
    """

    def __init__(
        self,
        config: Config,
        plugins: PluginManager,
        *,
        clock: Clock = SYSTEM,
        task: str | None = None,
        where: Literal["process", "wrapper"] = "process",
        on_sigterm: Literal["release"] | None = None,
    ) -> None:
        with IMPORTS:
            from lockkit.drivers.lifecycle import on_sigterm as release_on_sigterm
            from lockkit.shared.opening import Opening

        if on_sigterm not in (None, "release"):
            raise ConfigError(f"on_sigterm must be None or 'release', not {on_sigterm!r}")
        opening = Opening(config, plugins, clock, task, where)
        super().__init__(opening)
        if on_sigterm == "release":
            release_on_sigterm(opening)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the store."""
        return self._opening.capabilities

    @property
    def url(self) -> str:
        """The store's URL, secrets redacted."""
        return self._opening.url

    @property
    def url_source(self) -> str:
        """Where the URL came from: a file, ``LOCKKIT_URL``, ``argument`` or ``default``."""
        return self.config.source("url")

    @property
    def namespace(self) -> str:
        return self.config.namespace

    @property
    def is_open(self) -> bool:
        """Whether the store is open in this process: the client has been used, and is not closed."""
        return self._opening.engine is not None

    # -- locks

    def lock(self, name: str, **options: Unpack[Options]) -> Lock:
        """A mutex.

        Args:
            name: What is locked; at most 512 bytes of UTF-8.
            options: See :class:`~lockkit.shared.options.Options`.

        Raises:
            ConfigError: The name or an option is not allowed; the error says what is. No I/O has happened.
            CapabilityError: The store does not support an option.
        """
        return build(self._opening, name, "mutex", 1, 1, options)

    def semaphore(self, name: str, capacity: int, *, permits: int = 1, **options: Unpack[Options]) -> Lock:
        """A lock with ``capacity`` permits; each acquisition takes ``permits``. Otherwise as :meth:`lock`.

        All clients must use the same capacity; :meth:`resize` changes it for the claims in the queue.
        """
        fitting(permits, capacity, name)
        return build(self._opening, name, "semaphore", permits, capacity, options)

    def rwlock(self, name: str, **options: Unpack[Options]) -> RWLock:
        """A reader/writer lock: ``.read()`` and ``.write()`` are locks. Otherwise as :meth:`lock`."""
        reader = build(self._opening, name, "read", 1, RW_CAPACITY, options)
        return RWLock(reader, build(self._opening, name, "write", RW_CAPACITY, RW_CAPACITY, options))

    def all_of(self, locks: Iterable[Lock], *, timeout: float | Default | None = DEFAULT) -> AllOf:
        """Several locks as one: all of them are held, or none.

            with client.all_of([client.lock("a"), client.rwlock("b").read()]).acquire(timeout=10) as leases:
                ...

        Args:
            locks: Locks of this client, of any kind; duplicates count once. Their own timeouts do not matter.
            timeout: Seconds to wait for all of them together; by default as configured.

        Raises:
            ConfigError: The list is empty, has a lock in two modes, or one of another client. No I/O is done.
        """
        with IMPORTS:
            from lockkit.sync.composites import AllOf
        return AllOf(self._opening, locks, self._timeout(timeout))

    def any_of(self, locks: Iterable[Lock], *, timeout: float | Default | None = DEFAULT) -> AnyOf:
        """One of several locks, whichever can be had first.

        Args:
            locks: At most 64 locks of this client, of any kind, the best first. Their timeouts do not matter.
            timeout: Seconds to wait; by default as configured.

        Raises:
            ConfigError: The list is empty or too long, has a lock in two modes, a reentrant lock, or another
                client's lock. No I/O has happened.
        """
        with IMPORTS:
            from lockkit.sync.composites import AnyOf
        return AnyOf(self._opening, locks, self._timeout(timeout))

    def pool(
        self,
        name: str,
        members: Iterable[str] | Mapping[str, int] | None = None,
        *,
        within: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> Pool:
        """A pool, of which an acquire takes some members.

        For example::

            cards = client.pool("gpus", {"0": 80, "1": 80})
            with cards.acquire(count=2, each=20) as leases:
                print(leases.members)

        Args:
            name: The name of the pool.
            members: Names, each for one request at a time, or names with capacities, which requests share.
                None for ``[pools.NAME]`` of the configuration. All clients must use the same capacities.
            within: The outer member of each member inside another, as a slice is inside a card. The inner one
                also takes as much of the outer one; inner ones together must fit into it.
            options: See :class:`~lockkit.shared.options.Options`; ``timeout`` is for all; not ``reentrant``.

        Raises:
            ConfigError: A name, capacity or option is not allowed, or no such pool exists. No I/O is done.
            CapabilityError: The store does not support an option, or members with capacities.
        """
        with IMPORTS:
            from lockkit.sync.pools import Pool
        return Pool(
            self._opening, name, self.config.pool(name) if members is None else members, within, options
        )

    def _timeout(self, timeout: float | Default | None) -> float | None:
        return self.config.timeout if isinstance(timeout, Default) else checked_timeout(timeout)

    @overload
    def locked(
        self, template: str, *, on_busy: Literal["raise"] = "raise", **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    @overload
    def locked(
        self, template: str, *, on_busy: Literal["raise", "skip"], **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]: ...
    def locked(
        self, template: str, *, on_busy: Literal["raise", "skip"] = "raise", **options: Unpack[Options]
    ) -> Callable[[Callable[P, R]], Callable[P, R | Skipped]]:
        """Decorate a function so that each call holds a lock, whose name is made from the call's arguments.

            @client.locked("invoice:{invoice_id}", timeout=0, on_busy="skip")
            def bill(invoice_id): ...

        The template's fields are bound to the function's signature, defaults included, and checked at
        decoration. With ``on_busy="skip"`` a call that finds the lock busy (or times out) returns a
        :class:`~lockkit.facts.Skipped`, which is falsy, and is logged and counted.

        The lock is held only while the function runs, so a function that works on after its return is
        refused: generator and coroutine functions, and functions under ``@contextmanager``, at decoration; a
        result that is a coroutine, a generator, a context manager of contextlib, or a Future that is not done
        (it is cancelled), at the call. Other lazy objects, such as ``map(...)``, are not recognized.

        Raises:
            ConfigError: At decoration, if the template does not fit, or the function would return before its
                work is done; at a call, if the result still has to run, or an argument's text may differ
                between equal calls: that of a dict, a set, or an object that shows its address.
        """
        with IMPORTS:
            from lockkit.sync.decorator import locked  # late: it needs inspect, and few need it

        self.lock("template", **options)  # refuses bad options now rather than at the first call
        return locked(lambda name: self.lock(name, **options), self._opening.skipped, template, on_busy)

    # -- handles and counters

    def adopt(self, handle: Mapping[str, object] | LeaseCopy) -> LeaseCopy:
        """Bind another process's ``Lease.handle()`` to this client, to release or extend exactly that claim.

        Raises:
            ConfigError: The argument is not a handle, or a handle of another namespace.
        """
        copy = LeaseCopy(handle.handle() if isinstance(handle, LeaseCopy) else handle, self._opening)
        if copy.namespace not in (None, self.namespace):
            raise ConfigError(
                f"the handle of {copy.name!r} is of namespace {copy.namespace!r}, "
                f"but this client uses namespace {self.namespace!r}",
                name=copy.name,
                hint="connect with the namespace of the handle",
            )
        return copy

    def stats(self) -> dict[str, int]:
        """This client's counters in this process; :data:`lockkit.values.events.COUNTERS` explains them."""
        return self._opening.counters.read()

    def leases(self) -> list[LeaseCopy]:
        """Handles of all claims that this process holds through this client."""
        engine = self._opening.engine
        holds = engine.beats.holds() if engine else []
        handles = [handle_of(hold, self.namespace) for hold in holds if not hold.ended]
        return [LeaseCopy(handle, self._opening) for handle in handles]

    def pulse(self) -> Sequence[int]:
        """File descriptors that a child must inherit for process-bound claims to outlive this process."""
        pulse = self.driver().backend.extras.pulse
        return () if pulse is None else pulse()

    # -- life

    def close(self) -> None:
        """Release all holds, cancel all waits, and disconnect, in a bounded time. May be called twice.

        All holds are released concurrently. A first Ctrl-C is raised once they are released; a second one
        ends the call, while the releases continue in the background. Another call, or the end of the
        interpreter, waits for them. A Ctrl-C at the very start may leave the client open.

        A call from a cleanup hook, ``on_wait``, or a signal handler that interrupted lockkit waits at most
        0.2 s and leaves the rest to the background: the releases may need the interrupted code to continue.
        """
        self._opening.close()

    def release_all(self, reason: Reason) -> None:
        """Release all holds of this process and close, in a bounded time: for the end of the process."""
        self._opening.release_all(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Client {printable(self.url)} namespace {self.namespace!r}"
            f"{' closed' if self._opening.closed else ''}>"
        )


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    profile: str | None = None,
    config: Config | None = None,
    plugins: Iterable[object] = (),
    on_sigterm: Literal["release"] | None = None,
    strict: bool | None = None,
    scope: Scope | None = None,
    state_dir: str | None = None,
    task: str | None = None,
    where: Literal["process", "wrapper"] = "process",
    clock: Clock = SYSTEM,
    **settings: Unpack[Settings],
) -> Client:
    """Make a client. The call reads config files and does no other I/O; the store is opened at its first use.

    Args:
        url: The URL of the store. None for that of the config layers, by default this user's embedded store.
        namespace: The prefix of all names of the deployment.
        profile: The name of a ``[profiles.x]`` table of the config.
        config: Settings that were loaded before. If given, the arguments for single settings are not used.
        plugins: Modules or objects with hooks, in addition to the installed ones.
        on_sigterm: "release" to release all holds on SIGTERM, and then run the previous handler, in the main
            thread. Most blocking system calls are interrupted; a long computation in C delays it.
        strict: Whether to refuse unsafe store settings, or a given ttl that the store lacks, not only warn.
        scope: The least scope; a store that excludes fewer processes is refused.
        state_dir: The folder of embedded stores and journals.
        task: A description of the work of this process, shown with its claims.
        clock: The clock; a simulation passes its own.
        where: "wrapper" for a program that runs another under a lock.
        settings: Any other setting, by key, such as ``ttl=5``; see :class:`~lockkit.shared.options.Settings`.

    Raises:
        ConfigError: A setting is not allowed, or was given beside ``config``, the store's scope is below
            ``scope``, or the URL's scheme is unknown; the error says what is allowed, or what to install.
        PluginError: One of ``plugins`` is broken.
    """
    with IMPORTS:
        after_logging()
        from lockkit.config.config import keywords, load
        from lockkit.plugins import PluginManager

    if config is None:
        config = load(
            url=url,
            namespace=namespace,
            profile=profile,
            strict=strict,
            scope=scope,
            state_dir=state_dir,
            **keywords(settings),
        )
    elif settings:
        raise ConfigError(
            f"{', '.join(sorted(settings))} and config are given together",
            hint="give each setting to lockkit.config.config.load() instead, which makes the config",
        )
    if config.metrics_enabled and where == "process":
        with IMPORTS:
            from lockkit.observe.measured import with_metrics
        plugins = with_metrics(plugins)
    manager = PluginManager(
        plugins, disabled=config.disable_plugins, raise_errors=config.plugin_errors == "raise"
    )
    return Client(config, manager, clock=clock, task=task, where=where, on_sigterm=on_sigterm)
