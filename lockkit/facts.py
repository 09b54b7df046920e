"""Facts: the immutable values that lockkit hands out. New fields are only added with defaults.

Facts are named tuples. A frozen dataclass takes nine times as long to define (a third of ``import lockkit``)
and three times as long to make, and every release makes some.

Times in facts are seconds since the epoch, for people. Decisions use CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NoReturn

from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import Progress, ReleaseRequest, progress_in, reason_in, requests_in
from lockkit.lib.printable import printable

__all__ = [
    "LOSSES",
    "SCOPES",
    "Alert",
    "Capabilities",
    "ClaimInfo",
    "ClaimState",
    "CleanupContext",
    "Deadlock",
    "Drain",
    "Event",
    "Evicted",
    "Finding",
    "HookReport",
    "Keeper",
    "Kind",
    "LayerOutcome",
    "LayerReport",
    "LockInfo",
    "Owner",
    "ProcessState",
    "Progress",
    "Reason",
    "Record",
    "ReleaseOutcome",
    "ReleaseReport",
    "ReleaseReports",
    "ReleaseRequest",
    "Scope",
    "Severity",
    "Skipped",
    "Waiting",
]


class _Nothing(dict[str, object]):
    """An empty dict that cannot be changed, so that it can be shared."""

    def _refuse(self, *_args: object, **_keywords: object) -> NoReturn:
        raise TypeError("this mapping is shared and cannot be changed; make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse


NOTHING: Mapping[str, object] = _Nothing()
"""An empty mapping, for instance a note that was not given."""
ClaimState = Literal["WAITING", "OFFERED", "HELD", "LINGERING"]
ProcessState = Literal["alive", "stopped", "gone", "unknown"]
"""alive, stopped (by a signal or a debugger, so that it renews nothing), gone (it has ended), or unknown."""
Kind = Literal["mutex", "semaphore", "read", "write"]
Severity = Literal["ok", "warning", "error"]
Scope = Literal["process", "user", "host", "fleet"]
"""The reach of a store's locks; :data:`SCOPES` has it in words."""
SCOPES: Mapping[Scope, str] = {
    "process": "the threads of one process",
    "user": "the processes of one user on one host",
    "host": "the processes of all users of one host that share the store",
    "fleet": "the processes of all hosts that use the store",
}
"""The processes that a store keeps apart, by scope, in words. Each scope includes the ones before it."""
Reason = str
"""Why a hold ended: ``normal``, ``error``, ``sigterm``, ``exit``, ``lost``, ``max_hold``, ``evicted``,
``collected``, or the caller's own (``task_failure``, ...). The reason of an evicted Celery task begins with
``task_crash:``, ``time_limit:`` or ``revoked:``."""
LOSSES: Mapping[Reason, str] = {
    "absent": "its claim was gone from the store: it was evicted with --now, or the store has lost it",
    "evicted": "it was evicted",
    "fence": "the store has it under another fence",
    "files": "the store's files were removed or replaced",
    "lapsed": "it was not renewed in time",
    "late": "its release had already begun",
    "lingering": "it had already ended, and only blocks until its min_hold or lock_delay is over",
    "lost": "it was not renewed in time",
    "max_hold": "max_hold is over",
    "resized": "the lock was resized to a capacity below its weight",
}
"""Why a hold was lost (``Lease.lost_because``), in words."""


class Owner(NamedTuple):
    """The owner of a claim. ``program`` is a name only, without arguments, which may contain secrets."""

    user: str = ""
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    started: float = 0.0
    """Start of the process, seconds since boot. Identifies one process for all time with pid and boot_id."""
    program: str = ""
    pod: str | None = None
    task: str | None = None
    version: str = ""
    pid_space: int = 0
    """The number of the kernel's pid namespace in which the pid counts; 0 if unknown."""
    task_id: str | None = None
    """The id of one run of :attr:`task`, as in Celery; like the next two, only in a queue of tasks."""
    retries: int = 0
    """The number of times that the task was retried."""
    worker: str | None = None
    """The name of the worker that runs it."""
    pod_namespace: str | None = None
    """The namespace of the pod, from POD_NAMESPACE; None outside Kubernetes, and if the pod is unknown."""
    node: str | None = None
    """The node of the pod, from NODE_NAME; None outside Kubernetes, and if the pod is unknown."""

    def __str__(self) -> str:
        where = f"{self.user or 'somebody'}@{self.host or 'unknown host'} pid {self.pid}"
        if self.program:
            where = f"{where} ({self.program})"
        where += self._placed
        if self.task_id:
            tried = f", retry {self.retries}" if self.retries else ""
            where = f"{where} for task {self.task}[{self.task_id}]{tried}"
        return printable(where)

    @property
    def _placed(self) -> str:
        """The pod and its node, in words; empty if they say no more than the host does."""
        pod = f"{self.pod_namespace}/{self.pod}" if self.pod and self.pod_namespace else self.pod
        told = f" in pod {pod}" if pod and pod != self.host else ""
        return f"{told} on {self.node}" if self.node else told


