"""The JSON documents that commands print, as msgspec structs. Their parts are in :mod:`lockkit.cli.parts`.

Documents that the server writes, too, are in :mod:`lockkit.views.documents`.
The commands print these structs, and the published schemas are made from them (:mod:`lockkit.cli.schemas`).
New versions may add fields: readers must ignore fields that they do not know.

Importing this module imports msgspec, so commands import it only where they write JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import UNSET, UnsetType

from lockkit.cli import parts as own
from lockkit.views import parts
from lockkit.views.documents import Document, NotDone, OfStore
from lockkit.views.parts import Claim, OrNull, Store, Time

__all__ = [
    "Acquire",
    "AlertRules",
    "AlertTest",
    "Audit",
    "Completion",
    "Config",
    "ConfigInit",
    "Demo",
    "Doctor",
    "DrainSet",
    "Error",
    "Explain",
    "Failure",
    "Findings",
    "GpuAdopt",
    "GpuClear",
    "GpuReserve",
    "GuardCheck",
    "Held",
    "Help",
    "Host",
    "HostInit",
    "HostRemove",
    "Log",
    "Metrics",
    "Namespaces",
    "Notice",
    "Page",
    "Plugins",
    "Recover",
    "Release",
    "Resize",
    "Run",
    "Serve",
    "Topics",
    "Undrain",
    "Use",
    "Wait",
    "Waiting",
]


class Acquire(OfStore, tag="lockkit.acquire/1"):
    """A hold that lockkit acquire has taken. `token` is there only with --print-token."""

    name: str
    claim_id: parts.ClaimId
    fence: int
    ttl_seconds: float
    acquired: Time
    acquired_seconds: float
    deadline: Time
    deadline_seconds: float
    handle: str | None
    token: str | UnsetType = UNSET


class Completion(Document, tag="lockkit.completion/1"):
    """The completion script of a shell."""

    shell: str
    script: str


class Config(Document, tag="lockkit.config/1"):
    """Every setting, its value (null: not set), and where it came from."""

    settings: Sequence[own.Setting]


class ConfigInit(Document, tag="lockkit.config-init/1"):
    """The configuration file that was written."""

    file: str


class Demo(Document, tag="lockkit.demo/1"):
    """The results of the demo's checks."""

    ok: bool
    checks: Sequence[own.Check]
    holds: Sequence[own.DemoHold]


class Doctor(Document, tag="lockkit.doctor/1"):
    """Findings about configuration, store and plugins."""

    store: Store | None
    findings: Sequence[parts.Finding]


class DrainSet(OfStore, tag="lockkit.drain/1"):
    """A namespace without new locks. `holders` still hold or block; `waited_seconds` null: no --wait."""

    drained: parts.Drain
    holders: Sequence[Claim]
    waited_seconds: float | None


class Error(NotDone, tag="lockkit.error/1"):
    """Why a command failed, in one line on stderr."""

    exit_code: int


class Explain(OfStore, tag="lockkit.explain/1"):
    """A lock, and sentences about it. `failures` has the ids of failed releases.

    `near` has similar names in use if this one is not, and `record` what a program wrote of an unused name
    (null: nothing, or it cannot be read). `drained` says who drains the namespace (null: nobody).
    """

    lock: parts.Lock
    sentences: Sequence[str]
    near: Sequence[str]
    record: parts.NameRecord | None
    failures: Sequence[str]
    drained: parts.Drain | None


class Failure(Document, tag="lockkit.failure/1"):
    """One failed release."""

    failure: parts.Record


class Findings(Document, tag="lockkit.findings/1"):
    """Findings about the configuration."""

    findings: Sequence[parts.Finding]


class OfKeeper(OfStore):
    """An event of the keeper of GPUs. `keeper` is its pid."""

    host: str
    event: Literal["held", "ended", "stopped", "lost"]
    keeper: int


class GpuAdopt(OfKeeper, tag="lockkit.gpu-adopt/1"):
    """An event of the keeper of a job that already runs.

    `held`: it holds the job's GPUs. `ended`: the job has ended, and they are released. `stopped`: they are
    released, and the job goes on. `lost`: a claim was lost. `keeper` is the pid of the keeper.
    """

    job: own.GpuJob
    gpus: Sequence[own.GpuName]
    leases: Sequence[own.RunLease]


class GpuClear(OfStore, tag="lockkit.gpu-clear/1"):
    """The end of a GPU's quarantine. `quarantine`: the removed mark, `reason`: why (null: none was given)."""

    host: str
    uuid: str
    quarantine: parts.GpuMark | None
    reason: str | None


class GpuReserve(OfKeeper, tag="lockkit.gpu-reserve/1"):
    """An event of the keeper of a reservation.

    `held`: it holds the GPUs. `ended`: the time is over, and they are released. `stopped`: they are released
    early. `lost`: a claim was lost. `keeper` is the keeper's pid. `variables` show a program these GPUs.
    """

    until: Time
    variables: Mapping[str, str]
    gpus: Sequence[own.GpuName]
    leases: Sequence[own.RunLease]


class GuardCheck(Document, tag="lockkit.guard-check/1"):
    """Whether a resource refuses a stale fence. `scratch`: the removed table, key, node, file or object."""

    resource: str
    scratch: str
    ok: bool
    checks: Sequence[own.Check]


class Held(OfStore, tag="lockkit.held/1"):
    """Whether a lock that lockkit acquire took is still held."""

    name: str
    held: bool
    claims: Sequence[own.HeldClaim]


