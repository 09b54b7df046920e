"""The mistakes of Celery settings, a function each: a clause to follow the task's name, or None."""

from __future__ import annotations

from lockkit.integrations.celery.app_facts import LockedFacts, Setup
from lockkit.values.durations import show

__all__ = [
    "GREEN",
    "delivered_twice",
    "each_host",
    "each_process",
    "early",
    "expires",
    "green",
    "limit_above_hold",
    "lost_and_dropped",
    "no_limit",
    "one_slot",
    "own_countdown",
    "prefetch",
    "refused",
    "reserved_too_long",
    "soft_limit",
    "solo",
    "timed_out_and_dropped",
    "ttl",
    "unenforced",
    "unlocked",
    "unseen",
    "wait_above_limit",
    "wait_below_ttl",
    "wait_early",
]

GREEN = ("gevent", "eventlet")
"""The pools of greenlets."""
_LIMITLESS = ("solo", "threads")
"""The pools that end no task at its time limit."""


def _hard(setup: Setup, task: LockedFacts) -> float | None:
    """The time limit that the pool enforces. Celery starts it with the run, so it includes lock waits."""
    return None if setup.pool in _LIMITLESS else task.time_limit


def refused(_: Setup, task: LockedFacts) -> str | None:
    """No lock fits the options and the configuration."""
    return None if task.refused is None else f"can never take its lock: {task.refused}"


def each_process(setup: Setup, _: LockedFacts) -> str | None:
    """The processes of one pool share no locks."""
    if setup.reach != "process" or setup.pool != "prefork":
        return None
    return (
        f"takes its lock in {setup.store}, which keeps apart the threads of one process, in the prefork "
        "pool: each of its processes then locks for itself, and two of them run the task at once"
    )


def each_host(setup: Setup, _: LockedFacts) -> str | None:
    """Workers on several hosts share a broker and no locks."""
    if setup.reach == "fleet" or not setup.shared_broker:
        return None
    return (
        f"takes its lock in {setup.store}, and its messages come from a broker that workers on other hosts "
        "can reach: each host then locks for itself, and two of them run the task at once"
    )


def ttl(setup: Setup, task: LockedFacts) -> str | None:
    """The claim of a dead run outlives the time after which its message comes back."""
    after = setup.visibility_timeout
    if after is None or task.ttl <= after:
        return None
    return (
        f"has a ttl of {show(task.ttl)}, above the broker's visibility timeout of {show(after)}: "
        "a message that is delivered again after a crash still meets the lock of the run that crashed"
    )


def own_countdown(setup: Setup, task: LockedFacts) -> str | None:
    """A message that waits for a retry of the task's own is taken for lost."""
    after = setup.visibility_timeout
    if after is None or task.own_countdown is None or task.own_countdown < after:
        return None
    return (
        f"pauses up to {show(task.own_countdown)} between its own retries, not less than the broker's "
        f"visibility timeout of {show(after)}: the broker delivers a message that only waits a second time"
    )


def limit_above_hold(_: Setup, task: LockedFacts) -> str | None:
    """The lock goes to the next run while this one may still be at work."""
    limits = {"time_limit": task.time_limit or 0.0, "soft_time_limit": task.soft_time_limit or 0.0}
    name, limit = max(limits.items(), key=lambda pair: pair[1])
    if task.max_hold is None or limit <= task.max_hold:
        return None
    return (
        f"may run for its {name} of {show(limit)}, above its max_hold of {show(task.max_hold)}: "
        "the lock is given to the next task while it still runs"
    )


def no_limit(setup: Setup, task: LockedFacts) -> str | None:
    """No limit ends the run when its hold ends."""
    if task.max_hold is None or _hard(setup, task) is not None:
        return None
    return (
        f"has a max_hold of {show(task.max_hold)} and no time limit that ends it by then: "
        "it may go on without its lock"
    )


def soft_limit(_: Setup, task: LockedFacts) -> str | None:
    """The soft limit never comes first."""
    soft, hard = task.soft_time_limit, task.time_limit
    if soft is None or hard is None or soft < hard:
        return None
    return (
        f"has a soft time limit of {show(soft)}, not below its time limit of {show(hard)}: "
        "it is killed without the chance to release its lock"
    )


def unenforced(setup: Setup, task: LockedFacts) -> str | None:
    """A limit is declared that ends nothing."""
    if setup.pool not in _LIMITLESS or (task.time_limit is None and task.soft_time_limit is None):
        return None
    return f"has a time limit, and the {setup.pool} pool ends no task at its limit"


def green(setup: Setup, _: LockedFacts) -> str | None:
    """The heartbeat shares its thread with tasks that may not yield."""
    if setup.pool not in GREEN:
        return None
    return (
        f"takes a lock in the {setup.pool} pool, which lockkit does not support: "
        "a task that does not yield keeps all locks of its worker from being renewed"
    )


def solo(setup: Setup, task: LockedFacts) -> str | None:
    """The only thread of a worker waits."""
    if setup.pool != "solo" or task.on_busy != "wait":
        return None
    return "waits for a busy lock in the solo pool: meanwhile its worker runs nothing and answers nobody"


def one_slot(setup: Setup, task: LockedFacts) -> str | None:
    """The only place of a worker waits."""
    if setup.pool == "solo" or setup.concurrency != 1 or task.on_busy != "wait":
        return None
    return "waits for a busy lock in a worker that runs one task at a time: meanwhile it runs no other"


