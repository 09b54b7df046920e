"""``lockkit gpu``: the GPUs of this host."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, fitting, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import SIMULATE
from lockkit.cli.parameters import Duration, Remark
from lockkit.cli.signals import Signals
from lockkit.cli.updates import between_updates
from lockkit.cli.watching import print_each, redraw, trying_again
from lockkit.errors import DevicesUnavailable
from lockkit.gpu.cli.adopt import command as adopt
from lockkit.gpu.cli.completing import cards, marked_cards
from lockkit.gpu.cli.reserve import command as reserve
from lockkit.gpu.views import FleetView, GpuLook, HostView
from lockkit.lib.printable import printable
from lockkit.values.identity import this_process

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lockkit.sync.client import Client

__all__ = ["command"]

command = Group(
    "gpu",
    help="""Show the GPUs of this host, reserve some, adopt jobs that already use them, and quarantine faulty
    ones.

    Needs the extra gpu (pip install "lockkit[gpu]") and NVIDIA's driver, or a plugin for cards of another
    maker. On a host without a GPU ls, reserve, quarantine and clear can be tried with --gpu-sim 2; adopt
    needs a job on a GPU.

    A command gets GPUs with lockkit run --gpu 1 -- CMD, and waits for them in a queue; lockkit run --help has
    the options. A program gets them with lockkit.gpu.pool(client).acquire().
    """,
    examples="""
lockkit run --gpu 1 -- python train.py        # wait for a GPU, and use it
lockkit gpu ls                                # who has which
lockkit gpu ls --gpu-sim 2                    # on any machine
lockkit gpu reserve --for 4h                  # a GPU for work by hand
lockkit gpu adopt 4711                        # a job that runs without a lock
lockkit gpu quarantine 3 --reason "Xid 79"    # give it to nobody
""",
)
command.add_command(adopt)
command.add_command(reserve)


@make(
    "ls",
    group=command,
    short="List GPUs: which are free, who holds the others, who waits.",
    examples="""
lockkit gpu ls
lockkit gpu ls --watch             # live; Ctrl-C ends it
lockkit gpu ls --json | jq -r '.gpus[] | select(.state == "free").uuid'
lockkit gpu ls --all-hosts         # of all hosts that share the store
lockkit gpu ls --gpu-sim 2         # on any machine
""",
)
@option("--all-hosts", is_flag=True, help="All hosts that share the store; of others, what the store knows.")
@option(
    "--watch",
    is_flag=True,
    help="Update the table again and again; with --json, print one document per line.",
)
@option("--interval", type=Duration(), help="Time between two updates of --watch.  [default: 2s]")
@SIMULATE
def _ls(
    session: Session, *, all_hosts: bool, watch: bool, interval: float | None, simulate: int | None
) -> None:
    """List the GPUs of this host: which are free, who holds the others, and which are faulty.

    A GPU is held if somebody holds the whole of it, and shared if holders have declared parts of its memory.
    It is busy (unmanaged) if a program computes on it without a lock, or more than 1 GiB is in use beyond
    what the driver reserves. It is dirty if its last holder left memory in use. A quarantined GPU is given to
    nobody: see lockkit gpu quarantine. MIG slices follow their GPU. A process of unknown pid, as in a
    container, is shown with what is known of it. The column user has who holds a GPU, and who uses it without
    a lock. The last row counts the requests that wait.

    With --all-hosts the GPUs of all hosts that have used the store are listed. Live readings are those of
    this host only. Of the others the store knows who holds which GPU, the use that holders reported, and how
    GPUs were left. Only its own host knows whether a GPU that nobody holds is in use. Simulated GPUs are
    listed only with --gpu-sim, and then alone.

    In a container that does not know the name of its host (LOCKKIT_GPU_HOST), each GPU is listed as unknown.

    Exit code: 0 there are GPUs, or --all-hosts was given, 78 there are none, or nothing is known about any.
    """
    between = between_updates(interval, watch=watch, usual=2.0)
    with session.client() as client:
        view = FleetView(client, simulate) if all_hosts else HostView(client, simulate)
        if not watch:
            _print(session, client, view.look())
            return
        try:
            with Signals():  # so that the cursor is shown again, however the command ends
                _watch(session, client, view, between)
        except KeyboardInterrupt:
            return  # Ctrl-C is the normal way to end it


def _watch(session: Session, client: Client, view: HostView, interval: float) -> None:
    if session.json or not output.colour():
        print_each(session, view.looks(interval), lambda seen: _print(session, client, seen))
        return
    from rich.live import Live

    from lockkit.gpu.cli.tables import below

    with Live(auto_refresh=False, screen=False) as live:
        last: GpuLook | None = None
        rows: list[str] = []
        for seen in view.looks(interval):
            if not isinstance(seen, GpuLook):
                told = [trying_again(seen), *rows]  # the last state stays on the screen, with its time
            else:
                last = seen
                at = time.strftime("%H:%M:%S", time.localtime(seen.snapshot.taken))
                told = rows = [*below(seen), at]
            table = _fitting(live.console, last, told)
            redraw(live, table)


def _fitting(console: Console, seen: GpuLook | None, told: Sequence[str]) -> Table:
    """The table of as many cards as the terminal has rows for, with messages and the number left out."""
    from rich.markup import escape

    from lockkit.cli.tables import width
    from lockkit.gpu.cli.tables import table_of

    cards, hosts = (seen.cards, seen.hosts) if seen else ((), ())

    def made(hidden: int) -> Table:
        shown = len(cards) - hidden
        table = table_of(cards[:shown], width(), hosts[:shown])
        more = [f"... and {hidden} more: lockkit gpu ls"] if hidden else []
        table.caption = escape(printable("\n".join([*more, *told]), lines=True))
        return table

    def fits(hidden: int) -> bool:
        return len(console.render_lines(made(hidden), pad=False)) <= console.size.height

    return made(bisect_left(range(len(cards)), True, key=fits))


def _print(session: Session, client: Client, seen: GpuLook) -> None:
    if session.json:
        from lockkit.gpu import documents

        made = documents.document(seen) if seen.each is None else documents.hosts(client, seen, seen.each)
        output.write_json(made, indent=True)
        return
    from lockkit.cli.tables import show, width
    from lockkit.gpu.cli.tables import below, table_of

    if seen.cards or seen.each is None:
        show(table_of(seen.cards, width(), seen.hosts))
    for row in below(seen):
        output.say(row)


def _cards(client: Client, view: HostView, host: str, uuid: str) -> set[str] | None:
    """All cards of a host that its driver or the store knows; None if neither does.

    They get marks in place of damaged ones. Without them damaged marks stay.
    """
    from lockkit.gpu.enlisting import listed_cards

    found = {*listed_cards(client, host)}
    with contextlib.suppress(DevicesUnavailable):
        found |= {*view.cards()}
    return {uuid, *found} if found else None


@make(
    "quarantine",
    group=command,
    examples="""
