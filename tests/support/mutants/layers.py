"""Mistakes of a store, made through its interface: each a layer that goes around any backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockkit.facts import ClaimInfo, Evicted
from lockkit.lib.clock import Clock
from lockkit.store.spi import (
    ABSENT,
    RELEASED,
    Answer,
    Backend,
    Beat,
    Busy,
    Claim,
    End,
    Granted,
    Queued,
    ReleaseAnswer,
    Renewal,
)
from lockkit.values.names import claim_id

__all__ = [
    "BusyStays",
    "EvictsAtOnce",
    "HeartbeatExtendsUnread",
    "HeartbeatGrants",
    "Layer",
    "NoTombstone",
    "ReleaseWithoutCompare",
    "RenewCreates",
    "ReportsOnly",
]


class Layer:
    """A backend that passes everything on."""

    def __init__(self, inner: Backend, clock: Clock) -> None:
        self.inner = inner
        self.clock = clock

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    def stored(self, claim: Claim, budget: float) -> ClaimInfo | None:
        """A claim as the store shows it."""
        info = self.inner.inspect(claim.terms.name, budget)
        wanted = claim_id(claim.token)
        return next((each for each in info.claims if each.claim_id == wanted), None)


class ReleaseWithoutCompare(Layer):
    """Release removes whoever is first."""

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        if self.inner.release(claim, budget, how=how) == ABSENT:
            head = next(iter(self.inner.inspect(claim.terms.name, budget).claims), None)
            if head is None:
                return ABSENT
            self.inner.evict(claim.terms.name, head.claim_id, budget, now=True)
        return RELEASED


class RenewCreates(Layer):
    """A renewal of what is gone brings it back."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        answers = list(self.inner.renew(beats, budget))
        for at, (claim, fence) in enumerate(beats):
            if fence is not None and answers[at].why in ("absent", "lapsed"):
                answer = self.inner.acquire(claim, True, budget)
                if isinstance(answer, Granted):
                    answers[at] = Renewal("HELD", basis=answer.basis)
        return answers


class ReportsOnly(Layer):
    """Acquire on an own HELD claim says so and leaves the deadline where it is."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001 - the interface's own
        own = self.stored(claim, budget)
        if own is not None and own.state == "HELD" and not own.evicted:
            return Granted(own.fence, self.clock.now())
        return self.inner.acquire(claim, create, budget)


class HeartbeatExtendsUnread(Layer):
    """A heartbeat keeps a claim HELD whose owner has not read its grant."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        answers = self.inner.renew(beats, budget)
        for claim, fence in beats:
            own = self.stored(claim, budget) if fence is None else None
            if own is not None and own.state == "HELD":
                self.inner.renew([(claim, own.fence)], budget)
        return answers


class HeartbeatGrants(Layer):
    """A heartbeat takes the offer in its owner's place."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        answers = self.inner.renew(beats, budget)
        for (claim, fence), answer in zip(beats, answers, strict=True):
            if fence is None and answer.state == "OFFERED":
                self.inner.acquire(claim, False, budget)
        return answers


class NoTombstone(Layer):
    """Abandon removes what is there and leaves nothing to recognise a late copy by."""

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        return self.inner.release(claim, budget, how=how)

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        return self.inner.release(claim, budget, how=how)


class EvictsAtOnce(Layer):
    """Evict removes a holder that can still believe in its hold."""

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:  # noqa: ARG002
        return self.inner.evict(name, claim_id, budget, now=True)


class BusyStays(Layer):
    """A refused try stays in the queue."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001 - the interface's own
        answer = self.inner.acquire(claim._replace(wait=True), create, budget)
        if isinstance(answer, Queued) and not claim.wait:
            return Busy(answer.capacity, answer.holder)
        return answer
