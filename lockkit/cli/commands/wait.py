"""``lockkit wait``: wait until a lock is free, without taking it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAME, Duration, finite
from lockkit.cli.suggesting import gpus_meant, look
from lockkit.cli.waiting import blocked_by
from lockkit.drivers.patience import Tries, patiently
from lockkit.errors import AcquireTimeout
from lockkit.facts import LockInfo
from lockkit.protocol.attempt import OUTAGE_LIMIT
from lockkit.store.judging import judged_queue
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["command", "free"]

_LEAST = 0.4
"""Seconds that one request may take even if less of the timeout is left."""
_FIRST, _LONGEST = 0.05, 1.0
"""Seconds between two requests, at first and at most. This command does not queue, so it is not woken."""


@make(
    "wait",
    examples="""
lockkit wait backup && lockkit status backup
lockkit wait deploy --timeout 10m || echo "still deploying"
""",
)
@click.argument("name", type=NAME)
@option(
    "--timeout",
    type=Duration(zero=True, limit=True),
    help='Wait at most this long, then exit 124; "forever" is allowed.  [default: for ever]',
)
@option("-q", "--quiet", is_flag=True, help="Print nothing while waiting.")
def command(session: Session, name: str, *, timeout: float | None, quiet: bool) -> int:
    """Wait until the lock NAME is free, without taking it.

    Free means that a new claim would get the lock at once: a permit of a semaphore is free, or nobody holds a
    plain lock or a reader/writer lock. Another process may take it before you act: to exclude others, use run
    or acquire.

    If the store does not answer, wait tries again until --timeout; without a timeout for 30 s, or for 2 s
    (request_timeout) if the store has never answered.
    """
    timeout = finite(timeout)
    began = time.monotonic()
    pause = _FIRST
    told = False

    quiet = quiet or session.json
    with session.client() as client:

        def patience() -> float:
            """Seconds of an outage to survive: the rest of the timeout, or as many as an acquire survives."""
            if timeout:
                return max(began + timeout - time.monotonic(), _LEAST)
            answered = timeout is None and pause > _FIRST
            return OUTAGE_LIMIT if answered else client.config.request_timeout

        while not free(info := _look(client, name, patience(), quiet=quiet)):
            if not told and not quiet:
                told = True
                holder = next(iter(info.holders or info.claims))
                sentence = f"waiting until {name!r} is free; {blocked_by(holder, time.time())}"
                output.say(sentence, stream=sys.stderr)
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                raise AcquireTimeout(
                    f"{name!r} is not free after {waited:.1f} s",
                    name=name,
                    holder=next(iter(info.holders), None),
                    hint=look(session, name),
                )
            time.sleep(pause if timeout is None else max(min(pause, timeout - waited), 0.0))
            pause = min(pause * 1.5, _LONGEST)
        meant = None if info.claims or told or quiet else gpus_meant(session, client, name)
        if meant:
            output.say(f"{name!r} is free: nobody holds it; {meant}", stream=sys.stderr)
        if session.json:
            from lockkit.cli import documents

            waited = time.monotonic() - began
            output.print_json(documents.Wait, store=client, name=name, free=True, waited=waited)
    return exits.OK


def _look(client: Client, name: str, patience: float, *, quiet: bool) -> LockInfo:
    """Read the queue. The request is repeated while the error may pass."""
    driver = client.driver(patience)
    request = driver.request_timeout
    end = driver.clock.now() + request
    told = False

    def tell(trouble: Refused | Unknown) -> None:
        nonlocal told
        if not told and not quiet and driver.clock.now() > end:  # the outage is more than a moment
            told = True
            output.say(f"trying again: {trouble.error.message}", stream=sys.stderr)

    try:
        return judged_queue(
            patiently(
                lambda left: driver.backend.inspect(name, min(left, request)),
                Tries(driver.clock, patience, tell),
            )
        )
    except (Refused, Unknown) as trouble:
        trouble.error.name = trouble.error.name or name
        raise trouble.error from None


def free(info: LockInfo) -> bool:
    """Whether one more claim would be granted now: of a semaphore one permit, of other locks any claim."""
    if not info.claims:
        return True
    if info.waiters or info.claims[0].kind != "semaphore":
        return False
    return sum(claim.weight for claim in info.holders) < (info.capacity or 1)
