"""Deliberate mistakes: each must be noticed by the check that is meant for it."""

from __future__ import annotations

import pytest

from support.harnesses.memory import MemoryHarness
from support.harnesses.sqlite import SqliteHarness
from support.mutants import MUTANTS
from support.mutants.onstores import fails, impatient, mutated, scenarios
from support.simulation import SETUPS, schedules
from support.simulation.world import World

HARNESSES = {harness.name: harness for harness in (MemoryHarness, SqliteHarness)}
IN_SIMULATION = [mutant for mutant in MUTANTS if mutant.killed_by]
GROUNDS = {mutant.unbroken(): mutant for mutant in IN_SIMULATION}
"""Where they show, each once."""
ON_STORES = [
    pytest.param(mutant, HARNESSES[mutant.on], name, id=f"{mutant.name}-{mutant.on}-{name}")
    for mutant in MUTANTS
    for name in mutant.scenarios
]


@pytest.mark.parametrize("mutant", IN_SIMULATION, ids=lambda mutant: mutant.name)
def test_the_simulation_kills_it_by_the_expected_promise(mutant):
    trial = mutant.attempt()
    assert mutant.killed_by in trial.found, f"{mutant.name} survives {mutant.killed_by}: {trial}"


@pytest.mark.full  # the simulation itself plays them, too: a control of the mutants
@pytest.mark.parametrize("setup", GROUNDS, ids=[mutant.name for mutant in GROUNDS.values()])
def test_without_the_mistake_the_same_schedules_break_nothing(setup):
    for schedule in schedules(50):
        world = World(setup)
        world.run(schedule)
        assert not world.violations, world.story


@pytest.mark.filterwarnings("ignore")  # a scenario that fails half-way leaves its leases to the collector
@pytest.mark.parametrize("mutant, harness, name", ON_STORES)
def test_the_kit_kills_it_on_a_real_store_by_the_expected_scenario(mutant, harness, name, tmp_path):
    broken = mutated(harness, mutant)
    with mutant.patch(), impatient():
        killed = any(
            fails(scenario, broken, _folder(tmp_path, number))
            for number, scenario in enumerate(scenarios(name))
        )
    assert killed, f"{mutant.name} survives {name} on {harness.name}"


def test_no_mutant_names_a_setup_or_a_store_that_there_is_not():
    assert {mutant.setup for mutant in MUTANTS} <= SETUPS.keys()
    assert {mutant.on for mutant in MUTANTS} <= HARNESSES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 14
    assert all(mutant.killed_by or mutant.scenarios for mutant in MUTANTS)


def _folder(scratch, number):
    folder = scratch / str(number)
    folder.mkdir()
    return folder
