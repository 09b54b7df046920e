"""One acquisition under way: what may be on the store, what its answers said, how long and often to ask."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lockkit.config.suggesting import SameStore
from lockkit.errors import AcquireTimeout, CapacityMismatch, Drained, LockkitError
from lockkit.facts import ClaimInfo, Deadlock, Event
from lockkit.lib.caller import Caller
from lockkit.lib.origin import Origin
from lockkit.protocol import cycles, deadlock, denials
from lockkit.protocol.call import Call
from lockkit.protocol.effects import Effect, Notify, Now, Orphan, with_terms
from lockkit.protocol.hold import Hold, always
from lockkit.protocol.outer import is_around
from lockkit.store.spi import (
    POLL_CAP,
    REQUEST_TIMEOUT,
    Answer,
    Claim,
    Lapsed,
    Queued,
    Refused,
    Terms,
    Unknown,
)
from lockkit.values.names import claim_id

if TYPE_CHECKING:
    from lockkit.drivers.jobs import Job

__all__ = ["OUTAGE_LIMIT", "Attempt", "UnderWay"]

OUTAGE_LIMIT = 30.0
"""Seconds from the first unanswered request after which a wait without a timeout gives up."""
FIRST_WARNING = 60.0
"""Seconds after which a wait is reported as still going on; then at doubling intervals."""
_MOMENT = 1.0
"""Seconds without an answer after which the attempt reports an outage."""
_LEAST = 0.05
"""Seconds that a request may take at least, even if the timeout comes sooner."""
_LAST_CALL = 0.4
"""Seconds after the timeout in which the waiting thread may remove its claim; then the background does."""
_NONE: Mapping[str, Sequence[Hold]] = {}
_PLAIN = Call()


class UnderWay(Protocol):
    """An acquisition under way: one attempt, or several that belong together.

    Attributes:
        call: What the acquire was called with.
        over: Whether it ended in an exception. If its cleanup was interrupted, the background takes it back.
        job: The request that a thread was given for it; None if there is none. Calls of a claim run in
            order, so what the acquisition has left is removed after this one, never beside it.
    """

    call: Call
    over: bool
    job: Job[Any] | None

    @property
    def sent(self) -> bool:
        """Whether something of it, which it must remove, may be on the store."""

    @property
    def parts(self) -> Sequence[Attempt]:
        """The attempts, in the order in which they started."""

    @property
    def runs(self) -> Callable[[], bool]:
        """Whether the thread, or the event loop, of the acquisition can go on with it."""


class Attempt:
    """One acquisition under way: what may be on the store, and how long and how often to ask.

    The attempt outlives the generator :func:`acquiring`, which an exception may interrupt.

    Attributes:
        terms: The terms asked for: the name, the ttl, the capacity and so on.
        later: The terms of the hold once all that was asked for is held; None if they are those of ``terms``.
        deadline: CLOCK_BOOTTIME seconds; None to wait for ever.
        note: A JSON object for the claim; None for none.
        auto_renew: Whether the heartbeat renews the hold. For the hold.
        request_timeout: Seconds that one request may take.
        wait: Whether to queue if the lock is busy; False to be refused instead.
        then: The attempt, if any, that queues for the lock after this one, which does not queue.
        token: Makes the token of a claim; None for a random one.
        mine: Holds of the same name that the acquiring thread or task has.
        who: "thread" or "task", for messages.
        claim: The claim that was sent last.
        sent: Whether ``claim`` may be on the store while this attempt is responsible for removing it.
        doubtful: Whether the outcome of some acquire of ``claim`` was UNKNOWN.
        request_pending: Whether an acquire of ``claim`` may be under way. False while it waits.
        holder: The claim that the store last named as in the way.
        hold: The granted hold, while nobody has a handle for it.
        origin: The process that asks; None for the one that runs this.
        over: Whether the attempt ended in an exception. The background finishes an interrupted cleanup.
        call: What the acquire was called with.
        job: See :class:`UnderWay`.
        start: CLOCK_BOOTTIME seconds at which the first request was due.
        random: Gives random numbers in 0..1.
        answered: Whether the store has ever answered.
        trouble: The latest failure since the last useful answer; the error to raise when the time is up.
        warn_at: When to report next that the claim is queued.
        same_store: Returns how a command that an error suggests uses the same store.
        runs: Whether the thread, or the event loop, of the attempt can go on with it.
        hopeless: Whether the latest failure is one that no repetition ends.
        ended_deadlock: Whether this wait ended a deadlock: it was the youngest of those that detect.
        key: A weak reference to the thread or task that acquires, as in its holds; None to publish nothing.
        taken_at: The place in the user's program that acquires; None if that is not known. For the hold.
        reentrant: Whether the thread or task may acquire the hold again. For the hold.
        where: "process", or "wrapper" for a program that runs another one under the lock. For the hold.
        registered: The holds of its client, by name.
        beside: Holds that the same acquisition has got already, of other locks.
        group: For a claim of an acquisition that waits in several queues: its name, the number of its claims,
            and how many of them it needs.
    """

    # Slots: with a dictionary, each of a thousand waiters would have 1.3 KiB more.

    __slots__ = (
        "_looked_at", "_search", "_since", "_told", "_tries", "_unusable_claims", "answered", "auto_renew",
        "beside", "call", "claim", "deadline", "doubtful", "ended_deadlock", "group", "hold", "holder",
        "hopeless", "job", "key", "later", "mine", "note", "origin", "over", "random", "reentrant",
        "registered", "request_pending", "request_timeout", "runs", "same_store", "sent", "start",
        "taken_at", "terms", "then", "token", "trouble", "wait", "warn_at", "where", "who",
    )  # fmt: skip

    random: Callable[[], float]

    def __init__(
        self,
        terms: Terms,
        deadline: float | None,
        wait: bool = True,  # noqa: FBT001, FBT002 (keywords cost on the hot path)
        note: Mapping[str, object] | None = None,
        auto_renew: bool = True,  # noqa: FBT001, FBT002
        request_timeout: float = REQUEST_TIMEOUT,
        origin: Origin | None = None,
        token: Callable[[], str] | None = None,
        mine: Sequence[Hold] = (),
        who: str = "thread",
        call: Call = _PLAIN,
    ) -> None:
        self.terms = terms
        self.deadline = deadline
        self.wait = wait
        self.note = note
        self.auto_renew = auto_renew
        self.request_timeout = request_timeout
        self.origin = origin
        self.token = token
        self.mine = mine
        self.who = who
        self.call = call
        self.start = self.warn_at = 0.0
        self.sent = self.doubtful = self.request_pending = self.over = False
        self.answered = self.ended_deadlock = self.hopeless = self.reentrant = False
        self.claim: Claim | None = None
        self.later: Terms | None = None
        self.holder: ClaimInfo | None = None
        self.hold: Hold | None = None
        self.trouble: LockkitError | None = None
        self.job: Job[Any] | None = None
        self.key: weakref.ref[object] | None = None
        self.taken_at: Caller | None = None
        self.where = "process"
        self.group: tuple[str, int, int] | None = None
        self.then: Attempt | None = None
        self.beside: Sequence[Hold] = ()
        self.registered: Mapping[str, Sequence[Hold]] = _NONE
        self.same_store: Callable[[], SameStore] = SameStore
        self.runs: Callable[[], bool] = always
        self._search: cycles.Search | None = None
        self._looked_at: Claim | None = None
        self._since: float | None = None  # when the first request without a useful answer was sent
        self._told = False
        self._tries = self._unusable_claims = 0

    @property
    def parts(self) -> Sequence[Attempt]:
        """See :class:`UnderWay`."""
        return (self,)

    def leftover(self) -> Orphan | None:
        """The claim to remove in the background if this attempt ends here; None if there is none.

        A waiting claim without a request under way is only released. To abandon it takes more requests: after
        hundreds of cancelled waits the background would fall behind.
        """
        if not self.sent or self.claim is None:
            return None
        return Orphan(self.claim, abandon=self.request_pending or self.doubtful, how="unused")

    def deadlocked(self, claim: Claim, now: Now) -> Generator[Effect, Any, ClaimInfo | None]:
        """Find the claim through which this one would wait for its own thread or task.

        The queue is read once for each new claim, and again only if the store gave no answer.
        """
        if self._looked_at is claim:
            return None
        between = yield from deadlock.who_waits_for(self.mine, claim, now, self.budget)
        if between != "unknown":
            self._looked_at = claim
        return None if isinstance(between, str) else between

    def searched(self, claim: Claim, now: Now) -> Generator[Effect, Any, Deadlock | None]:
        """Publish what this thread or task holds, if due; find the deadlock that this wait has to end."""
        if self.key is None:
            return None
        search = self._search
        if search is None or search.claim is not claim:
            search = self._search = cycles.Search(claim, self._facts(), now())
        return (yield from search.steps(now, self.budget, self._facts))

    def _facts(self) -> cycles.WaitFacts:
        assert self.claim is not None
        holds = [
            hold
            for named in list(self.registered.values())
            for hold in named
            if hold.key == self.key and hold.standing
        ]
        ids = frozenset(hold.claim_id for hold in (*holds, *self.beside) if hold.standing)
        group = self.group or (claim_id(self.claim.token), 1, 1)
        return cycles.WaitFacts(ids, *group, self.call.detect)

    def timeout(self, at: float, wall: float) -> AcquireTimeout:
        """The error for an attempt whose time is up; ``wall`` is in seconds since the epoch."""
        return denials.timeout(self.terms.name, self.holder, at - self.start, wall, self.same_store())

    def mismatch(self, capacity: int | None) -> CapacityMismatch:
        """The error for a name in use with another capacity; None: resized below the claim's weight."""
        return denials.mismatch(self.terms, self.holder, capacity, self.same_store())

    def named(self, error: LockkitError) -> LockkitError:
        """An error with the lock's name and, in a drained namespace, the command that ends the drain."""
        if isinstance(error, Drained) and error.hint is None:
            error.hint = f"try again when that is over; {denials.drain_ends(error.drain, self.same_store())}"
        return denials.named(error, self.terms.name)

    # -- how long

    def timed_out(self, at: float) -> bool:
        """Whether the total timeout has passed; without any answer yet, :meth:`gives_up` decides instead."""
        return self.answered and self.deadline is not None and at >= self.deadline

    def budget(self, at: float) -> float:
        """Seconds that a request may take."""
        if self.deadline is None:
            return self.request_timeout
        return min(self.request_timeout, max(self.deadline - at, _LEAST))

    def last_call(self, at: float) -> float:
        """The budget for removing a claim in the foreground; <= 0 to leave the removal to the background."""
        if self.deadline is None:
            return self.request_timeout
        return min(self.request_timeout, self.deadline + _LAST_CALL - at)

    def until(self, answer: Queued, at: float) -> float | None:
        """When to stop waiting for a wake; ``at`` is when the answer came."""
        shown = None if self.call.on_wait is None else at + POLL_CAP
        ends = [end for end in (answer.ask_again_at, self.deadline, self.warn_at, shown) if end is not None]
        if self._search is not None:
            ends.append(self._search.due)
        return min(ends)

    def gives_up(self, trouble: Refused | Unknown, at: float) -> bool:
        """Whether the failure is final, or failures have lasted too long."""
        if not trouble.retry:
            return True
        if self.deadline is not None:
            return at >= self.deadline
        if trouble.busy:
            return False
        since = self.start if self._since is None else self._since
        return at >= since + (OUTAGE_LIMIT if self.answered else self.request_timeout)

    def only_unusable_answers(self, at: float) -> bool:
        """Whether a wait without a timeout has had only useless answers for too long."""
        return self.deadline is None and self._since is not None and at >= self._since + OUTAGE_LIMIT

    # -- how often

    def next_try(self, at: float) -> float:
        """When to ask again: 20 ms, doubling up to 1 s, jittered by half."""
        self._tries += 1
        return self._after(at, self._tries)

    def next_claim(self, at: float) -> float:
        """When to send another claim: the same intervals, by the number of unusable claims."""
        self._unusable_claims += 1
        return self._after(at, self._unusable_claims)

    def _after(self, at: float, times: int) -> float:
        wait = min(1.0, 0.01 * 2.0 ** min(times, 7)) * (0.5 + self.random())
        return at + wait if self.deadline is None else min(at + wait, self.deadline)

    # -- what the store has said

    def heard(self, answer: Answer) -> None:
        """Note an answer other than a grant."""
        self.answered = True
        self._since = None
        self._told = False
        self._tries = 0
        if not isinstance(answer, Lapsed):  # Lapsed only says that another claim is needed
            self.trouble = None

    def met(self, trouble: Refused | Unknown, budget: float, at: float) -> None:
        """Note the failure of a request that was sent ``at``.

        A request that failed because the timeout left it little time does not replace an earlier failure.
        """
        if self._since is None:
            self._since = at
        self.hopeless = not trouble.retry
        says_much = budget >= self.request_timeout or not trouble.retry
        says_something = isinstance(trouble, Refused) or budget >= _MOMENT
        if says_much or (says_something and self.trouble is None):
            self.trouble = trouble.error

    def unusable(self, error: LockkitError, at: float) -> None:
        """Note an answer, read ``at``, that the attempt cannot use; it counts like a refusal."""
        self.answered = True
        if self._since is None:
            self._since = at
        self.trouble = error

    def complain(self, trouble: Refused | Unknown, at: float) -> Generator[Effect, Any, None]:
        """Report, once in an outage, that the store does not answer and that the attempt goes on."""
        if self._told or self._since is None or at - self._since < _MOMENT:
            return
        self._told = True
        claim = claim_id(self.claim.token) if self.claim else ""
        data = {"error": str(trouble)}
        yield Notify(Event("unanswered", self.terms.name, claim, duration=at - self._since, data=data))

    def report(self, answer: Queued, at: float) -> Generator[Effect, Any, None]:
        """Report that the claim is queued, and again after one minute, two, four, and so on.

        One that waits in several queues reports only once that it still waits.
        """
        if at < self.warn_at:
            return
        waited = at - self.start
        here = denials.hold_of(answer.holder)
        held = denials.held_claim(answer.holder)
        own = denials.by_this_thread(here) or is_around(held)
        kind = "queued" if self.warn_at == self.start and not own else "still_waiting"
        data = {
            "position": answer.position,
            "holder": str(answer.holder.owner) if answer.holder else None,
            "holder_claim": held,
            "held_at": denials.taken_at(here),
        }
        claim = claim_id(self.claim.token) if self.claim else ""
        if kind == "queued" or own or self.group is None:
            event = Event(kind, self.terms.name, claim, duration=waited, data=data)
            yield Notify(with_terms(event, self.terms))
        self.warn_at = self.start + max(FIRST_WARNING, 2 * waited)
