"""The service-provider interface: what a store does for lockkit. API 1.

Calls are short, idempotent and never wait inside; each takes ``budget``, the seconds it may take, and obeys it. There
is one retry layer, the protocol's: a driver library's own retries are switched off.

A call ends in one of four ways: it returns an answer; it raises :class:`Refused` (definitely not applied); it raises
:class:`Unknown` (bytes went out, no answer came); or a ``BaseException`` that is not an ``Exception`` cuts it short,
which the protocol treats like Unknown. Each store keeps one table that maps its driver's exceptions onto the two;
whatever the table does not list is Unknown.

A claim past its deadline is removed before any other step of any call, wherever it stands in the queue.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from lockkit.bell import Bell
from lockkit.clock import SYSTEM, Clock
from lockkit.errors import LockkitError
from lockkit.facts import NOTHING, Capabilities, ClaimInfo, Evicted, Finding, Kind, LockInfo, Owner, Record
from lockkit.store.exchanges import Exchange, Parser, Route

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = [
    "ABSENT",
    "API",
    "NOTE_LIMIT",
    "NO_EXTRAS",
    "POLL_CAP",
    "RELEASED",
    "REQUEST_TIMEOUT",
    "Answer",
    "Backend",
    "BackendSpec",
    "Beat",
    "Busy",
    "Capabilities",
    "Claim",
    "Conflict",
    "Exchanges",
    "Extras",
    "Granted",
    "Lapsed",
    "OpenOptions",
    "Queued",
    "ReadingWatch",
    "Refused",
    "ReleaseAnswer",
    "Renewal",
    "Terms",
    "Unknown",
    "Watch",
    "Why",
]

API = 1
REQUEST_TIMEOUT = 2.0
"""Seconds a single call may take."""
POLL_CAP = 2.0
"""Seconds after which a waiter has asked again even if every wake was lost."""
NOTE_LIMIT = 4096
"""Largest note or record, in bytes of JSON."""


class Refused(Exception):
    """The store definitely did not do it.

    Args:
        error: What the user is told if it stays that way.
        retry: Whether asking again may help (a restart, a leader election) or not (permission, layout, a full disk).
    """

    def __init__(self, error: LockkitError, *, retry: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry


class Unknown(Exception):
    """The request may or may not have been applied, now or later.

    Args:
        error: What the user is told if it cannot be settled in time.
        retry: Whether asking again may help; if not (a full disk, a missing right) it is given up and taken back at once.
    """

    def __init__(self, error: LockkitError, *, retry: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry


class Conflict(Exception):
    """``put_record``: the record has another version by now.

    Attributes:
        current: The record as it is, or None if there is none.
    """

    def __init__(self, current: Record | None) -> None:
        super().__init__("the record has changed")
        self.current = current


class Terms(NamedTuple):
    """The terms that all claims of one lock have in common. Built once per lock; a store may cache what it derives from it.

    Attributes:
        ttl: Seconds that the store keeps a held claim without renewal.
        weight: For the queue rule.
        capacity: For the queue rule.
        process_bound: Lapses with its process (or by max_hold or evict) instead of by silence.
        pulseless: Lives by its ttl alone, not by its process: for holds taken by a script and released by another. A
            store that purges the claims of dead processes leaves this one until its deadline.
        max_hold: Seconds after which a hold is ended; None for never.
        min_hold: Seconds from the grant for which a release goes on blocking.
        lock_delay: Seconds that an ungraceful end goes on blocking.
    """

    name: str
    ttl: float = 30.0
    weight: int = 1
    capacity: int = 1
    kind: Kind = "mutex"
    process_bound: bool = False
    max_hold: float | None = None
    min_hold: float = 0.0
    lock_delay: float = 0.0
    owner: Owner = Owner()
    pulseless: bool = False


class Claim(NamedTuple):
    """One attempt to hold.

    Attributes:
        token: 32 hex digits, fresh for this attempt. Never printed, logged or served.
        wait: False: a refusal (Busy) leaves nothing behind.
        note: JSON shown by ``inspect``; at most :data:`NOTE_LIMIT` bytes.
    """

    token: str
    terms: Terms
    wait: bool = True
    note: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"Claim({self.terms.name!r}, {self.terms.kind}, token=...)"


class Granted(NamedTuple):
    """The claim is HELD.

    Attributes:
        fence: Its fencing token.
        basis: CLOCK_BOOTTIME seconds at which the request that moved the store's deadline was sent.
    """

    fence: int
    basis: float


class Queued(NamedTuple):
    """The claim stands in the queue (WAITING).

    Attributes:
        position: How many claims stand before it.
        ask_again_at: CLOCK_BOOTTIME seconds at which a blocker lapses, for the next in line; None for all others.
        blockers: What to hand to ``watch``; opaque to the caller.
        capacity: The capacity in force, the first claim's.
        holder: One of those in the way, where the store knows it without another request.
    """

    position: int
    ask_again_at: float | None = None
    blockers: tuple[str, ...] = ()
    capacity: int = 1
    holder: ClaimInfo | None = None


class Busy(NamedTuple):
    """``wait=False`` only: it does not fit, and nothing of it is left."""

    capacity: int | None = None
    holder: ClaimInfo | None = None


Why: TypeAlias = Literal["absent", "evicted", "files", "lingering", "resized", "late"]


class Lapsed(NamedTuple):
    """There is no such claim to speak for (any more): the protocol starts again with a new token, at the tail.

    ``resized`` means that it was removed because its weight exceeds the new capacity, ``files`` that the store's files were
    removed or replaced.
    """

    why: Why = "absent"


Answer: TypeAlias = Granted | Queued | Busy | Lapsed
ReleaseAnswer = Literal["RELEASED", "ABSENT"]
RELEASED: Literal["RELEASED"] = "RELEASED"
ABSENT: Literal["ABSENT"] = "ABSENT"


class Renewal(NamedTuple):
    """The answer about one claim of a ``renew`` batch.

    Attributes:
        state: HELD; WAITING; OFFERED (it fits: ask, a heartbeat never grants); LOST; UNKNOWN (there is no answer for this
            claim while there is for others: nothing is said of it).
        basis: As in :class:`Granted`; meaningful for HELD.
        requests: What others asked of the holder, the claim's note as annotated (``{"ask_release": ...}``).
        why: For LOST: absent, evicted, lapsed, another fence, or the store's files were removed or replaced.
        trouble: For UNKNOWN: what is the matter.
    """

    state: Literal["HELD", "WAITING", "OFFERED", "LOST", "UNKNOWN"]
    basis: float = 0.0
    requests: Mapping[str, object] | None = None
    why: Literal["", "absent", "evicted", "fence", "files", "lapsed"] = ""
    trouble: str = ""


Beat: TypeAlias = tuple[Claim, int | None]
"""One claim to renew, with the fence of its Lease, or None while there is no Lease."""


class Watch(Protocol):
    """A running watch."""

    def close(self) -> None:
        """Stop; ``wake`` is not called any more after a moment. Never raises."""


class ReadingWatch(Watch, Protocol):
    """A watch whose waiting thread reads for itself."""

    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait for a ring of the bell in the calling thread, which may read meanwhile what the watch waits for."""


