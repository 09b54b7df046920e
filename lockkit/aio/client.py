"""The client of the asyncio face, and how to make one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from lockkit.aio.composites import AsyncAllOf, AsyncAnyOf
from lockkit.aio.engines import Engines
from lockkit.aio.lease import AsyncLeaseCopy
from lockkit.aio.locks import AsyncLock, AsyncRWLock, build
from lockkit.aio.pools import AsyncPool
from lockkit.facts import (
    Capabilities,
    Deadlock,
    Drain,
    Evicted,
    Finding,
    LockInfo,
    Owner,
    Record,
    ReleaseRequest,
    Scope,
    Skipped,
)
from lockkit.lib.clock import SYSTEM, Clock
from lockkit.lib.forks import IMPORTS
from lockkit.lib.printable import printable
from lockkit.shared.copies import LeaseCopy
from lockkit.shared.options import DEFAULT, Default, Options, Settings, fitting
from lockkit.store.queue import RW_CAPACITY
from lockkit.sync import client as synchronous
from lockkit.values.habits import Answering

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.plugins import PluginManager

__all__ = ["AsyncClient", "connect"]

P = ParamSpec("P")
R = TypeVar("R")


class AsyncClient(Answering):
    """A connection to one store, in one namespace, for asyncio: as :class:`~lockkit.Client`, with ``await``.

    ``async with lockkit.aio.connect() as client:`` closes it. The first use opens the store, on a thread.

    Tasks of several event loops, in turn or in several threads, may use one client; each loop has its own
    connections. A forked child starts afresh, as with :class:`~lockkit.Client`, and needs a new event loop.

    Args:
        client: A client that has not been used. A lease can be released only through the client that made it.

    Attributes:
        config: The settings in force, each with its source.
        plugins: The plugin manager.
    """

    def __init__(self, client: synchronous.Client) -> None:
        self._client = client
        self._opening = client._opening  # noqa: SLF001 (the other face of it)
        self._engines = Engines(self._opening)
        self.config: Config = client.config
        self.plugins: PluginManager = client.plugins

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the store."""
        return self._client.capabilities

    @property
    def owner(self) -> Owner:
        """This process, as other clients see it."""
        return self._client.owner

    @property
    def url(self) -> str:
        """The store's URL, secrets redacted."""
        return self._client.url

    @property
    def url_source(self) -> str:
        """Where the URL came from: a file, ``LOCKKIT_URL``, ``argument`` or ``default``."""
        return self._client.url_source

    @property
    def namespace(self) -> str:
        return self._client.namespace

    @property
    def is_open(self) -> bool:
        """Whether the store is open in this process: the client has been used, and is not closed."""
        return self._client.is_open

    # -- locks

    def lock(self, name: str, **options: Unpack[Options]) -> AsyncLock:
        """A mutex.

        Args:
            name: What is locked; at most 512 bytes of UTF-8.
            options: See :class:`~lockkit.shared.options.Options`; ``on_lost``, a function, runs on a thread.

        Raises:
            ConfigError: The name or an option is not allowed; the error says what is. No I/O has happened.
            CapabilityError: The store does not support an option.
        """
        return build(self._engines, name, "mutex", 1, 1, options)

    def semaphore(
        self, name: str, capacity: int, *, permits: int = 1, **options: Unpack[Options]
    ) -> AsyncLock:
        """A lock with ``capacity`` permits; each acquisition takes ``permits``. Otherwise as :meth:`lock`."""
        fitting(permits, capacity, name)
        return build(self._engines, name, "semaphore", permits, capacity, options)

    def rwlock(self, name: str, **options: Unpack[Options]) -> AsyncRWLock:
        """A reader/writer lock: ``.read()`` and ``.write()`` are locks. Otherwise as :meth:`lock`."""
        reader = build(self._engines, name, "read", 1, RW_CAPACITY, options)
        return AsyncRWLock(reader, build(self._engines, name, "write", RW_CAPACITY, RW_CAPACITY, options))

    def all_of(self, locks: Iterable[AsyncLock], *, timeout: float | Default | None = DEFAULT) -> AsyncAllOf:
        """Several locks as one: all of them are held, or none.

            async with client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=10) as leases:
                ...

        Arguments and errors as :meth:`lockkit.Client.all_of`.
        """
        return AsyncAllOf(self._engines, locks, self._client._timeout(timeout))  # noqa: SLF001

    def any_of(self, locks: Iterable[AsyncLock], *, timeout: float | Default | None = DEFAULT) -> AsyncAnyOf:
        """One of several locks, whichever is free first; see :meth:`lockkit.Client.any_of`."""
        return AsyncAnyOf(self._engines, locks, self._client._timeout(timeout))  # noqa: SLF001

    def pool(
        self,
        name: str,
        members: Iterable[str] | Mapping[str, int] | None = None,
        *,
        within: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> AsyncPool:
        """A pool, of which an acquire takes some members.

            async with client.pool("gpus", {"0": 80, "1": 80}).acquire(count=2, each=20) as leases:
                print(leases.members)

        Arguments and errors as :meth:`lockkit.Client.pool`.
        """
        return AsyncPool(
            self._engines, name, self.config.pool(name) if members is None else members, within, options
        )

    @overload
    def locked(
        self, template: str, *, on_busy: Literal["raise"] = "raise", **options: Unpack[Options]
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]: ...
    @overload
    def locked(
        self, template: str, *, on_busy: Literal["raise", "skip"], **options: Unpack[Options]
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | Skipped]]]: ...
    def locked(
        self, template: str, *, on_busy: Literal["raise", "skip"] = "raise", **options: Unpack[Options]
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | Skipped]]]:
        """Decorate a coroutine function so that each call holds a lock, named from the call's arguments.

            @client.locked("invoice:{invoice_id}", timeout=0, on_busy="skip")
            async def bill(invoice_id): ...

        Otherwise as :meth:`lockkit.Client.locked`.

        Raises:
            ConfigError: The function is no coroutine function, the template does not fit it, or as there.
        """
        with IMPORTS:
            from lockkit.sync.decorator import locked_coroutine  # late: it needs inspect, and few need it

        self.lock("template", **options)  # refuses bad options now rather than at the first call
        return locked_coroutine(
            lambda name: self.lock(name, **options), self._opening.skipped, template, on_busy
        )

    # -- handles and counters

    def adopt(self, handle: Mapping[str, object] | LeaseCopy | AsyncLeaseCopy) -> AsyncLeaseCopy:
        """Bind a handle from another process to this client, to release or extend exactly that claim.

        Raises:
            ConfigError: The argument is not a handle, or a handle of another namespace.
        """
        given = handle.handle() if isinstance(handle, AsyncLeaseCopy) else handle
        return AsyncLeaseCopy(self._client.adopt(given), self._engines)

    def leases(self) -> list[AsyncLeaseCopy]:
        """Handles of all claims that this process holds through this client."""
        return [AsyncLeaseCopy(copy, self._engines) for copy in self._client.leases()]

    def stats(self) -> dict[str, int]:
        """This client's counters in this process; :data:`lockkit.values.events.COUNTERS` explains them."""
        return self._client.stats()

    # -- operations: as lockkit.Client, on a thread unless ``at_once``; a cancelled call may take effect

    async def inspect(self, name: str) -> LockInfo:
        """See :meth:`lockkit.Client.inspect`."""
        return await self._engines.call(partial(self._client.inspect, name))

    async def names(self, prefix: str = "", *, pattern: str | None = None, deep: bool = False) -> list[str]:
        """See :meth:`lockkit.Client.names`."""
        return await self._engines.call(partial(self._client.names, prefix, pattern=pattern, deep=deep))

    async def namespaces(self) -> list[str]:
        """See :meth:`lockkit.Client.namespaces`."""
        return await self._engines.call(self._client.namespaces)

    async def deadlocks(self) -> list[Deadlock]:
        """See :meth:`lockkit.Client.deadlocks`. Uses a thread of the client, mostly for just over 2 s."""
        return await self._engines.call(self._client.deadlocks)

    async def evict(self, name: str, claim_id: str, *, reason: str, now: bool = False) -> Evicted:
        """See :meth:`lockkit.Client.evict`."""
        return await self._engines.call(partial(self._client.evict, name, claim_id, reason=reason, now=now))

    async def ask_release(self, name: str, claim_id: str, reason: str) -> ReleaseRequest:
        """See :meth:`lockkit.Client.ask_release`."""
        return await self._engines.call(partial(self._client.ask_release, name, claim_id, reason))

    async def drain(self, reason: str = "") -> Drain:
        """See :meth:`lockkit.Client.drain`."""
        return await self._engines.call(partial(self._client.drain, reason))

    async def undrain(self) -> Drain | None:
        """See :meth:`lockkit.Client.undrain`."""
        return await self._engines.call(self._client.undrain)

    async def drained(self, namespace: str | None = None) -> Drain | None:
        """See :meth:`lockkit.Client.drained`."""
        return await self._engines.call(partial(self._client.drained, namespace))

    async def resize(self, name: str, capacity: int) -> int:
        """See :meth:`lockkit.Client.resize`."""
        return await self._engines.call(partial(self._client.resize, name, capacity))

    async def annotate(self, name: str, claim_id: str, patch: Mapping[str, object]) -> bool:
        """See :meth:`lockkit.Client.annotate`."""
        return await self._engines.call(partial(self._client.annotate, name, claim_id, patch))

    async def record(self, name: str) -> Record | None:
        """See :meth:`lockkit.Client.record`."""
        return await self._engines.call(partial(self._client.record, name))

    async def put_record(self, name: str, value: Mapping[str, object], version: int) -> Record:
        """See :meth:`lockkit.Client.put_record`."""
        return await self._engines.call(partial(self._client.put_record, name, value, version))

    async def check(self) -> list[Finding]:
        """See :meth:`lockkit.Client.check`."""
        return await self._engines.call(self._client.check)

    async def pulse(self) -> Sequence[int]:
        """See :meth:`lockkit.Client.pulse`."""
        return await self._engines.call(self._client.pulse)

    # -- life

    async def close(self) -> None:
        """Release all holds, cancel all waits, and disconnect, in a bounded time. May be called twice.

        If the caller is cancelled, the CancelledError is raised when that is done.
        """
        await self._engines.close()

    def __await__(self) -> Generator[Any, None, Self]:
        """Return the client, so that ``await connect()`` is the same as ``connect()``."""
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        closed = " closed" if self._opening.closed else ""
        return f"<AsyncClient {printable(self.url)} namespace {self.namespace!r}{closed}>"


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
) -> AsyncClient:
    """Make a client, for ``async with``. Awaiting the result is allowed and changes nothing.

    The call reads config files and does no other I/O. Arguments and errors as :func:`lockkit.connect`. No
    running loop is needed: a module may make its client at import, ``client = lockkit.aio.connect()``.
    """
    return AsyncClient(
        synchronous.connect(
            url,
            namespace=namespace,
            profile=profile,
            config=config,
            plugins=plugins,
            on_sigterm=on_sigterm,
            strict=strict,
            scope=scope,
            state_dir=state_dir,
            task=task,
            where=where,
            clock=clock,
            **settings,
        )
    )
