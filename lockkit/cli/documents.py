"""The JSON documents that commands print, as msgspec structs.

What is printed and what is published as a schema come from these structs alone (:mod:`lockkit.cli.schemas`). Documents grow
only by fields, so a reader must allow for more than it knows. Times are told twice: RFC 3339 in UTC, and seconds since the epoch.

Importing this module imports msgspec, so commands import it only where they write JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

__all__ = [
    "Acquire",
    "Check",
    "Claim",
    "Config",
    "ConfigInit",
    "Demo",
    "Doctor",
    "Document",
    "Error",
    "Evict",
    "Evicted",
    "Explain",
    "Failure",
    "Failures",
    "Finding",
    "Findings",
    "Held",
    "HeldClaim",
    "Hold",
    "Hook",
    "Layer",
    "Lock",
    "Log",
    "Notice",
    "Owner",
    "Plugin",
    "Plugins",
    "Release",
    "Released",
    "Resize",
    "Run",
    "Setting",
    "Status",
    "Store",
    "Unread",
    "Wait",
    "Waiting",
    "plain",
]

Time: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", extra_json_schema={"format": "date-time"}),
]
ClaimId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
Record: TypeAlias = Annotated[
    Mapping[str, Any],
    Meta(
        extra_json_schema={
            "properties": {name: {"type": "string"} for name in ("id", "at", "resolved", "resolved_by")},
            "required": ["at", "id"],
        }
    ),
]
"""A failed release as the journal has it; its other properties depend on what failed."""


class Part(Struct):
    """Something that several documents contain."""


class Document(Struct, tag_field="schema"):
    """A whole document; its first property names its schema, ``lockkit.status/1``."""


def plain(document: Struct) -> dict[str, object]:
    """A document as dicts and lists, in the order of its fields; what JSON does not know becomes a text."""
    made: dict[str, object] = to_builtins(document, enc_hook=str)
    return made


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
    version: str


class Claim(Part):
    """One claim of a queue."""

    name: str
    claim_id: ClaimId
    state: Literal["WAITING", "OFFERED", "HELD", "LINGERING"]
    kind: Literal["mutex", "semaphore", "read", "write"]
    position: int
    weight: int
    capacity: int
    fence: int
    owner: Owner
    since: Time
    since_seconds: float
    renewed: Time | None
    renewed_seconds: float | None
    deadline: Time | None
    deadline_seconds: float | None
    ttl_seconds: float
    process_bound: bool
    evicted: bool
    alive: bool | None
    evidence: str
    note: dict[str, Any]


class Lock(Part):
    """The queue of one name."""

    name: str
    state: Literal["held", "lingering", "waiting", "free"]
    capacity: int | None
    holders: Sequence[Claim]
    waiters: Sequence[Claim]
    read_at: Time
    read_at_seconds: float


class Hook(Part):
    """The result of one cleanup hook."""

    plugin: str
    outcome: str
    duration_seconds: float
    error: str | None


class Layer(Part):
    """The result of one layer of a release."""

    layer: Literal["cleanup", "normal", "emergency"]
    outcome: str
    duration_seconds: float
    error: str | None
    hooks: Sequence[Hook]


class Released(Part):
    """The result of a release, layer by layer."""

    outcome: Literal["RELEASED", "LOST", "ABANDONED", "KEPT"]
    reason: str
    expires_by: Time | None
    expires_by_seconds: float | None
    layers: Sequence[Layer]


class Finding(Part):
    """One finding, and what to do about it."""

    check: str
    severity: Literal["ok", "warning", "error"]
    message: str
    hint: str | None


class Setting(Part):
    """One setting, its value (null: not set), and where the value came from."""

    key: str
    value: str | float | bool | list[str] | None
    source: str


class Check(Part):
    """One check of the demo."""

    check: str
    ok: bool
    message: str


class Hold(Part):
    """One hold of the demo, certain from start to sure, in seconds of CLOCK_BOOTTIME."""

    worker: str
    start_seconds: float
    sure_seconds: float
    fence: int
    end: Literal["released", "lost", "killed"]


class HeldClaim(Part):
    """A claim that is held."""

    claim_id: ClaimId
    fence: int


class Plugin(Part):
    """One plugin, loaded or not."""

    name: str
    dist: str | None
    version: str | None
    source: Literal["store", "installed", "code"]
    hooks: Sequence[str]
    import_seconds: float | None
    disabled: bool
    error: str | None


class Evicted(Part):
    """The user who evicted a claim, and the reason."""

    by: str
    reason: str


class Unread(Part):
    """A lock that could not be read, and why."""

    name: str
    error: str
    message: str
    hint: str | None


class Acquire(Document, tag="lockkit.acquire/1"):
    """A hold that lockkit acquire has taken. `token` is there only with --print-token."""

    store: Store
    name: str
    claim_id: ClaimId
    fence: int
    ttl_seconds: float
    acquired: Time
    acquired_seconds: float
    deadline: Time
    deadline_seconds: float
    handle: str | None
    token: str | UnsetType = UNSET


class Config(Document, tag="lockkit.config/1"):
    """Every setting, its value (null: not set), and where it came from."""

    settings: Sequence[Setting]


class ConfigInit(Document, tag="lockkit.config-init/1"):
    """The configuration file that was written."""

    file: str


class Demo(Document, tag="lockkit.demo/1"):
    """The results of the demo's checks."""

    ok: bool
    checks: Sequence[Check]
    holds: Sequence[Hold]


