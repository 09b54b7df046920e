"""Facts: what lockkit hands out, immutable. They grow only by defaulted fields.

Named tuples: a frozen dataclass takes nine times as long to define (a third of ``import lockkit``) and three times as
long to make (every release makes some).

Times in facts are seconds since the epoch (for people); whatever decides is reckoned on CLOCK_BOOTTIME elsewhere.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, NoReturn

from lockkit.printable import printable

__all__ = [
    "LOSSES",
    "Alert",
    "Capabilities",
    "ClaimInfo",
    "ClaimState",
    "CleanupContext",
    "Event",
    "Evicted",
    "Finding",
    "HookReport",
    "Kind",
    "LayerOutcome",
    "LayerReport",
    "LockInfo",
    "Owner",
    "Reason",
    "Record",
    "ReleaseOutcome",
    "ReleaseReport",
    "Severity",
    "Skipped",
    "Waiting",
]


class _Nothing(dict[str, object]):
    """An empty dict that stays empty, for all who share it."""

    def _refuse(self, *_args: object, **_keywords: object) -> NoReturn:
        raise TypeError("this mapping is shared and cannot be changed; make a dict of your own")

    __setitem__ = setdefault = update = __ior__ = _refuse


NOTHING: Mapping[str, object] = _Nothing()
"""An empty note, or the like."""
ClaimState = Literal["WAITING", "OFFERED", "HELD", "LINGERING"]
Kind = Literal["mutex", "semaphore", "read", "write"]
Severity = Literal["ok", "warning", "error"]
Reason = str
"""Why a hold ended: ``normal``, ``error``, ``sigterm``, ``exit``, ``lost``, ``max_hold``, ``evicted``, ``collected``,
or whatever the caller gave (``task_failure``, ...)."""
LOSSES: Mapping[Reason, str] = {
    "absent": "its claim was gone from the store: it was evicted with --now, or the store has lost it",
    "evicted": "it was evicted",
    "fence": "the store has it under another fence",
    "files": "the store's files were removed or replaced",
    "lapsed": "not renewed in time",
    "late": "its release had already begun",
    "lingering": "it had already ended, and only blocks until its min_hold or lock_delay is over",
    "lost": "not renewed in time",
    "max_hold": "max_hold is over",
    "resized": "the lock was resized to a capacity below its weight",
}
"""Why a hold was lost (``Lease.lost_because``), in words."""


class Owner(NamedTuple):
    """Who stands behind a claim. ``program`` is a name only, never its arguments (they carry secrets)."""

    user: str = ""
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    started: float = 0.0
    """Start of the process, seconds since boot; with pid and boot_id it names one process for good."""
    program: str = ""
    pod: str | None = None
    task: str | None = None
    version: str = ""

    def __str__(self) -> str:
        where = f"{self.user or 'somebody'}@{self.host or 'unknown host'} pid {self.pid}"
        return printable(f"{where} ({self.program})" if self.program else where)


class ClaimInfo(NamedTuple):
    """One claim as the store records it."""

    name: str
    claim_id: str
    state: ClaimState
    owner: Owner
    fence: int
    position: int
    """0 for the head of the queue."""
    kind: Kind = "mutex"
    weight: int = 1
    capacity: int = 1
    ttl: float = 0.0
    since: float = 0.0
    """When it was queued (WAITING, OFFERED) or granted (HELD)."""
    renewed: float = 0.0
    """0 where the store does not tell."""
    deadline: float | None = None
    """When it lapses by itself; None for a process-bound claim without max_hold, and where the store does not tell: such a
    one lapses some :attr:`ttl` after its process has died or was cut off."""
    evicted: bool = False
    process_bound: bool = False
    alive: bool | None = None
    """Whether its owner is known to be alive (True) or dead (False); None where the store cannot tell."""
    evidence: str = ""
    """How :attr:`alive` is known, in words."""
    note: Mapping[str, object] = NOTHING


class LockInfo(NamedTuple):
    """The queue of one name, in order."""

    name: str
    claims: tuple[ClaimInfo, ...] = ()
    read_at: float = 0.0

    @property
    def capacity(self) -> int | None:
        """The first claim's capacity, or None if nobody is there."""
        return self.claims[0].capacity if self.claims else None

    @property
    def holders(self) -> tuple[ClaimInfo, ...]:
        """Claims that take room: HELD, and LINGERING ones that still block."""
        return tuple(claim for claim in self.claims if claim.state in ("HELD", "LINGERING"))

    @property
    def waiters(self) -> tuple[ClaimInfo, ...]:
        return tuple(claim for claim in self.claims if claim.state in ("WAITING", "OFFERED"))


