"""Locks taken together on the memory store: random mixes, and proof that the test can fail."""

from __future__ import annotations

import itertools

import pytest

from lockkit.protocol import composing
from lockkit.sync.pools import Pool
from support.harnesses.memory import MemoryHarness
from support.together import OPPOSITE, TWO_AT_ONCE, Step, mixed, play


@mixed(40, one_in=10)
def test_mixes_always_finish_and_never_overlap(mix):
    play(MemoryHarness, mix)


@pytest.mark.usefixtures("slow_memory_store")
@mixed(25, one_in=20, slow=True)
def test_mixes_on_a_slow_store_always_finish_and_never_overlap(mix):
    play(MemoryHarness, mix)


def test_enough_is_granted_for_the_mixes_to_say_something():
    assert play(MemoryHarness, OPPOSITE) == 16
    assert play(MemoryHarness, TWO_AT_ONCE) == 16


@pytest.mark.usefixtures("slow_memory_store")
def test_without_its_gate_two_requests_wait_for_each_other(monkeypatch):
    number = itertools.count()
    gate = Pool._gate

    def own_gate(self, request):
        lock = gate(self, request)
        lock.terms = lock.terms._replace(name=f"{lock.name}{next(number)}")
        return lock

    monkeypatch.setattr(Pool, "_gate", own_gate)
    with pytest.raises(AssertionError, match="never finished"):
        play(MemoryHarness, [steps * 40 for steps in TWO_AT_ONCE], limit=5.0)


@pytest.mark.usefixtures("slow_memory_store")
def test_in_the_given_order_two_that_take_all_wait_for_each_other(monkeypatch):
    order = composing.all_of

    def as_given(together, attempts, means):
        turned = len(together.attempts) == 0 and next(flip)
        return order(together, attempts[::-1] if turned else attempts, means)

    flip = itertools.cycle([True, False])
    monkeypatch.setattr("lockkit.sync.composites.all_of", as_given)
    with pytest.raises(AssertionError, match="never finished"):
        play(MemoryHarness, [[Step("all", ("a", "b"))] * 40] * 2, limit=5.0)


def test_an_any_of_that_gives_nothing_back_is_found(monkeypatch):
    def keep(together, means, but=()):
        return
        yield

    monkeypatch.setattr(composing, "_giving_back", keep)
    held = Step("all", ("a", "b", "c"), hold=0.2)
    with pytest.raises(AssertionError, match=r"never finished|left in the store|overlap"):
        play(MemoryHarness, [[held] * 3, [Step("any", ("a", "b", "c"))] * 40], limit=5.0)