class Exchanges(Protocol):
    """The hot calls of :class:`Backend` as exchanges, for whoever performs them on connections of another kind.

    Each does what the call of the same name does, and raises what that raises.

    Attributes:
        tls: The context in which to connect; None for connections without TLS.
    """

    @property
    def tls(self) -> "SSLContext | None": ...

    def parser(self) -> Parser:
        """The parser of the replies on a new connection."""

    def opening(self, route: Route, end: float) -> Exchange[Any]:
        """Open a connection to a route until an end on ``time.monotonic()``, and return it."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
        """See :meth:`Backend.acquire`."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Exchange[Sequence[Renewal]]:
        """See :meth:`Backend.renew`."""

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.release`."""

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.abandon`."""

    def emergency_release(
        self, claim: Claim, budget: float, *, graceful: bool = True
    ) -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.emergency_release`."""


class Extras(NamedTuple):
    """Abilities that only some stores have; None for one that a store lacks.

    Attributes:
        exchanges: The hot calls without I/O; a store that has none is called on threads.
        listen: Like :meth:`Backend.watch`, for threads: a thread that reads its own message need not be woken by another that has
            read it.
        pulse: Returns the descriptors that a child must inherit to keep process-bound claims alive after this process dies.
    """

    exchanges: Exchanges | None = None
    listen: Callable[[str, Sequence[str], Callable[[], None], Claim], ReadingWatch] | None = None
    pulse: Callable[[], Sequence[int]] | None = None


NO_EXTRAS = Extras()
"""The abilities of a store that has no others than the calls of :class:`Backend`."""