class Doctor(Document, tag="lockkit.doctor/1"):
    """Findings about configuration, store and plugins."""

    store: Store | None
    findings: Sequence[Finding]


class Error(Document, tag="lockkit.error/1"):
    """Why a command failed, in one line on stderr."""

    error: str
    message: str
    name: str | None
    holder: Claim | None
    hint: str | None
    exit_code: int


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


class Explain(Document, tag="lockkit.explain/1"):
    """A lock, and sentences about it."""

    store: Store
    lock: Lock
    sentences: Sequence[str]


class Failure(Document, tag="lockkit.failure/1"):
    """One failed release."""

    failure: Record


class Failures(Document, tag="lockkit.failures/1"):
    """Failed releases, oldest first."""

    failures: Sequence[Record]


class Findings(Document, tag="lockkit.findings/1"):
    """Findings about the configuration."""

    findings: Sequence[Finding]


class Held(Document, tag="lockkit.held/1"):
    """Whether a lock that lockkit acquire took is still held."""

    store: Store
    name: str
    held: bool
    claims: Sequence[HeldClaim]


class Log(Document, tag="lockkit.log/1"):
    """A log line (log_format = "json"); further properties belong to the log record."""

    at: Time
    at_seconds: float
    level: str
    logger: str
    message: str


class Notice(Document, tag="lockkit.notice/1"):
    """A message of run or acquire beside its result, in one line on stderr."""

    name: str
    message: str


class Plugins(Document, tag="lockkit.plugins/1"):
    """Every plugin, loaded or not."""

    plugins: Sequence[Plugin]


class Release(Document, tag="lockkit.release/1"):
    """A release of a lock that lockkit acquire took."""

    store: Store
    name: str
    claim_id: ClaimId
    release: Released


class Resize(Document, tag="lockkit.resize/1"):
    """A new capacity, and how many claims now have it."""

    store: Store
    name: str
    capacity: int
    claims: int


class Run(Document, tag="lockkit.run/1"):
    """The --report of lockkit run."""

    name: str
    program: str
    store: Store | None
    started: Time
    started_seconds: float
    waited_seconds: float | None
    waits: int
    claim_id: ClaimId | None
    fence: int | None
    acquired: Time | None
    acquired_seconds: float | None
    held_seconds: float | None
    exit_code: int
    command_exit_code: int | None
    command_signal: int | None
    lost: str | None
    evicted: Evicted | None
    release: Released | None
    error: Error | None


class Status(Document, tag="lockkit.status/1"):
    """Locks with their holders and waiters. `unread` lists the locks that this user or this version of lockkit cannot read."""

    store: Store
    read_at: Time
    read_at_seconds: float
    locks: Sequence[Lock]
    unread: Sequence[Unread]


class Wait(Document, tag="lockkit.wait/1"):
    """A lock that has become free."""

    store: Store
    name: str
    free: bool
    waited_seconds: float


class Waiting(Document, tag="lockkit.waiting/1"):
    """The state of a wait of lockkit run or acquire, in one line on stderr."""

    name: str
    position: int
    waited_seconds: float
    holder: Claim | None
    store: Store
