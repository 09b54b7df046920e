"""The asyncio face for threaded scenarios: each thread has a task on an event loop, which makes its calls.

So scenarios are written once. A thread's task holds its locks, as the thread does in the synchronous face.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, TypeVar, cast

from lockkit.aio import AsyncAllOf, AsyncClient, AsyncLease, AsyncLock, AsyncPool
from lockkit.facts import Drain, Evicted, LockInfo, Reason, ReleaseReport, ReleaseRequest
from lockkit.lib.origin import this_origin
from lockkit.shared.operating import Operations
from lockkit.sync.client import Client
from lockkit.sync.composites import AllOf
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock, RWLock
from lockkit.sync.pools import Pool

__all__ = ["ThroughAsyncio"]

T = TypeVar("T")


class _Actor:
    """The task that makes the calls of one thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._todo: asyncio.Queue[
            tuple[Callable[[], Coroutine[Any, Any, Any]], Future[Any], contextvars.Context] | None
        ] = asyncio.Queue()
        self._now: Future[Any] | None = None
        self._task = asyncio.run_coroutine_threadsafe(self._begin(), loop).result()

    async def _begin(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._work())

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call in the task, and wait for it. An exception of a signal handler cancels it."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._todo.put_nowait, (make, done, contextvars.copy_context()))
        while True:
            try:
                return done.result()
            except BaseException:
                if done.done():
                    raise
                self._loop.call_soon_threadsafe(self._cancel, done)
                done.exception()
                raise

    def end(self) -> None:
        """End the task."""
        try:
            self._loop.call_soon_threadsafe(self._todo.put_nowait, None)
        except RuntimeError:  # the loop is over
            pass

    def _cancel(self, what: Future[Any]) -> None:
        if self._now is what:
            self._task.cancel()

    async def _work(self) -> None:
        while (todo := await self._todo.get()) is not None:
            make, done, context = todo
            for variable in context:
                variable.set(context[variable])
            self._now = done
            try:
                tell = partial(done.set_result, await make())
            except BaseException as error:
                self._task.uncancel()
                tell = partial(done.set_exception, _plain(error))
            self._now = None
            # First: the caller may drop a client next, and the call may hold the last reference to it.
            del todo, make, done, context
            tell()
            del tell


def _plain(error: BaseException) -> BaseException:
    """A cancellation of asyncio, which a thread must not take for its own."""
    return RuntimeError("cancelled") if isinstance(error, asyncio.CancelledError) else error


class _Loop:
    """One event loop in a thread, and the task of each thread that calls."""

    def __init__(self) -> None:
        self.origin = this_origin()
        self._loop = asyncio.new_event_loop()
        self._own = threading.local()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kit-loop", daemon=True)
        self._thread.start()
        Finalize(None, self._end, exitpriority=0)

    def _end(self) -> None:
        """End the loop with its process, or a child of multiprocessing would keep the holds of the tasks."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call in the task of this thread."""
        own = getattr(self._own, "actor", None)
        if own is None:
            actor = self._own.actor = _Actor(self._loop)
            # Not at exit: CPython crashes over a task of a stopped loop whose queue has something for it.
            weakref.finalize(threading.current_thread(), actor.end).atexit = False
            own = actor
        return cast("_Actor", own).call(make)


_loops: list[_Loop] = []


def _call(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if not _loops or not _loops[-1].origin.is_here():
        _loops[:] = [_Loop()]
    return _loops[-1].call(make)


class _Lease:
    """A lease of the asyncio face, with the calls of the synchronous one."""

    def __init__(self, lease: AsyncLease) -> None:
        self._lease = lease

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lease, name)

    def __reduce__(self) -> Any:
        return self._lease.__reduce__()

    def confirm(self) -> None:
        _call(self._lease.confirm)

    def extend(self, ttl: float) -> None:
        _call(lambda: self._lease.extend(ttl))

    def simulate_loss(self) -> None:
        _call(self._lease.simulate_loss)

    def detach(self) -> _Lease:
        self._lease.detach()
        return self

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReport:
        return _call(lambda: self._lease.release(reason, raise_failed=raise_failed))

    @property
    def lost(self) -> threading.Event:
        return self._lease._hold.lost  # noqa: SLF001 (scenarios wait for it in a thread)

    @property
    def release_requested(self) -> threading.Event:
        return self._lease._hold.asked.event  # noqa: SLF001 (as above)

    def __enter__(self) -> _Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _call(lambda: self._lease.leave(None, kind, error, traceback))


