"""The names of the GPU lock that lockkit replaces, for tasks that are written for it: ``gpu_lock`` and ``release_lock``.

A key ``gpu_lock:N`` stands for card N of this host, and its lock is that of the card in :func:`lockkit.gpu.pool`. So tasks with the old names and
those with the new ones never share a card.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import warnings
from asyncio import CancelledError
from asyncio import sleep as async_sleep
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from lockkit import durations
from lockkit.choosers import EVERY
from lockkit.client import Client, connect
from lockkit.clock import SYSTEM
from lockkit.decorator import check_function, refuse_what_is_not_done
from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.gpu.numbered import FoundCard, NumberedCards
from lockkit.lease import Lease
from lockkit.loops import is_coroutine_function
from lockkit.mutex import Mutex
from lockkit.namedtuples import NamedTuple
from lockkit.printable import printable
from lockkit.shared.locks import checked_timeout

if TYPE_CHECKING:
    from lockkit.aio.client import AsyncClient
    from lockkit.aio.lease import AsyncLease
    from lockkit.facts import ClaimInfo, Reason

__all__ = ["REASONS", "default_client", "gpu_lock", "release_lock"]

P = ParamSpec("P")
R = TypeVar("R")
REASONS = ("normal", "timeout", "forced", "task_failure", "task_crash")
"""The reasons that the old lock had. Any other text is kept as well."""
_KEYS = "gpu_lock:"
_WAIT = 300.0
"""Seconds to wait in all where neither the task nor the configuration says it: the old default."""
_log = logging.getLogger("lockkit")


# -- the client of tasks that name none


class _Default:
    """The client that is made from the configuration when a task first needs it."""

    def __init__(self) -> None:
        self._mutex = Mutex()
        self._cards: NumberedCards | None = None

    def cards(self) -> NumberedCards:
        cards = self._cards
        if cards is None or cards.client._opening.closed:  # noqa: SLF001
            with self._mutex.of_this_process():
                cards = self._cards
                if cards is None or cards.client._opening.closed:  # noqa: SLF001
                    cards = self._cards = NumberedCards(connect())
        return cards


_default = _Default()


def default_client() -> Client:
    """The client that :func:`gpu_lock` and :func:`release_lock` use if they are given none.

    The first call makes it, from the configuration; the store is opened when a task first takes a card. A forked child goes on with it as with any
    :class:`~lockkit.Client`. If it was closed, the next call makes another one.

    Raises:
        ConfigError, PluginError: As :func:`lockkit.connect`.
    """
    return _default.cards().client


def _cards_of(client: Client | AsyncClient | None) -> Callable[[], NumberedCards]:
    if client is None:
        return _default.cards
    given = NumberedCards(client) if isinstance(client, Client) else NumberedCards(client._client, client)  # noqa: SLF001
    return lambda: given


# -- what this thread or task holds


class _Run(NamedTuple):
    """One run of a task that holds, or has held, the lock of a key.

    Attributes:
        key: The key.
        names: The names by which its task is known.
        lease: The lease of the run.
        pid: The process of the run.
        client: The client of the lease.
    """

    key: str
    names: tuple[str, ...]
    lease: Lease | AsyncLease
    pid: int
    client: Client


_runs: ContextVar[tuple[_Run, ...]] = ContextVar("lockkit_gpu_runs", default=())
"""The last run of each key in this thread or asyncio task. A run that has ended stays, so that a second release of it is known as such."""


def _forget(key: str) -> None:
    _runs.set(tuple(run for run in _runs.get() if run.key != key))


class _Task:
    """A function under ``@gpu_lock``: what its calls have in common.

    Args:
        function: The function.
        key: The key.
        ttl: Seconds that the store keeps the card without a renewal; None for as long as configured.
        wait: Seconds to wait in all; None for as long as configured.
        cards: Gives the cards; called at the first call of the function.
    """

    def __init__(
        self,
        function: Callable[..., object],
        key: str,
        ttl: float | None,
        wait: float | None,
        cards: Callable[[], NumberedCards],
    ) -> None:
        self.key, self.ttl, self._wait = key, ttl, wait
        self._cards = cards
        self._names = (function.__name__, f"{function.__module__}.{function.__qualname__}")

    def begin(self, args: tuple[object, ...]) -> _Call:
        """Begin a call. May read the configuration."""
        _forget(self.key)
        # A bound Celery task comes as the first argument, and its name is that of the task.
        bound = getattr(args[0], "name", None) if args else None
        names = (bound, *self._names) if isinstance(bound, str) and bound else self._names
        cards = self._cards()
        wait = self._wait
        if wait is None:
            wait = cards.client.config.timeout
        return _Call(self, cards, names, _WAIT if wait is None else wait)


class _Call:
    """One call of a function under ``@gpu_lock``."""

    def __init__(self, task: _Task, cards: NumberedCards, names: tuple[str, ...], wait: float) -> None:
        self._task = task
        self.cards = cards
        self._names = names
        self._began = SYSTEM.now()
        self._wait = wait
        self.reason = printable(names[0])[:200]

    @property
    def left(self) -> float:
        """Seconds that are left to wait."""
        return max(0.0, self._began + self._wait - SYSTEM.now())

    @property
    def word(self) -> str:
        """The card, as the key has it."""
        return self._task.key.removeprefix(_KEYS)

    def holds(self, card: FoundCard, lease: Lease | AsyncLease) -> None:
        """Note that the call holds the card."""
        self.cards.taken(card, lease)
        run = _Run(self._task.key, self._names, lease, os.getpid(), self.cards.client)
        _runs.set((*_runs.get(), run))

    def pause(self, refused: str) -> float:
        """Seconds to wait before a card that was refused is asked for again.

        Raises:
            AcquireTimeout: There is no time left.
        """
        if self.left <= 0.0:
            raise self._late(f"the card is given to nobody: {refused}", None, "see: lockkit gpu ls")
        return min(EVERY, self.left)

    def expired(self, late: AcquireTimeout) -> AcquireTimeout:
        """The error of a call whose time is up."""
        return self._late(late.message, late.holder, late.hint)

    def _late(self, why: str, holder: ClaimInfo | None, hint: str | None) -> AcquireTimeout:
        return AcquireTimeout(
            f"GPU_LOCK_TIMEOUT: {self._names[0]} did not get {self._task.key}: {why}",
            name=self._task.key,
            holder=holder,
            hint=hint,
        )


# -- the old names


def gpu_lock(
    lock_key: str = "gpu_lock:0",
    timeout: float | None = None,
    poll_interval: object = None,
    max_wait_time: float | None = None,
    event_driven: object = None,
    fallback_timeout: object = None,
    *,
    client: Client | AsyncClient | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, or a coroutine function, so that each call holds a whole card of this host: the old name.

        @app.task(bind=True)
        @gpu_lock(max_wait_time=600)
        def transcribe(self, path): ...

    The card is the one that :func:`lockkit.gpu.pool` calls by the same index, so nobody else holds it, or a part of it, meanwhile. Programs that take
    no lock are not kept out, and may compute on the card: so may this program itself, between its calls.

    The call raises, and the function does not run, if the card is not held. A function that raises releases the card with the reason
    ``task_failure``; one that returns after its lock was lost raises :class:`~lockkit.errors.LeaseLost`.

    Args:
        lock_key: ``gpu_lock:N``, for the card with index N as ``lockkit gpu ls`` has it, or with its UUID for N.
        timeout: The ttl: seconds for which the store keeps the card if this process stops renewing it, as far as the store has such a ttl; by default
            as configured. The hold of a process that lives has no limit.
        poll_interval: Without effect; so are the other two about polling. A DeprecationWarning says so.
        max_wait_time: Seconds to wait in all, 0 not to wait; by default the ``timeout`` of the configuration, or 300 s if that is for ever.
        event_driven: Without effect.
        fallback_timeout: Without effect.
        client: A client; None for :func:`default_client`, which is made at the first call.

    Raises:
        ConfigError: At decoration, if an argument is wrong or the function would return before its work is done. At a call, if there is no such card,
            the program does not see it (``CUDA_VISIBLE_DEVICES``), or CUDA may give its number to another one.
        AcquireTimeout: At a call, when the time is up; the text begins with ``GPU_LOCK_TIMEOUT``.
        DeadlockDetected: At a call, if this thread or task holds the card already, and would wait for itself.
        DevicesUnavailable, AcquireError, BackendError: At a call, as :meth:`lockkit.gpu.GpuPool.acquire`.
    """
    key = _checked_key(lock_key)
    ttl = None if timeout is None else durations.seconds(timeout, what="timeout")
    wait = checked_timeout(max_wait_time)
    polling = {
        "poll_interval": poll_interval,
        "event_driven": event_driven,
        "fallback_timeout": fallback_timeout,
    }
    given = ", ".join(name for name, value in polling.items() if value is not None)
    if given:
        warnings.warn(
            f"gpu_lock: without effect, since waiters are woken: {given}", DeprecationWarning, stacklevel=2
        )
    cards = _cards_of(client)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        check_function(function)
        task = _Task(function, key, ttl, wait, cards)
        if is_coroutine_function(function):
            return cast(
                "Callable[P, R]", _for_coroutines(cast("Callable[..., Awaitable[Any]]", function), task)
            )
        return _for_functions(function, task)

    return decorate


