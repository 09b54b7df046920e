"""The JSON documents that the command line and the server both write, as msgspec structs. Their parts are in :mod:`lockkit.views.parts`.

The published schemas are made from these structs. New versions may add fields, so a reader must ignore fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, to_builtins

from lockkit.views.parts import (
    Claim,
    Drain,
    Gaps,
    Gpu,
    GpuHost,
    GpuMark,
    Happening,
    Lock,
    PastHold,
    PastWait,
    Record,
    ReleaseRequest,
    ShownAlert,
    ShownSilence,
    Store,
    Summary,
    Time,
    Unread,
)

__all__ = [
    "AlertAck",
    "AlertSilence",
    "Alerts",
    "AskRelease",
    "Document",
    "Evict",
    "Failures",
    "GpuHosts",
    "GpuLs",
    "GpuQuarantine",
    "History",
    "Status",
    "plain",
]


class Document(Struct, tag_field="schema"):
    """A whole document. The first property names its schema, for instance ``lockkit.status/1``."""


def plain(document: Struct) -> dict[str, object]:
    """A document as dicts and lists, in the order of its fields. Values that JSON does not support become texts."""
    made: dict[str, object] = to_builtins(document, enc_hook=str)
    return made


class AskRelease(Document, tag="lockkit.ask-release/1"):
    """A request to a holder to release its lock. `claim` is the claim afterwards (null: it has ended)."""

    store: Store
    name: str
    claim_id: str
    request: ReleaseRequest
    claim: Claim | None


class Evict(Document, tag="lockkit.evict/1"):
    """The result of an eviction."""

    store: Store
    name: str
    claim_id: str
    outcome: Literal["MARKED", "REMOVED"]
    blocks_until: Time | None
    blocks_until_seconds: float | None
    claim: Claim | None
    reason: str
    now: bool


class Failures(Document, tag="lockkit.failures/1"):
    """Failed releases, oldest first."""

    failures: Sequence[Record]


class GpuHosts(Document, tag="lockkit.gpu-hosts/1"):
    """The GPUs of all hosts that share the store. An `index` of -1 is unknown. `waiting` requests wait on all hosts. `remarks` has what could not be found out."""

    store: Store
    read_at: Time
    read_at_seconds: float
    hosts: Sequence[GpuHost]
    remarks: Sequence[str]
    waiting: int


class GpuLs(Document, tag="lockkit.gpu-ls/1"):
    """The GPUs of this host. `host` is its name in the store; null: unknown, as in a container that is not told it. `waiting` requests wait; null: unknown. `remarks` has what could not be found out."""

    host: str | None
    read_at: Time
    read_at_seconds: float
    gpus: Sequence[Gpu]
    remarks: Sequence[str]
    waiting: int | None


class GpuQuarantine(Document, tag="lockkit.gpu-quarantine/1"):
    """A GPU that is given to nobody until it is cleared."""

    store: Store
    host: str
    uuid: str
    quarantine: GpuMark


class Status(Document, tag="lockkit.status/1"):
    """Locks with their holders and waiters. `unread` lists the locks that this user or this version of lockkit cannot read.

    `summary` counts all locks that were asked for, including those that --limit left out of `locks`. `near` has similar names that
    are in use, if the one that was asked for is not. `drained` says who drains the namespace (null: nobody).
    """

    store: Store
    read_at: Time
    read_at_seconds: float
    locks: Sequence[Lock]
    unread: Sequence[Unread]
    summary: Summary
    near: Sequence[str]
    drained: Drain | None


class AlertAck(Document, tag="lockkit.alert-ack/1"):
    """An alert that somebody deals with; nobody any more (null) if that was taken back."""

    fingerprint: str
    rule: str
    text: str
    acknowledged_by: str | None


class AlertSilence(Document, tag="lockkit.alert-silence/1"):
    """A silence that was made, or (`ended`) that has ended."""

    silence: ShownSilence
    ended: bool


class Alerts(Document, tag="lockkit.alerts/1"):
    """The alerts of now, the most severe first, and the silences."""

    alerts: Sequence[ShownAlert]
    silences: Sequence[ShownSilence]


class History(Document, tag="lockkit.history/1"):
    """The past, as event journals have it, each part in the order of time. `reason` says why nothing can be known, if so."""

    files: Sequence[str]
    first: Time | None
    holds: Sequence[PastHold]
    waits: Sequence[PastWait]
    happenings: Sequence[Happening]
    unbegun: int
    gaps: Gaps
    reason: str | None = None
