"""The JSON documents that the command line and the server both write, as msgspec structs.

Their parts are in :mod:`lockkit.views.parts`. The published schemas are made from these structs. New versions
may add fields: readers must ignore fields that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from lockkit.views import parts
from lockkit.views.parts import Claim, OrNull, Store, Time

__all__ = [
    "AlertAck",
    "AlertSilence",
    "Alerts",
    "AskRelease",
    "Document",
    "Each",
    "Evict",
    "Failures",
    "GpuHosts",
    "GpuLs",
    "GpuQuarantine",
    "History",
    "NotDone",
    "OfStore",
    "Status",
    "builtin",
    "plain",
    "written",
]

T = TypeVar("T", bound=Struct)


class Document(Struct, tag_field="schema"):
    """A whole document. The first property names its schema, for instance ``lockkit.status/1``."""


class OfStore(Document):
    """A document about a store."""

    store: Store


class NotDone(Document):
    """Why something was not done. `holder` is the claim that is in the way (null: none, or unknown)."""

    error: str
    message: str
    name: str | None
    holder: Claim | None
    hint: str | None


class Each(Sequence[T]):
    """A long list of a document. Each part is made when it is written, to save memory."""

    def __init__(self, make: Callable[[Any], T], facts: Sequence[Any]) -> None:
        self._make, self._facts = make, facts

    def __len__(self) -> int:
        return len(self._facts)

    def __getitem__(self, place: Any) -> Any:
        return self._make(self._facts[place])


def plain(document: Struct) -> dict[str, object]:
    """A document as dicts and lists, in the order of its fields. Values that JSON lacks become texts."""
    made: dict[str, object] = to_builtins(document, enc_hook=builtin)
    return made


def written(document: Struct) -> Iterator[str]:
    """A document as JSON in one line, bit by bit."""
    long = {
        name: each for name in document.__struct_fields__ if isinstance(each := getattr(document, name), Each)
    }
    comma = "{"
    for name, value in plain(replace(document, **dict.fromkeys(long, ()))).items():
        yield f"{comma}{json.dumps(name)}: "
        comma = ", "
        if name not in long:
            yield json.dumps(value)
            continue
        yield "["
        for place, each in enumerate(long[name]):
            yield f"{', ' if place else ''}{json.dumps(plain(each))}"
        yield "]"
    yield "}\n"


def builtin(value: object) -> object:
    """A value that msgspec does not know, as one that it does."""
    return list(value) if isinstance(value, Each) else str(value)


class AskRelease(OfStore, tag="lockkit.ask-release/1"):
    """A request to a holder to release its lock. `claim` is the claim afterwards (null: it has ended)."""

    name: str
    claim_id: str
    request: parts.ReleaseRequest
    claim: Claim | None


class Evict(OfStore, tag="lockkit.evict/1"):
    """The result of an eviction."""

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

    failures: Sequence[parts.Record]


class GpuHosts(OfStore, tag="lockkit.gpu-hosts/1"):
    """The GPUs of all hosts that share the store. `index` -1: unknown. `waiting` requests wait on all hosts.

    `remarks` lists what could not be determined.
    """

    read_at: Time
    read_at_seconds: float
    hosts: Sequence[parts.GpuHost]
    remarks: Sequence[str]
    waiting: int


class GpuLs(Document, tag="lockkit.gpu-ls/1"):
    """The GPUs of this host. `waiting` requests wait; null: unknown.

    `host` is its name in the store; null: unknown, as in a container without `gpu.host`. `remarks` lists what
    could not be determined.
    """

    host: str | None
    read_at: Time
    read_at_seconds: float
    gpus: Sequence[parts.Gpu]
    remarks: Sequence[str]
    waiting: int | None


class GpuQuarantine(OfStore, tag="lockkit.gpu-quarantine/1"):
    """A GPU that is given to nobody until it is cleared."""

    host: str
    uuid: str
    quarantine: parts.GpuMark


class Status(OfStore, tag="lockkit.status/1"):
    """Locks with their holders and waiters. `unread`: locks that this user or version cannot read.

    `summary` counts all requested locks, including those that --limit left out of `locks`. `near` has similar
    names in use, if the requested one is not. `drained` names who drains the namespace (null: nobody).
    """

    read_at: Time
    read_at_seconds: float
    locks: Sequence[parts.Lock]
    unread: Sequence[parts.Unread]
    summary: parts.Summary
    near: Sequence[str]
    drained: parts.Drain | None


class AlertAck(Document, tag="lockkit.alert-ack/1"):
    """An alert that somebody deals with; nobody any more (null) if that was taken back."""

    fingerprint: str
    rule: str
    text: str
    acknowledged_by: OrNull[str]


class AlertSilence(Document, tag="lockkit.alert-silence/1"):
    """A silence that was made, or (`ended`) that has ended."""

    silence: parts.ShownSilence
    ended: bool


class Alerts(Document, tag="lockkit.alerts/1"):
    """The alerts of now, the most severe first, and the silences."""

    alerts: Sequence[parts.ShownAlert]
    silences: Sequence[parts.ShownSilence]


class History(Document, tag="lockkit.history/1"):
    """The past from event journals, each part in order of time. `reason`: why nothing can be known."""

    files: Sequence[str]
    first: Time | None
    holds: Sequence[parts.PastHold]
    waits: Sequence[parts.PastWait]
    happenings: Sequence[parts.Happening]
    unbegun: int
    gaps: parts.Gaps
    reason: str | None = None