class Keeper(NamedTuple):
    """A process of this host that keeps the claim of an ended owner by a descriptor that it inherited."""

    pid: int
    program: str = ""

    def __str__(self) -> str:
        return printable(f"pid {self.pid} ({self.program})" if self.program else f"pid {self.pid}")


class ClaimInfo(NamedTuple):
    """One claim as the store records it, with what is known of its process."""

    name: str
    claim_id: str
    state: ClaimState
    owner: Owner
    fence: int
    position: int
    """The number of claims ahead in the queue."""
    kind: Kind = "mutex"
    weight: int = 1
    capacity: int = 1
    ttl: float = 0.0
    since: float = 0.0
    """The time at which the claim was queued (WAITING, OFFERED) or granted (HELD)."""
    renewed: float = 0.0
    """The time of the last renewal; 0 if the store does not say."""
    deadline: float | None = None
    """The time at which the claim lapses without another renewal. None for a process-bound claim without
    max_hold, or if the store does not say: about one :attr:`ttl` after its process is gone or cut off."""
    evicted: bool = False
    process_bound: bool = False
    alive: bool | None = None
    """Whether a process of the claim is known to run (True), or none is left (False). None if that is
    unknown, or if the process is stopped."""
    evidence: str = ""
    """The reason for :attr:`alive` and :attr:`process`, in words."""
    note: Mapping[str, object] = NOTHING
    process: ProcessState = "unknown"
    """The state of the process that made the claim, if certain: on the same host, since the same boot, and in
    the same pid namespace."""
    kept_by: tuple[Keeper, ...] = ()
    """Processes that keep the claim although its owner has ended, as far as they can be seen."""
    layout: int = 0
    """The version of the layout in which the claim is stored; 0 if the store does not say."""

    @property
    def reason(self) -> str:
        """The reason that its owner gave with ``acquire(reason=...)``; empty if none."""
        return reason_in(self.note)

    @property
    def progress(self) -> Progress | None:
        """The last news of its holder, from ``lease.beat``; None if nothing."""
        return progress_in(self.note)

    @property
    def release_requests(self) -> tuple[ReleaseRequest, ...]:
        """The requests to its holder to release, the oldest first."""
        return tuple(requests_in(self.note).values())


class LockInfo(NamedTuple):
    """The queue of one name, in order."""

    name: str
    claims: tuple[ClaimInfo, ...] = ()
    read_at: float = 0.0

    @property
    def capacity(self) -> int | None:
        """The first claim's capacity, or None if the queue is empty."""
        return self.claims[0].capacity if self.claims else None

    @property
    def available(self) -> int | None:
        """How many permits a new claim could have at once; 0 while another one waits, which comes first.

        None if the queue is empty, because the capacity is then known only to those who use the lock
        (:meth:`lockkit.Lock.available`), and for a reader/writer lock, which has no permits.
        """
        if not self.claims or self.claims[0].kind in ("read", "write"):
            return None
        taken = sum(claim.weight for claim in self.claims)
        return (
            0
            if any(claim.state == "WAITING" for claim in self.claims)
            else max(self.claims[0].capacity - taken, 0)
        )

    @property
    def holders(self) -> tuple[ClaimInfo, ...]:
        """The claims that take up capacity: HELD claims, and LINGERING claims, which still block."""
        return tuple(claim for claim in self.claims if claim.state in ("HELD", "LINGERING"))

    @property
    def waiters(self) -> tuple[ClaimInfo, ...]:
        return tuple(claim for claim in self.claims if claim.state in ("WAITING", "OFFERED"))


class Deadlock(NamedTuple):
    """Threads or tasks that wait for each other, each for a claim that another one holds."""

    waiters: tuple[ClaimInfo, ...]
    """The waiting claims, by claim id. The one with the largest claim id, the last, is the youngest."""
    holders: tuple[ClaimInfo, ...]
    """The held claims for which they wait, by name."""
    holds: Mapping[str, tuple[str, ...]]
    """By the id of each waiting claim, the ids of the held claims that its thread or task has."""
    ends: str = ""
    """The id of the waiting claim whose wait ends with DeadlockDetected: the youngest of those with
    ``detect_deadlock=True``; empty if there is none."""

    @property
    def youngest(self) -> ClaimInfo:
        """The waiting claim with the largest claim id."""
        return self.waiters[-1]

    def __str__(self) -> str:
        held = {claim.claim_id: claim.name for claim in self.holders}
        sentences: dict[str, None] = {}
        for waiter in self.waiters:
            names = ", ".join(repr(held[one]) for one in self.holds.get(waiter.claim_id, ()))
            sentences[f"{waiter.owner} {f'holds {names} and ' if names else ''}waits for {waiter.name!r}"] = (
                None
            )
        return printable("; ".join(sentences))


