"""Interleavings of the embedded store's statements that chance finds too rarely."""

from __future__ import annotations

import pytest

from lockkit.store.spi import Claim, Terms
from support.mutants.stores import ReleaseLeavesLapsed
from support.simulation.statements import Statements

CLAIM = Claim("1", Terms("a", ttl=6.0))


def end(job):
    try:
        while True:
            next(job)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("steps", range(5))
def test_a_renewal_held_up_at_the_file_brings_no_released_claim_back(clock, steps):
    store = Statements(clock)
    granted = end(store.acquire(CLAIM, "A", create=True))
    renewal = store.renew([(CLAIM, granted.fence)])
    next(renewal)
    clock.forward(7.0)
    release = store.release(CLAIM, how="released")
    for _ in range(steps):
        next(release, None)
    end(renewal)
    end(release)
    assert store.rows("a") == []


def test_a_release_that_leaves_what_has_lapsed_leaves_it_to_such_a_renewal(clock):
    store = ReleaseLeavesLapsed(clock)
    granted = end(store.acquire(CLAIM, "A", create=True))
    renewal = store.renew([(CLAIM, granted.fence)])
    next(renewal)
    clock.forward(6.1)
    assert end(store.release(CLAIM, how="released")) == "ABSENT"
    end(renewal)
    assert [row.state for row in store.rows("a")] == ["HELD"]