class Backend(Protocol):
    """One open store. Thread-safe; belongs to the process that opened it."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def extras(self) -> Extras:
        """The abilities beyond these calls; :data:`NO_EXTRAS` for most stores."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """Append the claim, or say how it stands; turn it into HELD if it fits.

        ``create=True`` is sent first, and again only while the outcome is UNKNOWN: it appends the claim, or reports the
        same claim and fence. On its own HELD claim it moves the deadline to now + ttl (basis: this call); on one that
        is evicted, lingering or lapsed it answers Lapsed. With ``create=False`` an absent claim is Lapsed.
        """

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """Renew a batch; one Renewal for each beat, in order.

        Never creates. With a fence: HELD only if the stored claim is HELD with that fence, else LOST. Without: WAITING
        is extended; OFFERED, and HELD (whose owner has not read its grant), are reported as OFFERED and not extended.
        """

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """Remove the claim if it is this token's; atomic compare on the store.

        ``graceful``: before since + min_hold it goes on blocking until then. Otherwise (lost, max_hold, collected) a
        HELD claim goes on blocking until min(its deadline, now + lock_delay).
        """

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """Like release, for a claim that ever had an UNKNOWN acquire: a late copy of that must leave nothing behind."""

    def emergency_release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """Like abandon, over a fresh connection."""

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """Call ``wake`` from any thread when asking again for ``claim`` is worthwhile. Advisory; returns at once.

        Whatever happened between the answer that named the blockers and this call must not be missed: check after
        subscribing, and wake at once if a blocker is gone.
        """

    def inspect(self, name: str, budget: float) -> LockInfo:
        """The queue of a name. Changes nothing."""

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """Names with claims, sorted; from an advisory index where scanning is costly, unless ``deep``."""

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """Force one claim out. A HELD one is marked and goes on blocking until its holder cannot believe in it."""

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """Rewrite the capacity of every claim of a name in one step; how many there were.

        HELD stays HELD; a claim that is not HELD and weighs more than the new capacity is removed.
        """

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """Renew with a ttl from now on at least as long as the present one. Deadlines only grow."""

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """Merge a JSON patch (RFC 7396) into a claim's note; False if there is no such claim."""

    def record(self, name: str, budget: float) -> Record | None:
        """The name's record."""

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """Write the record if it still has this version (0: there is none yet).

        Raises:
            Conflict: It has not.
        """

    def check(self, budget: float) -> Sequence[Finding]:
        """Look at the store's health and settings, for ``doctor``."""

    def close(self) -> None:
        """Let go of connections and files. Claims stay as they are. Never raises, may be called twice."""


class OpenOptions(NamedTuple):
    """The options that a store is opened with.

    Attributes:
        namespace: Prefix of a deployment; checked.
        owner: Who this process is.
        clock: The driver's clock; a simulation passes its own.
        state_dir: Where embedded stores keep their files; None: the user's default.
        strict: Refuse what is known to be unsafe instead of warning.
        warn: Called with one sentence for each thing the user should know. What is said at opening is logged when the first
            lock is taken, and by ``doctor``: who only looks need not know it.
        settings: The plugin's own table from the config, ``[plugins.<dist>]``.
        suspect: To be called, from any thread, with the token of a claim that the store believes to be gone: it is renewed, and
            so found lost, at once. Advisory; a store that hears nothing of its claims need not.
        budget: Seconds that opening may take, for a store that connects; somebody with a timeout may be waiting for it.
    """

    namespace: str = "default"
    owner: Owner = Owner()
    clock: Clock = SYSTEM
    state_dir: str | None = None
    strict: bool = False
    warn: Callable[[str], None] = lambda _message: None
    settings: Mapping[str, Any] = NOTHING
    suspect: Callable[[str], None] = lambda _token: None
    budget: float = REQUEST_TIMEOUT

    def __repr__(self) -> str:
        return f"OpenOptions({self.namespace!r}, state_dir={self.state_dir!r}, settings=...)"  # a plugin's may be secrets


class BackendSpec(NamedTuple):
    """A store on offer, as collected by ``lockkit_backends``.

    Attributes:
        name: What people call it: ``sqlite``.
        schemes: URL schemes: ``("redis", "rediss")``.
        open: ``open(url, options)``; imports the client library itself. Raises Refused, ConfigError, or ImportError
            for a missing client library.
        extra: The extra that brings the client library: ``pip install "lockkit[redis]"``; None if none is needed.
        summary: One line.
        capabilities: What it declares before it is opened.
        declared: ``declared(url)``, where that depends on the URL: what it declares for this one, before any I/O.
        check: ``check(url)`` refuses a URL that ``open`` would refuse, and imports the client library, but does not connect:
            for ``lockkit config check``. Raises as ``open``; what it returns is of no interest. None: only ``open`` can tell.
        harmless: Options of the URL whose values may be shown to people, in logs and in errors; ``"name=value"`` where only that
            value may. The values of all other options are shown as ``***``, and so is the password. Scheme, user, hosts and path
            are shown: a secret has no place in them.
    """

    name: str
    schemes: tuple[str, ...]
    open: Callable[[str, OpenOptions], Backend]
    summary: str
    capabilities: Capabilities
    extra: str | None = None
    api: int = API
    declared: Callable[[str], Capabilities] | None = None
    check: Callable[[str], object] | None = None
    harmless: tuple[str, ...] = ()