class Drain(NamedTuple):
    """The mark of a namespace that gives no new locks: who drains it, since when, and why."""

    namespace: str
    reason: str = ""
    """The reason that was given; empty if none."""
    owner: Owner = Owner()
    """The process that set the mark."""
    since: float = 0.0
    """The time at which the mark was set, in seconds since 1970."""
    partial: bool = False
    """Whether some locks are granted: a drain or undrain of a Redis Cluster is incomplete. Repeat either."""


class Record(NamedTuple):
    """The small record of a name, which stays when its claims are gone."""

    name: str
    value: Mapping[str, object]
    """The value; empty if the record is damaged."""
    version: int
    """The version for ``put_record``; 0 if illegible: then ``put_record`` replaces the damaged record."""
    written: float
    """When it was written, in seconds since 1970."""
    damaged: bool = False
    """Whether the stored record is illegible. Its content is unknown, so it must not count as empty."""


class Evicted(NamedTuple):
    """The result of an eviction: MARKED (a held claim blocks until ``blocks_until``), REMOVED, or ABSENT."""

    outcome: Literal["MARKED", "REMOVED", "ABSENT"]
    blocks_until: float | None = None
    claim: ClaimInfo | None = None


class Finding(NamedTuple):
    """One result of a health check: what was checked, the severity, a sentence, and what to do."""

    check: str
    severity: Severity
    message: str
    hint: str = ""


class Capabilities(NamedTuple):
    """The declared capabilities of a store; tests fail if a store does less or more than it declares."""

    scope: Scope
    fair: bool = True
    """FIFO by arrival at the store."""
    shared: bool = True
    """Weights and capacities other than one: semaphores and reader/writer locks."""
    fixed_ttl: bool = False
    """Every claim of a client has one ttl, so ``extend`` is refused."""
    process_bound: bool = False
    """A claim may be bound to the life of its process instead of a deadline."""
    min_hold: bool = True
    lock_delay: bool = True
    failover_safe: bool = True
    fence: Literal["strict", "clock"] = "strict"
    """"strict": fences rise as long as the store keeps its data. "clock": fences rise even after a loss of
    data, unless the server's clock went back by more than the outage lasted."""
    drains: bool = False
    """A namespace can be drained: new acquires are refused while holders go on."""
    min_ttl: float = 0.1
    max_ttl: float = 315_360_000.0
    ttl_limits: str = ""
    """The setting of the server behind the two, if any; shown in the error for a ttl beyond them."""
    waiter_deadline: float = 6.0
    """Seconds by which a dead waiter can delay those behind it; 0 if the store notices its death at once."""
    drift: float = 0.002
    """How much faster than the client's the store's clock may run, as a share of the ttl; 0 for one clock."""
    margin: float = 0.01
    """Seconds from the end of validity to the store's own deadline."""


LayerOutcome = Literal["DONE", "NOTHING", "SKIPPED", "FAILED", "RUNNING", "UNKNOWN", "ABSENT"]
ReleaseOutcome = Literal["RELEASED", "LOST", "ABANDONED", "KEPT"]


class HookReport(NamedTuple):
    """The result of one cleanup hook: its plugin, how it ended, and how many seconds it took."""

    plugin: str
    outcome: LayerOutcome
    duration: float = 0.0
    error: str | None = None


class LayerReport(NamedTuple):
    """The result of one layer of a release."""

    layer: Literal["cleanup", "normal", "emergency"]
    outcome: LayerOutcome
    duration: float = 0.0
    error: str | None = None
    hooks: tuple[HookReport, ...] = ()


class ReleaseReport(NamedTuple):
    """The result of a release, layer by layer.

    ``outcome`` is RELEASED (the store confirmed that the claim is gone), LOST (the claim was already gone, or
    another's), ABANDONED (no definite answer; the claim is removed in the background, and lapses by
    ``expires_by`` in any case, or with this process if that is None), or KEPT (the claim stays, because this
    lease is an inner level of a reentrant hold, or a copy in a forked child).
    """

    name: str
    claim_id: str
    fence: int
    outcome: ReleaseOutcome
    reason: Reason
    layers: tuple[LayerReport, ...] = ()
    expires_by: float | None = None
    errors: tuple[BaseException, ...] = ()

    @property
    def released(self) -> bool:
        return self.outcome == "RELEASED"

    # repr and == leave out ``errors``: a log may not show them, and an exception is equal only to itself.

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self._fields[:-1], self, strict=False))
        return f"ReleaseReport({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReleaseReport) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])


