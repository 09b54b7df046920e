"""``lockkit gpu``: the GPUs of this host."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockkit.cli import exits, output
from lockkit.cli.base import Duration, Group, Number, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.signals import Signals
from lockkit.errors import DevicesUnavailable
from lockkit.printable import printable
from lockkit.settings import SETTINGS
from lockkit.sizes import show as size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from lockkit.cli import documents
    from lockkit.devices import DeviceProvider, Snapshot
    from lockkit.gpu.states import Card

__all__ = ["command"]

_COLOURS = {"free": "green", "busy": "yellow", "faulty": "red", "sliced": "dim"}
_WIDE, _NARROW = 120, 60
"""Columns."""

command = Group(
    "gpu",
    help="""Show the GPUs of this host.

    Needs the extra gpu (pip install "lockkit[gpu]") and NVIDIA's driver, or a plugin for cards of another maker. Each of these commands can
    be tried on a host without any: --gpu-sim 2.
    """,
    examples="""
lockkit gpu ls
lockkit gpu ls --gpu-sim 2
""",
)


@make(
    "ls",
    group=command,
    examples="""
lockkit gpu ls
lockkit gpu ls --watch             # live; Ctrl-C ends it
lockkit gpu ls --json | jq -r '.gpus[] | select(.state == "free").uuid'
lockkit gpu ls --gpu-sim 2         # on any machine
""",
)
@option(
    "--watch",
    is_flag=True,
    help="Update the table again and again; with --json, print one document per line.",
)
@option(
    "--interval", type=Duration(), default=2.0, help="Time between two updates of --watch.  [default: 2s]"
)
@option(
    "--gpu-sim",
    "simulate",
    type=Number(0, SETTINGS["gpu_simulate"].most),
    metavar="N",
    help="Simulate N GPUs in place of those of the host; 0: none.  [default: gpu.simulate]",
)
def _ls(session: Session, *, watch: bool, interval: float, simulate: int | None) -> None:
    """List the GPUs of this host: which are free, which are busy and with what, and which are not well.

    Busy (unmanaged) is a card on which a program computes, or of which more than 1 GiB is in use beyond what the driver reserves. A process
    whose pid cannot be told, as in a container, is shown with what is known of it. A card that is divided into MIG slices is followed by
    them.

    Exit code: 0 there are GPUs, 78 there are none, or nothing can be said about any.
    """
    from lockkit.gpu.looking import look, providers
    from lockkit.plugins import PluginManager

    config = session.config()
    asked = providers(config, PluginManager(disabled=config.disable_plugins), simulate=simulate)
    if not watch:
        _print(session, look(asked))
        return
    try:
        with Signals():  # so that the cursor is shown again, however the command ends
            _watch(session, asked, interval)
    except KeyboardInterrupt:
        return  # Ctrl-C is the normal way to end it


def _watch(session: Session, asked: Sequence[DeviceProvider], interval: float) -> None:
    if session.json or not output.colour():
        for seen in _looks(asked, interval):
            if not isinstance(seen, DevicesUnavailable):
                _print(session, seen)
            elif session.json:
                output.write_json(exits.describe(seen), stream=sys.stderr)
            else:
                output.say(_away(seen))
            sys.stdout.flush()
    from rich.live import Live
    from rich.markup import escape

    from lockkit.cli.tables import width
    from lockkit.gpu.states import cards

    with Live(auto_refresh=False, screen=False) as live:
        found: tuple[Card, ...] = ()
        rows: list[str] = []
        for seen in _looks(asked, interval):
            if isinstance(seen, DevicesUnavailable):
                told = [_away(seen), *rows]  # the last state stays on the screen, with its time
            else:
                found = cards(seen)
                told = rows = [*_below(found, seen), time.strftime("%H:%M:%S", time.localtime(seen.taken))]
            table = _table(found, width())
            table.caption = escape(printable("\n".join(told), lines=True))
            live.update(table, refresh=True)


def _looks(asked: Sequence[DeviceProvider], interval: float) -> Iterator[Snapshot | DevicesUnavailable]:
    """Look again and again. A failure is yielded; the first look raises it."""
    from lockkit.gpu.looking import look

    seen: Snapshot | DevicesUnavailable = look(asked)
    while True:
        yield seen
        time.sleep(interval)
        try:
            seen = look(asked)
        except DevicesUnavailable as error:
            seen = error


def _away(error: DevicesUnavailable) -> str:
    return f"trying again: {error.message}"


def _print(session: Session, seen: Snapshot) -> None:
    from lockkit.gpu.states import cards

    found = cards(seen)
    if session.json:
        output.write_json(_document(seen, found), indent=True)
        return
    from lockkit.cli.tables import show, width

    show(_table(found, width()))
    for row in _below(found, seen):
        output.say(row)


def _below(found: tuple[Card, ...], seen: Snapshot) -> list[str]:
    """The rows below the table."""
    from lockkit.gpu.states import summary

    return [summary(found), *seen.remarks]


def _document(seen: Snapshot, found: tuple[Card, ...]) -> documents.GpuLs:
    import os

    from lockkit.cli import documents, parts

    return documents.GpuLs(
        host=os.uname().nodename,
        read_at=output.rfc3339(seen.taken),
        read_at_seconds=seen.taken,
        gpus=[
            parts.Gpu(
                uuid=card.device.uuid or None,
                index=card.device.index,
                name=card.device.name or None,
                parent=card.device.parent,
                state=card.state,
                reasons=card.reasons,
                memory_bytes=card.device.memory,
                reserved_bytes=card.device.reserved,
                used_bytes=card.device.used,
                utilisation_percent=card.device.utilisation,
                processes=None
                if card.device.processes is None
                else [
                    parts.GpuProcess(pid=one.pid, user=one.user, program=one.program, memory_bytes=one.memory)
                    for one in card.device.processes
                ],
                faults=card.device.faults,
            )
            for card in found
        ],
        remarks=seen.remarks,
    )


def _table(found: Sequence[Card], width: int) -> Table:
    """A table of all columns if they fit, without UUIDs at 80 columns, and of short rows below 60."""
    from lockkit.cli.tables import add, table
    from lockkit.gpu.states import STATES

    narrow = width < _NARROW
    columns: tuple[str, ...] = ("gpu", "model", "state", "memory", "use", "why")
    if width >= _WIDE:
        columns = (*columns, "uuid")
    made = table(*(("gpus",) if narrow else columns))
    for card in found:
        device = card.device
        cells = {
            "gpu": f"  {device.index}" if device.parent else str(device.index),
            "model": device.name or "-",
            "state": STATES[card.state],
            "memory": _memory(card),
            "use": "-" if device.utilisation is None else f"{device.utilisation} %",
            "why": "; ".join(card.reasons),
            "uuid": device.uuid or "-",
        }
        row = [_stacked(cells)] if narrow else [cells[column] for column in columns]
        add(made, *row, style=_COLOURS.get(card.state))
    return made


def _memory(card: Card) -> str:
    """Memory in use of what programs can share."""
    used, usable = card.device.used, card.device.usable
    return f"{'?' if used is None else size(used)} of {'?' if usable is None else size(usable)}"


def _stacked(cells: dict[str, str]) -> str:
    rows = [f"{cells['gpu']} {cells['model']}", f"  {cells['state']}, {cells['memory']}, {cells['use']}"]
    return "\n".join([*rows, *([f"  {cells['why']}"] if cells["why"] else []), f"  {cells['uuid']}"])
