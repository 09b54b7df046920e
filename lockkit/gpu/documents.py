"""GPUs as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.views import documents, making, parts
from lockkit.views.texts import rfc3339

if TYPE_CHECKING:
    from lockkit.gpu.judging import Receipt
    from lockkit.gpu.known import Known
    from lockkit.gpu.quarantine import Quarantined
    from lockkit.gpu.states import Card
    from lockkit.gpu.usage import Use
    from lockkit.gpu.views import GpuLook
    from lockkit.sync.client import Client

__all__ = [
    "document",
    "gpu",
    "hosts",
    "mark",
    "receipt",
    "seen_here",
]


def document(seen: GpuLook) -> documents.GpuLs:
    """The document of ``lockkit gpu ls``."""
    from lockkit.gpu.known import NOTHING_KNOWN

    taken, known = seen.snapshot.taken, seen.known
    return documents.GpuLs(
        host=seen.host,
        read_at=rfc3339(taken),
        read_at_seconds=taken,
        gpus=[gpu(card, known.get(card.device.uuid, NOTHING_KNOWN), seen.uses, taken) for card in seen.cards],
        remarks=seen.snapshot.remarks,
        waiting=None if seen.host is None else seen.waits.get(seen.host),
    )


def seen_here(client: Client, simulate: int | None) -> documents.GpuLs:
    """The GPUs of this host; an empty list with a remark if nothing can be said about any.

    Args:
        client: The client.
        simulate: The number of GPUs to simulate; None for what the configuration says.
    """
    from lockkit.gpu.views import HostView

    view = HostView(client, simulate)
    try:
        return document(view.look())
    except DevicesUnavailable as error:
        now, host = client.driver().clock.wall(), None
        with suppress(ConfigError):
            host = view.host
        return documents.GpuLs(
            host=host,
            read_at=rfc3339(now),
            read_at_seconds=now,
            gpus=(),
            remarks=(error.message,),
            waiting=None,
        )


def gpu(card: Card, of_store: Known, uses: Mapping[str, Use], now: float) -> parts.Gpu:
    """A card. ``uses``: measured use by claim id; a holder without one counts with its last report."""
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
        holders=[making.claim(one) for one in of_store.holders],
        uses=[_use(one.claim_id, uses.get(one.claim_id) or use_of(one), now) for one in of_store.holders],
        receipt=None if of_store.receipt is None else receipt(of_store.receipt),
        users=card.users,
        unmanaged_users=card.unmanaged,
        waiting=card.waiting,
    )


def _use(claim_id: str, use: Use, now: float) -> parts.GpuUse:
    since = use.idle_since
    return parts.GpuUse(
        claim_id=claim_id,
        declared_bytes=use.declared,
        used_bytes=use.used,
        more_than_declared=use.too_much,
        idle_since=rfc3339(since),
        idle_since_seconds=since,
        idle_seconds=None if since is None else max(now - since, 0.0),
    )


def hosts(client: Client, seen: GpuLook, known: Sequence[Known]) -> documents.GpuHosts:
    """The document of ``lockkit gpu ls --all-hosts``."""
    taken, here = seen.snapshot.taken, seen.host
    found: dict[str, list[parts.Gpu]] = {}
    for host, card, of_store in zip(seen.hosts, seen.cards, known, strict=True):
        found.setdefault(host, []).append(gpu(card, of_store, seen.uses if host == here else {}, taken))
    return documents.GpuHosts(
        store=making.store(client),
        read_at=rfc3339(taken),
        read_at_seconds=taken,
        hosts=[
            parts.GpuHost(host=host, live=host == here and seen.live, gpus=each, waiting=seen.waits.get(host))
            for host, each in found.items()
        ],
        remarks=seen.snapshot.remarks,
        waiting=seen.waiting,
    )


def mark(found: Quarantined) -> parts.GpuMark:
    """The mark of a quarantined card."""
    return parts.GpuMark(
        reason=found.reason,
        by=found.by,
        since=rfc3339(found.since),
        since_seconds=found.since,
        automatic=found.automatic,
    )


def receipt(report: Receipt) -> parts.GpuReceipt:
    """How the last holder left a card."""
    return parts.GpuReceipt(
        outcome=report.outcome,
        leftover_bytes=report.leftover,
        left_by=report.left_by,
        claim_id=report.claim_id,
        fence=report.fence,
        by=report.by,
        at=rfc3339(report.at),
        at_seconds=report.at,
        errors=report.errors,
    )