class Record(NamedTuple):
    """The one small record that a name keeps when its claims are gone."""

    name: str
    value: Mapping[str, object]
    version: int
    written: float


class Evicted(NamedTuple):
    """What an eviction did: MARKED (held; blocks until ``blocks_until``), REMOVED, or ABSENT."""

    outcome: Literal["MARKED", "REMOVED", "ABSENT"]
    blocks_until: float | None = None
    claim: ClaimInfo | None = None


class Finding(NamedTuple):
    """One sentence of a health check: what was looked at, how it is, what to do."""

    check: str
    severity: Severity
    message: str
    hint: str = ""


class Capabilities(NamedTuple):
    """What a store can do; declared, and tested in both directions."""

    scope: Literal["process", "host", "fleet"]
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
    """"clock": also rises across lost data, unless the clock went back further than the outage."""
    min_ttl: float = 0.1
    max_ttl: float = 315_360_000.0
    ttl_limits: str = ""
    """What sets the two, where somebody can change it; told to whoever asks for a ttl beyond them."""
    waiter_deadline: float = 6.0
    """Seconds that a dead waiter can cost those behind it; 0 where its death is seen at once."""
    drift: float = 0.002
    """How much faster the store's clock may run than ours, as a share of the ttl; 0 where they are one clock."""
    margin: float = 0.01
    """Seconds by which validity ends before the store's own deadline."""


LayerOutcome = Literal["DONE", "NOTHING", "SKIPPED", "FAILED", "RUNNING", "UNKNOWN", "ABSENT"]
ReleaseOutcome = Literal["RELEASED", "LOST", "ABANDONED", "KEPT"]


class HookReport(NamedTuple):
    """One cleanup hook: what it was called, how it ended, how long it took (seconds)."""

    plugin: str
    outcome: LayerOutcome
    duration: float = 0.0
    error: str | None = None


class LayerReport(NamedTuple):
    """One layer of the release pipeline."""

    layer: Literal["cleanup", "normal", "emergency"]
    outcome: LayerOutcome
    duration: float = 0.0
    error: str | None = None
    hooks: tuple[HookReport, ...] = ()


class ReleaseReport(NamedTuple):
    """How a release went, layer by layer.

    ``outcome`` is RELEASED (the store confirmed that the claim is gone), LOST (it was gone, or another's, before),
    ABANDONED (no definite answer; gone by ``expires_by`` at the latest, removed in the background before that), or
    KEPT (an inner level of a reentrant hold; nothing was released).
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

    # ``errors`` may say more than a log should, and exceptions are equal to nothing but themselves.

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self._fields[:-1], self, strict=False))
        return f"ReleaseReport({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReleaseReport) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])


class CleanupContext(NamedTuple):
    """What a cleanup hook is given. The lock is still held and renewed while it runs, unless ``lost``.

    Attributes:
        where: "process" (inside the program that held it) or "wrapper" (``lockkit run``, after the command ended).
        devices: Devices behind the name, e.g. GPU UUIDs; empty for plain locks.
        budget: Seconds left; a hook that overruns is reported as RUNNING and no longer waited for.
        lost: The hold may have lapsed: what is cleaned may be in use by the next holder.
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


class Waiting(NamedTuple):
    """How a wait stands: ``position`` claims stand before it, ``waited`` seconds so far."""

    name: str
    position: int
    holder: ClaimInfo | None
    waited: float


class Skipped(NamedTuple):
    """What ``@client.locked(..., on_busy="skip")`` returns in place of the result."""

    name: str
    holder: ClaimInfo | None = None

    @property
    def since(self) -> float | None:
        return self.holder.since if self.holder else None

    def __bool__(self) -> bool:
        return False


class Event(NamedTuple):
    """Something that happened to a claim, for metrics, journals and traces.

    ``kind`` is one of :data:`lockkit.events.KINDS`.
    """

    kind: str
    name: str
    claim_id: str = ""
    fence: int | None = None
    reason: Reason = ""
    at: float = 0.0
    duration: float | None = None
    data: Mapping[str, object] = NOTHING


class Alert(NamedTuple):
    """Something that a person should know.

    ``kind`` is one of :data:`lockkit.events.ALERTS`; ``priority`` is P0 (now), P1 (today) or P2 (look at it).
    """

    kind: str
    priority: Literal["P0", "P1", "P2"]
    message: str
    name: str = ""
    claim_id: str = ""
    at: float = 0.0
    data: Mapping[str, object] = NOTHING
