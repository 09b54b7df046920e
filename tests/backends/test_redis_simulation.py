"""The protocol on the real scripts of the Redis store, under every schedule and fault of Hypothesis.

Schedules and promises: ``tests/protocol/test_simulation.py``. A violation prints its schedule;
``explore(ON_REDIS[...], bytes.fromhex(...))`` plays it again.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockkit.testing.server_clock import ServerClock
from lockkit_redis import scripts
from support.mutants.scripts import LUA, spoiled
from support.simulation import ON_REDIS, World, explore, incident, schedules
from support.simulation.faults import BLOWS, NO_FAULTS, Faults

pytestmark = pytest.mark.skipif(
    not ServerClock.possible(), reason="moving a server's clock takes Linux and a C compiler"
)
SCHEDULES = st.binary(min_size=60, max_size=400)
EXAMPLES = settings().max_examples // 8
"""A real server takes ten times as long as a model; the nightly profile makes up for it."""
LOST_DATA = replace(
    NO_FAULTS, restart=2, wipe=2, unlearn=2, drop=2, delay=2, sleep=1, crash=1, hang=1, budget=30
)
OLD_COPIES = replace(NO_FAULTS, delay=4, drop=2, cancel=2, minute=2, sleep=1, unlearn=1, budget=40)
MIX = Faults(unlearn=1, minute=1, restart=1, wipe=1, budget=20)


def follow(setup, schedule):
    world = explore(setup, schedule)
    if world.violations:
        pytest.fail(incident(world, schedule), pytrace=False)
    return world


@pytest.mark.parametrize("label", ON_REDIS)
@settings(max_examples=EXAMPLES)
@given(schedule=SCHEDULES)
def test_no_schedule_of_steps_and_faults_breaks_a_promise(label, schedule):
    follow(ON_REDIS[label], schedule)


@pytest.mark.parametrize("label", ON_REDIS)
@settings(max_examples=EXAMPLES // 2)
@given(schedule=SCHEDULES)
def test_without_faults_no_promise_is_broken_either(label, schedule):
    world = follow(replace(ON_REDIS[label], faults=NO_FAULTS), schedule)
    lost = [line for line in world.story if ": LOST " in line and "max_hold" not in line]
    assert not lost, "lost without a fault"


@pytest.mark.parametrize("label", ON_REDIS)
@settings(max_examples=EXAMPLES // 2)
@given(schedule=SCHEDULES)
def test_copies_that_come_after_a_minute_do_nothing(label, schedule):
    follow(replace(ON_REDIS[label], faults=OLD_COPIES), schedule)


@pytest.mark.parametrize("label", ON_REDIS)
@settings(max_examples=EXAMPLES // 2)
@given(schedule=SCHEDULES)
def test_a_server_that_loses_its_data_grants_with_greater_fences_and_wakes_everybody(label, schedule):
    follow(replace(ON_REDIS[label], faults=LOST_DATA), schedule)


def test_the_runs_are_worth_something():
    """Void if too little happens in them: grants, waits, faults, what befalls a server."""
    setups = [replace(setup, faults=MIX) for setup in ON_REDIS.values()]
    lines = [line for setup in setups for schedule in schedules(6) for line in follow(setup, schedule).story]
    for what, least in [
        ("GRANTED", 50),
        ("late copy", 5),
        ("NOSCRIPT", 3),
        ("more of it", 3),
        ("LOST", 3),
        ("Ctrl-C", 10),
        *((f"the server {what}", 3) for what in BLOWS),
    ]:
        assert sum(what in line for line in lines) >= least, what


def test_the_same_schedule_is_the_same_run():
    setup = replace(ON_REDIS["semaphore-redis"], faults=MIX)
    for schedule in schedules(5):
        first, again = (explore(setup, schedule).story for _ in range(2))
        assert first == again


LATE = replace(NO_FAULTS, delay=4, drop=1, cancel=1, sleep=1, budget=40)
HANGS = replace(NO_FAULTS, hang=3, sleep=1, deaf=2, budget=60)
STOPS = replace(NO_FAULTS, pause=2, sleep=2, budget=30)
MUTANTS = {
    "no-tombstone-when-nothing-was-found": ("S12", "mutex-redis", LATE),
    "settle-only-at-the-start": ("L3-hand-off", "mutex-redis", NO_FAULTS),
    "offers-what-is-held": ("S2", "semaphore-redis", NO_FAULTS),
    "skips-instead-of-purging": ("S5", "semaphore-redis", STOPS),
    "heartbeat-extends-an-offer": ("S11-heartbeat", "mutex-redis", HANGS),
    "release-without-compare": ("S7", "semaphore-redis", Faults()),
}
MOST = 40
"""Schedules in which each is found; most need one to five."""


def broken(setup, most=MOST):
    """The promises that are broken, one run after another."""
    for schedule in schedules(most):
        world = World(setup, patience=4)
        world.run(schedule)
        yield from (each.name for each in world.violations)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mistake_in_a_script_is_found_by_the_promise_that_it_breaks(mutant):
    promise, label, faults = MUTANTS[mutant]
    with spoiled(scripts, LUA[mutant][1]):
        found = broken(replace(ON_REDIS[label], faults=faults))
        assert promise in found, f"{mutant} survives {promise}"


def test_a_fence_that_only_counts_is_found_when_data_are_lost():
    setup = replace(ON_REDIS["mutex-redis"], faults=LOST_DATA)
    with spoiled(scripts, ((("ACQUIRE",), "math.max(us, tonumber", "math.max(0, tonumber"),)):
        assert "S4" in broken(setup)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_the_mistake_the_same_schedules_break_nothing(mutant):
    _, label, faults = MUTANTS[mutant]
    assert list(broken(replace(ON_REDIS[label], faults=faults), 5)) == []
