"""The GPUs of a host as commands show them: a table that fits the terminal, and a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.cli import output
from lockkit.noted import RESERVED
from lockkit.printable import printable
from lockkit.sizes import show as size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from lockkit.cli import documents, parts
    from lockkit.cli.gpu_views import GpuLook
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo
    from lockkit.gpu.judging import Receipt
    from lockkit.gpu.known import Known
    from lockkit.gpu.quarantine import Quarantined
    from lockkit.gpu.states import Card
    from lockkit.gpu.usage import Use

__all__ = ["document", "gpu", "hosts", "mark", "receipt", "table_of", "use_of_gpu"]

_COLOURS = {
    "free": "green",
    "busy": "yellow",
    "dirty": "yellow",
    "faulty": "red",
    "quarantined": "red",
    "sliced": "dim",
}
_WIDE, _NARROW = 120, 60
"""Columns."""
_SHORT = len("GPU-54a033e8")
_LEAST = {"model": len("model"), "state": len("quarantined"), "user": len("user")}
"""Columns that a cell may take at least, however little room there is."""


def document(seen: GpuLook) -> documents.GpuLs:
    """The document of ``lockkit gpu ls``."""
    from lockkit.cli import documents
    from lockkit.gpu.known import NOTHING_KNOWN

    taken, known = seen.snapshot.taken, seen.known
    return documents.GpuLs(
        host=seen.host,
        read_at=output.rfc3339(taken),
        read_at_seconds=taken,
        gpus=[gpu(card, known.get(card.device.uuid, NOTHING_KNOWN), seen.uses, taken) for card in seen.cards],
        remarks=seen.snapshot.remarks,
        waiting=None if seen.host is None else seen.waits.get(seen.host),
    )


def gpu(card: Card, of_store: Known, uses: Mapping[str, Use], now: float) -> parts.Gpu:
    """A card. ``uses`` has the use that holders make of it, by claim id; of the others, what they told counts."""
    from lockkit.cli import parts
    from lockkit.gpu.usage import use_of

    return parts.Gpu(
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
        quarantine=None if of_store.quarantine is None else mark(of_store.quarantine),
        holders=[output.claim(one) for one in of_store.holders],
        uses=[_use(one.claim_id, uses.get(one.claim_id) or use_of(one), now) for one in of_store.holders],
        receipt=None if of_store.receipt is None else receipt(of_store.receipt),
        users=card.users,
        unmanaged_users=card.unmanaged,
        waiting=card.waiting,
    )


def use_of_gpu(holder: ClaimInfo, now: float) -> list[str]:
    """The use that the holder of a GPU has told, in words; nothing for other locks."""
    own = holder.note.get(RESERVED)
    if not isinstance(own, Mapping) or "gpu" not in own:
        return []
    from lockkit.gpu.usage import use_of, use_words

    return use_words(use_of(holder), now)


def _use(claim_id: str, use: Use, now: float) -> parts.GpuUse:
    from lockkit.cli import parts

    since = use.idle_since
    return parts.GpuUse(
        claim_id=claim_id,
        declared_bytes=use.declared,
        used_bytes=use.used,
        more_than_declared=use.too_much,
        idle_since=None if since is None else output.rfc3339(since),
        idle_since_seconds=since,
        idle_seconds=None if since is None else max(now - since, 0.0),
    )


def hosts(client: Client, seen: GpuLook, known: Sequence[Known]) -> documents.GpuHosts:
    """The document of ``lockkit gpu ls --all-hosts``.

    Args:
        client: The client.
        seen: The look at all hosts.
        known: The facts that the store has about each card.
    """
    from lockkit.cli import documents, parts

    taken, here = seen.snapshot.taken, seen.host
    found: dict[str, list[parts.Gpu]] = {}
    for host, card, of_store in zip(seen.hosts, seen.cards, known, strict=True):
        found.setdefault(host, []).append(gpu(card, of_store, seen.uses if host == here else {}, taken))
    return documents.GpuHosts(
        store=output.store(client),
        read_at=output.rfc3339(taken),
        read_at_seconds=taken,
        hosts=[
            parts.GpuHost(host=host, live=host == here and seen.live, gpus=each, waiting=seen.waits.get(host))
            for host, each in found.items()
        ],
        remarks=seen.snapshot.remarks,
        waiting=seen.waiting,
    )


def table_of(found: Sequence[Card], width: int, hosts: Sequence[str] = ()) -> Table:
    """A table of all columns if they fit, without UUIDs at 80 columns, where one model of all cards is the title, and of short rows below 60. ``hosts`` has the host of each card, if that is told."""
    from rich.markup import escape

    from lockkit.cli.tables import add, table

    narrow = width < _NARROW
    columns: tuple[str, ...] = ("gpu", "model", "state", "user", "memory", "use", "why")
    if width >= _WIDE:
        columns = (*columns, "uuid")
    if hosts:
        columns = ("host", *columns)
    models = {card.device.name for card in found}
    title = None
    if not narrow and width < _WIDE and len(models) == 1 and "" not in models:
        columns = tuple(column for column in columns if column != "model")
        title = f"model: {printable(*models)}"
    short = _short_uuids(found)
    rows = [
        _cells(card, hosts[number] if hosts else "", short.get(card.device.uuid, "-"))
        for number, card in enumerate(found)
    ]
    made = table(*(("gpus",) if narrow else columns))
    made.title, made.title_justify, made.title_style = title and escape(title), "left", ""
    for column in made.columns:
        name = str(column.header)
        if name in ("gpu", "memory", "use", "uuid"):
            column.no_wrap = True
        elif name in ("model", "state", "user") and width < _WIDE:  # so that why has the room
            words = (word for cells in rows for word in cells[name].split())
            column.no_wrap, column.max_width = False, max(_LEAST[name], *map(len, words), 0)
    for card, cells in zip(found, rows, strict=True):
        row = [_stacked(cells)] if narrow else [cells[column] for column in columns]
        add(made, *row, style=_COLOURS.get(card.state))
    return made


def _cells(card: Card, host: str, uuid: str) -> dict[str, str]:
    """The cells of a card, by column."""
    from lockkit.gpu.states import STATES

    device = card.device
    index = str(device.index) if device.index >= 0 else "?"
    return {
        "host": host,
        "gpu": f"  {index}" if device.parent else index,
        "model": device.name or "-",
        "state": STATES[card.state],
        "user": ", ".join(_people(card)) or "-",
        "memory": _memory(card),
        "use": "-" if device.utilisation is None else f"{device.utilisation} %",
        "why": "; ".join((*card.reasons, *_wait_words(card))),
        "uuid": uuid,
    }


def _people(card: Card) -> list[str]:
    """The users of a card: those who hold it, and those who use it without a lock, who are marked on a card that is held."""
    mark = " (no lock)" if card.users else ""
    return [*card.users, *(f"{user}{mark}" for user in card.unmanaged)]


def _wait_words(card: Card) -> list[str]:
    """The number of requests that wait for a card."""
    return [f"{card.waiting} wait{'s' if card.waiting == 1 else ''} for it"] if card.waiting else []


def _memory(card: Card) -> str:
    """Memory in use of what programs can share."""
    used, usable = card.device.used, card.device.usable
    whole = "?" if usable is None else size(usable)
    if not used:
        return f"{'?' if used is None else 0}/{whole}"
    part, _, unit = size(used).partition(" ")
    return f"{part}/{whole}" if whole.endswith(f" {unit}") else f"{part} {unit}/{whole}"


def _short_uuids(found: Sequence[Card]) -> dict[str, str]:
    """The beginning of each UUID that names its card for commands, ``GPU-54a033e8``; the whole of one that begins like another."""
    uuids = {card.device.uuid for card in found if card.device.uuid}
    begins = [uuid[:_SHORT] for uuid in uuids]
    return {uuid: uuid[:_SHORT] if begins.count(uuid[:_SHORT]) == 1 else uuid for uuid in uuids}


def _stacked(cells: dict[str, str]) -> str:
    first = (
        f"{cells['host']} {cells['gpu']} {cells['model']}"
        if cells["host"]
        else f"{cells['gpu']} {cells['model']}"
    )
    who = "" if cells["user"] == "-" else f", {cells['user']}"
    rows = [first, f"  {cells['state']}{who}, {cells['memory']}, {cells['use']}"]
    return "\n".join([*rows, *([f"  {cells['why']}"] if cells["why"] else []), f"  {cells['uuid']}"])


def mark(found: Quarantined) -> parts.GpuMark:
    """The mark of a quarantined card."""
    from lockkit.cli import parts

    return parts.GpuMark(
        reason=found.reason,
        by=found.by,
        since=output.rfc3339(found.since),
        since_seconds=found.since,
        automatic=found.automatic,
    )


def receipt(report: Receipt) -> parts.GpuReceipt:
    """How the last holder left a card."""
    from lockkit.cli import parts

    return parts.GpuReceipt(
        outcome=report.outcome,
        leftover_bytes=report.leftover,
        left_by=report.left_by,
        claim_id=report.claim_id,
        fence=report.fence,
        by=report.by,
        at=output.rfc3339(report.at),
        at_seconds=report.at,
        errors=report.errors,
    )
