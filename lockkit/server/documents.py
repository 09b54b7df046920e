"""The JSON documents that only the server writes, and what it reads, as msgspec structs.

Documents that commands print, too, are in :mod:`lockkit.views.documents`. New versions may add fields, so
readers ignore unknown ones. What the server reads may have no other fields, so that a typo is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from lockkit.alerts.desk import LONGEST_TEXT
from lockkit.views.documents import Document, NotDone
from lockkit.views.parts import Claim, ClaimId, OrNull, Store, Summary, Time

__all__ = [
    "AckBody",
    "AskReleaseBody",
    "Change",
    "Consequences",
    "ConsequencesQuery",
    "EvictBody",
    "FailuresQuery",
    "Health",
    "HealthReason",
    "HistoryQuery",
    "LockQuery",
    "LocksQuery",
    "NoBody",
    "NoQuery",
    "Ping",
    "Problem",
    "QuarantineBody",
    "ServedStore",
    "SessionBody",
    "SignedIn",
    "SilenceBody",
    "StoreHealth",
    "StoreQuery",
    "Stores",
    "Verdict",
]

Verdict: TypeAlias = Literal["healthy", "warning", "unhealthy"]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=512)]
_Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100)]
_Comment: TypeAlias = Annotated[str, Meta(max_length=LONGEST_TEXT)]
_StoreId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class Problem(NotDone, tag="lockkit.problem/1"):
    """Why a request was refused. `holder` is the claim that is in the way (null: none, or unknown)."""

    status: int


class Ping(Document, tag="lockkit.ping/1"):
    """The server is there, or ready."""

    status: Literal["ok"]


class HealthReason(Struct):
    """One reason for a verdict. `name` and `claim_id` are the lock and claim concerned (null: none)."""

    verdict: Verdict
    check: str
    message: str
    hint: str | None
    name: str | None = None
    claim_id: str | None = None


class StoreHealth(Struct):
    """The health of one store. `reasons`: the worst first; `counters`: `client.stats()` of this server."""

    id: str
    store: Store
    status: Verdict
    reachable: bool
    zombies: int
    old_holds: int
    failures: int
    reasons: Sequence[HealthReason]
    counters: dict[str, int]


class Health(Document, tag="lockkit.health/1"):
    """The health of all stores; the worst counts."""

    status: Verdict
    read_at: Time
    read_at_seconds: float
    stores: Sequence[StoreHealth]


class ServedStore(Struct):
    """A store of this server. `id`: for the parameter `store`; `stale_since`: last answer (null: answers)."""

    id: str
    store: Store
    stale_since: OrNull[Time]
    stale_since_seconds: OrNull[float]


class Stores(Document, tag="lockkit.stores/1"):
    """The stores of this server, and the sender's name and scope (null: no token, so only to look)."""

    stores: Sequence[ServedStore]
    visitor: str | None
    scope: Literal["view", "operate", "admin"]


class Change(Document, tag="lockkit.change/1"):
    """The locks of a store have changed since the previous document: `names`, and with `more` maybe others.

    `stale`: the store does not answer, due to `error`; `stale_since`: its last answer (null: none yet).
    """

    number: int
    names: Sequence[str]
    more: bool
    summary: Summary | None
    read_at: OrNull[Time]
    read_at_seconds: OrNull[float]
    stale: bool
    stale_since: OrNull[Time]
    stale_since_seconds: OrNull[float]
    error: str | None


class Consequences(Document, tag="lockkit.consequences/1"):
    """Sentences on what an intervention would do, to be confirmed. The first asks. Times of day are UTC."""

    name: str
    act: Literal["evict", "ask-release"]
    claim: Claim
    sentences: Sequence[str]


class SignedIn(Document, tag="lockkit.session/1"):
    """The bearer of the token for which a cookie was set (null: signed out)."""

    visitor: str | None
    scope: Literal["view", "operate", "admin"] | None


class NoQuery(Struct, forbid_unknown_fields=True):
    """No parameters."""


class StoreQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a question about one store. `store` may be left out if the server has only one."""

    store: _StoreId | None = None


class LocksQuery(StoreQuery):
    """Parameters of a page of locks in `state` with names like `pattern` (`*`, `?`, `[ab]`), from `offset`.

    Queues have at most `waiters` waiters. `apart`: names with `@`, of pools and of lockkit, come last.
    """

    pattern: Annotated[str, Meta(max_length=512)] | None = None
    state: Literal["held", "lingering", "waiting"] | None = None
    sort: Literal["age", "waiters", "name"] = "age"
    apart: bool = False
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    waiters: Annotated[int, Meta(ge=0, le=1000)] = 20


class LockQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a look at one lock, with waiters from `offset` on."""

    name: _Name
    store: _StoreId | None = None
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    waiters: Annotated[int, Meta(ge=0, le=1000)] = 100


class ConsequencesQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a question about an intervention: its kind, and the claim seen. `now` is for eviction."""

    name: _Name
    claim_id: ClaimId
    act: Literal["evict", "ask-release"]
    store: _StoreId | None = None
    now: bool = False


class FailuresQuery(StoreQuery):
    """Parameters of a list of failed releases, with `all` those that are resolved, too."""

    all: bool = False


class HistoryQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a page of the past of `name`, without what was over by `since` (epoch seconds).

    Lists have `limit` rows after the `offset` newest. `search`: words that must all occur, in any case, in
    names, owners, reasons and ends.
    """

    name: _Name | None = None
    search: Annotated[str, Meta(max_length=512)] = ""
    since: Annotated[float, Meta(ge=0, le=253_402_300_799)] | None = None
    store: _StoreId | None = None
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AckBody(Struct, forbid_unknown_fields=True):
    """A remark by the person who deals with the alert. `undo` takes that back."""

    comment: _Comment = ""
    undo: bool = False
    store: _StoreId | None = None


class SilenceBody(Struct, forbid_unknown_fields=True):
    """For how many seconds the alert is not to be sent, and why."""

    seconds: Annotated[float, Meta(gt=0, le=31_622_400)]
    comment: _Comment = ""
    store: _StoreId | None = None


class StoreBody(StoreQuery):
    """The store that is meant; the only one if the server has no other."""


class AskReleaseBody(Struct, forbid_unknown_fields=True):
    """The claim whose holder is to be asked, as it was seen."""

    name: _Name
    claim_id: ClaimId
    reason: _Reason
    store: _StoreId | None = None


class EvictBody(AskReleaseBody):
    """The claim to evict, as it was seen. With `now` the next claim does not wait until the holder stops."""

    now: bool = False


class QuarantineBody(Struct, forbid_unknown_fields=True):
    """Why the GPU is quarantined. `host` is the host whose GPU was seen."""

    host: Annotated[str, Meta(min_length=1, max_length=64)]
    reason: _Reason
    store: _StoreId | None = None


class SessionBody(Struct, forbid_unknown_fields=True):
    """The token of a person who signs in."""

    token: Annotated[str, Meta(min_length=1, max_length=512)]


class NoBody(Struct, forbid_unknown_fields=True):
    """An empty object."""
