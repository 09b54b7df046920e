"""``lockkit gpu adopt``: keep a claim on the cards of a job that already runs, until the job ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from lockkit.cli import completing, exits, fitting, output
from lockkit.cli.background import Front
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import SIMULATE
from lockkit.cli.parameters import Duration, Number, Remark, Size
from lockkit.cli.signals import Signals
from lockkit.cli.suggesting import as_called
from lockkit.gpu.cli.keeper import Event, Keeper
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.cli import documents
    from lockkit.facts import Reason, ReleaseRequest
    from lockkit.gpu.adopting import Adopted
    from lockkit.gpu.running import RunningJob
    from lockkit.shared.options import Options
    from lockkit.sync.client import Client

__all__ = ["command"]

_MOST = 1 << 22
"""The largest pid of Linux (proc(5), pid_max)."""
_LONG = 3600.0
"""Seconds between two looks at nothing: all that the keeper waits for wakes it."""


class AdoptOptions(NamedTuple):
    """The options; None if the configuration or the job decides. Sizes are bytes, times seconds."""

    ids: tuple[str, ...] = ()
    memory: int | None = None
    allow_busy: bool = False
    reason: str | None = None
    ttl: float | None = None
    private: bool = False
    simulate: int | None = None


@make(
    "adopt",
    short="Hold the GPUs of a job that already runs, until it ends.",
    examples="""
