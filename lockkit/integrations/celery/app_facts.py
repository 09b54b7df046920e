"""The facts of a Celery app and its locked tasks, for :mod:`lockkit.integrations.celery.checks`."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.facts import Scope, Severity
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["LockedFacts", "Row", "Setup"]


class Setup(NamedTuple):
    """The facts of one app's configuration.

    Attributes:
        visibility_timeout: Seconds until the broker redelivers an unacknowledged message; None for never.
        pool: The name of the pool, as ``worker_pool`` has it.
        concurrency: The configured number of tasks that a worker runs at once; None: one for each processor.
        prefetch: ``worker_prefetch_multiplier``; 0 for no limit.
        results: Whether there is a result backend.
        shared_broker: Whether workers on other hosts can reach the broker.
        store: The store of the locks, for people.
        reach: How far its locks reach; ``fleet`` for a store that all hosts share.
    """

    visibility_timeout: float | None = 3600.0
    pool: str = "prefork"
    concurrency: int | None = None
    prefetch: int = 4
    results: bool = True
    shared_broker: bool = False
    store: str = ""
    reach: Scope = "fleet"


class LockedFacts(NamedTuple):
    """The facts of one task that takes a lock. Durations are in seconds; None means that there is no limit.

    Attributes:
        refused: Why the lock can never be taken, as lockkit itself says; None if it can.
        own_countdown: The longest pause between two of the task's own retries, if it declares retries.
    """

    task: str
    ttl: float = 60.0
    on_busy: str = "retry"
    max_wait: float | None = None
    max_hold: float | None = None
    on_duplicate: str | None = None
    on_unavailable: str = "retry"
    own_countdown: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    expires: float | None = None
    acks_late: bool = False
    acks_on_timeout: bool = True
    reject_on_worker_lost: bool = False
    ignore_result: bool = False
    refused: str | None = None


class Row(NamedTuple):
    """One row of the table of checks.

    Attributes:
        name: The name of the mistake; the finding is called ``celery-NAME``.
        mistake: The mismatch, for the reference.
        change: The setting to change, for the finding and the reference.
        found: Returns a task's mistake, as a clause that follows its name, or None.
    """

    name: str
    severity: Severity
    mistake: str
    change: str
    found: Callable[[Setup, LockedFacts], str | None]