class Help(Document, tag="lockkit.help/1"):
    """The help page of a command."""

    command: str
    text: str


class Host(Document, tag="lockkit.host/1"):
    """Everything that lockkit host init has made on this host (null: not made by it)."""

    config: str | None
    folder: str | None
    group: str | None
    url: OrNull[str]


class HostInit(Document, tag="lockkit.host-init/1"):
    """The steps that lockkit host init has done, or would do with --dry-run."""

    config: str
    dry_run: bool
    steps: Sequence[own.HostStep]
    remarks: Sequence[str]


class HostRemove(HostInit, tag="lockkit.host-remove/1"):
    """The steps that lockkit host remove has done, or would do with --dry-run. `remarks` names what stays."""


class Log(Document, tag="lockkit.log/1"):
    """A log line (log_format = "json"); further properties belong to the log record."""

    at: Time
    at_seconds: float
    level: str
    logger: str
    message: str


class Notice(Document, tag="lockkit.notice/1"):
    """A message of run or acquire in addition to its result, in one line on stderr."""

    name: str
    message: str


class Page(Document, tag="lockkit.page/1"):
    """One page of the documentation, in Markdown."""

    topic: str
    title: str
    text: str


class Plugins(Document, tag="lockkit.plugins/1"):
    """Every plugin, loaded or not."""

    plugins: Sequence[own.Plugin]


class Recover(OfStore, tag="lockkit.recover/1"):
    """The results of one look of recovery. `leader` is another recoverer at work (null: none)."""

    acting: bool
    leader: OrNull[str]
    cases: Sequence[own.RecoveryCase]
    unread: Sequence[parts.Unread]


class Release(OfStore, tag="lockkit.release/1"):
    """A release of a lock that lockkit acquire took."""

    name: str
    claim_id: parts.ClaimId
    release: own.Released


class AlertRules(Document, tag="lockkit.alert-rules/1"):
    """The rules of alerts that are in force."""

    rules: Sequence[own.AlertRule]


class AlertTest(Document, tag="lockkit.alert-test/1"):
    """The results of a test message, by channel."""

    channels: Sequence[own.AlertDelivery]


class Resize(OfStore, tag="lockkit.resize/1"):
    """A new capacity, and how many claims now have it."""

    name: str
    capacity: int
    claims: int


class StoreAdoptFolder(OfStore, tag="lockkit.store-adopt-folder/1"):
    """The database of an embedded store that was made usable in its present folder."""

    database: str


class Run(Document, tag="lockkit.run/1"):
    """The --report of lockkit run.

    `leases` has each held lock. `name` is the lock, the locks with commas between, or the pool; `claim_id`,
    `fence` and `release` are null if several locks were held.
    """

    name: str
    program: str
    store: Store | None
    started: Time
    started_seconds: float
    waited_seconds: float | None
    waits: int
    claim_id: parts.ClaimId | None
    fence: int | None
    acquired: Time | None
    acquired_seconds: float | None
    held_seconds: float | None
    exit_code: int
    command_exit_code: int | None
    command_signal: int | None
    lost: str | None
    evicted: own.Evicted | None
    release: own.Released | None
    release_requests: Sequence[parts.ReleaseRequest]
    error: Error | None
    leases: Sequence[own.RunLease]


class Metrics(OfStore, tag="lockkit.metrics/1"):
    """Metrics from the store: every value with the name and the labels of its metric."""

    samples: Sequence[own.Sample]


class Namespaces(OfStore, tag="lockkit.namespaces/1"):
    """The namespaces that have claims or are drained. `drained` has the marks of the drained ones."""

    namespaces: Sequence[str]
    drained: Sequence[parts.Drain]


class Serve(Document, tag="lockkit.serve/1"):
    """A server that listens. `view_only`: there are no tokens, so nobody can change anything."""

    url: str
    stores: Sequence[Store]
    view_only: bool


class Topics(Document, tag="lockkit.topics/1"):
    """The topics of the documentation."""

    topics: Sequence[own.Topic]


class Undrain(OfStore, tag="lockkit.undrain/1"):
    """A namespace that gives new locks again. `drained` is the removed mark (null: it was not drained)."""

    drained: parts.Drain | None


class Wait(OfStore, tag="lockkit.wait/1"):
    """A lock that has become free."""

    name: str
    free: bool
    waited_seconds: float


class Waiting(Document, tag="lockkit.waiting/1"):
    """A wait of lockkit run or acquire, in one line on stderr. `reasons`: why each GPU does not do now."""

    name: str
    position: int
    waited_seconds: float
    holder: Claim | None
    reasons: Sequence[str]
    store: Store


class Audit(Document, tag="lockkit.audit/1"):
    """An audit of the past. `verdict` is `held` only if the journals are complete.

    `writes` are guarded ones, `refused` those of holders that came too late.
    """

    verdict: Literal["held", "violated", "undecidable", "incomplete", "nothing"]
    files: Sequence[str]
    grants: int
    locks: int
    hosts: int
    violations: Sequence[own.Violation]
    undecidable: int
    lapses: int
    open: int
    unbegun: int
    max_skew_seconds: float
    first: Time | None
    gaps: parts.Gaps
    writes: int
    refused: int


class Use(Document, tag="lockkit.report/1"):
    """The use of locks by users, in a period."""

    files: Sequence[str]
    since: Time
    until: Time
    uses: Sequence[own.LockUse]
    gaps: parts.Gaps
