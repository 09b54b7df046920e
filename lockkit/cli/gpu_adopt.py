"""``lockkit gpu adopt``: keep a claim on the cards of a job that already runs, until the job ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from lockkit.cli import completing, exits, fitting, output
from lockkit.cli.background import Front
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import SIMULATE
from lockkit.cli.parameters import Duration, Number, Remark, Size
from lockkit.cli.signals import Signals, Terminated
from lockkit.cli.suggesting import as_called
from lockkit.facts import LOSSES
from lockkit.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.cli import documents
    from lockkit.client import Client
    from lockkit.facts import ReleaseRequest
    from lockkit.gpu.adopting import Adopted
    from lockkit.gpu.running import RunningJob
    from lockkit.options import Options

__all__ = ["command"]

Event = Literal["held", "ended", "stopped", "lost"]
_MOST = 1 << 22
"""The largest pid of Linux (proc(5), pid_max)."""
_LONG = 3600.0
"""Seconds between two looks at nothing: all that the keeper waits for wakes it."""


class AdoptOptions(NamedTuple):
    """The options of the command line; None if the configuration or the job decides. Sizes are bytes, times seconds."""

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
    help="Only this GPU: a UUID, or an index as lockkit gpu ls has it. May be repeated.  [default: all on which PID computes]",
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
    help="Go to the background once the GPUs are held. Later messages are not shown on the terminal; a file named by 2> FILE still gets them.",
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
    r"""Hold the GPUs of a job that already runs until it ends, as if it had been started with lockkit run --gpu.

    This command becomes the keeper of the process PID: it holds all GPUs on which PID computes, or none, and releases them when PID ends. PID
    itself notices nothing. Others see its GPUs as held. The keeper does not wait: if somebody holds one of them, it exits 75 and names the
    holder.

    If the keeper ends first (Ctrl-C, SIGTERM), PID goes on, and its GPUs are busy (unmanaged) again: nobody is given them while PID
    computes. So they are if the keeper is killed: at once on the store of this host, within --ttl on others.

    PID must be yours, or you must be root, and this command must run where PID does: for a job in a container, in that container. How PID
    ends is not known here: the exit code is about the GPUs.

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
            keeping = _Keeping(session, client, job, signals)
            return keeping.keep(keeping.take(AdoptOptions(**options)), front)


