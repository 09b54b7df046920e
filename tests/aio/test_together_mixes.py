"""Random mixes of locks, all_of, any_of and pools by tasks of one loop: they finish, and never overlap."""

from __future__ import annotations

import pytest

from lockkit.protocol import composing
from support.harnesses.memory import MemoryHarness
from support.harnesses.sqlite import SqliteHarness
from support.together import OPPOSITE, TWO_AT_ONCE, Step, mixed
from support.together_aio import play_tasks


@mixed(30, one_in=10)
def test_mixes_on_the_memory_store(mix):
    play_tasks(MemoryHarness, mix)


@mixed(20)
def test_mixes_on_the_embedded_store(mix):
    play_tasks(SqliteHarness, mix)


def test_enough_is_granted_for_the_mixes_to_say_something():
    assert play_tasks(MemoryHarness, OPPOSITE) == 16
    assert play_tasks(SqliteHarness, TWO_AT_ONCE) == 16


@pytest.mark.usefixtures("slow_memory_store")
@mixed(20, one_in=20, slow=True)
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
