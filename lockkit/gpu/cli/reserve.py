"""``lockkit gpu reserve``: hold cards for so long, for work by hand."""

from __future__ import annotations

import os
import shlex
import time
from typing import TYPE_CHECKING, Any

import click

from lockkit.cli import fitting, output, taking
from lockkit.cli.background import Front
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import card_options, of_cards
from lockkit.cli.parameters import Duration, Number, Remark
from lockkit.cli.run_request import Request
from lockkit.cli.signals import Signals
from lockkit.cli.suggesting import as_called
from lockkit.gpu.cli.keeper import Event, Keeper
from lockkit.gpu.usage import RESERVATION
from lockkit.lib.clock import SYSTEM
from lockkit.notes.members import MOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockkit.cli import documents
    from lockkit.facts import ReleaseRequest
    from lockkit.gpu.pools import GpuLeases
    from lockkit.sync.client import Client

__all__ = ["command"]

_AFTER = 30.0
"""Seconds that the store keeps cards beyond the time, for an orderly release: a hung keeper loses them."""
_PROGRAM = "reservation"
"""The program of the owner of the claims, as others are shown it."""


@make(
    "reserve",
    short="Hold GPUs for so long, for work by hand.",
    examples="""
lockkit gpu reserve --for 4h                        # or until Ctrl-C
eval "$(lockkit gpu reserve 2 --for 4h --detach)"   # this shell sees these
lockkit gpu reserve --for 1d --gpu-name H100 --reason "a notebook"
lockkit run --gpu 1 --for 4h -- bash                # a shell that has a GPU
""",
)
@click.argument("count", metavar="[N]", type=Number(1, MOST), default=1)
@option("--for", "length", type=Duration(), required=True, help="How long the GPUs are held.")
@option(
    "--timeout",
    type=Duration(zero=True, limit=True),
    help='Wait at most this long; "forever" is allowed.  [default: for ever]',
)
@option("--no-wait", is_flag=True, help="Don't wait; exit 75 if too few GPUs are free.")
@option("--reason", type=Remark(), metavar="TEXT", help="Why: shown wherever the holder is shown.")
@option("-q", "--quiet", is_flag=True, help="Print nothing while waiting.")
@option(
    "--detach",
    is_flag=True,
    help="Go to the background once the GPUs are held. Later messages are not shown on the terminal; a "
    "file named by 2> FILE still gets them.",
)
@card_options
def command(session: Session, *, count: int, length: float, detach: bool, **options: Any) -> int:
    r"""Hold N GPUs of this host for a time, for work by hand: a notebook, a benchmark. N is 1 by default.

    This command waits for the GPUs in the queue, as lockkit run --gpu does. Then it prints, for a shell, the
    variables that show a program just these GPUs, and becomes the keeper of the reservation: it holds them
    until the time is over, Ctrl-C, or kill of its pid. Others see until when, and for what. What you compute
    on them meanwhile counts as under the reservation.

    No program is ended with the reservation: a GPU on which one computes is busy (unmanaged) after it, and
    nobody gets it. If the keeper is killed, the GPUs are free again: at once on the store of this host,
    within the ttl on others.

    \b
    Exit codes:
      0 the time is over; with --detach: the GPUs are held
      75, 124 too few GPUs were free      76 the lock was lost
      78 there will never be as many      130, 143 it was ended before
    """
    front = Front() if detach else None
    if front is not None and front.keeper:
        return front.wait()
    cards = of_cards({**options, "gpu": count})
    request = Request(
        names=(),
        command=(_PROGRAM,),
        reason=options["reason"],
        timeout=options["timeout"],
        no_wait=options["no_wait"] or options["timeout"] == 0,
        quiet=options["quiet"],
        **cards,
    )
    with Signals(request.name, request.cards_in_words) as signals, session.client(where="wrapper") as client:
        return _reserve(session, client, request, signals, length, front)


def _reserve(
    session: Session, client: Client, request: Request, signals: Signals, length: float, front: Front | None
) -> int:
    from lockkit.cli.parameters import finite
    from lockkit.gpu.cli.cards import CardAnnouncer, Cards
    from lockkit.gpu.jobs import job_ttl
    from lockkit.gpu.pools import GpuLeases

    assert request.gpu is not None
    fitting.reaches_others(client)
    cards = Cards(client, session, request.gpu)

    def tell(sentence: str) -> None:
        output.notice(sentence, name=cards.pool, as_json=session.json)

    if cards.simulation is not None and not request.quiet:
        tell(cards.simulation)
    cards.keeps_others_apart(None if request.quiet else tell)
    options = taking.options_of(client, request, signals.wake, job_ttl(client.capabilities))
    options["max_hold"] = length / (1.0 - client.capabilities.drift) + _AFTER
    options["note"] = {"max_hold": length, RESERVATION: True}
    announcer = CardAnnouncer(
        client,
        quiet=request.quiet,
        as_json=session.json,
        signals=signals,
        cards=cards,
        limit=finite(request.timeout),
    )
    try:
        taken = cards.acquire(request, options, announcer)
    finally:
        announcer.done()
    assert isinstance(taken, GpuLeases)  # nobody can say that it may use the cards of a run around this one
    end = min(lease.began for lease in taken) + length
    try:
        variables = {key: value for key, value in cards.exports(taken).items() if value is not None}
    except BaseException:
        taken.release("error")
        raise
    return _Keeper(session, client, cards.pool, taken, signals, end, variables).keep(front)


class _Keeper(Keeper):
    """The keeper of a reservation.

    ``end`` is in seconds of CLOCK_BOOTTIME; ``variables`` show a program the cards.
    """

    def __init__(
        self,
        session: Session,
        client: Client,
        pool: str,
        taken: GpuLeases,
        signals: Signals,
        end: float,
        variables: Mapping[str, str],
    ) -> None:
        super().__init__(session, client, pool, taken, taken.devices)
        self._signals = signals
        self._end = end
        self._variables = variables

    def _left(self) -> float:
        return self._end - SYSTEM.now()

    def _is_over(self) -> bool:
        return self._left() <= 0

    def _wait(self) -> None:
        self._signals.wait(min(max(self._left(), 0.0), 60.0))  # a host that slept wakes within a minute

    def _until(self) -> float:
        return time.time() + self._left()

    def _sentence(self, event: Event) -> str:
        if event == "held":
            until = output.clock_time(self._until(), time.time())
            self._tell(f"{self._cards} reserved until {until}; to end it before: kill {os.getpid()}")
            return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self._variables.items())
        if event == "lost":
            return "the reservation is over"
        if event == "ended":
            return f"the time is over; {self._cards} released"
        return f"the reservation was ended; {self._cards} released"

    def _hint(self) -> str:
        options, first = as_called(self._session)
        return f"see who has it{first}: lockkit gpu ls{options}"

    def _heard(self, request: ReleaseRequest) -> str:
        return f"asked to release by {request}; to do so: kill {os.getpid()}"

    def _document(self, event: Event) -> documents.GpuReserve:
        from lockkit.cli import documents

        return self._of(documents.GpuReserve, event, until=self._until(), variables=self._variables)
