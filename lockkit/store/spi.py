"""The interface of a store (service-provider interface): the calls that lockkit makes. API 1.

Calls are short and idempotent, and never wait for a lock. Each call obeys its ``budget``, the seconds that it
may take. Only the protocol repeats calls: retries of a driver library are switched off.

A call ends in one of four ways. It returns an answer. It raises :class:`Refused`: the store definitely did
not do it. It raises :class:`Unknown`: the request was sent, and no answer came. Or it is interrupted by a
``BaseException`` that is not an ``Exception``, which the protocol treats like Unknown. Each store has one
table that maps the exceptions of its driver to Refused and Unknown; any other exception is Unknown.

Every call first removes all claims past their deadlines, anywhere in the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from lockkit.errors import BackendError, LockkitError
from lockkit.facts import NOTHING, Capabilities, ClaimInfo, Evicted, Finding, Kind, LockInfo, Owner, Record
from lockkit.lib.bell import Bell
from lockkit.lib.clock import SYSTEM, Clock
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from ssl import SSLContext

    from lockkit.store.exchanges import Exchange, Parser, Route

__all__ = [
    "ABSENT",
    "API",
    "GRACE",
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
    "Drains",
    "End",
    "Exchanges",
    "Extras",
    "Granted",
    "Lapsed",
    "OpenOptions",
    "Queued",
    "ReadingWatch",
    "Refused",
    "ReleaseAnswer",
    "Removal",
    "Renewal",
    "Terms",
    "Unknown",
    "Watch",
    "Why",
]

API = 1
REQUEST_TIMEOUT = 2.0
"""The seconds that a single call may take, by default."""
POLL_CAP = 2.0
"""The seconds after which a waiter asks again even if every wake was lost."""
GRACE = 3 * POLL_CAP
"""The seconds after which a waiter that sends nothing, and an offer that is not answered, lapse."""
NOTE_LIMIT = 4096
"""The largest size of a note or record, in bytes of JSON."""


class Refused(Exception):
    """The call was definitely not applied.

    Args:
        error: The error for the user if the call is not repeated, or does not succeed when repeated.
        retry: Whether repeating may help (a restart, an election) or not (permission, layout, a full disk).
        busy: Whether the store works, and only other calls are in the way, of this process or of others. Then
            an acquire without a timeout keeps trying.
    """

    def __init__(self, error: LockkitError, *, retry: bool = True, busy: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry
        self.busy = busy
        if busy and isinstance(error, BackendError):
            error.busy = True


class Unknown(Exception):
    """The request may have been applied, or may still be applied later.

    Args:
        error: The error for the user if the outcome is not known in time.
        retry: Whether repeating may help. If not (a full disk, no permission), the claim is abandoned.
        busy: See :class:`Refused`.
    """

    def __init__(self, error: LockkitError, *, retry: bool = True, busy: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry = retry
        self.busy = busy
        if busy and isinstance(error, BackendError):
            error.busy = True


class Conflict(Exception):
    """Raised by ``put_record``: the record has another version by now.

    Attributes:
        current: The record as it is, or None if there is none.
    """

    def __init__(self, current: Record | None) -> None:
        super().__init__("the record has changed")
        self.current = current


class Terms(NamedTuple):
    """The terms of all claims of one lock, built once. A store may cache values that it computes from them.

    Attributes:
        ttl: The seconds that the store keeps a held claim without renewal.
        weight: The weight, for the queue rule.
        capacity: The capacity, for the queue rule.
        process_bound: The claim lasts, even unrenewed, until its process, max_hold or an eviction ends it.
        pulseless: The claim lives by its ttl alone, even without its process: one script takes the hold, and
            another releases it. A store that purges claims of dead processes must not purge this one.
        max_hold: The seconds after which a hold is ended; None for never.
        min_hold: The seconds from the grant for which the claim blocks even if it is released.
        lock_delay: The seconds for which the claim continues to block after an end without a release.
        asked: The ttl asked for, in seconds; None for a default. ``ttl`` is the nearest that the capabilities
            allow. A store that learns only now that it grants another one says so in :class:`Granted`; with
            ``strict`` it refuses the claim if this is not None.
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
    asked: float | None = None


