"""Deliberate mistakes in the scripts of the Redis store: the scenario meant for each must notice it."""

from __future__ import annotations

import threading

import pytest

from lockkit.store.spi import Claim
from lockkit.testing.processes import PATIENCE
from lockkit.values.names import new_token
from lockkit_redis import scripts, wakes
from support.harnesses.redis import RedisHarness
from support.mutants.onstores import fails, impatient
from support.mutants.onstores import scenarios as of_the_kit
from support.mutants.scripts import LUA, spoiled


@pytest.mark.filterwarnings("ignore")  # a scenario that fails half-way leaves its leases to the collector
@pytest.mark.parametrize("mutant", LUA)
def test_the_kit_kills_it_by_the_expected_scenario(mutant, tmp_path):
    name, changes = LUA[mutant]
    with spoiled(scripts, changes), impatient():
        assert any(verdicts(name, tmp_path)), f"{mutant} survives {name}"


@pytest.mark.full  # the kit plays them, too: a control of the mutants
@pytest.mark.parametrize("name", sorted({name for name, _ in LUA.values()}))
def test_without_the_mistake_the_same_scenarios_hold(name, tmp_path):
    assert not any(verdicts(name, tmp_path))


def verdicts(name, scratch):
    for number, scenario in enumerate(of_the_kit(name)):
        folder = scratch / str(number)
        folder.mkdir()
        yield fails(scenario, RedisHarness, folder)


@pytest.fixture
def harness(tmp_path):
    made = RedisHarness(tmp_path)
    yield made
    made.close()


def fence_after_lost_data(harness):
    with harness.client() as client:
        lock = client.lock("a")
        for _ in range(3):
            first = lock.acquire()
            first.release()
        harness.wipe()
        return lock.acquire().fence - first.fence


@pytest.mark.filterwarnings("ignore")
def test_a_fence_that_only_counts_is_noticed_when_data_are_lost(harness):
    assert fence_after_lost_data(harness) > 0
    with spoiled(scripts, ((("ACQUIRE",), "math.max(us, tonumber", "math.max(0, tonumber"),)):
        assert fence_after_lost_data(harness) <= 0


def left_after_a_crash(harness):
    client = harness.client()
    client.lock("a", ttl=5, auto_renew=False).acquire()
    harness.crash(client)
    harness.advance(120)
    left = harness.residue()
    client.close()
    harness.wipe()
    return left


@pytest.mark.filterwarnings("ignore")
def test_an_expiry_set_in_a_step_of_its_own_is_noticed_by_what_a_crash_leaves(harness):
    """Keys that GET or SETNX and then EXPIRE leave for good, if the client dies in between."""
    assert left_after_a_crash(harness) == {}
    with spoiled(scripts, ((("ACQUIRE",), "if least == 0 then", "if false then"),)):
        assert left_after_a_crash(harness) != {}


def woken_in_the_gap(harness, seconds):
    """Whether a waiter hears of what happened between its answer and its subscription."""
    with harness.client() as holder, harness.client() as waiter:
        lease = holder.lock("a", ttl=300).acquire()
        pending = waiter.lock("a", ttl=300)
        backend = waiter.driver().backend
        claim = _claim(pending)
        answer = backend.acquire(claim, True, 2.0)
        lease.release()
        heard = threading.Event()
        watch = backend.watch("a", answer.blockers, heard.set, claim)
        found = heard.wait(seconds)
        watch.close()
        backend.release(claim, 2.0)
        return found


def _claim(lock):
    return Claim(new_token(), lock.terms)


def test_subscribing_after_the_check_is_noticed_by_a_wake_in_the_gap(harness, monkeypatch):
    assert woken_in_the_gap(harness, PATIENCE)
    monkeypatch.setattr(wakes.Wakes, "_make_up", lambda self, watches: None)
    assert not woken_in_the_gap(harness, 1.0)
