"""``lockkit run``: the lock, or the locks taken together, that the options of the command line select."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lockkit.cli import exits, fitting, nesting
from lockkit.cli.nesting import Outer
from lockkit.cli.parameters import finite
from lockkit.cli.suggesting import look
from lockkit.cli.waiting import blocked_by
from lockkit.errors import AcquireTimeout, CapacityMismatch
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.ttls import UsualTtl

if TYPE_CHECKING:
    import threading

    from lockkit.cli.base import Session
    from lockkit.cli.run_request import Request
    from lockkit.facts import Reason, ReleaseReport, ReleaseReports
    from lockkit.protocol.call import OnWait
    from lockkit.shared.options import Options
    from lockkit.store.spi import Terms
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease
    from lockkit.sync.locks import Lock
    from lockkit.sync.pools import Pool

__all__ = ["Reused", "Taken", "acquire", "each", "options_of", "refuse", "under"]

TTL = 60.0


class Taken(Protocol):
    """The lease that a ``run`` holds, or several leases as one."""

    @property
    def lost(self) -> threading.Event: ...

    @property
    def lost_because(self) -> Reason: ...

    @property
    def since(self) -> float: ...

    def time_to_stop(self) -> float: ...

    def release(self, reason: Reason) -> ReleaseReport | ReleaseReports: ...


class Reused(NamedTuple):
    """The holds of the ``run`` around this one that its command works under.

    Attributes:
        holds: The holds.
        taken: What was acquired beside them; None if they are all that was asked for.
    """

    holds: tuple[Outer, ...]
    taken: Taken | None = None


def each(taken: Taken) -> Sequence[Lease]:
    """The leases of which something consists."""
    return tuple(taken) if isinstance(taken, Sequence) else (taken,)  # type: ignore[return-value]


def acquire(
    client: Client, session: Session, request: Request, woken: Callable[[], None], on_wait: OnWait
) -> Taken | Reused:
    """Acquire what was asked for, or with ``--nested reuse`` use what a ``run`` around this one holds.

    ``woken`` is called when a hold is lost, ``on_wait`` each time that the store answers "queued".

    Raises:
        CommandFailed: The lock is busy, or a ``run`` around this one holds it.
        LockkitError: As for the acquire.
    """
    options = options_of(client, request, woken)
    if request.pool is not None:
        return _from_pool(client, session, request, options, on_wait)
    locks = [_lock(client, name, request, options) for name in request.names]
    outer = [under(client, request, lock.terms) for lock in locks]
    reused = [hold for hold in outer if hold is not None]
    left = [lock for lock, hold in zip(locks, outer, strict=True) if hold is None]
    if not left or (request.any and reused):
        return Reused(tuple(reused[:1] if request.any else reused))
    taken: Taken
    if len(left) == 1:
        taken = _one(client, session, request, left[0], on_wait)
    else:
        several = client.any_of if request.any else client.all_of
        factory = several(left, timeout=options["timeout"])
        taken = _several(session, request, factory.acquire, on_wait)
    return Reused(tuple(reused), taken) if reused else taken


def options_of(
    client: Client, request: Request, woken: Callable[[], None], ttl: float | None = None
) -> Options:
    """The options of each lock.

    ``woken`` is called when a hold is lost. ``ttl``: that in seconds if nobody has set one.
    """
    config = client.config
    usual = UsualTtl(TTL if ttl is None else ttl)
    options: Options = {
        "ttl": request.ttl or (config.ttl if config.is_set("ttl") else usual),
        "timeout": config.timeout if request.timeout is None else finite(request.timeout),
        "max_hold": config.max_hold if request.max_hold is None else finite(request.max_hold),
        "process_bound": client.capabilities.process_bound,
        "note": {"run": True},
        "on_lost": woken,
    }
    if options["max_hold"] is not None:
        options["note"] = {
            "run": True,
            "max_hold": options["max_hold"],
        }  # so that others see how long it may last
    if request.reason is not None:
        options["reason"] = request.reason
    if request.min_hold is not None:
        options["min_hold"] = request.min_hold
    return options


def _lock(client: Client, name: str, request: Request, options: Options) -> Lock:
    lock: Lock
    if request.mode == "semaphore":
        lock = client.semaphore(name, request.capacity or 1, permits=request.permits, **options)
    elif request.mode == "mutex":
        lock = client.lock(name, **options)
    else:
        both = client.rwlock(name, **options)
        lock = both.read() if request.mode == "read" else both.write()
    lock.terms = lock.terms._replace(owner=lock.terms.owner._replace(program=_program(request)))
    return lock


def _program(request: Request) -> str:
    """The command that runs, which others are shown, not the wrapper around it."""
    return Path(request.command[0]).name[:64]


def _one(client: Client, session: Session, request: Request, lock: Lock, on_wait: OnWait) -> Lease:
    try:
        lease = lock.try_acquire() if request.no_wait else lock.acquire(on_wait=on_wait)
    except AcquireTimeout as error:
        hint = look(session, lock.name)
        raise AcquireTimeout(error.message, name=error.name, holder=error.holder, hint=hint) from error
    except CapacityMismatch as error:
        raise fitting.mismatch(client, lock.terms, error) from error
    if lease is None:
        holders = client.inspect(lock.name).holders
        who = f": {blocked_by(holders[0], time.time())}" if holders else ""
        raise exits.CommandFailed(
            f"{lock.name!r} is busy{who}",
            code=exits.BUSY,
            kind="busy",
            name=lock.name,
            holder=holders[0] if holders else None,
            hint=f"without --no-wait this run would wait in the queue; {look(session, lock.name)}",
        )
    return lease


def _several(session: Session, request: Request, take: Callable[..., Taken], on_wait: OnWait) -> Taken:
    try:
        return take(timeout=0, on_wait=None) if request.no_wait else take(on_wait=on_wait)
    except AcquireTimeout as error:
        hint = look(session, error.name or request.name)
        if request.no_wait:
            raise exits.CommandFailed(
                error.message,
                code=exits.BUSY,
                kind="busy",
                name=error.name,
                holder=error.holder,
                hint=f"without --no-wait this run would wait in the queue; {hint}",
            ) from error
        raise AcquireTimeout(error.message, name=error.name, holder=error.holder, hint=hint) from error


def _from_pool(
    client: Client, session: Session, request: Request, options: Options, on_wait: OnWait
) -> Taken | Reused:
    assert request.pool is not None
    pool = client.pool(request.pool, **options)
    pool.owner = pool.terms.owner._replace(program=_program(request))
    count = request.wanted or 1
    pool.check(count, each=request.each)
    reused = _under_members(client, request, pool, count)
    if reused is not None:
        return reused

    def take(**how: float | OnWait | None) -> Taken:
        return pool.acquire(count, each=request.each, **how)  # type: ignore[arg-type]

    return _several(session, request, take, on_wait)


# -- a run inside a run -------------------------------------------------------------------------------------


def under(client: Client, request: Request, terms: Terms) -> Outer | None:
    """The hold of an outer ``run`` on a lock, if there is one, and ``--nested reuse`` says to use it.

    Raises:
        CommandFailed: The outer ``run`` holds the lock, and this command may not run under that hold.
    """
    outer = nesting.outer(client, terms)
    if outer is None:
        return None
    refuse(request, terms.name)
    if not outer.covers(terms):
        raise exits.CommandFailed(
            f"the lockkit run or task around this one does not hold enough of {terms.name!r}",
            code=exits.BUSY,
            kind="nested",
            name=terms.name,
            hint=f"the outer one holds: {outer}; this one needs: {nesting.describe(terms)}; "
            "give the outer one the same options",
        )
    return outer


def _under_members(client: Client, request: Request, pool: Pool, count: int) -> Reused | None:
    """The holds of an outer ``run`` on members of the pool, if any, and ``--nested reuse`` says to use them.

    Raises:
        CommandFailed: The outer ``run`` holds some members, and this command may not run under these holds.
    """
    wanted: Mapping[str, Terms] = pool.terms_of_members(each=request.each)
    found = {name: outer for name, terms in wanted.items() if (outer := nesting.outer(client, terms))}
    if not found:
        return None
    refuse(request, pool.pool)
    fit = [outer for name, outer in found.items() if outer.covers(wanted[name])]
    if len(fit) < count:
        raise exits.CommandFailed(
            f"the lockkit run or task around this one does not hold enough of pool {pool.pool!r}",
            code=exits.BUSY,
            kind="nested",
            name=pool.pool,
            hint="take all that is needed in the outer one",
        )
    return Reused(tuple(fit[:count]))


def refuse(request: Request, name: str) -> None:
    """Refuse a lock that the ``run`` around this one holds, unless ``--nested reuse`` says to use that hold.

    Raises:
        CommandFailed: The outer ``run`` holds the lock, and ``--nested reuse`` does not say to use that hold.
    """
    if request.nested == "refuse":
        raise exits.CommandFailed(
            f"{name!r} is held by the lockkit run or task around this one",
            code=exits.BUSY,
            kind="nested",
            name=name,
            hint="this run would wait for itself; use --nested reuse to run under that hold",
        )