class ReleaseReports(NamedTuple):
    """The result of releasing locks that were taken together: a report for each, in order of acquisition."""

    reports: tuple[ReleaseReport, ...]

    @property
    def outcome(self) -> ReleaseOutcome:
        """The worst outcome: LOST before ABANDONED before KEPT before RELEASED."""
        worst: tuple[ReleaseOutcome, ...] = ("LOST", "ABANDONED", "KEPT")
        found = {report.outcome for report in self.reports}
        return next((outcome for outcome in worst if outcome in found), "RELEASED")

    @property
    def released(self) -> bool:
        return self.outcome == "RELEASED"

    @property
    def by_name(self) -> Mapping[str, ReleaseReport]:
        """The report of each lock."""
        return {report.name: report for report in self.reports}


class CleanupContext(NamedTuple):
    """The argument of a cleanup hook. The lock is held and renewed while the hook runs, unless ``lost``.

    Attributes:
        where: "process" (in the program that held the lock) or "wrapper" (``lockkit run``, afterwards).
        devices: Devices behind the name, e.g. GPU UUIDs; empty for plain locks.
        budget: Returns the seconds left. A hook that overruns is reported as RUNNING; the release goes on.
        lost: Whether the hold may have lapsed; what the hook cleans may then be in use by the next holder.
        overrun: Plugins whose hooks have overrun their budget in this release, and may still be at work.
    """

    name: str
    claim_id: str
    fence: int
    reason: Reason
    where: Literal["process", "wrapper"]
    budget: Callable[[], float]
    owner: Owner = Owner()
    devices: tuple[str, ...] = ()
    lost: bool = False
    note: Mapping[str, object] = NOTHING
    overrun: tuple[str, ...] = ()


_NO_REASONS: Mapping[str, str] = {}


class Waiting(NamedTuple):
    """The state of a wait: ``position`` claims are ahead in the queue, and it has lasted ``waited`` seconds.

    ``refused`` says why other members of a pool will not do now, by member; see :class:`~lockkit.Chooser`.
    """

    name: str
    position: int
    holder: ClaimInfo | None
    waited: float
    refused: Mapping[str, str] = _NO_REASONS


class Skipped(NamedTuple):
    """The result of a skipped function (``@client.locked(..., on_busy="skip")``), or direct call of a task.

    Always false, so ``if result:`` runs only where there is something to work on. A function that may return
    another false value needs ``isinstance(result, Skipped)``.

    Attributes:
        name: The name of the lock that was busy.
        holder: The claim that held it, where known.
        since: The start of that claim's hold, in seconds since the epoch; None if the holder is not known.
    """

    name: str
    holder: ClaimInfo | None = None

    @property
    def since(self) -> float | None:
        return self.holder.since if self.holder else None

    def __bool__(self) -> bool:
        return False


class Event(NamedTuple):
    """A record of what happened to a claim, for metrics, journals and traces.

    ``kind`` is one of :data:`lockkit.values.events.KINDS`. A plugin gets both times, ``at`` and ``boottime``.
    """

    kind: str
    name: str
    claim_id: str = ""
    fence: int | None = None
    reason: Reason = ""
    at: float = 0.0
    duration: float | None = None
    data: Mapping[str, object] = NOTHING
    lock: Kind = "mutex"
    """The kind of the lock; ``acquired``, ``queued``, ``busy`` and ``timeout`` set it and the next two."""
    weight: int = 1
    capacity: int = 1
    boottime: float = 0.0
    """Seconds of CLOCK_BOOTTIME at which it was reported. In ``acquired`` the grant has been read before."""
    until: float | None = None
    """Seconds of CLOCK_BOOTTIME until which the holder was certain to hold, in an event that ends a hold: the
    moment before the release was sent, or an earlier end of the validity. None if that is not known."""


class Alert(NamedTuple):
    """A message that a person should act on.

    ``kind`` is in :data:`lockkit.values.events.ALERTS`; ``priority``: P0 (act now), P1 (today), P2 (later).
    """

    kind: str
    priority: Literal["P0", "P1", "P2"]
    message: str
    name: str = ""
    claim_id: str = ""
    at: float = 0.0
    data: Mapping[str, object] = NOTHING
