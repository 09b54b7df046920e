"""Requests beside acquire and release: idempotent, and repeated within a time limit on passing trouble."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lockkit.drivers.patience import Tries, patiently
from lockkit.errors import BackendError
from lockkit.facts import ClaimInfo, LayerReport, LockInfo, Reason, ReleaseOutcome, ReleaseReport
from lockkit.lib.clock import Clock
from lockkit.protocol.beating import Beats
from lockkit.protocol.denials import named
from lockkit.protocol.hold import Hold
from lockkit.protocol.invalid import lapsed
from lockkit.store.spi import RELEASED, Backend, Claim, Granted, Lapsed, Refused, Unknown
from lockkit.values.events import Counters
from lockkit.values.names import claim_id

__all__ = ["Requests"]

T = TypeVar("T")


class Requests:
    """The requests with which a client confirms and extends its holds, and inspects or removes other claims.

    Args:
        backend: The open store.
        beats: The claims that the heartbeat looks after.
        longest: Seconds that one request may take with all its repetitions.
        lose: Declares a hold lost, with all that follows.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        counters: Counters,
        beats: Beats,
        longest: float,
        lose: Callable[[Hold, Reason], None],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._counters = counters
        self._beats = beats
        self._longest = longest
        self._lose = lose

    def confirm(self, hold: Hold) -> None:
        """Ask the store, in one round trip; again while the trouble may pass, within the request timeout.

        The call takes at most half of the time that the hold has left, so that the caller has time to stop.

        Raises:
            LeaseLost: The store records the claim no more, or the hold has run out meanwhile.
            BackendError: The store gave no answer; the lease is as valid as before.
        """
        answer = self._ask_about(hold, lambda budget: self._backend.acquire(hold.claim, False, budget))
        now = self._clock.now()
        if isinstance(answer, Granted) and answer.fence == hold.fence and hold.renewed(answer.basis, now):
            self._beats.again(hold)
            return
        self._lose(hold, hold.overdue(now) or (answer.why if isinstance(answer, Lapsed) else "lost"))
        raise lapsed(hold, "ended")

    def extend(self, hold: Hold, claim: Claim, patience: float | None = None) -> None:
        """Renew with ``claim`` (same token, longer ttl) within ``patience``; errors as :meth:`confirm`."""
        ttl = claim.terms.ttl
        renewal = self._ask_about(
            hold, lambda budget: self._backend.extend(hold.claim, hold.fence, ttl, budget), patience
        )
        now = self._clock.now()
        if renewal.state == "HELD" and hold.extended(claim, renewal.basis, now):
            self._beats.again(hold)
            return
        self._lose(hold, hold.overdue(now) or renewal.why or "lost")
        raise lapsed(hold, "ended")

    def _ask_about(self, hold: Hold, call: Callable[[float], T], patience: float | None = None) -> T:
        left = hold.expires - self._clock.now()
        if left > 0:
            patience = left / 2 if patience is None else min(patience, left / 2)
        try:
            return self.ask(call, hold.name, patience)
        except BackendError:
            if why := hold.overdue(self._clock.now()):
                self._lose(hold, why)
            if hold.lost_why:
                raise lapsed(hold, "ended") from None
            raise

    def ask(self, call: Callable[[float], T], name: str | None = None, patience: float | None = None) -> T:
        """An idempotent call, repeated while the trouble may pass, within the request timeout.

        Args:
            call: Told how many seconds it may take.
            name: The lock that the call is about.
            patience: Seconds that all of it may take, if that is less.

        Raises:
            BackendError: The trouble did not pass.
        """
        try:
            longest = self._longest if patience is None else min(patience, self._longest)
            return patiently(call, Tries(self._clock, longest))
        except (Refused, Unknown) as trouble:
            raise named(trouble.error, name) from None

    def remove(self, claim: Claim, fence: int, reason: Reason) -> ReleaseReport:
        """Compare-and-remove a claim by its token, for a copy of a lease."""
        name, began = claim.terms.name, self._clock.now()
        for hold in self._beats.holds():
            if (hold.claim.token, hold.name) == (
                claim.token,
                name,
            ):  # the lease that was copied is this client's: it is no longer valid
                hold.end()
                self._beats.withdraw(claim.token)
        answer = self.ask(lambda budget: self._backend.release(claim, budget), name)
        layer = LayerReport("normal", "DONE" if answer == RELEASED else "ABSENT", self._clock.now() - began)
        outcome: ReleaseOutcome = "RELEASED" if answer == RELEASED else "LOST"
        if answer == RELEASED:
            self._counters.add("released")
        else:
            self._counters.add("ownership_violations")
        return ReleaseReport(name, claim_id(claim.token), fence, outcome, reason, (layer,))

    def queue(self, name: str) -> LockInfo:
        """The queue of a name, as the store records it."""
        return self.ask(lambda budget: self._backend.inspect(name, budget), name)

    def held(self, name: str, claim: str) -> ClaimInfo | None:
        """A claim, if the store records it as HELD."""
        held = (one for one in self.queue(name).claims if one.state == "HELD" and not one.evicted)
        return next((one for one in held if one.claim_id == claim), None)

    def prolong(self, claim: Claim, fence: int) -> bool:
        """Renew a claim with a longer ttl, for a copy of its lease; False if not HELD with that fence."""
        name, ttl = claim.terms.name, claim.terms.ttl
        for hold in self._beats.holds():
            if (hold.claim.token, hold.name) == (
                claim.token,
                name,
            ) and hold.standing:  # the lease is this client's
                self.extend(hold, hold.claim._replace(terms=hold.claim.terms._replace(ttl=ttl)))
                return True
        renewal = self.ask(lambda budget: self._backend.extend(claim, fence, ttl, budget), name)
        return renewal.state == "HELD"
