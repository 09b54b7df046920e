"""The mistakes that ``lockkit doctor --celery`` looks for, and those for which a task is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lockkit.errors import ConfigError
from lockkit.facts import Finding
from lockkit.integrations.celery import mistakes
from lockkit.integrations.celery.app_facts import LockedFacts, Row, Setup

__all__ = ["ROWS", "findings_of", "refuse"]

_VISIBILITY = "broker_transport_options['visibility_timeout']"
_NO_LIMIT = "set time_limit= (or task_time_limit)"

ROWS: tuple[Row, ...] = (
    Row(
        "pool",
        "error",
        "the gevent or the eventlet pool",
        "set worker_pool to prefork or threads (--pool)",
        mistakes.green,
    ),
    Row(
        "options",
        "error",
        "options that no lock fits with this configuration: a pool that is not in it, too few members, "
        "`min_hold` above `max_hold`",
        "correct the options of the task, or the configuration of lockkit",
        mistakes.refused,
    ),
    Row(
        "processes",
        "error",
        "a store whose locks are those of one process (`memory:`), in a pool of processes",
        "set lockkit_url (or LOCKKIT_URL) to a store that all workers reach, "
        "or to sqlite: if all run on one host",
        mistakes.each_process,
    ),
    Row(
        "store",
        "warning",
        "a broker that other hosts reach, and locks in an embedded store",
        "set lockkit_url (or LOCKKIT_URL) to a store that all workers reach, unless all run on one host",
        mistakes.each_host,
    ),
    Row(
        "ttl",
        "error",
        "`ttl` above the visibility timeout",
        f"lower ttl=, or raise {_VISIBILITY}",
        mistakes.ttl,
    ),
    Row(
        "own-countdown",
        "warning",
        "the pause between the task's own retries not below the visibility timeout",
        f"lower default_retry_delay or retry_backoff_max, or raise {_VISIBILITY}",
        mistakes.own_countdown,
    ),
    Row(
        "time-limit",
        "error",
        "a time limit above `max_hold`",
        "set time_limit= and soft_time_limit= to at most max_hold=, or raise max_hold=",
        mistakes.limit_above_hold,
    ),
    Row(
        "no-time-limit",
        "warning",
        "`max_hold` without a time limit that the pool enforces",
        f"{_NO_LIMIT} in a prefork pool, or let the function ask self.lease.valid()",
        mistakes.no_limit,
    ),
    Row(
        "soft-time-limit",
        "warning",
        "a soft time limit not below the hard one",
        "set soft_time_limit= (or task_soft_time_limit) some seconds below time_limit=",
        mistakes.soft_limit,
    ),
    Row(
        "unenforced",
        "warning",
        "a time limit in a pool that enforces none",
        "set worker_pool to prefork (--pool), or remove the limit",
        mistakes.unenforced,
    ),
    Row(
        "solo",
        "error",
        '`on_busy="wait"` in the solo pool',
        'set on_busy="retry", or worker_pool to prefork (--pool)',
        mistakes.solo,
    ),
    Row(
        "one-slot",
        "warning",
        '`on_busy="wait"` in a worker with a concurrency of 1',
        'set on_busy="retry", or raise worker_concurrency (--concurrency)',
        mistakes.one_slot,
    ),
    Row(
        "prefetch",
        "warning",
        '`on_busy="wait"` and more than one message reserved for each process',
        'set worker_prefetch_multiplier to 1, or on_busy="retry"',
        mistakes.prefetch,
    ),
    Row(
        "wait-limit",
        "error",
        '`on_busy="wait"` and a `max_wait` not below the time limit',
        "lower max_wait=, or raise time_limit= and soft_time_limit=",
        mistakes.wait_above_limit,
    ),
    Row(
        "wait-early",
        "warning",
        '`on_busy="wait"` without `acks_late`',
        'set acks_late=True (or task_acks_late), or on_busy="retry"',
        mistakes.wait_early,
    ),
    Row(
        "max-wait",
        "warning",
        "`max_wait` below `ttl`",
        "raise max_wait= to at least ttl=, or lower ttl=",
        mistakes.wait_below_ttl,
    ),
    Row(
        "expires",
        "warning",
        "`expires` below `max_wait`",
        "raise expires=, or lower max_wait=",
        mistakes.expires,
    ),
    Row(
        "delivered-twice",
        "warning",
        "late acknowledgement, and runs longer than the visibility timeout",
        f"set time_limit= below the visibility timeout, or raise {_VISIBILITY}; "
        "hand the fence to what is written to",
        mistakes.delivered_twice,
    ),
    Row(
        "reserved",
        "warning",
        "messages reserved for longer than the visibility timeout",
        f"lower worker_prefetch_multiplier, or raise {_VISIBILITY}",
        mistakes.reserved_too_long,
    ),
    Row(
        "lost",
        "warning",
        '`reject_on_worker_lost`, and a copy of a message is dropped (`on_duplicate="skip"`)',
        "leave out on_duplicate=",
        mistakes.lost_and_dropped,
    ),
    Row(
        "timed-out",
        "warning",
        '`acks_on_timeout` false, and a copy of a message is dropped (`on_duplicate="skip"`)',
        "leave out on_duplicate=",
        mistakes.timed_out_and_dropped,
    ),
    Row(
        "early",
        "warning",
        "`reject_on_worker_lost`, or `acks_on_timeout` false, without `acks_late`",
        "set acks_late=True (or task_acks_late), or remove the setting",
        mistakes.early,
    ),
    Row(
        "unlocked",
        "warning",
        '`on_unavailable="run"`',
        'set on_unavailable="retry", unless two runs at once do no harm',
        mistakes.unlocked,
    ),
    Row(
        "unseen",
        "ok",
        '`on_busy="skip"` and no result',
        "set result_backend and ignore_result=False to see what was skipped, and who held the lock",
        mistakes.unseen,
    ),
)
"""All mistakes, the most general first."""


def findings_of(setup: Setup, tasks: Iterable[LockedFacts]) -> Iterator[Finding]:
    """A finding for each mistake of each task, in the order of the table."""
    listed = list(tasks)
    for row in ROWS:
        for task in listed:
            told = row.found(setup, task)
            if told is not None:
                yield Finding(f"celery-{row.name}", row.severity, f"task {task.task} {told}", row.change)


def refuse(setup: Setup, task: LockedFacts, *names: str) -> None:
    """Refuse a task that makes one of these mistakes.

    Raises:
        ConfigError: The task makes it. The error says what to change.
    """
    for row in ROWS:
        if row.name in names:
            told = row.found(setup, task)
            if told is not None:
                raise ConfigError(f"task {task.task} {told}", hint=row.change)
