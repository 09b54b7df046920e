"""The options of a lock, and the terms of its claims. All options are checked before any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from lockkit.errors import CapabilityError, ConfigError
from lockkit.facts import Capabilities, Kind, Owner
from lockkit.lib.loops import is_coroutine_function
from lockkit.notes.members import POOLS, whole
from lockkit.store.spi import NOTE_LIMIT, Terms
from lockkit.store.ttls import UsualTtl, fitted, refused
from lockkit.values import durations
from lockkit.values.names import check_name

if TYPE_CHECKING:
    from typing import TypedDict

    from lockkit.config.config import Config
else:

    class TypedDict:
        """A stand-in for :class:`typing.TypedDict`, which would take a fiftieth of ``import lockkit``."""

        def __init_subclass__(cls, *, total: bool) -> None:
            """Take the keyword for type checkers."""


__all__ = [
    "DEFAULT",
    "Default",
    "Options",
    "Settings",
    "check",
    "check_detect",
    "check_holds",
    "check_plain",
    "checked_timeout",
    "fitting",
    "longer_ttl",
    "noted",
    "terms_of",
    "whole",
]


class Default:
    """The type of ``DEFAULT``, which stands for "as configured" where None means something else."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default()


class Options(TypedDict, total=False):
    """Options of a lock. Options that are left out come from the config.

    Attributes:
        ttl: Seconds that the store keeps the claim without renewal (30 by default), or the nearest granted.
        timeout: Seconds to wait in all; None to wait for ever, 0 not to wait.
        reentrant: Whether the thread or task that holds the lock may acquire it again, with the same fence;
            not for semaphores. On a reader/writer lock a writer may also read, and keeps out everybody else
            until its last level is released; a reader that wants to write gets DeadlockDetected. A writer is
            not downgraded: while a level that reads is left, ``write().held()`` is true, and ``write()`` may
            be acquired again. An inner level has its own on_lost, and lengthens the ttl if its own is longer;
            all other options of the outermost level stay.
        auto_renew: Whether to renew in the background; otherwise a hold ends after its ttl unless extended.
        max_hold: Seconds after which a hold is ended; None for no limit.
        min_hold: Seconds from the grant for which the lock stays blocked, even if it is released earlier.
        lock_delay: Seconds for which the lock stays blocked after a hold that ended without a release.
        process_bound: Whether the claim ends with this process instead of after its ttl; where the store can.
        pulseless: Whether the claim lasts for its ttl even if this process ends.
        note: A JSON object that ``inspect`` shows with the claim.
        reason: Why the lock is taken, in at most 200 characters: shown wherever the holder is shown.
        on_lost: Called once, from another thread, when a hold is lost; see :meth:`lockkit.Lease.on_lost`.
    """

    ttl: float
    timeout: float | None
    reentrant: bool
    auto_renew: bool
    max_hold: float | None
    min_hold: float
    lock_delay: float
    process_bound: bool
    pulseless: bool
    note: Mapping[str, object]
    reason: str
    on_lost: Callable[[], None]


# Written by docs/tables.py from lockkit.config.settings.
class Settings(TypedDict, total=False):
    """Further settings that ``connect`` takes by keyword, as defaults of all locks of the client.

    Durations are in seconds; None, where allowed, means no limit. Settings that are left out
    come from the config. Their meanings: ``lockkit docs config``.
    """

    ttl: float
    timeout: float | None
    max_hold: float | None
    min_hold: float
    lock_delay: float
    request_timeout: float
    cleanup_budget: float
    kill_after: float
    on_lost: Literal["term", "kill", "warn"]
    age_warning: float
    age_soft: float
    age_hard: float
    recover_limit: int
    log_format: Literal["text", "json"]
    disable_plugins: Sequence[str]
    plugin_errors: Literal["report", "raise"]
    metrics_enabled: bool
    metrics_names: Sequence[str]
    metrics_raw_names: bool
    metrics_most: int
    gpu_simulate: int
    gpu_host: str | None
    gpu_watch: bool
    gpu_patience: float
    gpu_ignore: Sequence[str]
    gpu_ignore_memory: str
    gpu_idle_below: int
    gpu_idle_after: float | None
    alerts_group_wait: float
    alerts_group_interval: float
    alerts_repeat_interval: float | None
    alerts_most_per_hour: int
    alerts_look_every: float
    journal: bool
    journal_folder: str | None
    journal_max_size: int
    journal_max_age: float | None
    journal_keep: int
    serve_token_file: str | None
    serve_hosts: Sequence[str]
    serve_proxies: Sequence[str]
    serve_public_url: str | None
    serve_recover: float | None
    serve_alerts: bool


