"""``lockkit drain``: give no new locks in a namespace, and wait for those who hold one."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, nesting, output
from lockkit.cli.base import Session, in_namespace, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAMESPACE, Duration, Remark, finite
from lockkit.cli.signals import Signals, Terminated
from lockkit.cli.suggesting import as_called
from lockkit.config.suggesting import SameStore
from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown, PermissionDenied
from lockkit.facts import Drain
from lockkit.protocol.attempt import OUTAGE_LIMIT
from lockkit.protocol.denials import drain_ends
from lockkit.shared import draining

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client

__all__ = ["command"]

_FIRST, _LONGEST = 0.1, 2.0
"""Seconds between two looks at the holders, at first and at most."""
_SHOWN = 3
"""Holders that one row of progress names."""


@make(
    "drain",
    examples="""
lockkit drain prod --reason "new kernel at 22:00"
lockkit drain prod --wait --timeout 1h && reboot
lockkit undrain prod               # afterwards
""",
)
@click.argument("drained", metavar="[NAMESPACE]", type=NAMESPACE, required=False)
@option("--reason", type=Remark(), metavar="TEXT", help="Why. Everybody who is refused sees it.")
@option("--wait", is_flag=True, help="Wait until nobody holds a lock of the namespace any more.")
@option(
    "--timeout",
    type=Duration(zero=True, limit=True),
    help='With --wait: wait at most this long, then exit 124; "forever" is allowed.  [default: for ever]',
)
def command(
    session: Session, drained: str | None, *, reason: str | None, wait: bool, timeout: float | None
) -> int:
    """Give no new locks in NAMESPACE from now on, until lockkit undrain. Those who hold a lock finish.

    Without NAMESPACE: the namespace that is configured. Everybody who asks or waits for a lock is refused
    with the reason (run and acquire exit with 75). Holders renew and release as ever. The store keeps the
    mark after this command, also after --timeout, Ctrl-C or a restart of the machine. A second drain replaces
    the reason.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait", click.get_current_context())
    marks: list[Drain] = []
    with in_namespace(session, drained).client() as client:
        if wait:
            _see_that_a_wait_can_end(client)
        end = drain_ends(Drain(client.namespace), SameStore(*as_called(session)))
        with _told_how_it_ends(marks, client.namespace, end), Signals():
            mark = client.drain(reason or "")
            marks.append(mark)
            began = time.monotonic()
            if wait:
                _wait(client, mark, finite(timeout), end, quiet=session.json)
                holders: Sequence[ClaimInfo] = ()
            else:
                holders = draining.holders(client.driver(), deep=False)
        if session.json:
            from lockkit.cli import documents

            waited = time.monotonic() - began if wait else None
            output.print_json(
                documents.DrainSet, store=client, drained=mark, holders=holders, waited=waited, indent=True
            )
            return exits.OK
    output.say(f"namespace {mark.namespace} is drained; {_left(holders) or 'nobody holds a lock'}")
    output.say(end)
    return exits.OK


def _see_that_a_wait_can_end(client: Client) -> None:
    """Find out, before anything is drained, what would make a wait useless.

    Raises:
        CommandFailed: This command runs under a lock of the namespace, and would wait for itself.
        PermissionDenied: The user may not see all names, so nobody could say that no lock is held.
    """
    own = next(nesting.held_around(client), None)
    if own is not None:
        raise exits.CommandFailed(
            f"{own.name!r} is held by the lockkit run or task around this one",
            code=exits.BUSY,
            kind="nested",
            name=own.name,
            hint="drain --wait would wait for itself; run it outside of that, or "
            "without --wait. Nothing was drained",
        )
    if not client.capabilities.drains:
        return
    try:
        client.names(deep=True)
    except PermissionDenied as error:
        _add_hint(error, "--wait has to see all names; nothing was drained")
        raise


@contextmanager
def _told_how_it_ends(marks: Sequence[Drain], namespace: str, end: str) -> Iterator[None]:
    """Have whatever ends the body early say that the namespace stays drained, and how that ends.

    Args:
        marks: The mark, once it is set. Until then an error of the store says by itself if it may be.
        namespace: The namespace.
        end: The command that ends the drain.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        raise exits.CommandFailed(
            str(error) or "interrupted",
            code=exits.code_of(error),
            kind="interrupted",
            hint=f"namespace {namespace} {'stays' if marks else 'may be'} drained; {end}",
        ) from None
    except LockkitError as error:
        if marks and not isinstance(error, exits.CommandFailed):
            _add_hint(error, f"namespace {namespace} stays drained; {end}")
        raise


def _add_hint(error: LockkitError, more: str) -> None:
    error.hint = "; ".join(filter(None, (error.hint, more)))


def _wait(client: Client, mark: Drain, timeout: float | None, end: str, *, quiet: bool) -> None:
    """Wait until nobody holds a lock.

    Raises:
        CommandFailed: The time is up, or the mark was removed or replaced meanwhile.
        BackendUnavailable, OutcomeUnknown: The store has not answered for 30 s, or not when the time is up.
    """
    began = answered = time.monotonic()
    pause, said = _FIRST, ""
    while True:
        try:
            holders = draining.holders(client.driver(), deep=True)
            now_drained = client.drained()
            answered = time.monotonic()
        except (BackendUnavailable, OutcomeUnknown):
            if time.monotonic() - answered > OUTAGE_LIMIT or _over(began, timeout):
                raise
        else:
            _raise_if_undrained(mark, now_drained)
            if not holders:
                return
            if _over(began, timeout):
                raise exits.CommandFailed(
                    f"namespace {mark.namespace} is drained, but after "
                    f"{time.monotonic() - began:.1f} s {_left(holders)}",
                    code=exits.TIMED_OUT,
                    kind="timeout",
                    holder=holders[0],
                    hint=f"it stays drained; {end}",
                )
            left = _left(holders)
            if left != said and not quiet:
                said = left
                output.say(f"waiting: {left}", stream=sys.stderr)
        time.sleep(pause if timeout is None else max(0.0, min(pause, began + timeout - time.monotonic())))
        pause = min(2 * pause, _LONGEST)


def _raise_if_undrained(mark: Drain, found: Drain | None) -> None:
    """Check that the namespace still has the mark of this command.

    Raises:
        CommandFailed: The mark was removed or replaced, or an undrain of a Redis Cluster failed half-way.
    """
    if found == mark:
        return
    text = f"namespace {mark.namespace} was undrained meanwhile"
    hint = "to drain it again, run the same command"
    if found is not None and found._replace(partial=False) == mark:
        text = f"namespace {mark.namespace} is only partly drained, because an undrain has begun meanwhile"
    elif found is not None:
        text = f"namespace {mark.namespace} was drained anew meanwhile, by {found.owner}"
        hint = "lockkit status shows who drains it and why"
    raise exits.CommandFailed(text, code=exits.FAILED, kind="undrained", hint=hint)


def _over(began: float, timeout: float | None) -> bool:
    return timeout is not None and time.monotonic() - began >= timeout


def _left(holders: Sequence[ClaimInfo]) -> str:
    """The remaining claims: ``2 claims are not over: 'a' (ann@box pid 7), 'b' (...)``; empty if none."""
    if not holders:
        return ""
    named = [f"{claim.name!r} ({claim.owner})" for claim in holders[:_SHOWN]]
    more = f" and {len(holders) - _SHOWN} more" if len(holders) > _SHOWN else ""
    count = "1 claim is not over" if len(holders) == 1 else f"{len(holders)} claims are not over"
    return f"{count}: {', '.join(named)}{more}"