class Claim(NamedTuple):
    """One attempt to hold.

    Attributes:
        token: 32 hex digits, fresh for this attempt. Never printed, logged or served.
        wait: Whether to queue if the lock is not free. If not, the answer is Busy, and no claim is left.
        note: A JSON object that ``inspect`` shows; at most :data:`NOTE_LIMIT` bytes.
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
        fence: The fencing token.
        basis: When the request that moved the store's deadline was sent, in seconds of CLOCK_BOOTTIME.
        ttl: The seconds that the store keeps the claim without renewal, if not those of the claim's terms.
            Validity counts them from the basis (S3), so a store never names more than it keeps.
    """

    fence: int
    basis: float
    ttl: float | None = None


class Queued(NamedTuple):
    """The claim is in the queue (WAITING).

    Attributes:
        position: The number of claims ahead.
        ask_again_at: For the next in line, the time at which a blocker lapses, in seconds of CLOCK_BOOTTIME;
            None for all others. A store that has not named the holder may set a time to ask for it.
        blockers: The argument for ``watch``; opaque to the caller.
        capacity: The capacity in force: that of the first claim.
        holder: A claim that blocks this one, if the store knows it without another request.
    """

    position: int
    ask_again_at: float | None = None
    blockers: tuple[str, ...] = ()
    capacity: int = 1
    holder: ClaimInfo | None = None


class Busy(NamedTuple):
    """The claim does not fit, and nothing of it is left. Only for claims with ``wait=False``."""

    capacity: int | None = None
    holder: ClaimInfo | None = None


Why: TypeAlias = Literal["absent", "evicted", "files", "lingering", "resized", "late"]


class Lapsed(NamedTuple):
    """The claim does not exist, or no longer. The protocol starts again with a new token, at the tail.

    Reasons: ``resized``, the claim's weight exceeds the new capacity; ``files``, the store's files were
    removed or replaced.
    """

    why: Why = "absent"


Answer: TypeAlias = Granted | Queued | Busy | Lapsed
ReleaseAnswer = Literal["RELEASED", "ABSENT"]
End: TypeAlias = Literal["released", "ungraceful", "unused"]
"""How a claim ends: its holder released it; its holder lost it, so that somebody may still work under it
(lost, max_hold, collected); or nobody ever worked under it, because no caller got a lease."""
RELEASED: Literal["RELEASED"] = "RELEASED"
ABSENT: Literal["ABSENT"] = "ABSENT"


class Renewal(NamedTuple):
    """The answer about one claim of a ``renew`` batch.

    Attributes:
        state: HELD; WAITING; OFFERED (the claim fits; its owner must call acquire, because a renewal never
            grants); LOST; UNKNOWN (the store has answers for other claims of the batch only).
        basis: As in :class:`Granted`; only for HELD.
        requests: The claim's note once it was annotated: the holder's client finds requests to release in it.
            Each request must come with one renewal at least; it may come with all later ones.
        why: For LOST: the claim is absent, evicted or lapsed, or has another fence, or files are gone.
        trouble: For UNKNOWN: the error, in words.
    """

    state: Literal["HELD", "WAITING", "OFFERED", "LOST", "UNKNOWN"]
    basis: float = 0.0
    requests: Mapping[str, object] | None = None
    why: Literal["", "absent", "evicted", "fence", "files", "lapsed"] = ""
    trouble: str = ""


Beat: TypeAlias = tuple[Claim, int | None]
"""One claim to renew, with the fence of its lease, or None while there is no lease."""


class Watch(Protocol):
    """A running watch."""

    def close(self) -> None:
        """Stop the watch. A moment later ``wake`` is not called any more. Never raises."""


class ReadingWatch(Watch, Protocol):
    """A watch for which the waiting thread itself may read the messages."""

    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait until the bell rings or the time is over. The calling thread may read the watch's messages."""


class Drains(Protocol):
    """The mark that has a namespace's acquires refused. It outlives every client, and does not lapse.

    While the mark is set, ``acquire`` raises the refusal that :func:`lockkit.store.drains.refused` makes of
    it, for every claim that is not HELD, and leaves no new claim behind. All else goes on as ever. An
    acquire that starts after ``set`` returned is refused; an earlier one may still be granted, but its claim
    was already in the queue, so ``inspect`` shows it.
    """

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """The mark of this namespace, or of another one of the store; None if that is not drained."""

    def set(self, mark: str, budget: float) -> None:
        """Set the mark, JSON of at most :data:`NOTE_LIMIT` bytes, in place of one that is there.

        A store that needs several steps for that, or for ``clear``, has ``get`` return the mark from before
        the first step until after the last one, as :func:`lockkit.store.drains.partly` of it, also if a step
        fails, and raises :class:`Unknown` then.
        """

    def clear(self, mark: str, budget: float) -> bool:
        """Remove the mark if it is still this one, or the partial form of it; return whether it was."""

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """Remove a waiting claim, whose owner then asks again and is refused; return whether it was removed.

        Unlike ``evict``, this spares a claim that holds, or may have been granted, in one atomic step.
        """