# End of the lines written by docs/tables.py.


def check(options: Options, name: object, kind: Kind, *, pooled: bool = False) -> None:
    """Refuse wrong options for this kind of lock, and unless ``pooled`` a name that belongs to a pool.

    Raises:
        ConfigError: An option is unknown or not allowed; the error says what is allowed.
    """
    check_name(name)
    assert isinstance(name, str)
    if name.startswith(POOLS) and not pooled:
        raise ConfigError(
            f"a name that begins with {POOLS!r} belongs to a pool, and {name!r} cannot be locked by itself",
            name=name,
            hint="take members with client.pool(...).acquire(), or lockkit run --pool NAME",
        )
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        from lockkit.values.habit_words import OPTIONS, timeouts  # late: only ever needed for an error

        habit = next((f"{each}: {OPTIONS[each]}" for each in sorted(unknown) if each in OPTIONS), "")
        habit += timeouts(unknown, options.get("timeout")) + "; " if habit else ""
        raise ConfigError(
            f"no such option: {', '.join(sorted(unknown))}",
            name=name,
            hint=f"{habit}the options are: {', '.join(Options.__annotations__)}",
        )
    for flag in ("reentrant", "auto_renew", "process_bound", "pulseless"):
        if not isinstance(options.get(flag, False), bool):
            raise ConfigError(f"{flag} must be True or False, not {options.get(flag)!r}", name=name)
    if not callable(options.get("on_lost", print)):
        raise ConfigError(f"on_lost must be callable, not {options.get('on_lost')!r}", name=name)
    check_plain(options.get("on_lost"), "on_lost", name)
    if options.get("note") is not None or options.get("reason") is not None:
        noted(options.get("note"), options.get("reason"), name)
    if options.get("reentrant") and kind == "semaphore":
        raise ConfigError(
            "reentrant=True is for mutexes and reader/writer locks, not for a semaphore",
            name=name,
            hint="take all permits that the thread needs at once: permits=2",
        )


def check_plain(function: object, what: str, name: str | None) -> None:
    """Raise ConfigError for a coroutine function where a plain function is called."""
    if is_coroutine_function(function):
        raise ConfigError(
            f"{what} must be a plain function, not the coroutine function {function!r}",
            name=name,
            hint="have a plain function start the coroutine: asyncio.run_coroutine_threadsafe(work(), loop)",
        )


def noted(note: Mapping[str, object] | None, reason: object, name: str) -> Mapping[str, object] | None:
    """The note of a claim, with the reason in it, if there is one.

    Raises:
        ConfigError: The note is not a JSON object of at most :data:`~lockkit.store.spi.NOTE_LIMIT` bytes, or
            has lockkit's own key; or the reason is not one line of at most 200 characters.
    """
    # late: json takes time to import, and few locks have a note
    from lockkit.notes.remarks import unreserved, with_reason
    from lockkit.store.notes import note_text

    unreserved(note)
    if note is not None:
        note_text(note, NOTE_LIMIT)
    if reason is not None:
        note = with_reason(note, reason, name)
        note_text(note, NOTE_LIMIT)
    return note


