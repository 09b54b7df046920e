"""GPUs as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.views import documents, parts
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.gpu.known import Known
    from lockkit.gpu.states import Card
    from lockkit.gpu.usage import Use
    from lockkit.gpu.views import GpuLook
    from lockkit.sync.client import Client

__all__ = ["document", "gpu", "hosts", "seen_here"]


def document(seen: GpuLook) -> documents.GpuLs:
    """The document of ``lockkit gpu ls``."""
    from lockkit.gpu.known import NOTHING_KNOWN

    taken, known = seen.snapshot.taken, seen.known
    return made_of(
        documents.GpuLs,
        seen,
        seen.snapshot,
        read_at=taken,
        gpus=[gpu(card, known.get(card.device.uuid, NOTHING_KNOWN), seen.uses, taken) for card in seen.cards],
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
        return made_of(
            documents.GpuLs, host=host, read_at=now, gpus=(), remarks=(error.message,), waiting=None
        )


def gpu(card: Card, of_store: Known, uses: Mapping[str, Use], now: float) -> parts.Gpu:
    """A card. ``uses``: measured use by claim id; a holder without one counts with its last report."""
    from lockkit.gpu.usage import use_of

    shown = [_use(one.claim_id, uses.get(one.claim_id) or use_of(one), now) for one in of_store.holders]
    return made_of(parts.Gpu, card.device, of_store, card, uses=shown)


def _use(claim_id: str, use: Use, now: float) -> parts.GpuUse:
    idle = None if use.idle_since is None else max(now - use.idle_since, 0.0)
    return made_of(parts.GpuUse, use, claim_id=claim_id, idle_seconds=idle)


def hosts(client: Client, seen: GpuLook, known: Sequence[Known]) -> documents.GpuHosts:
    """The document of ``lockkit gpu ls --all-hosts``."""
    taken, here = seen.snapshot.taken, seen.host
    found: dict[str, list[parts.Gpu]] = {}
    for host, card, of_store in zip(seen.hosts, seen.cards, known, strict=True):
        found.setdefault(host, []).append(gpu(card, of_store, seen.uses if host == here else {}, taken))
    return made_of(
        documents.GpuHosts,
        seen,
        seen.snapshot,
        store=client,
        read_at=taken,
        hosts=[
            parts.GpuHost(host=host, live=host == here and seen.live, gpus=each, waiting=seen.waits.get(host))
            for host, each in found.items()
        ],
    )