def _for_functions(function: Callable[P, R], task: _Task) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        this = task.begin(args)
        while True:
            try:
                card = this.cards.find(this.word, this.left)
                mine = this.cards.around(card, this.left)
                if mine:
                    this.cards.refuse_own(card, mine)
                lock = this.cards.lock(card, task.ttl)
                lease = lock.acquire(this.left, reason=this.reason)
            except AcquireTimeout as late:
                raise this.expired(late) from late
            with lease:
                refused = card.refused()
                if refused is None:
                    this.holds(card, lease)
                    try:
                        result = function(*args, **keywords)
                        refuse_what_is_not_done(result, function.__qualname__, task.key)
                    except BaseException:
                        lease.release("task_failure")
                        raise
                    return result
            this.cards.given_up(card)
            time.sleep(this.pause(refused))

    return call


def _for_coroutines(function: Callable[P, Awaitable[R]], task: _Task) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def call(*args: P.args, **keywords: P.kwargs) -> R:
        this = task.begin(args)
        while True:
            try:
                card = await this.cards.aio_find(this.word, this.left)
                mine = this.cards.around(card, this.left)
                if mine:
                    await this.cards.aio_refuse_own(card, mine)
                lock = this.cards.aio_lock(card, task.ttl)
                lease = await lock.acquire(this.left, reason=this.reason)
            except AcquireTimeout as late:
                raise this.expired(late) from late
            async with lease:
                refused = await this.cards.aio_refused(card)
                if refused is None:
                    this.holds(card, lease)
                    try:
                        result = await function(*args, **keywords)
                        refuse_what_is_not_done(result, function.__qualname__, task.key)
                    except (Exception, CancelledError):
                        await lease.release("task_failure")
                        raise
                    return result
            this.cards.given_up(card)
            await async_sleep(this.pause(refused))

    return call


