"""The JSON documents that only the server writes, and what it reads, as msgspec structs.

Those that commands print, too, are in :mod:`lockkit.views.documents`. New versions may add fields, so a reader must ignore fields that it
does not know. What the server reads may have no other fields, so that a typo is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from lockkit.alerts.desk import LONGEST_TEXT
from lockkit.views.parts import Claim, Store, Summary, Time

__all__ = [
    "AckBody",
    "Answer",
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
_ClaimId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
_Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100)]
_Comment: TypeAlias = Annotated[str, Meta(max_length=LONGEST_TEXT)]
_StoreId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class Answer(Struct, tag_field="schema"):
    """A whole document. The first property names its kind, for instance ``lockkit.health/1``."""


class Problem(Answer, tag="lockkit.problem/1"):
    """Why a request was refused. `holder` is the claim that is in the way (null: none, or unknown)."""

    error: str
    message: str
    name: str | None
    holder: Claim | None
    hint: str | None
    status: int


class Ping(Answer, tag="lockkit.ping/1"):
    """The server is there, or ready."""

    status: Literal["ok"]


class HealthReason(Struct):
    """One reason for a verdict. `name` and `claim_id` are the lock and claim that it concerns (null: none)."""

    verdict: Verdict
    check: str
    message: str
    hint: str | None
    name: str | None = None
    claim_id: str | None = None


class StoreHealth(Struct):
    """The health of one store. `reasons` has what is wrong, the worst first; `counters` are those of `client.stats()` of this server."""

    id: str
    store: Store
    status: Verdict
    reachable: bool
    zombies: int
    old_holds: int
    failures: int
    reasons: Sequence[HealthReason]
    counters: dict[str, int]


class Health(Answer, tag="lockkit.health/1"):
    """The health of all stores; the worst counts."""

    status: Verdict
    read_at: Time
    read_at_seconds: float
    stores: Sequence[StoreHealth]


class ServedStore(Struct):
    """A store of this server. `id` is what the parameter `store` takes. `stale_since`: its state was last read then, because it does not answer (null: it answers)."""

    id: str
    store: Store
    stale_since: Time | None
    stale_since_seconds: float | None


class Stores(Answer, tag="lockkit.stores/1"):
    """The stores of this server, and what the sender of the request may do (null: only look, because there is no token)."""

    stores: Sequence[ServedStore]
    visitor: str | None
    scope: Literal["view", "operate", "admin"]


class Change(Answer, tag="lockkit.change/1"):
    """The locks of a store have changed since the last of these documents. `names` has those that did; with `more` others may have changed, too.

    `stale`: the store does not answer, for the reason in `error`; `stale_since` is when it last did (null: never, since the server began).
    """

    number: int
    names: Sequence[str]
    more: bool
    summary: Summary | None
    read_at: Time | None
    read_at_seconds: float | None
    stale: bool
    stale_since: Time | None
    stale_since_seconds: float | None
    error: str | None


class Consequences(Answer, tag="lockkit.consequences/1"):
    """Sentences about what an intervention would do to a claim, for a person who is to confirm it. The first one is the question. Times of day are in UTC."""

    name: str
    act: Literal["evict", "ask-release"]
    claim: Claim
    sentences: Sequence[str]


class SignedIn(Answer, tag="lockkit.session/1"):
    """The bearer of the token for which a cookie was set (null: signed out)."""

    visitor: str | None
    scope: Literal["view", "operate", "admin"] | None


class NoQuery(Struct, forbid_unknown_fields=True):
    """No parameters."""


class StoreQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a question about one store. `store` may be left out if the server has only one."""

    store: _StoreId | None = None


class LocksQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a page of locks: those whose name matches `pattern` (`*`, `?`, `[ab]`) and which are in `state`, from `offset` on. Of each queue at most `waiters` waiters are told. With `apart` the names that begin with `@`, of pools and of lockkit itself, come last."""

    store: _StoreId | None = None
    pattern: Annotated[str, Meta(max_length=512)] | None = None
    state: Literal["held", "lingering", "waiting"] | None = None
    sort: Literal["age", "waiters", "name"] = "age"
    apart: bool = False
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    waiters: Annotated[int, Meta(ge=0, le=1000)] = 20


class LockQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a look at one lock. Its waiters are told from `offset` on."""

    name: _Name
    store: _StoreId | None = None
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    waiters: Annotated[int, Meta(ge=0, le=1000)] = 100


class ConsequencesQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a question about an intervention: which it is, and the claim that was seen. `now` counts for an eviction."""

    name: _Name
    claim_id: _ClaimId
    act: Literal["evict", "ask-release"]
    store: _StoreId | None = None
    now: bool = False


class FailuresQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a list of failed releases, with `all` those that are resolved, too."""

    store: _StoreId | None = None
    all: bool = False


class HistoryQuery(Struct, forbid_unknown_fields=True):
    """Parameters of a page of the past: of the lock `name`, and what was not over by `since` (seconds since the epoch). Of each list it has `limit` rows, without the `offset` newest, and with `search` those in which each of its words occurs, whatever its case: in names, owners, reasons and ends."""

    name: _Name | None = None
    search: Annotated[str, Meta(max_length=512)] = ""
    since: Annotated[float, Meta(ge=0, le=253_402_300_799)] | None = None
    store: _StoreId | None = None
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AckBody(Struct, forbid_unknown_fields=True):
    """A remark of who deals with the alert. With `undo` nobody does any more."""

    comment: _Comment = ""
    undo: bool = False
    store: _StoreId | None = None


class SilenceBody(Struct, forbid_unknown_fields=True):
    """For how many seconds nothing is to be told of the alert, and why."""

    seconds: Annotated[float, Meta(gt=0, le=31_622_400)]
    comment: _Comment = ""
    store: _StoreId | None = None


class StoreBody(Struct, forbid_unknown_fields=True):
    """The store that is meant; the only one if the server has no other."""

    store: _StoreId | None = None


class EvictBody(Struct, forbid_unknown_fields=True):
    """The claim to evict, as it was seen. With `now` the next claim is granted before the holder has stopped."""

    name: _Name
    claim_id: _ClaimId
    reason: _Reason
    store: _StoreId | None = None
    now: bool = False


class AskReleaseBody(Struct, forbid_unknown_fields=True):
    """The claim whose holder is to be asked, as it was seen."""

    name: _Name
    claim_id: _ClaimId
    reason: _Reason
    store: _StoreId | None = None


class QuarantineBody(Struct, forbid_unknown_fields=True):
    """Why the GPU is to be given to nobody. `host` is the host whose GPU was seen."""

    host: Annotated[str, Meta(min_length=1, max_length=64)]
    reason: _Reason
    store: _StoreId | None = None


class SessionBody(Struct, forbid_unknown_fields=True):
    """The token of a person who signs in."""

    token: Annotated[str, Meta(min_length=1, max_length=512)]


class NoBody(Struct, forbid_unknown_fields=True):
    """An empty object."""
