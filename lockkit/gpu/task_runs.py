"""The runs of tasks with the old names: what a call under ``@gpu_lock`` knows, and which runs are current."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from lockkit.errors import AcquireTimeout
from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.origin import Origin, this_origin
from lockkit.lib.printable import printable
from lockkit.values.choosers import EVERY

if TYPE_CHECKING:
    from lockkit.aio.lease import AsyncLease
    from lockkit.facts import ClaimInfo
    from lockkit.gpu.numbered import FoundCard, NumberedCards
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["KEYS", "Call", "Run", "Task", "find_run"]

KEYS = "gpu_lock:"
"""The beginning of all keys."""
_WAIT = 300.0
"""Seconds to wait in all where neither the task nor the configuration says it: the old default."""


class Run(NamedTuple):
    """One run of a task that holds, or has held, the lock of a key.

    Attributes:
        key: The key.
        names: The names by which its task is known.
        task_id: The id of the Celery task that it runs in; empty outside of one.
        lease: The lease of the run.
        origin: The process of the run.
        client: The client of the lease.
    """

    key: str
    names: tuple[str, ...]
    task_id: str
    lease: Lease | AsyncLease
    origin: Origin
    client: Client


_runs: ContextVar[tuple[Run, ...]] = ContextVar("lockkit_gpu_runs", default=())
"""The last run of each task in this thread or asyncio task; ended ones stay, to know a second release."""


def find_run(task_name: str, key: str, client: Client | None) -> Run | None:
    """The run of a task in this thread or asyncio task; None if there is none.

    Args:
        task_name: One of the names of the task, or its id.
        key: The key.
        client: The client of its lease; None for any.
    """
    for run in reversed(_runs.get()):
        mine = run.key == key and run.origin.is_here() and client in (None, run.client)
        if mine and task_name and task_name in (*run.names, run.task_id):
            return run
    return None


def _forget(key: str, names: tuple[str, ...]) -> None:
    """Forget the last run of a task, unless it is under way: the task calls itself."""
    there = _runs.get()
    _runs.set(tuple(run for run in there if (run.key, run.names) != (key, names) or run.lease.report is None))


def _names_of(function: Callable[..., object], args: tuple[object, ...]) -> tuple[str, ...]:
    """The names of a task, the one to show first. A bound Celery task comes as the first argument."""
    names = (function.__name__, f"{function.__module__}.{function.__qualname__}")
    bound = args[0].name if args and hasattr(type(args[0]), "apply_async") else None  # type: ignore[attr-defined]
    return (bound, *names) if isinstance(bound, str) and bound else names


def _task_id() -> str:
    """The id of the Celery task that runs in this thread, if one does."""
    task = getattr(sys.modules.get("celery"), "current_task", None)
    return str(getattr(task.request, "id", None) or "") if task else ""


class Task:
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
        self._function = function

    def begin(self, args: tuple[object, ...]) -> Call:
        """Begin a call. May read the configuration."""
        names = _names_of(self._function, args)
        _forget(self.key, names)
        cards = self._cards()
        wait = self._wait
        if wait is None:
            wait = cards.client.config.timeout
        return Call(self, cards, names, _WAIT if wait is None else wait)


class Call:
    """One call of a function under ``@gpu_lock``."""

    def __init__(self, task: Task, cards: NumberedCards, names: tuple[str, ...], wait: float) -> None:
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
        return self._task.key.removeprefix(KEYS)

    def holds(self, card: FoundCard, lease: Lease | AsyncLease) -> None:
        """Note that the call holds the card."""
        self.cards.taken(card, lease)
        run = Run(self._task.key, self._names, _task_id(), lease, this_origin(), self.cards.client)
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
