"""The protocol under every schedule and fault of Hypothesis: three clients, two names, two model stores."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockkit.testing.machine_run import DEFAULT_EXAMPLES
from support.simulation import SETUPS, explore, incident, schedules
from support.simulation.faults import NO_FAULTS

SCHEDULES = st.binary(min_size=60, max_size=400)
MOST = 40 if settings().max_examples == DEFAULT_EXAMPLES else settings().max_examples
"""``make full`` plays twelve times as many, by the profile ``long``."""
FEWER = settings(max_examples=2 * MOST // 5)
"""For faults of one kind. `make test` leaves them to the test that plays them all,
:func:`test_no_schedule_of_steps_and_faults_breaks_a_promise`."""
RESIZED_THERE_AND_BACK = (
    "00005a0050002cadca92f38c0000517a3ceef700006eeeee00373939aba0f73939f8"
    "0000000000000000000000000000000000000000000000000000"
)
"""Between a waiter's look and its grant the capacity was raised, another let in, and it was lowered again."""


def follow(setup, schedule):
    world = explore(setup, schedule)
    if world.violations:
        pytest.fail(incident(world, schedule), pytrace=False)
    return world


@pytest.mark.parametrize("label", SETUPS)
@settings(max_examples=MOST)
@given(schedule=SCHEDULES)
@example(schedule=bytes.fromhex(RESIZED_THERE_AND_BACK))
def test_no_schedule_of_steps_and_faults_breaks_a_promise(label, schedule):
    follow(SETUPS[label], schedule)


@pytest.mark.full
@pytest.mark.parametrize("label", SETUPS)
@FEWER
@given(schedule=SCHEDULES)
def test_without_faults_no_promise_is_broken_either(label, schedule):
    world = follow(replace(SETUPS[label], faults=NO_FAULTS), schedule)
    lost = [line for line in world.story if ": LOST " in line and "max_hold" not in line]
    assert not lost, "lost without a fault"


@pytest.mark.full
@pytest.mark.parametrize("label", SETUPS)
@FEWER
@given(schedule=SCHEDULES)
def test_only_interruptions_leave_nothing_behind(label, schedule):
    faults = replace(NO_FAULTS, cancel=3, budget=40)
    follow(replace(SETUPS[label], faults=faults), schedule)


@pytest.mark.full
@pytest.mark.parametrize("label", SETUPS)
@FEWER
@given(schedule=SCHEDULES)
def test_a_poor_link_leaves_nothing_behind(label, schedule):
    faults = replace(NO_FAULTS, drop=3, delay=3, refuse=2, deaf=2, budget=60)
    follow(replace(SETUPS[label], faults=faults), schedule)


@pytest.mark.full
@pytest.mark.parametrize("label", SETUPS)
@FEWER
@given(schedule=SCHEDULES)
def test_clients_that_stop_and_hang_and_die_hold_up_nobody_for_ever(label, schedule):
    crash = SETUPS[label].faults.crash  # none where nobody's death frees a claim
    faults = replace(NO_FAULTS, pause=3, hang=3, crash=crash, sleep=2, collect=2, budget=40)
    follow(replace(SETUPS[label], faults=faults), schedule)


@pytest.mark.full  # a control of the tests above
@pytest.mark.parametrize("label", SETUPS)
def test_a_run_is_worth_something(label):
    """Void if too little happens in it: grants, waits, faults."""
    stories = [explore(SETUPS[label], schedule).story for schedule in schedules(60)]
    lines = [line for story in stories for line in story]
    for what, least in [
        ("GRANTED", 100),
        ("QUEUED", 30),
        ("late copy", 5),
        ("lost", 10),
        ("LOST", 5),
        ("Ctrl-C", 20),
    ]:
        if what == "late copy" and label.endswith("statements"):
            continue  # calls of a process run in order
        assert sum(what in line for line in lines) >= least, what


def test_the_same_schedule_is_the_same_run():
    for schedule in schedules(5):
        stories = [explore(SETUPS["mutex-atomic"], schedule).story for _ in range(2)]
        assert stories[0] == stories[1]
