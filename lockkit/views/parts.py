"""The parts of the JSON documents about locks, GPUs, alerts and the past, as msgspec structs.

The documents of commands have further parts (:mod:`lockkit.cli.parts`). A part is made of a fact by the names
of its fields (:func:`lockkit.views.making.made_of`); ``field`` has the name of a property if the fact's is
another one. Times are given twice: RFC 3339 in UTC, and seconds since the epoch. Importing this module
imports msgspec: import it only to write JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta, Struct, field

from lockkit.facts import ClaimState, Kind, ProcessState, Severity

__all__ = [
    "OR_NULL",
    "Claim",
    "ClaimId",
    "Drain",
    "Finding",
    "Gaps",
    "Gpu",
    "GpuHost",
    "GpuMark",
    "GpuProcess",
    "GpuReceipt",
    "GpuUse",
    "Happening",
    "Keeper",
    "Lock",
    "NameRecord",
    "OrNull",
    "Owner",
    "Part",
    "PastHold",
    "PastWait",
    "Progress",
    "Record",
    "ReleaseRequest",
    "ShownAlert",
    "ShownSilence",
    "Store",
    "StoreKey",
    "Summary",
    "Time",
    "Unread",
]

T = TypeVar("T")
Time: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", extra_json_schema={"format": "date-time"}),
]

ClaimId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]

OR_NULL = "null if empty"
OrNull: TypeAlias = Annotated[T | None, OR_NULL]
"""A value of a fact that is null in the document if it is empty, or a time of 0."""
Record: TypeAlias = Annotated[
    Mapping[str, Any],
    Meta(
        extra_json_schema={
            "properties": {name: {"type": "string"} for name in ("id", "at", "resolved", "resolved_by")},
            "required": ["at", "id"],
        }
    ),
]
"""A failed release as the journal has it. Further properties depend on the failure."""


class Part(Struct):
    """A part of a document."""


class Store(Part):
    """A store: its URL, where the URL was set, and the namespace."""

    url: str
    source: str
    namespace: str


class Owner(Part):
    """The owner of a claim: the process that made it."""

    user: str
    host: str
    pid: int
    boot_id: str
    program: str
    pod: str | None
    task: str | None
    task_id: str | None
    retries: int
    worker: str | None
    version: str
    pod_namespace: str | None
    node: str | None


class Keeper(Part):
    """A process that keeps a claim whose owner has ended."""

    pid: int
    program: str


class Progress(Part):
    """A holder's last news (`lease.beat`): the share that is done (null: unknown), a message, and when."""

    done: float | None
    message: str
    at: Time
    at_seconds: float


class ReleaseRequest(Part):
    """A request to a holder to release its lock (`lockkit ask-release`)."""

    name: str
    by: str
    reason: str
    at: Time
    at_seconds: float


class ShownAlert(Part):
    """An alert. `state`: whether it fires; `hidden`: why it is not sent; `told`: whether it was sent."""

    fingerprint: str
    rule: str
    severity: Literal["P0", "P1", "P2"]
    state: Literal["pending", "firing", "resolved"]
    hidden: OrNull[Literal["silenced", "inhibited"]]
    told: bool
    labels: Mapping[str, str]
    text: str
    command: OrNull[str]
    since: Time
    since_seconds: float
    times: int
    acknowledged_by: OrNull[str]
    silenced_by: Sequence[str]


class ShownSilence(Part):
    """A silence of alerts: those whose rule matches `rule` and labels `labels`, or that of `fingerprint`."""

    id: str
    author: str
    comment: OrNull[str]
    rule: str
    labels: Mapping[str, str]
    fingerprint: OrNull[str]
    starts: Time
    starts_seconds: float
    ends: Time
    ends_seconds: float


class Claim(Part):
    """One claim of a queue. `reason`, `progress` and `release_requests` are read from the note."""

    name: str
    claim_id: ClaimId
    state: ClaimState
    kind: Kind
    position: int
    weight: int
    capacity: int
    fence: int
    owner: Owner
    since: Time
    since_seconds: float
    renewed: OrNull[Time]
    renewed_seconds: OrNull[float]
    deadline: Time | None
    deadline_seconds: float | None
    ttl_seconds: float
    process_bound: bool
    evicted: bool
    alive: bool | None
    evidence: str
    note: dict[str, Any]
    process: ProcessState
    kept_by: Sequence[Keeper]
    reason: str
    progress: Progress | None
    release_requests: Sequence[ReleaseRequest]


class Lock(Part):
    """The queue of one name. `waiting` claims wait; `waiters` has some of them if the queue is long."""

    name: str
    state: Literal["held", "lingering", "waiting", "free"]
    capacity: int | None
    available: int | None
    holders: Sequence[Claim]
    waiters: Sequence[Claim]
    waiting: int
    read_at: Time
    read_at_seconds: float


class Drain(Part):
    """The mark of a drained namespace: who drains it, since when, and why (empty: no reason was given).

    `partial`: some locks are still granted until drain or undrain is repeated (only on a Redis Cluster).
    """

    namespace: str
    reason: str
    owner: Owner
    since: Time
    since_seconds: float
    partial: bool


