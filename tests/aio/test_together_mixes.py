"""Random mixes of single locks, all_of, any_of and pools by tasks of one loop: they always finish, and never overlap."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings

from lockkit.protocol import composing
from support.harnesses.memory import MemoryHarness
from support.harnesses.sqlite import SqliteHarness
from support.together import CRASHES, MIXES, OPPOSITE, TWO_AT_ONCE, Step
from support.together_aio import play_tasks


@settings(max_examples=max(30, settings().max_examples // 10))
@given(mix=MIXES)
@example(mix=OPPOSITE)
@example(mix=TWO_AT_ONCE)
@example(mix=CRASHES)
def test_mixes_on_the_memory_store(mix):
    play_tasks(MemoryHarness, mix)


@settings(max_examples=max(20, settings().max_examples // 50))
@given(mix=MIXES)
@example(mix=OPPOSITE)
@example(mix=TWO_AT_ONCE)
@example(mix=CRASHES)
def test_mixes_on_the_embedded_store(mix):
    play_tasks(SqliteHarness, mix)


def test_enough_is_granted_for_the_mixes_to_say_something():
    assert play_tasks(MemoryHarness, OPPOSITE) == 16
    assert play_tasks(SqliteHarness, TWO_AT_ONCE) == 16


@pytest.mark.usefixtures("slow_memory_store")
@settings(max_examples=max(20, settings().max_examples // 20), suppress_health_check=list(HealthCheck))
@given(mix=MIXES)
@example(mix=OPPOSITE)
def test_mixes_on_a_slow_store(mix):
    play_tasks(MemoryHarness, mix)


def test_an_any_of_that_gives_nothing_back_is_found(monkeypatch):
    def keep(together, means, but=()):
        return
        yield

    monkeypatch.setattr(composing, "_giving_back", keep)
    held = Step("all", ("a", "b", "c"), hold=0.2)
    with pytest.raises(AssertionError, match=r"never finished|left in the store|overlap"):
        play_tasks(MemoryHarness, [[held] * 3, [Step("any", ("a", "b", "c"))] * 3], limit=5.0)