class _Lock:
    """A lock of the asyncio face, with the calls of the synchronous one."""

    def __init__(self, lock: AsyncLock) -> None:
        self._lock = lock

    @property
    def inner(self) -> AsyncLock:
        return self._lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    @property
    def tokens(self) -> Callable[[], str] | None:
        return self._lock.tokens

    @tokens.setter
    def tokens(self, tokens: Callable[[], str] | None) -> None:
        self._lock.tokens = tokens

    def acquire(self, *args: Any, **keywords: Any) -> Lease:
        acquiring = self._lock.acquire(*args, **keywords)  # here, where the caller's place is seen
        return cast("Lease", _Lease(_call(lambda: acquiring)))

    def try_acquire(
        self, *, note: Mapping[str, object] | None = None, reason: str | None = None
    ) -> Lease | None:
        trying = self._lock.try_acquire(note=note, reason=reason)
        lease = _call(lambda: trying)
        return None if lease is None else cast("Lease", _Lease(lease))

    def available(self) -> int:
        return _call(self._lock.available)

    def held(self) -> bool:
        async def own() -> bool:
            return self._lock.held()  # asked by the task that has taken it

        return _call(own)

    @property
    def lease(self) -> Lease:
        async def own() -> AsyncLease:
            return self._lock.lease

        return cast("Lease", _Lease(_call(own)))

    def __enter__(self) -> _Lock:
        _call(self._lock.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        _call(lambda: self._lock._leave(None, *error))  # noqa: SLF001 (as a call by hand)


class _Several:
    """Locks of the asyncio face that are taken together, with the calls of the synchronous ones."""

    def __init__(self, several: AsyncAllOf | AsyncPool) -> None:
        self._several = several

    def acquire(self, *args: Any, **keywords: Any) -> Any:
        acquiring = self._several.acquire(*args, **keywords)
        return _Leases(_call(lambda: cast("Coroutine[Any, Any, Any]", acquiring)))

    def try_acquire(self, *args: Any, **keywords: Any) -> Any:
        trying = self._several.try_acquire(*args, **keywords)
        leases = _call(lambda: cast("Coroutine[Any, Any, Any]", trying))
        return None if leases is None else _Leases(leases)


class _Leases:
    """Leases of the asyncio face on several locks, with the calls of the synchronous ones."""

    def __init__(self, leases: Any) -> None:
        self._leases = leases

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)

    def __len__(self) -> int:
        return len(self._leases)

    def __getitem__(self, index: int) -> Lease:
        return cast("Lease", _Lease(self._leases[index]))

    def release(self) -> Any:
        return _call(self._leases.release)

    def __enter__(self) -> _Leases:
        return self

    def __exit__(self, *error: Any) -> None:
        _call(lambda: self._leases.__aexit__(*error))


class ThroughAsyncio(Client):
    """A client whose locks are those of the asyncio face.

    Args:
        client: A client that has not been used.
    """

    def __init__(self, client: Client) -> None:
        Operations.__init__(self, client._opening)  # noqa: SLF001 (the other face of it)
        self._face = AsyncClient(client)

    def lock(self, name: str, **options: Any) -> Lock:
        """See :meth:`lockkit.Client.lock`."""
        return cast("Lock", _Lock(self._face.lock(name, **options)))

    def semaphore(self, name: str, capacity: int, *, permits: int = 1, **options: Any) -> Lock:
        """See :meth:`lockkit.Client.semaphore`."""
        return cast("Lock", _Lock(self._face.semaphore(name, capacity, permits=permits, **options)))

    def rwlock(self, name: str, **options: Any) -> RWLock:
        """See :meth:`lockkit.Client.rwlock`."""
        both = self._face.rwlock(name, **options)
        return RWLock(cast("Lock", _Lock(both.read())), cast("Lock", _Lock(both.write())))

    def all_of(self, locks: Iterable[Lock], **options: Any) -> AllOf:
        """See :meth:`lockkit.Client.all_of`."""
        inner = [cast("_Lock", lock).inner for lock in locks]
        return cast("AllOf", _Several(self._face.all_of(inner, **options)))

    def pool(
        self, name: str, members: Iterable[str] | Mapping[str, int] | None = None, **options: Any
    ) -> Pool:
        """See :meth:`lockkit.Client.pool`."""
        return cast("Pool", _Several(self._face.pool(name, members, **options)))

    def inspect(self, name: str) -> LockInfo:
        """See :meth:`lockkit.Client.inspect`."""
        return _call(lambda: self._face.inspect(name))

    def names(self, prefix: str = "", *, pattern: str | None = None, deep: bool = False) -> list[str]:
        """See :meth:`lockkit.Client.names`."""
        return _call(lambda: self._face.names(prefix, pattern=pattern, deep=deep))

    def evict(self, name: str, claim_id: str, *, reason: str, now: bool = False) -> Evicted:
        """See :meth:`lockkit.Client.evict`."""
        return _call(lambda: self._face.evict(name, claim_id, reason=reason, now=now))

    def ask_release(self, name: str, claim_id: str, reason: str) -> ReleaseRequest:
        """See :meth:`lockkit.Client.ask_release`."""
        return _call(lambda: self._face.ask_release(name, claim_id, reason))

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object]) -> bool:
        """See :meth:`lockkit.Client.annotate`."""
        return _call(lambda: self._face.annotate(name, claim_id, patch))

    def resize(self, name: str, capacity: int) -> int:
        """See :meth:`lockkit.Client.resize`."""
        return _call(lambda: self._face.resize(name, capacity))

    def drain(self, reason: str = "") -> Drain:
        """See :meth:`lockkit.Client.drain`."""
        return _call(lambda: self._face.drain(reason))

    def undrain(self) -> Drain | None:
        """See :meth:`lockkit.Client.undrain`."""
        return _call(self._face.undrain)

    def drained(self, namespace: str | None = None) -> Drain | None:
        """See :meth:`lockkit.Client.drained`."""
        return _call(lambda: self._face.drained(namespace))

    def close(self) -> None:
        """See :meth:`lockkit.Client.close`."""
        _call(self._face.close)