lockkit gpu quarantine 3 --reason "Xid 79 twice today, ticket 4711"
lockkit gpu quarantine GPU-54a033e8 --reason "being replaced"
""",
)
@click.argument("card", metavar="GPU", shell_complete=cards)
@option("--reason", type=Remark(), required=True, help="Why: shown wherever the GPU is shown.")
@SIMULATE
def _quarantine(session: Session, card: str, *, reason: str, simulate: int | None) -> None:
    """Stop giving out a GPU of this host until lockkit gpu clear. The present holder keeps the GPU.

    GPU is a UUID, at least the first 8 characters of one, or an index, as lockkit gpu ls shows them. All
    users of the store see the mark, with its reason and your name, in lockkit gpu ls and wherever they wait
    for the GPU. Requests wait for other GPUs; one that needs this GPU waits, outside of the queue, until it
    is cleared.
    """
    from lockkit.gpu.marks import record_name as gate
    from lockkit.gpu.quarantine import quarantined

    with session.client() as client:
        fitting.reaches_others(client)
        view = HostView(client, simulate)
        uuid, host = view.meant(card), view.host
        before = quarantined(client, host).get(uuid)
        host, mark = view.quarantine(uuid, reason, this_process(), _cards(client, view, host, uuid))
        if client.capabilities.scope == "user":
            output.notice(
                "other users do not see this mark, because this store keeps only your jobs apart; for all "
                "users: lockkit docs all-users",
                name=gate(host),
                as_json=session.json,
            )
        if session.json:
            from lockkit.views import documents

            output.print_json(
                documents.GpuQuarantine, store=client, host=host, uuid=uuid, quarantine=mark, indent=True
            )
            return
    replaced = "" if before is None else f"; this replaces another mark: it was {before}"
    output.say(f"{uuid} is {mark}{replaced}; to give it back: lockkit gpu clear {uuid}")


@make(
    "clear",
    group=command,
    examples="""
lockkit gpu clear 3
lockkit gpu clear GPU-54a033e8 --reason "exchanged, ticket 4711"
""",
)
@click.argument("card", metavar="GPU", shell_complete=marked_cards)
@option("--reason", type=Remark(), metavar="TEXT", help="Why: in the event gpu_cleared.")
@SIMULATE
def _clear(session: Session, card: str, *, reason: str | None, simulate: int | None) -> int:
    """End the quarantine of a GPU of this host.

    GPU is a UUID, at least the first 8 characters of one, or an index. A GPU that is no longer seen can be
    cleared by its UUID. Look at a GPU that a program found faulty before you clear it: nothing is tested
    here.

    Exit code: 0 the GPU can be given out again, 1 it was not quarantined.
    """
    from lockkit.gpu.known import holders_of
    from lockkit.gpu.quarantine import give_back

    with session.client() as client:
        fitting.reaches_others(client)
        view = HostView(client, simulate)
        uuid, host = view.meant(card), view.host
        mark = give_back(client, host, uuid, reason or "", this_process(), _cards(client, view, host, uuid))
        holders = () if mark is None or session.json else holders_of(client, host, uuid)
        if session.json:
            from lockkit.cli import documents

            output.print_json(
                documents.GpuClear,
                store=client,
                host=host,
                uuid=uuid,
                quarantine=mark,
                reason=reason,
                indent=True,
            )
    because = f": {reason}" if reason else ""
    if not session.json:
        held = "s have" if len(holders) > 1 else " has"
        when = f" when its holder{held} released it" if holders else ""
        output.say(
            f"{uuid} was not quarantined"
            if mark is None
            else f"{uuid} can be given out again{when}{because}; it was {mark}"
        )
    return exits.FAILED if mark is None else exits.OK