def release_lock(
    task_name: str,
    lock_key: str,
    release_reason: Reason = "normal",
    *,
    client: Client | AsyncClient | None = None,
) -> bool:
    """Release the card that the present run of a task holds: the old name. For a task that ends early, and for its failure hook.

    The run is the one in the calling thread or asyncio task, or in the one that started it with a copy of its context
    (:func:`asyncio.to_thread`). Runs in other threads and processes are at work, and are not released by the name of their task, whatever the reason: to
    end one, name its claim (``lockkit evict``). In a coroutine the event loop stands still until the release is over.

    A second release changes nothing, and neither does one after the run has ended: the card was released then. Never raises because of the store.

    Args:
        task_name: The name of the task: of the function, with or without its module, or of the Celery task.
        lock_key: The key, as ``gpu_lock`` has it.
        release_reason: ``normal``, ``timeout``, ``forced``, ``task_failure``, ``task_crash``, or another text; kept in events, journal and metrics.
        client: A client, to release only what it holds; None for any.

    Returns:
        Whether the store has confirmed the release. If the run does not hold the key under this name, nothing is released, and the counter
        ``ownership_violations`` of the client rises by one.
    """
    wanted = None if client is None else _cards_of(client)().client
    for run in _runs.get():
        if (
            (run.key, run.pid) == (lock_key, os.getpid())
            and task_name in run.names
            and wanted in (None, run.client)
        ):
            lease = run.lease
            report = (
                lease.release(release_reason)
                if isinstance(lease, Lease)
                else lease.release_now(release_reason)
            )
            return report.released
    owner = default_client() if wanted is None else wanted
    owner._opening.counters.add("ownership_violations")  # noqa: SLF001
    _log.warning(
        "%s",
        printable(f"{task_name} holds no lock of {lock_key} here, so nothing is released ({release_reason})"),
    )
    return False


def _checked_key(key: object) -> str:
    """Check a key, without any I/O.

    Raises:
        ConfigError: No card can be meant.
    """
    if callable(key):
        raise ConfigError("gpu_lock needs parentheses, as it always did", hint="@gpu_lock()")
    if not isinstance(key, str) or not key.startswith(_KEYS) or not key.removeprefix(_KEYS):
        raise ConfigError(
            f"lock_key must name a GPU of this host, as in 'gpu_lock:0', not {key!r}",
            hint="for a lock on anything else: client.lock(name)",
        )
    return key
