"""The registry of holds, which a signal handler may interrupt anywhere and use itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lockkit.drivers.registry import Registry
from support.handlers import Handler


class hold:  # noqa: N801 (a stand-in for a Hold, which is compared by identity)
    def __init__(self, name="a"):
        self.claim = SimpleNamespace(terms=SimpleNamespace(name=name))
        self.standing = True


def add(registry, hold):
    registry.change(hold.claim.terms.name, new=hold)


def remove(registry, hold):
    registry.change(hold.claim.terms.name, old=hold)


def of(registry, name):
    return registry.holds.get(name, [])


def places(prepare, do):
    """Repeat something, interrupted at each place in turn by a handler that adds a hold of the same name."""
    for at in range(1, 1000):
        registry = Registry()
        given = prepare(registry)
        new = hold()
        handler = Handler(at, lambda registry=registry, new=new: add(registry, new))
        with handler:
            do(registry, given)
        if not handler.where:
            assert at > 1
            return
        yield handler.where, registry, given, new


@pytest.mark.parametrize("others", [0, 1])
def test_a_handler_that_adds_while_a_hold_is_added_loses_neither(others):
    def prepare(registry):
        for _ in range(others):
            add(registry, hold())
        return hold()

    for where, registry, given, new in places(prepare, add):
        assert {id(given), id(new)} <= set(map(id, of(registry, "a"))), where
        assert len(of(registry, "a")) == others + 2, where


@pytest.mark.parametrize("others", [0, 1])
def test_a_handler_that_adds_while_a_hold_is_removed_loses_nothing(others):
    def prepare(registry):
        given = hold()
        add(registry, given)
        for _ in range(others):
            add(registry, hold())
        return given

    for where, registry, given, new in places(prepare, remove):
        assert new in of(registry, "a"), where
        assert given not in of(registry, "a"), where
        assert len(of(registry, "a")) == others + 1, where


def test_a_handler_that_adds_while_fallen_holds_are_forgotten_loses_nothing():
    def prepare(registry):
        for n in range(64):
            add(registry, hold(f"other {n}"))
        return hold("one more")

    for where, registry, given, new in places(prepare, add):
        assert new in of(registry, "a"), where
        assert given in of(registry, "one more"), where


def test_fallen_holds_are_forgotten():
    registry = Registry()
    for n in range(1000):
        fallen = hold(f"{n}")
        add(registry, fallen)
        fallen.standing = False
    assert len(registry.holds) < 130