class _Keeping:
    """One keeper: takes the cards, watches the job, and says what becomes of them.

    Args:
        session: The common options.
        client: The client, which keeps the claims.
        job: The job.
        signals: End the watch; a lost claim wakes it.
    """

    def __init__(self, session: Session, client: Client, job: RunningJob, signals: Signals) -> None:
        self._session = session
        self._client = client
        self._job = job
        self._signals = signals
        self._pool = ""

    def take(self, asked: AdoptOptions) -> Adopted:
        """Take the claims.

        Raises:
            CommandFailed: A card cannot be had now.
            LockkitError: As :func:`lockkit.gpu.adopting.adopt`.
        """
        from lockkit.cli.cards import CardOptions, Cards
        from lockkit.descent import descendants
        from lockkit.gpu.adopting import NotAdopted, adopt
        from lockkit.gpu.jobs import job_ttl

        client, job = self._client, self._job
        cards = Cards(client, self._session, CardOptions(1, simulate=asked.simulate, private=asked.private))
        cards.keeps_others_apart(self._tell)
        self._pool = cards.pool
        options: Options = {
            "ttl": asked.ttl or job_ttl(client.capabilities),
            "timeout": 0.0,
            "on_lost": self._signals.wake,
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
            suggested, first = as_called(self._session)
            raise exits.CommandFailed(
                f"the GPUs of {job} cannot be held; {'; '.join(adopted.sentences)}",
                code=exits.BUSY,
                kind="busy",
                name=cards.pool,
                holder=adopted.holder,
                hint=f"it goes on as before; look{first} with: lockkit gpu ls{suggested}",
            )
        return adopted

    def keep(self, adopted: Adopted, front: Front | None) -> int:
        """Keep the claims until the job ends. Returns the exit code.

        Raises:
            CommandFailed: A claim was lost.
            KeyboardInterrupt, Terminated: A signal ended the keeper. The job goes on.
        """
        from lockkit.gpu.adopting import let_go

        reason = "error"
        try:
            self._held(adopted)
            if front is not None:
                front.leave()
            lost = self._watched(adopted)
            reason = "normal" if lost is None else "lost"
        except (KeyboardInterrupt, Terminated):
            reason = "sigterm"
            raise
        finally:
            let_go(adopted, self._job, reason)
            if reason == "sigterm":
                self._say("stopped", adopted, self._left(adopted))
        return self._ended(adopted, lost)

    def _held(self, adopted: Adopted) -> None:
        for lease in adopted.leases:
            lease.on_release_requested(self._hear)
        self._say(
            "held",
            adopted,
            f"{_cards(adopted)} held for {self._job} until it ends; the keeper is pid {os.getpid()}",
        )

    def _watched(self, adopted: Adopted) -> str | None:
        """Wait for the end of the job. Returns why a claim was lost before; None if none was."""
        while not self._job.ended():
            because = adopted.leases.lost_because
            if because:
                return LOSSES.get(because, because)
            self._signals.wait(_LONG, (self._job.fileno(),))
        return None

    def _ended(self, adopted: Adopted, lost: str | None) -> int:
        """Say how it ended. Returns the exit code.

        Raises:
            CommandFailed: A claim was lost.
        """
        reports = [report for lease in adopted.leases if (report := lease.report) is not None]
        if lost is None and any(report.outcome == "LOST" for report in reports):
            lost = f"at its release {LOSSES['absent']}"
        if lost is not None:
            if self._session.json:
                self._say("lost", adopted, "")
            goes_on = "has ended" if self._job.ended() else "goes on without it"
            raise exits.CommandFailed(
                f"{_cards(adopted)} no longer held, because the lock was lost: {lost}; {self._job} {goes_on}",
                code=exits.LOST,
                kind="lost",
                name=self._pool,
                hint=f"to adopt it again{self._again()}",
            )
        self._say("ended", adopted, f"{self._job} has ended; {_cards(adopted)} released")
        for report in reports:
            if report.outcome == "ABANDONED":
                self._tell(
                    f"the release of {report.name!r} was not confirmed; it lapses by itself (lockkit failures list)"
                )
        return exits.OK

    def _left(self, adopted: Adopted) -> str:
        """The sentence on what becomes of job and cards when the keeper ends first."""
        return (
            f"{self._job} goes on, and {_cards(adopted)} no longer held for it: busy (unmanaged) while it computes; "
            f"to adopt it again{self._again()}"
        )

    def _again(self) -> str:
        options, first = as_called(self._session)
        return f"{first}: lockkit gpu adopt {self._job.pid}{options}"

    def _hear(self, request: ReleaseRequest) -> None:
        self._tell(f"asked to release by {request}; the keeper goes on until {self._job} ends")

    def _say(self, event: Event, adopted: Adopted, sentence: str) -> None:
        """Write an event: a sentence, or a document of one row."""
        if not self._session.json:
            output.say(sentence)
        else:
            output.write_json(self._document(event, adopted))
        sys.stdout.flush()

    def _document(self, event: Event, adopted: Adopted) -> documents.GpuAdopt:
        from lockkit.cli import documents, parts
        from lockkit.cli.released import run_leases
        from lockkit.gpu.host_pools import host_of
        from lockkit.views import making

        return documents.GpuAdopt(
            store=making.store(self._client),
            host=host_of(self._pool),
            event=event,
            keeper=os.getpid(),
            job=parts.GpuJob(pid=self._job.pid, user=self._job.user, program=self._job.program),
            gpus=[
                parts.GpuName(uuid=one.uuid, index=one.index, name=one.name or None)
                for one in adopted.devices
            ],
            leases=run_leases(adopted.leases),
        )

    def _tell(self, sentence: str) -> None:
        output.notice(sentence, name=self._pool, as_json=self._session.json)


def _cards(adopted: Adopted) -> str:
    """The cards, with the verb: ``GPU 0 is``."""
    from lockkit.gpu.words import short_name

    verb = "is" if len(adopted.devices) == 1 else "are"
    return f"{', '.join(map(short_name, adopted.devices))} {verb}"