def terms_of(
    can: Capabilities,
    config: Config,
    owner: Owner,
    name: str,
    kind: Kind,
    weight: int,
    capacity: int,
    options: Options,
) -> Terms:
    """Make the terms of a lock's claims from options that :func:`check` has accepted.

    A ttl that the store does not support becomes the nearest that it supports.

    Raises:
        ConfigError: An option is not allowed, and the error says what is allowed; or with ``strict`` the
            store does not have the ttl that was asked for.
        CapabilityError: The store does not support an option.
    """
    wish = options.get("ttl", config.ttl)
    asked = durations.seconds(wish, what="ttl")
    stated = not isinstance(wish, UsualTtl) and ("ttl" in options or config.is_set("ttl"))
    ttl = fitted(asked, can)
    if ttl != asked and stated and config.strict:
        source = "" if "ttl" in options else config.source("ttl")
        raise refused(asked, ttl, can, name=name, source=source)
    max_hold = options.get("max_hold", config.max_hold)
    if max_hold is not None:
        max_hold = durations.seconds(max_hold, what="max_hold")
    min_hold = durations.seconds(options.get("min_hold", config.min_hold), what="min_hold", zero=True)
    lock_delay = durations.seconds(options.get("lock_delay", config.lock_delay), what="lock_delay", zero=True)
    process_bound, pulseless = bool(options.get("process_bound")), bool(options.get("pulseless"))
    check_holds(min_hold, max_hold, name)
    if process_bound and pulseless:
        raise ConfigError("process_bound and pulseless cannot both be True", name=name)
    for wanted, able, what, instead in (
        (process_bound, can.process_bound, "process-bound claims",
         "leave process_bound out: the claim then lapses within its ttl"),
        (min_hold > 0, can.min_hold, "min_hold",
         f"leave min_hold out, and hold the lock for {durations.exact(min_hold)} yourself"),
        (lock_delay > 0, can.lock_delay, "lock_delay",
         "leave lock_delay out, and check fences where you write"),
        (capacity > 1, can.shared, "semaphores and reader/writer locks", "use a plain lock"),
    ):  # fmt: skip
        if wanted and not able:
            raise CapabilityError(
                f"this store does not support {what}",
                name=name,
                hint=f"{instead}; or use another store, such as sqlite:",
            )
    return Terms(
        name=name,
        ttl=ttl,
        weight=weight,
        capacity=capacity,
        kind=kind,
        process_bound=process_bound,
        pulseless=pulseless,
        max_hold=max_hold,
        min_hold=min_hold,
        lock_delay=lock_delay,
        owner=owner,
        asked=asked if stated else None,
    )


def check_holds(min_hold: float, max_hold: float | None, name: str | None) -> None:
    """Raise ConfigError if ``max_hold`` is below ``min_hold``."""
    if max_hold is not None and max_hold < min_hold:
        raise ConfigError(f"max_hold ({max_hold:g} s) must not be below min_hold ({min_hold:g} s)", name=name)


def longer_ttl(ttl: float, present: float, can: Capabilities, *, strict: bool = False) -> float:
    """The ttl of an ``extend``: the nearest that the store grants, in seconds, and never below ``present``.

    Args:
        ttl: The ttl that the caller wants.
        present: The ttl that the claim has.
        can: The capabilities of the store.
        strict: Whether to refuse a ttl that the store does not have.

    Raises:
        ConfigError: Below the present ttl; or with ``strict`` above what the store grants.
        CapabilityError: The store has one ttl for all claims.
    """
    ttl = durations.seconds(ttl, what="ttl")
    if ttl < present:
        raise ConfigError(
            f"extend({ttl:g}) is below the present ttl of {present:g} s",
            hint="deadlines only grow; release instead",
        )
    if can.fixed_ttl:
        raise CapabilityError("this store has one ttl for all claims of a client; extend is not possible")
    longer = max(present, fitted(ttl, can))
    if longer != ttl and strict:
        raise refused(ttl, longer, can)
    return longer


def fitting(permits: object, capacity: object, name: str) -> None:
    """Raise ConfigError unless permits and capacity are whole numbers, and the permits can fit."""
    if whole(permits, "permits", name) > whole(capacity, "capacity", name):
        raise ConfigError(f"permits={permits} can never fit into capacity={capacity}", name=name)


def check_detect(detect: object, name: str | None = None) -> None:
    """Raise ConfigError for a ``detect_deadlock`` that is not a bool."""
    if not isinstance(detect, bool):
        raise ConfigError(f"detect_deadlock must be True or False, not {detect!r}", name=name)


def checked_timeout(timeout: object, what: str = "timeout") -> float | None:
    """The timeout of an acquire, in seconds.

    Args:
        timeout: The timeout.
        what: The name of the argument, for the error.

    Raises:
        ConfigError: The timeout is neither None nor a number of seconds.
    """
    if isinstance(timeout, bool):
        raise ConfigError(
            f"{what} must be a number of seconds or None, not {timeout}",
            hint="acquire(timeout=0) does not wait, and try_acquire() returns None if the lock is busy",
        )
    if timeout == -1:  # for ever, as threading, filelock and pottery have it
        raise ConfigError(f"{what} must be at least 0, not -1", hint=f"{what}=None waits for ever")
    return None if timeout is None else durations.seconds(timeout, what=what, zero=True)
