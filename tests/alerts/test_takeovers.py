"""Engines of two state folders that take over: an alert is sent once, plus at most once per takeover."""

from __future__ import annotations

from itertools import groupby

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockkit.alerts.decoding import decode
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Look, Subject
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.state import Decisions

TIMING = Timing(group_wait=30.0, group_interval=300.0, repeat_interval=1e9, most_per_hour=1000)
RULES = decode(SHIPPED, {"zombie": {"for": "0s", "escalate": []}})
DEAD = Look(subjects={"zombie": (Subject({"lock": "backup"}, "gone"),)})
STEP, LEAST = 5.0, 40.0
"""Seconds between two steps, and those within which an engine that looks has told what goes on."""

turns = st.lists(st.tuples(st.sampled_from(["one", "two", "nobody"]), st.integers(1, 60)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(turns)
@example([("one", 10), ("two", 10), ("one", 10), ("two", 10)])
@example([("one", 10), ("nobody", 30), ("one", 10)])
@example([("one", 60), ("two", 60), ("one", 60), ("two", 60)])
def test_what_goes_on_is_told_by_whoever_looks_and_once_more_for_each_takeover_at_most(turns):
    now = 10_000.0
    engines = {name: Engine(RULES, TIMING, now=now) for name in ("one", "two")}
    told = []
    stretches = [(who, sum(steps for _, steps in turn)) for who, turn in groupby(turns, lambda turn: turn[0])]
    for who, steps in stretches:
        for _ in range(steps):
            now += STEP
            for name, engine in engines.items():
                look = DEAD if name == who else Look(elected=False)
                told += [(name, one.reason) for one in engine.step(now, (), look, Decisions())]
        if who != "nobody" and steps * STEP >= LEAST:
            assert told, "whoever looks for long enough has told it, or knows that it was told"

    assert {reason for _, reason in told} <= {"first"}, "nothing has ended, and nothing is repeated"
    for name in engines:
        assert told.count((name, "first")) <= sum(who == name for who, _ in stretches)


def test_an_engine_that_is_elected_again_soon_tells_nothing_once_more():
    now, engine, told = 10_000.0, Engine(RULES, TIMING, now=10_000.0), []
    for look, seconds in ((DEAD, 100), (Look(elected=False), 55), (DEAD, 600)):
        for _ in range(int(seconds / STEP)):
            now += STEP
            told += [one.reason for one in engine.step(now, (), look, Decisions())]
    assert told == ["first"]