class NameRecord(Part):
    """A program's record of a name (`client.put_record`). `damaged`: unreadable, and `value` is empty."""

    value: dict[str, Any]
    version: int
    written: Time
    written_seconds: float
    damaged: bool


class Summary(Part):
    """The number of locks by state, of waiting claims, and the longest wait (null: none waits).

    The gate of a pool, which requests for its members pass one by one, counts in `gates`, and not as a lock.
    Claims that wait for it count in `waiters`.
    """

    locks: int
    gates: int
    held: int
    lingering: int
    waiting: int
    free: int
    waiters: int
    longest_wait_seconds: float | None
    longest_wait_name: str | None


class Finding(Part):
    """One finding, and what to do about it."""

    check: str
    severity: Severity
    message: str
    hint: OrNull[str]


class GpuMark(Part):
    """The mark of a quarantined GPU. `automatic`: a program quarantined it because it looked faulty."""

    reason: str
    by: str
    since: Time
    since_seconds: float
    automatic: bool


class GpuReceipt(Part):
    """How the last holder left a GPU. `leftover_bytes` null: unknown."""

    outcome: Literal["clean", "dirty", "unknown"]
    leftover_bytes: int | None
    left_by: Sequence[str]
    claim_id: str
    fence: int
    by: str
    at: Time
    at_seconds: float
    errors: Sequence[str]


class GpuProcess(Part):
    """A process that computes on a GPU. What is unknown is null."""

    pid: int | None
    user: str | None
    program: str | None
    memory_bytes: int | None


class GpuUse(Part):
    """A holder's use of a GPU. `declared_bytes` null: the whole GPU. What is unknown is null."""

    claim_id: str
    declared_bytes: int | None
    used_bytes: int | None
    too_much: bool = field(name="more_than_declared")
    idle_since: Time | None
    idle_since_seconds: float | None
    idle_seconds: float | None


class Gpu(Part):
    """A GPU, or with `parent` a slice of one. `users` hold it, `unmanaged_users` use it without a lock.

    `used_bytes` is beyond `reserved_bytes`; `processes` null: unknown. `waiting` claims wait in its queue.
    """

    uuid: OrNull[str]
    index: int
    name: OrNull[str]
    parent: str | None
    state: Literal[
        "free", "held", "shared", "busy", "dirty", "sliced", "faulty", "unknown", "quarantined", "unheld"
    ]
    reasons: Sequence[str]
    memory_bytes: int | None
    reserved_bytes: int
    used_bytes: int | None
    utilisation_percent: int | None
    processes: Sequence[GpuProcess] | None
    faults: Sequence[str]
    quarantine: GpuMark | None
    holders: Sequence[Claim]
    uses: Sequence[GpuUse]
    receipt: GpuReceipt | None
    users: Sequence[str]
    unmanaged: Sequence[str] = field(name="unmanaged_users")
    waiting: int


class GpuHost(Part):
    """The GPUs of a host. `waiting` requests wait; null: unknown.

    `live`: the command's own host, whose drivers were asked. Of other hosts the store's knowledge is shown.
    """

    host: str
    live: bool
    gpus: Sequence[Gpu]
    waiting: int | None


class Unread(Part):
    """A lock that could not be read, and why."""

    name: str
    error: str
    message: str
    hint: OrNull[str]


class StoreKey(Part):
    """The store and namespace of a past lock. `within`: the host, user or process it reaches, or empty."""

    store: str = field(name="url")
    namespace: str
    within: str


class PastHold(Part):
    """A hold of the past. `end` says how it ended, `held` if it has not.

    If the journal does not say: `unknown` if its process has ended, `untold` if it is over otherwise.
    """

    key: StoreKey = field(name="store")
    name: str
    claim_id: ClaimId
    fence: int
    kind: Kind
    weight: int
    capacity: int
    owner: Owner
    waited_seconds: float
    began: Time
    began_seconds: float
    ended: Time | None
    ended_seconds: float | None
    end: str
    reason: str
    began_boottime: float
    until_boottime: float | None
    idle_seconds: float
    ttl_seconds: float | None


class PastStep(Part):
    """A step that a guarded resource accepted or refused in the `lasted_seconds` before `at`."""

    resource: str
    kind: Literal["opened", "written", "refused"]
    fence: int
    claim_id: ClaimId
    owner: Owner
    at: Time
    at_seconds: float
    lasted_seconds: float
    boottime: float


class PastWait(Part):
    """An attempt that ended without a hold, and the holder that was in the way, in words."""

    key: StoreKey = field(name="store")
    name: str
    owner: Owner
    outcome: str
    ended: Time
    ended_seconds: float
    waited_seconds: float
    holder: str


class Happening(Part):
    """Anything else that happened. `priority` is empty unless it was an alert."""

    key: StoreKey = field(name="store")
    kind: str
    at: Time
    at_seconds: float
    name: str
    claim_id: str
    owner: Owner
    priority: str
    text: str


class Gaps(Part):
    """The parts that are missing in event journals."""

    torn: int
    missed: int
    absent: int
    unended: Sequence[Owner]
    unheard: Sequence[str]
    unreadable: Sequence[str]
