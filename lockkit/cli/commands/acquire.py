"""``lockkit acquire``: take a lock and keep it when this command ends."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from lockkit.cli import completing, exits, fitting, holds, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import CAPACITY, NAME, Duration, Number, Remark, finite
from lockkit.cli.signals import Signals
from lockkit.cli.suggesting import as_called, look
from lockkit.cli.waiting import Announcer, blocked_by
from lockkit.config.suggesting import command_line
from lockkit.errors import AcquireTimeout, CapacityMismatch, LockkitError
from lockkit.values import durations

if TYPE_CHECKING:
    from pathlib import Path

    from lockkit.facts import Kind
    from lockkit.shared.options import Options
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease
    from lockkit.sync.locks import Lock

__all__ = ["command"]


@make(
    "acquire",
    examples="""
lockkit acquire deploy --ttl 2h && { ./deploy.sh; lockkit release deploy; }
lockkit held deploy || echo "it has lapsed"
token=$(lockkit acquire deploy --ttl 2h --print-token)   # for elsewhere
""",
)
@click.argument("name", type=NAME, shell_complete=completing.lockable)
@option(
    "--ttl",
    type=Duration(),
    required=True,
    help="How long the lock is held unless it is released. It is not renewed.",
)
@option(
    "--timeout",
    type=Duration(zero=True, limit=True),
    help='Wait at most this long; "forever" is allowed.  [default: for ever]',
)
@option("--no-wait", is_flag=True, help="Don't wait; exit 75 if the lock is busy.")
@option("--shared", is_flag=True, help="Share the lock with others that use --shared (readers).")
@option("--exclusive", is_flag=True, help="Exclude all others on a name used with --shared (writer).")
@option(
    "--reason",
    type=Remark(),
    metavar="TEXT",
    help="Why the lock is taken; shown wherever the holder is shown.",
)
@option("--capacity", type=CAPACITY, metavar="N", help="A semaphore with N permits.")
@option("--permits", type=CAPACITY, metavar="K", help="Take K permits.  [default: 1]")
@option(
    "-E",
    "--conflict-exit-code",
    "conflict_code",
    type=Number(0, 255),
    metavar="N",
    help="Exit N instead of 75 and 124.",
)
@option("-q", "--quiet", is_flag=True, help="Print nothing while waiting.")
@option(
    "--print-token", is_flag=True, help="Print the secret token that releases the lock, and store no file."
)
def command(
    session: Session,
    name: str,
    *,
    ttl: float,
    timeout: float | None,
    no_wait: bool,
    shared: bool,
    exclusive: bool,
    reason: str | None,
    capacity: int | None,
    permits: int | None,
    conflict_code: int | None,
    quiet: bool,
    print_token: bool,
) -> int:
    """Take the lock NAME and keep it after this command ends: for scripts, CI jobs and systemd units.

    Nothing renews the lock. It ends when lockkit release releases it, or after --ttl. To guard one command,
    lockkit run is better: it renews the lock, and frees it when the command dies.
    """
    kind = fitting.kind(
        click.get_current_context(),
        shared=shared,
        exclusive=exclusive,
        capacity=capacity,
        permits=permits,
        no_wait=no_wait,
        timeout=timeout,
    )
    # For explain: on most stores this hold looks like that of a process that has stopped renewing.
    note = {"acquire": True} | ({"printed": True} if print_token else {})
    options: Options = {"ttl": ttl, "auto_renew": False, "pulseless": True, "note": note}
    if reason is not None:
        options["reason"] = reason
    if timeout is not None:
        options["timeout"] = finite(timeout)
    try:
        with Signals(name) as signals, session.client() as client:
            signals.check()
            fitting.reaches_others(client)
            lock = _lock(client, name, kind, capacity, permits, options)
            ttl = lock.terms.ttl  # as the store has it
            tokens = holds.Tokens(client, name, ttl, stores=not print_token)
            lock.tokens = tokens.token
            announcer = Announcer(
                client, quiet=quiet, as_json=session.json, signals=signals, limit=finite(timeout)
            )
            try:
                lease = _take(session, client, lock, announcer, no_wait=no_wait or timeout == 0)
                if lease is None:
                    raise _busy(session, client, name)
                _tell(session, client, lease, tokens.granted(lease), print_token=print_token)
                tokens.hand_over(lease)
                return exits.OK
            except BaseException:
                _tell_left(session, name, tokens.give_up(), ttl, print_token=print_token)
                raise
    except LockkitError as error:
        code = exits.code_of(error)
        if conflict_code is None or code not in (exits.BUSY, exits.TIMED_OUT):
            raise
        return exits.report(error, as_json=session.json, code=conflict_code)


def _lock(
    client: Client, name: str, kind: Kind, capacity: int | None, permits: int | None, options: Options
) -> Lock:
    if kind == "semaphore":
        return client.semaphore(name, capacity or 1, permits=permits or 1, **options)
    if kind == "mutex":
        return client.lock(name, **options)
    both = client.rwlock(name, **options)
    return both.read() if kind == "read" else both.write()


def _take(
    session: Session, client: Client, lock: Lock, announcer: Announcer, *, no_wait: bool
) -> Lease | None:
    try:
        return lock.try_acquire() if no_wait else lock.acquire(on_wait=announcer)
    except AcquireTimeout as error:
        error.hint = f"wait longer, or {look(session, lock.name)}"
        raise
    except CapacityMismatch as error:
        raise fitting.mismatch(client, lock.terms, error) from error
    finally:
        announcer.done()


def _busy(session: Session, client: Client, name: str) -> exits.CommandFailed:
    holders = client.inspect(name).holders
    who = f": {blocked_by(holders[0], time.time())}" if holders else ""
    return exits.CommandFailed(
        f"{name!r} is busy{who}",
        code=exits.BUSY,
        kind="busy",
        name=name,
        holder=holders[0] if holders else None,
        hint=look(session, name),
    )


def _tell_left(session: Session, name: str, claim_id: str | None, ttl: float, *, print_token: bool) -> None:
    """Report that a claim may still block the name for its whole ttl, and how to end it."""
    if claim_id is None:
        return
    options, first = as_called(session)
    way = command_line("release", name, options=options)
    if print_token:
        way = command_line("evict", name, f'--claim {claim_id} --now --reason "..."', options=options)
    output.notice(
        f"{name!r} may still be held (claim {claim_id}), for at most "
        f"{durations.show(ttl)}; to end that{first}: {way}",
        name=name,
        as_json=session.json,
    )


def _tell(session: Session, client: Client, lease: Lease, stored: Path | None, *, print_token: bool) -> None:
    until = time.time() + lease.time_to_stop()
    if session.json:
        from msgspec import UNSET

        from lockkit.cli import documents

        output.print_json(
            documents.Acquire,
            lease,
            store=client,
            acquired=lease.since,
            deadline=until,
            handle=None if stored is None else os.fspath(stored),
            token=lease.token if print_token else UNSET,
        )
    elif print_token:
        print(lease.token)
    else:
        options, first = as_called(session)
        output.say(
            f"{lease.name!r} is held (fence {lease.fence}) until {output.clock_time(until, time.time())}; "
            f"{command_line('release', lease.name, options=options)} ends it{first}"
        )
    sys.stdout.flush()  # while the lock can still be released: if this fails, nobody has the token
