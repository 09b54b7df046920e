"""The names of the GPU lock that lockkit replaces, for old tasks: ``gpu_lock`` and ``release_lock``.

A key ``gpu_lock:N`` means card N of this host, and its lock is that of the card in :func:`lockkit.gpu.pool`.
So tasks with the old names and those with the new ones never share a card.
"""

from __future__ import annotations

import functools
import logging
import time
import warnings
from asyncio import CancelledError
from asyncio import sleep as async_sleep
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from lockkit.errors import AcquireTimeout, ConfigError, LockkitError
from lockkit.gpu.numbered import NumberedCards
from lockkit.gpu.task_runs import KEYS, Task, find_run
from lockkit.lib.loops import is_coroutine_function
from lockkit.lib.mutex import Mutex
from lockkit.lib.printable import printable
from lockkit.shared.options import checked_timeout
from lockkit.sync.client import Client, connect
from lockkit.sync.decorator import check_function, refuse_what_is_not_done
from lockkit.sync.lease import Lease
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.aio.client import AsyncClient
    from lockkit.facts import Reason

__all__ = ["REASONS", "default_client", "gpu_lock", "release_lock"]

P = ParamSpec("P")
R = TypeVar("R")
REASONS = ("normal", "timeout", "forced", "task_failure", "task_crash")
"""The reasons that the old lock had. No other one is accepted, because a metric has them as a label."""
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

    The first call makes it, from the configuration; the store is opened when a task first takes a card. A
    forked child uses it as any :class:`~lockkit.Client`. If it was closed, the next call makes another one.

    Raises:
        ConfigError, PluginError: As :func:`lockkit.connect`.
    """
    return _default.cards().client


def _cards_of(client: Client | AsyncClient | None) -> Callable[[], NumberedCards]:
    if client is None:
        return _default.cards
    if isinstance(client, Client):
        given = NumberedCards(client)
    else:
        from lockkit.aio.client import AsyncClient  # late: many programs have no event loop

        if not isinstance(client, AsyncClient):
            raise ConfigError(f"client must be a client of lockkit, not {client!r}", hint="lockkit.connect()")
        given = NumberedCards(client._client, client)  # noqa: SLF001
    return lambda: given


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
    """Decorate a function or coroutine function: each call holds a whole card of this host. The old name.

        @app.task(bind=True)
        @gpu_lock(max_wait_time=600)
        def transcribe(self, path): ...

    The card is the one with this index in :func:`lockkit.gpu.pool`, so no other request holds it or a part of
    it. But programs that take no lock may compute on the card: so may this program itself, between its calls.

    The call raises, and the function does not run, if the card is not held. A function that raises releases
    it as ``task_failure``; one that returns after the lock was lost raises
    :class:`~lockkit.errors.LeaseLost`.

    Args:
        lock_key: ``gpu_lock:N``, for the card with index N in ``lockkit gpu ls``, or with its UUID for N.
        timeout: The ttl: seconds for which the store keeps the card, as far as it can, if this process stops
            renewing it; by default as configured. The hold of a process that lives has no limit.
        poll_interval: Without effect; so are the other two about polling. A DeprecationWarning says so.
        max_wait_time: Seconds to wait in all, 0 not to wait; by default the ``timeout`` of the configuration,
            or 300 s if that is for ever.
        event_driven: Without effect.
        fallback_timeout: Without effect.
        client: A client; None for :func:`default_client`, which is made at the first call.

    Raises:
        ConfigError: At decoration, if an argument is wrong or the function would return before its work is
            done. At a call, if the card does not exist or is hidden (``CUDA_VISIBLE_DEVICES``), or CUDA may
            renumber it.
        AcquireTimeout: At a call, when the time is up; the text begins with ``GPU_LOCK_TIMEOUT``.
        DeadlockDetected: At a call, if this thread or task holds the card already, and would wait for itself.
        DevicesUnavailable, AcquireError, BackendError: At a call, as :meth:`lockkit.gpu.GpuPool.acquire`.
    """
    key = _checked_key(lock_key)
    ttl = None if timeout is None else durations.seconds(timeout, what="timeout")
    wait = checked_timeout(max_wait_time, "max_wait_time")
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
        task = Task(function, key, ttl, wait, cards)
        if is_coroutine_function(function):
            return cast(
                "Callable[P, R]", _for_coroutines(cast("Callable[..., Awaitable[Any]]", function), task)
            )
        return _for_functions(function, task)

    return decorate


def _for_functions(function: Callable[P, R], task: Task) -> Callable[P, R]:
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


def _for_coroutines(function: Callable[P, Awaitable[R]], task: Task) -> Callable[P, Awaitable[R]]:
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
    """Release the card that the present run of a task holds, early or after a failure: the old name.

    The run is the one in the calling thread or asyncio task, or in the one that started it with a copy of its
    context (:func:`asyncio.to_thread`). Runs in other threads and processes are at work, and not released by
    their task's name: to end one, name its claim (``lockkit evict``). A coroutine blocks its event loop
    during the release.

    A second release changes nothing, and neither does one after the run has ended: the card was released
    then. Never raises because of the store or of the configuration.

    Args:
        task_name: The name of the task: of the function, with or without its module, or of the Celery task;
            or the id of the Celery task that runs, as a failure hook has it.
        lock_key: The key, as ``gpu_lock`` has it.
        release_reason: ``normal``, ``timeout``, ``forced``, ``task_failure`` or ``task_crash``; kept in
            events, journal and metrics.
        client: A client, to release only what it holds; None for any.

    Returns:
        Whether the store has confirmed the release. If the run does not hold the key under this name, nothing
        is released, and the counter ``ownership_violations`` of the client rises by one.

    Raises:
        ConfigError: The reason is none of these. Nothing is released.
    """
    if release_reason not in REASONS:
        raise ConfigError(
            f"release_reason must be one of {', '.join(REASONS)}, not {release_reason!r}",
            hint='for another reason: the lease of client.lock() or lockkit.gpu.pool(), lease.release("...")',
        )
    wanted = None if client is None else _cards_of(client)().client
    run = find_run(task_name, lock_key, wanted)
    if run is not None:
        lease = run.lease
        ends = lease.release if isinstance(lease, Lease) else lease.release_now
        return ends(release_reason).released
    _log.warning(
        "%s",
        printable(f"{task_name} holds no lock of {lock_key} here, so nothing is released ({release_reason})"),
    )
    try:
        owner = default_client() if wanted is None else wanted
    except LockkitError as error:  # the task has raised it, and that is what its user must see
        _log.warning("the release is not counted: %s", printable(str(error)))
        return False
    owner._opening.counters.add("ownership_violations")  # noqa: SLF001
    return False


def _checked_key(key: object) -> str:
    """Check a key, without any I/O.

    Raises:
        ConfigError: No card can be meant.
    """
    if callable(key):
        raise ConfigError("gpu_lock needs parentheses, as it always did", hint="@gpu_lock()")
    if not isinstance(key, str) or not key.startswith(KEYS) or not key.removeprefix(KEYS):
        raise ConfigError(
            f"lock_key must name a GPU of this host, as in 'gpu_lock:0', not {key!r}",
            hint="for a lock on anything else: client.lock(name)",
        )
    return key