lockkit gpu adopt 4711                      # until pid 4711 ends, or Ctrl-C
lockkit gpu adopt 4711 --detach             # in the background
lockkit gpu adopt 4711 --gpu-mem 8GiB       # leave the rest to others
lockkit gpu adopt 4711 --gpu GPU-54a033e8   # where pids cannot be told
""",
)
@click.argument("pid", type=Number(1, _MOST))
@option(
    "--gpu",
    "ids",
    multiple=True,
    metavar="ID",
    shell_complete=completing.usable_cards,
    help="Only this GPU: a UUID, or an index as lockkit gpu ls has it. May be repeated.  "
    "[default: all on which PID computes]",
)
@option(
    "--gpu-mem",
    "memory",
    type=Size(),
    help="Take so much of each GPU's memory, and share the rest.  [default: whole GPUs]",
)
@option("--allow-busy", is_flag=True, help="Also take whole GPUs on which others compute, too.")
@option(
    "--detach",
    is_flag=True,
    help="Go to the background once the GPUs are held. Later messages are not shown on the terminal; a "
    "file named by 2> FILE still gets them.",
)
@option("--reason", type=Remark(), metavar="TEXT", help="Why: shown wherever the holder is shown.")
@option(
    "--ttl",
    type=Duration(),
    help="How long the GPUs are kept after the keeper has fallen silent.  [default: 60s; on Redis 5m]",
)
@option("--private", is_flag=True, help="The store may keep only my jobs apart: nobody else uses these GPUs.")
@SIMULATE
def command(session: Session, *, pid: int, detach: bool, **options: Any) -> int:
    r"""Hold the GPUs of a job that already runs until it ends, as if lockkit run --gpu had started it.

    This command becomes the keeper of the process PID: it holds all GPUs on which PID computes, or none, and
    releases them when PID ends. PID itself notices nothing. Others see its GPUs as held. The keeper does not
    wait: if somebody holds one of them, it exits 75 and names the holder.

    If the keeper ends first (Ctrl-C, SIGTERM), PID goes on, and its GPUs are busy (unmanaged) again: nobody
    gets them while PID computes. The same is true if the keeper is killed: at once on the store of this host,
    within --ttl on others.

    PID must be yours, or you must be root, and this command must run where PID does: for a job in a
    container, in that container. How PID ends is not known here: the exit code is about the GPUs.

    \b
    Exit codes:
      0 PID has ended, and its GPUs are released; with --detach: they are held
      75 somebody holds one      76 the lock was lost, and PID goes on
      78 nothing can be adopted  130, 143 the keeper was ended, and PID goes on
    """
    from lockkit.gpu.running import RunningJob

    with RunningJob(pid) as job:
        front = Front() if detach else None
        if front is not None and front.keeper:
            return front.wait()
        with Signals() as signals, session.client(where="wrapper") as client:
            fitting.reaches_others(client)
            pool, adopted = _take(session, client, job, signals, AdoptOptions(**options))
            return _Keeper(session, client, pool, adopted, job, signals).keep(front)


def _take(
    session: Session, client: Client, job: RunningJob, signals: Signals, asked: AdoptOptions
) -> tuple[str, Adopted]:
    """Take the claims. Returns the pool of this host's cards, too.

    Raises:
        CommandFailed: A card cannot be had now.
        LockkitError: As :func:`lockkit.gpu.adopting.adopt`.
    """
    from lockkit.cli.run_request import CardOptions
    from lockkit.gpu.adopting import NotAdopted, adopt
    from lockkit.gpu.cli.cards import Cards
    from lockkit.gpu.jobs import job_ttl
    from lockkit.lib.descent import descendants

    cards = Cards(client, session, CardOptions(1, simulate=asked.simulate, private=asked.private))
    cards.keeps_others_apart(lambda sentence: output.notice(sentence, name=cards.pool, as_json=session.json))
    options: Options = {
        "ttl": asked.ttl or job_ttl(client.capabilities),
        "timeout": 0.0,
        "on_lost": signals.wake,
    }
    if asked.reason is not None:
        options["reason"] = asked.reason
    adopted = adopt(
        client,
        job,
        options=options,
        simulate=asked.simulate,
        ids=asked.ids or None,
        memory=asked.memory,
        allow_busy=asked.allow_busy,
        family=descendants(job.pid),
    )
    if isinstance(adopted, NotAdopted):
        suggested, first = as_called(session)
        raise exits.CommandFailed(
            f"the GPUs of {job} cannot be held; {'; '.join(adopted.sentences)}",
            code=exits.BUSY,
            kind="busy",
            name=cards.pool,
            holder=adopted.holder,
            hint=f"it goes on as before; look{first} with: lockkit gpu ls{suggested}",
        )
    return cards.pool, adopted


class _Keeper(Keeper):
    """The keeper of a job."""

    def __init__(
        self,
        session: Session,
        client: Client,
        pool: str,
        adopted: Adopted,
        job: RunningJob,
        signals: Signals,
    ) -> None:
        super().__init__(session, client, pool, adopted.leases, adopted.devices)
        self._adopted = adopted
        self._job = job
        self._signals = signals

    def _is_over(self) -> bool:
        return self._job.ended()

    def _wait(self) -> None:
        self._signals.wait(_LONG, (self._job.fileno(),))

    def _release(self, reason: Reason) -> None:
        from lockkit.gpu.adopting import let_go

        let_go(self._adopted, self._job, reason)

    def _sentence(self, event: Event) -> str:
        job, cards = self._job, self._cards
        if event == "held":
            return f"{cards} held for {job} until it ends; the keeper is pid {os.getpid()}"
        if event == "ended":
            return f"{job} has ended; {cards} released"
        if event == "lost":
            return f"{job} {'has ended' if job.ended() else 'goes on without it'}"
        options, first = as_called(self._session)
        return (
            f"{job} goes on, and {cards} no longer held for it: busy (unmanaged) while it computes; "
            f"to adopt it again{first}: lockkit gpu adopt {job.pid}{options}"
        )

    def _hint(self) -> str:
        options, first = as_called(self._session)
        return f"to adopt it again{first}: lockkit gpu adopt {self._job.pid}{options}"

    def _heard(self, request: ReleaseRequest) -> str:
        return f"asked to release by {request}; the keeper goes on until {self._job} ends"

    def _document(self, event: Event) -> documents.GpuAdopt:
        from lockkit.cli import documents

        return self._of(documents.GpuAdopt, event, job=self._job)