class Removal(NamedTuple):
    """One claim of many to remove: with :meth:`Backend.abandon` if ``abandon``, else with ``release``."""

    claim: Claim
    abandon: bool
    how: End


class Extras(NamedTuple):
    """Abilities that only some stores have; None for one that a store lacks.

    Attributes:
        exchanges: The frequent calls without I/O. A store without exchanges is called on threads.
        listen: Like :meth:`Backend.watch`, but the waiting thread may read its message itself.
        pulse: Returns the descriptors that a child inherits to keep this process's process-bound claims.
        evictions: ``evictions(claim_ids)`` is for process-bound claims of this process. Returns one of the
            descriptors of ``pulse``, and one message for each claim, all of one length. Before an eviction
            the claim's message can be read there, and then the claim still blocks for at least half of its
            ttl. So a child learns of the eviction while this process is stopped.
        namespaces: ``namespaces(budget)`` returns the namespaces with claims, perhaps only lapsed ones, or a
            mark of a drain, in any order.
        drains: The mark that has acquires refused. A store that has it declares the capability ``drains``.
        at_once: Whether every call takes microseconds and waits for nothing: event loops may make it.
        remove_many: ``remove_many(removals, budget)`` removes many claims in far fewer requests than one
            each. Returns for each removal, in order, None once its answer is definite, otherwise its Refused
            or Unknown. It may also raise either for all of them; some may be removed then.
    """

    exchanges: Exchanges | None = None
    listen: Callable[[str, Sequence[str], Callable[[], None], Claim], ReadingWatch] | None = None
    pulse: Callable[[], Sequence[int]] | None = None
    evictions: Callable[[Sequence[str]], tuple[int, Sequence[bytes]]] | None = None
    namespaces: Callable[[float], Sequence[str]] | None = None
    drains: Drains | None = None
    at_once: bool = False
    remove_many: Callable[[Sequence[Removal], float], Sequence[Refused | Unknown | None]] | None = None


NO_EXTRAS = Extras()
"""No abilities beyond the calls of :class:`Backend`."""


class Exchanges(Protocol):
    """The frequent calls of :class:`Backend` as exchanges, for a performer with other connections (asyncio).

    Each exchange does the same as the call of that name, and raises the same exceptions.

    Attributes:
        tls: The context in which to connect; None for connections without TLS.
    """

    @property
    def tls(self) -> SSLContext | None: ...

    def parser(self) -> Parser:
        """The parser of the replies on a new connection."""

    def opening(self, route: Route, end: float) -> Exchange[Any]:
        """Open a connection to a route until an end on ``time.monotonic()``, and return it."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
        """See :meth:`Backend.acquire`."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Exchange[Sequence[Renewal]]:
        """See :meth:`Backend.renew`."""

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.release`."""

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.abandon`."""

    def emergency_release(
        self, claim: Claim, budget: float, *, how: End = "released"
    ) -> Exchange[ReleaseAnswer]:
        """See :meth:`Backend.emergency_release`."""


class Backend(Protocol):
    """One open store. Thread-safe; belongs to the process that opened it."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def extras(self) -> Extras:
        """Further abilities of the store; :data:`NO_EXTRAS` for most stores."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """Append the claim if it is not in the queue, and return its state: HELD if the claim fits.

        The first call has ``create=True``; so have its repetitions while the outcome is unknown. Such a call
        appends the claim, or finds the one that an earlier copy appended, with the same fence. For a HELD
        claim the deadline becomes now + ttl, with the basis of this call; for one that is evicted, lingering
        or lapsed the answer is Lapsed. All later calls have ``create=False``; then an absent claim is Lapsed.
        """

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """Renew a batch of claims. Returns one Renewal for each beat, in order.

        The most urgent claims come first. A store that has no time for all of them renews the first ones, and
        answers UNKNOWN for the others, which are first in the next batch.

        A renewal never creates a claim. With a fence, the answer is HELD if the stored claim is HELD with
        that fence, otherwise LOST. Without a fence, a WAITING claim is extended. An OFFERED claim, and a HELD
        one whose owner has not read the grant, are reported as OFFERED and not extended.
        """

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """Remove the claim if its token is the same. The store compares and removes in one atomic step.

        A HELD claim that is ``released`` continues to block until since + min_hold, if that is later than
        now. After an ``ungraceful`` end, and after an eviction, it continues to block until min(its deadline,
        now + lock_delay) if that is later still. An ``unused`` claim stops blocking, whatever its min_hold
        and lock_delay, evicted or not. The three are the same for a claim that does not hold, or lingers.
        """

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """Release after an acquire with an unknown outcome: no late copy of it may grant anything."""

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """Like abandon, over a fresh connection."""

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """Watch the blockers, and return at once. Any thread calls ``wake`` when ``claim`` should ask again.

        Wakes are hints: too many do no harm, and a missed one costs only time. But a change after the answer
        that named the blockers must not be missed: subscribe, then check, and wake if one is gone.
        """

    def inspect(self, name: str, budget: float) -> LockInfo:
        """The queue of a name. Changes nothing."""

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """The names that have claims, sorted. Unless ``deep``, they may be read from an incomplete index."""

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """Force one claim out. A HELD claim blocks until its holder must know; ``now`` removes it at once."""

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """Change the capacity of all claims of a name in one step. Returns the number of claims.

        A HELD claim stays HELD. A claim that is not HELD and weighs more than the new capacity is removed.
        """

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """Renew a claim, and keep it with this ttl, at least its present one. Deadlines only grow.

        A claim whose terms say here that it is process-bound is so from now on.
        """

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """Merge a JSON patch (RFC 7396) into a claim's note; False if there is no such claim."""

    def record(self, name: str, budget: float) -> Record | None:
        """The name's record."""

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """Write the record if it still has this version (0: there is none yet).

        Raises:
            Conflict: The record has another version.
        """

    def check(self, budget: float) -> Sequence[Finding]:
        """Check the store's health and settings, for ``doctor``."""

    def close(self) -> None:
        """Close connections and files. Claims stay as they are. Never raises, and may be called twice."""


