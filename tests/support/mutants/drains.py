"""Mistakes about drained namespaces: layers around any backend, and a patch of the drain itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lockkit.drivers.threads import Driver
from lockkit.errors import Drained
from lockkit.facts import ClaimInfo
from lockkit.shared import draining
from lockkit.store.drains import refused
from lockkit.store.spi import Answer, Claim, Refused
from support.mutants.layers import Layer
from support.mutants.mutant import patched

__all__ = ["RefusesHolders", "RefusesNewcomersOnly", "evicts_what_waited", "wakes_nobody"]


class RefusesNewcomersOnly(Layer):
    """A claim that was in the queue before the drain is granted in its turn."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        try:
            return self.inner.acquire(claim, create, budget)
        except Refused as refusal:
            drains = self.inner.extras.drains
            if create or drains is None or not isinstance(refusal.error, Drained):
                raise
            mark = drains.get(budget)
            assert mark is not None
            drains.clear(mark, budget)
            try:
                return self.inner.acquire(claim, create, budget)
            finally:
                drains.set(mark, budget)


class RefusesHolders(Layer):
    """The mark is looked at first of all, and so even a claim that is HELD is refused."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        drains = self.inner.extras.drains
        mark = None if drains is None else drains.get(budget)
        if mark is not None:
            raise refused(mark, "kit")
        return self.inner.acquire(claim, create, budget)


@contextmanager
def wakes_nobody() -> Iterator[None]:
    """A drain sets the mark, and leaves those who wait asleep."""
    with patched(draining, _turn_away=lambda _driver, _claim: None):
        yield


@contextmanager
def evicts_what_waited() -> Iterator[None]:
    """A drain evicts whatever it has seen wait, without a compare."""

    def evicts(driver: Driver, claim: ClaimInfo) -> None:
        driver.requests.ask(
            lambda budget: driver.backend.evict(claim.name, claim.claim_id, budget), claim.name
        )

    with patched(draining, _turn_away=evicts):
        yield
