"""The synchronous face: ``connect`` and the client.

Every program that might lock something pays for ``import lockkit``. The parts that only a program with a client needs (the config
layers, the plugin manager, the engine) are imported by ``connect``.
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
from lockkit.shared.locks import checked_timeout
from lockkit.shared.operating import Operations
from lockkit.shared.options import DEFAULT, Default, Options, Settings, fitting
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
    """A connection to one store, in one namespace. Thread-safe, reusable after fork; opens the store when first used.

    In a forked child it starts afresh: a connection of its own, and none of its parent's leases.

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
            ConfigError: The name or an option is not allowed; the error says what is allowed. No I/O has happened.
            CapabilityError: The store does not support an option.
        """
        return build(self._opening, name, "mutex", 1, 1, options)

    def semaphore(self, name: str, capacity: int, *, permits: int = 1, **options: Unpack[Options]) -> Lock:
        """A lock with ``capacity`` permits, of which each acquisition takes ``permits``. Otherwise as :meth:`lock`.

        All clients must use the same capacity; :meth:`resize` changes it for the claims that are in the queue.
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
            locks: Locks of this client, of any kind; a lock that is given twice counts once. Their own timeouts do not matter.
            timeout: Seconds to wait for all of them together; by default as configured.

        Raises:
            ConfigError: The list is empty, has a lock in two modes, or has a lock of another client. No I/O has happened.
        """
        with IMPORTS:
            from lockkit.sync.composites import AllOf
        return AllOf(self._opening, locks, self._timeout(timeout))

    def any_of(self, locks: Iterable[Lock], *, timeout: float | Default | None = DEFAULT) -> AnyOf:
        """One of several locks, whichever can be had first.

        Args:
            locks: At most 64 locks of this client, of any kind, in order of preference. Their own timeouts do not matter.
            timeout: Seconds to wait; by default as configured.

        Raises:
            ConfigError: The list is empty or too long, has a lock in two modes, a reentrant lock, or a lock of another client. No
                I/O has happened.
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
            members: Names, each of which one request at a time holds; or names with capacities, which requests share. None for the
                members of ``[pools.NAME]`` in the configuration. All clients must use the same capacity for a member.
            within: For each member that lies within another one, that other one, as a slice of a graphics card within the card. To hold the one
                inside also takes as much of the other. All that stand within one may together have no more capacity than that one.
            options: See :class:`~lockkit.shared.options.Options`; they are for each member, and ``timeout`` for all. ``reentrant`` is not
                possible.

        Raises:
            ConfigError: A name, capacity or option is not allowed, or the configuration has no such pool. No I/O has happened.
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

        The template's fields are bound to the function's signature, defaults included, and checked when it is decorated.
        With ``on_busy="skip"`` a call that finds the lock busy (or times out) returns a :class:`~lockkit.facts.Skipped`,
        which is falsy, and is logged and counted.

        The lock is held only while the function runs, so a function whose work runs after its return is refused. Generator and
        coroutine functions, and functions under ``@contextmanager``, are refused when they are decorated. A call that returns a
        coroutine, a generator, a context manager made by contextlib, or a Future that is not done (it is cancelled) is refused
        when it returns. Other lazy objects, such as ``map(...)``, cannot be told from an ordinary result.

        Raises:
            ConfigError: At decoration, if the template does not fit the function, or the function would return before its work is
                done; at a call, if the result still has to run, or the text of an argument may differ between equal calls: that of a
                dict, of a set, or of an object that shows its address.
        """
        with IMPORTS:
            from lockkit.sync.decorator import locked  # late: it needs inspect, and few need it

        self.lock("template", **options)  # refuses bad options now rather than at the first call
        return locked(lambda name: self.lock(name, **options), self._opening.skipped, template, on_busy)

    # -- handles and counters

    def adopt(self, handle: Mapping[str, object] | LeaseCopy) -> LeaseCopy:
        """Bind a handle from another process (``Lease.handle()``) to this client, which can then release or extend exactly that claim.

        Raises:
            ConfigError: The argument is not a handle, or a handle of another namespace.
        """
        copy = LeaseCopy(handle.handle() if isinstance(handle, LeaseCopy) else handle, self._opening)
        if copy.namespace not in (None, self.namespace):
            raise ConfigError(
                f"the handle of {copy.name!r} is of namespace {copy.namespace!r}, but this client uses namespace {self.namespace!r}",
                name=copy.name,
                hint="connect with the namespace of the handle",
            )
        return copy

    def stats(self) -> dict[str, int]:
        """The counters of this client in this process; :data:`lockkit.values.events.COUNTERS` says what each counts."""
        return self._opening.counters.read()

    def leases(self) -> list[LeaseCopy]:
        """Handles of all claims that this process holds through this client."""
        engine = self._opening.engine
        holds = engine.beats.holds() if engine else []
        handles = [handle_of(hold, self.namespace) for hold in holds if not hold.ended]
        return [LeaseCopy(handle, self._opening) for handle in handles]

    def pulse(self) -> Sequence[int]:
        """File descriptors that a child process must inherit to keep process-bound claims alive after this process dies."""
        pulse = self.driver().backend.extras.pulse
        return () if pulse is None else pulse()

    # -- life

    def close(self) -> None:
        """Release all holds, cancel all waits, and disconnect from the store. Takes a bounded time; may be called twice.

        All holds are released concurrently. A first Ctrl-C is raised once they are released; a second one ends the call, while the
        releases go on in the background. Another call, or the end of the interpreter, waits for them. A Ctrl-C at the very
        beginning may leave the client open.

        A call from a signal handler that interrupted lockkit, from a cleanup hook or from ``on_wait`` waits for 0.2 s at most and
        leaves the rest to the background, because the releases may need the interrupted code to go on.
        """
        self._opening.close()

    def release_all(self, reason: Reason) -> None:
        """Release all holds of this process and close the client, at the end of the process. Takes a bounded time."""
        self._opening.release_all(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {printable(self.url)} namespace {self.namespace!r}{' closed' if self._opening.closed else ''}>"


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
    """Make a client. The call reads config files and does no other I/O: the store is opened when it is first used.

    Args:
        url: The URL of the store. None to take it from the config layers; their default is the embedded store of this user.
        namespace: The prefix of all names of the deployment.
        profile: The name of a ``[profiles.x]`` table of the config.
        config: Settings that were loaded before. If given, the arguments for single settings are not used.
        plugins: Modules or objects with hooks, in addition to the installed ones.
        on_sigterm: "release" to release all holds when SIGTERM arrives, and then to run the previous handler of SIGTERM.
            The handler runs in the main thread. Most blocking system calls are interrupted and run it at once; a long
            computation in C delays it.
        strict: Whether to refuse settings of the store that are known to be unsafe, and a stated ttl that the store does not have, instead of warning.
        scope: The least scope; a store that excludes fewer processes is refused.
        state_dir: The folder of embedded stores and journals.
        task: A description of the work of this process, shown with its claims.
        clock: The clock; a simulation passes its own.
        where: "wrapper" for a program that runs another under a lock.
        settings: Any other setting, by its key: ``connect(ttl=5)``. See :class:`~lockkit.shared.options.Settings`.

    Raises:
        ConfigError: A setting is not allowed, or stands beside ``config``, the scope of the store is below ``scope``, or the URL's scheme is unknown; the
            error says what is allowed, or what to install.
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