class OpenOptions(NamedTuple):
    """The options that a store is opened with.

    Attributes:
        namespace: The prefix of a deployment. It is valid.
        owner: The owner of all claims of this process.
        clock: The clock to use; a simulation passes its own.
        state_dir: The folder in which embedded stores keep their files; None for the user's default.
        strict: Refuse what is known to be unsafe instead of warning.
        warn: The store calls this with one sentence for each thing that the user should know. Warnings while
            opening are logged with the first lock, and by ``doctor``, but not by commands that only look.
        settings: The plugin's own table in the configuration, ``[plugins.<dist>]``.
        suspect: The store may call this, from any thread, with the token of a claim that may be gone: lockkit
            then renews the claim at once.
        budget: The seconds that opening may take, for a store that connects; a caller may be waiting.
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
        # Without the settings: a plugin's may be secrets.
        return f"OpenOptions({self.namespace!r}, state_dir={self.state_dir!r}, settings=...)"


class BackendSpec(NamedTuple):
    """A store on offer, as collected by ``lockkit_backends``.

    Attributes:
        name: The name of the store, for people: ``sqlite``.
        schemes: The URL schemes: ``("redis", "rediss")``.
        open: ``open(url, options)`` opens the store. It imports the client library itself. Raises Refused,
            ConfigError, or ImportError if the client library is missing.
        extra: The extra that installs the client library, as in ``pip install "lockkit[redis]"``, or None.
        summary: A description of a few words.
        capabilities: The capabilities, as declared before the store is opened.
        declared: ``declared(url)`` returns the capabilities for this URL. Each new client calls it, so it
            must be fast; it may look at local files, but never connects. None if they are always the same.
        check: ``check(url)`` refuses a URL that ``open`` would refuse, with the same errors, and imports what
            ``open`` needs, but does not connect. ``lockkit config check`` calls it, and under asyncio every
            client before it opens the store, whose budget the imports then do not use up. Its result is
            ignored. None if only ``open`` can check a URL.
        adopt: ``adopt(url, options)`` makes a store usable that was moved or restored (``lockkit store
            adopt-folder``), and returns its path. Raises Refused if the store may be in use under another
            name. None for a store that cannot be moved.
        harmless: The options of the URL whose values may be shown to people, in logs and in errors;
            ``"name=value"`` if only that value may be shown. The password and all other options are shown as
            ``***``. Scheme, user, hosts and path are always shown: keep secrets out of them.
        transactions: ``transactions(url)`` returns an object with which ``lockkit.guard.etcd`` sends single
            requests to the store. The call does not connect. None for a store without such a guard.
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
    transactions: Callable[[str], object] | None = None
    adopt: Callable[[str, OpenOptions], str] | None = None
