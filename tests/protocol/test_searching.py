"""A wait that publishes what its thread or task holds, and looks for a deadlock, on a clock of the test."""

from __future__ import annotations

import pytest

from lockkit.errors import BackendUnavailable, CapabilityError, ConfigError
from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.lib.noted import RESERVED
from lockkit.protocol.cycles import BETWEEN, KEY, Search, WaitFacts
from lockkit.protocol.effects import Annotate, Inspect, ListNames
from lockkit.store.spi import Claim, Refused, Terms, Unknown
from lockkit.values.names import claim_id

CLAIM = Claim("f" * 32, Terms("a"))
MINE = claim_id(CLAIM.token)
GONE = BackendUnavailable("down")


class World:
    """A clock, what the thread holds, and a store with a deadlock between two claims."""

    def __init__(self, *, holds=("B",), detects=False, note=None, other="000000000000"):
        self.at = 100.0
        self.facts = WaitFacts(frozenset(holds), MINE, detects=detects)
        self.search = Search(CLAIM._replace(note=note), self.facts, self.at)
        self.fails = {}
        self.asked = []
        self.other = other
        self.names = ["a", "b"]

    def queues(self, name):
        def waits(claim, holds):
            facts = WaitFacts(frozenset([holds]), claim, detects=True).patch()
            note = {
                RESERVED: {
                    KEY: {key: value for key, value in facts[RESERVED][KEY].items() if value is not None}
                }
            }
            return ClaimInfo(name, claim, "WAITING", Owner(), 0, 1, note=note)

        if name == "a":
            return LockInfo(name, (ClaimInfo(name, "A", "HELD", Owner(), 1, 0), waits(MINE, "B")))
        return LockInfo(name, (ClaimInfo(name, "B", "HELD", Owner(), 1, 0), waits(self.other, "A")))

    def answer(self, effect):
        self.asked.append(effect)
        if type(effect) in self.fails:
            raise self.fails[type(effect)]
        if isinstance(effect, ListNames):
            return self.names
        return self.queues(effect.name) if isinstance(effect, Inspect) else True

    def go(self, seconds=0.0):
        """Let time pass, and let the search go on; what it has asked for, and what it has found."""
        self.at += seconds
        self.asked = []
        steps = self.search.steps(lambda: self.at, lambda _: 2.0, lambda: self.facts)
        try:
            effect = next(steps)
            while True:
                try:
                    result = self.answer(effect)
                except (Refused, Unknown, ConfigError, CapabilityError) as error:
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            return [type(one) for one in self.asked], stop.value


LOOK = [ListNames, Inspect, Inspect]


def test_it_tells_after_a_second_and_then_only_what_has_changed():
    world = World()
    assert world.go(0.9) == ([], None)
    assert world.go(0.1) == ([Annotate], None)
    assert world.asked[0].patch == {RESERVED: {KEY: {"holds": ["B"], "group": None, "detects": None}}}
    assert world.search.due == float("inf")
    assert world.go(60.0) == ([], None)
    world.facts = world.facts._replace(holds=frozenset())
    assert world.go(0.1) == ([Annotate], None)
    assert world.asked[0].patch[RESERVED][KEY]["holds"] == []
    assert world.go(60.0) == ([], None)


@pytest.mark.parametrize("error", [Refused(GONE), Unknown(GONE)])
def test_what_could_not_be_told_is_told_again(error):
    world = World()
    world.fails[Annotate] = error
    assert world.go(1.0) == ([Annotate], None)
    assert world.go(0.5) == ([], None)
    world.fails.clear()
    assert world.go(0.5) == ([Annotate], None)


@pytest.mark.parametrize("error", [ConfigError("the note is full"), CapabilityError("no notes")])
def test_a_full_note_or_a_store_without_notes_is_not_asked_again(error):
    world = World(detects=True)
    world.fails[Annotate] = error
    assert world.go(1.0) == ([Annotate], None)
    assert world.go(60.0) == ([], None)


def test_a_thread_that_holds_nothing_tells_nothing():
    assert World(holds=()).go(60.0) == ([], None)


def test_the_youngest_ends_the_deadlock_at_the_second_look():
    world = World(detects=True)
    assert world.go(1.0) == ([Annotate, *LOOK], None)
    assert world.go(BETWEEN - 0.1) == ([], None)
    asked, found = world.go(0.1)
    assert asked == LOOK
    assert found.ends == MINE


def test_another_one_than_the_youngest_goes_on():
    world = World(detects=True, other="ffffffffffff")
    assert world.go(1.0)[1] is None
    for _ in range(5):
        assert world.go(BETWEEN) == (LOOK, None)


def test_a_failed_look_counts_for_nothing():
    world = World(detects=True)
    assert world.go(1.0)[0] == [Annotate, *LOOK]
    world.fails[Inspect] = Refused(GONE)
    assert world.go(BETWEEN) == ([ListNames, Inspect], None)
    world.fails.clear()
    assert world.go(30.0) == (LOOK, None), "the first of two looks again"
    assert world.go(BETWEEN)[1] is not None


def test_looks_in_vain_come_less_often():
    world = World(detects=True, other="ffffffffffff")
    world.queues = LockInfo
    assert world.go(1.0)[0] == [Annotate, *LOOK]
    pauses = []
    for _ in range(6):
        pauses.append(world.search.due - world.at)
        assert world.go(pauses[-1])[0] == LOOK
    assert pauses == [2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_a_thread_does_not_read_thousands_of_queues():
    world = World(detects=True)
    world.names = [str(number) for number in range(1001)]
    assert world.go(1.0) == ([Annotate, ListNames], None)