def prefetch(setup: Setup, task: LockedFacts) -> str | None:
    """Messages that others could run are kept by a worker that waits."""
    if task.on_busy != "wait" or setup.prefetch == 1:
        return None
    return (
        f"waits for a busy lock while its worker has {_reserved(setup)} reserved, "
        "which no other worker can run meanwhile"
    )


def _reserved(setup: Setup) -> str:
    return f"{setup.prefetch} messages for each process" if setup.prefetch else "any number of messages"


def wait_above_limit(_: Setup, task: LockedFacts) -> str | None:
    """A time limit ends tasks that only wait."""
    limits = [limit for limit in (task.soft_time_limit, task.time_limit) if limit is not None]
    if task.on_busy != "wait" or not limits or (task.max_wait is not None and task.max_wait < min(limits)):
        return None
    longest = "without end" if task.max_wait is None else f"up to {show(task.max_wait)}"
    return (
        f"waits {longest} for a busy lock, not less than its time limit of {show(min(limits))}: "
        "the limit ends it while it waits"
    )


def wait_early(_: Setup, task: LockedFacts) -> str | None:
    """The message of a task that waits is acknowledged already."""
    if task.on_busy != "wait" or task.acks_late:
        return None
    return (
        "waits for a busy lock without acks_late: its message is acknowledged before it waits, so a worker "
        "that is killed while the task waits loses it, though its function has not begun"
    )


def wait_below_ttl(_: Setup, task: LockedFacts) -> str | None:
    """Waiting tasks give up before the lock of a dead run lapses."""
    if task.on_busy not in ("retry", "wait") or task.max_wait is None or task.max_wait >= task.ttl:
        return None
    return (
        f"waits at most {show(task.max_wait)}, less than its ttl of {show(task.ttl)}: "
        "after a crash of the holder it gives up before the lock lapses"
    )


def expires(_: Setup, task: LockedFacts) -> str | None:
    """A message that waits for its lock expires."""
    if task.on_busy != "retry" or task.expires is None:
        return None
    if task.max_wait is not None and task.max_wait <= task.expires:
        return None
    return (
        f"expires after {show(task.expires)}, before its max_wait is over: "
        "Celery then drops a message that waits for the lock"
    )


def delivered_twice(setup: Setup, task: LockedFacts) -> str | None:
    """The message of a run that is at work is taken for lost."""
    after, longest = setup.visibility_timeout, _hard(setup, task)
    if after is None or not task.acks_late or (longest is not None and longest <= after):
        return None
    long = "without a time limit" if longest is None else f"for up to {show(longest)}"
    return (
        f"acknowledges late and may run {long}, above the broker's visibility timeout of {show(after)}: the "
        f"broker then delivers the message of a run that is still at work again, and the copy {_copy(task)}"
    )


def _copy(task: LockedFacts) -> str:
    """The fate of a second delivery of an unacknowledged message while the first one's run holds the lock."""
    return "is dropped" if task.on_duplicate == "skip" else "goes back to the queue until that run has ended"


def reserved_too_long(setup: Setup, task: LockedFacts) -> str | None:
    """Messages that a worker has reserved are taken for lost."""
    after, limit = setup.visibility_timeout, _hard(setup, task)
    if after is None or limit is None or setup.prefetch < 2 or setup.prefetch * limit <= after:
        return None
    return (
        f"may keep {_reserved(setup)} waiting for {show(setup.prefetch * limit)}, above the broker's "
        f"visibility timeout of {show(after)}: the broker delivers those that were not begun a second time"
    )


def lost_and_dropped(_: Setup, task: LockedFacts) -> str | None:
    """The copy that should do the work of a lost run is dropped."""
    if task.on_duplicate != "skip" or not (task.acks_late and task.reject_on_worker_lost):
        return None
    return (
        "is delivered again at once when its process is lost (reject_on_worker_lost), may meet the lock of "
        "the dead run, and is then dropped unless the death is known by then: the work is not done"
    )


def timed_out_and_dropped(_: Setup, task: LockedFacts) -> str | None:
    """The copy that should do the work of a run that timed out is dropped."""
    limited = task.time_limit is not None and task.acks_late and not task.acks_on_timeout
    if task.on_duplicate != "skip" or not limited:
        return None
    return (
        "is delivered again at once when its time limit ends it (acks_on_timeout is false), may meet the "
        "lock of the dead run, and is then dropped unless the death is known by then: the work is not done"
    )


def unlocked(_: Setup, task: LockedFacts) -> str | None:
    """The task may run without its lock."""
    if task.on_unavailable != "run":
        return None
    return "runs without its lock while the store cannot be used, beside any other run of it"


def early(_: Setup, task: LockedFacts) -> str | None:
    """A setting for late acknowledgement has no effect."""
    if task.acks_late or (task.acks_on_timeout and not task.reject_on_worker_lost):
        return None
    which = "reject_on_worker_lost" if task.reject_on_worker_lost else "acks_on_timeout"
    return (
        f"sets {which} without acks_late: "
        "its message is acknowledged before it runs, so a lost run is not delivered again"
    )


def unseen(setup: Setup, task: LockedFacts) -> str | None:
    """A skip leaves no result that could be asked for."""
    if task.on_busy != "skip" or (setup.results and not task.ignore_result):
        return None
    return (
        "skips when its lock is busy, and keeps no result: "
        "only the log, the events and the counters of lockkit tell of a skip"
    )
