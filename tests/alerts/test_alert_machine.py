"""The promises of the alert engine for any input and any number of restarts, on a clock of the test."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lockkit.alerts import engine, escalating, grouping, turns
from lockkit.alerts.conditions import fingerprint
from lockkit.alerts.decoding import decode
from lockkit.alerts.engine import HOUR, Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Happening, Look, Subject
from lockkit.alerts.state import Acknowledgement, Decisions, Silence, State

TABLES = {
    "boom": {
        "when": "count",
        "of": ["alert.lost"],
        "window": 100,
        "escalate": [{"to": "P1", "after": 200}, {"to": "P0", "after": 400, "above": 6}],
    },
    "alive": {"when": "seen", "what": "zombie", "for": 20, "severity": "P1"},
    "down": {
        "when": "seen",
        "what": "unreachable",
        "for": 15,
        "severity": "P0",
        "by": [],
        "inhibits": ["boom", "alive"],
    },
}
RULES = decode({}, TABLES)
TIMING = Timing(group_wait=30.0, group_interval=60.0, repeat_interval=150.0, most_per_hour=12)
LOCKS = st.sampled_from("abc")


class Alerts(RuleBasedStateMachine):
    """The notifications that are owed to people, beside an engine that should pay it."""

    def __init__(self):
        super().__init__()
        self.now = 1_000_000.0
        self.engine = Engine(RULES, TIMING, now=self.now)
        self.decisions = Decisions()
        self.look = Look()
        self.sent = []
        self.last = {}  # the last notification of each group
        self.told = {}  # the severity and resolution of each alert that was told, by its beginning
        self.owed = {}  # locks whose loss has to be told, since when
        self.quiet_until = 0.0
        self.looked = 0.0
        self.left = set()  # what was told and is another engine's to tell now

    # -- what may come

    @rule(lock=LOCKS, number=st.integers(1, 8))
    def happen(self, lock, number):
        self.step(1.0, [Happening("alert.lost", {"lock": lock}, "lost")] * number)
        known = fingerprint("boom", {"lock": lock})
        goes_on = any(key == known and not ended for (key, _), (_, ended) in self.told.items())
        if not goes_on and not self.hidden("boom", lock):  # what is told to go on is no news
            self.owed.setdefault(lock, self.now)

    @rule(locks=st.sets(LOCKS), unread=st.sets(LOCKS))
    def see(self, locks, unread):
        subjects = tuple(Subject({"lock": lock}, "gone") for lock in sorted(locks - unread))
        self.look = Look(subjects={"zombie": subjects}, unread=tuple(unread))
        self.step(1.0)

    @rule(seconds=st.integers(1, 20))
    def break_down(self, seconds):
        self.look, end = Look(unreachable="refused"), self.now + seconds
        while self.now < end:
            self.step(1.0)

    @rule(lock=LOCKS, seconds=st.integers(10, 29))
    def happen_just_before_an_outage(self, lock, seconds):
        """The alert is due in the seconds in which the outage is known, and not yet told."""
        self.happen(lock, 1)
        self.wait(seconds, 1.0)
        self.break_down(20)

    @rule(seconds=st.integers(1, 400), every=st.sampled_from([1.0, 5.0, 13.0]))
    def wait(self, seconds, every):
        end = self.now + seconds
        while self.now < end:
            self.step(every)

    @rule(seconds=st.integers(1, 300), lock=LOCKS)
    def silence(self, seconds, lock):
        self.decisions.silences.append(
            Silence("s", "ann", self.now, self.now + seconds, labels={"lock": lock})
        )

    @precondition(lambda self: self.engine.state.alerts)
    @rule(data=st.data())
    def acknowledge(self, data):
        key = data.draw(st.sampled_from(sorted(self.engine.state.alerts)))
        self.decisions.acknowledged[key] = Acknowledgement("ann", self.now)

    @rule(gap=st.integers(0, 500))
    def restart(self, gap):
        state = msgspec.json.decode(msgspec.json.encode(self.engine.state), type=State)
        self.now += gap
        self.engine = Engine(RULES, TIMING, state, now=self.now)
        self.quiet_until = self.now + TIMING.group_wait
        self.step(1.0, look=False)

    @rule(lock=LOCKS, seconds=st.integers(1, 59))
    def look_elsewhere_after_news(self, lock, seconds):
        """An alert that was told goes on while no engine looks."""
        self.see({lock}, set())
        self.wait(120, 1.0)
        self.look_elsewhere(seconds, restarted=False)

    @rule(seconds=st.one_of(st.integers(1, 59), st.integers(70, 300)), restarted=st.booleans())
    def look_elsewhere(self, seconds, restarted):
        """Another engine has the looking lock: one that may be dead up to a minute, later a living one."""
        if restarted:
            self.restart(2)
        shown = Look(unread=("a", "b", "c")) if self.look.unreachable else self.look
        self.look, end = Look(elected=False), self.now + seconds
        self.step(1.0)
        if seconds >= 70:  # what goes on is the other engine's; ends were told, if they could be
            late = self.now < self.quiet_until or self.now >= self.looked + TIMING.group_wait
            late = late or sum(at > self.now - HOUR for at in self.sent) >= TIMING.most_per_hour * 3 // 4
            alerts = self.engine.state.alerts.items()
            left = [(key, one) for key, one in alerts if one.resolved is None or late]
            self.left |= {(key, one.since) for key, one in left if one.rule == "alive"}
        while self.now < end:
            self.step(1.0)
        self.look = shown
        self.step(1.0)

    # -- what is promised

    def step(self, after, happenings=(), *, look=True):
        self.now += after
        if look and self.look.elected and not self.look.unreachable:
            self.looked = self.now
        self.forgive()
        for one in self.engine.step(self.now, happenings, self.look if look else None, self.decisions):
            self.check(one)

    def hidden(self, name, lock):
        silenced = any(
            one.starts <= self.now < one.ends and one.labels == {"lock": lock}
            for one in self.decisions.silences
        )
        return silenced or (bool(self.look.unreachable) and name == "boom")

    def acknowledged(self, member):
        word = self.decisions.acknowledged.get(member.fingerprint)
        return word is not None and word.at >= member.since

    def forgive(self):
        """Strike out what a silence or an outage hid before it was told."""
        self.owed = {lock: at for lock, at in self.owed.items() if not self.hidden("boom", lock)}

    def check(self, one):
        before = self.last.get(one.group)
        gap = self.now - before.at if before is not None else 1e9
        assert self.now >= self.quiet_until, "nothing is told for a group_wait after a restart"
        if one.reason == "repeat":
            assert gap >= TIMING.repeat_interval, "repeated within repeat_interval"
            assert not all(map(self.acknowledged, one.members)), "repeated what is acknowledged"
        elif one.reason != "escalated":
            leaves = "resolved" in one.reason and not self.look.elected  # the last time to tell an end
            assert gap >= TIMING.group_interval or leaves, "told again within group_interval"
        fires = [each for each in one.members if each.resolved is None]
        assert fires or one.reason in ("all_resolved", "resolved_member"), "a notification about nothing"
        if not self.look.elected and one.group == "alive":
            assert {(each.fingerprint, each.since) for each in fires} <= self.told.keys(), "told what is news"
            assert len(fires) < len(one.members), "told what nobody has looked for"
        if self.look.unreachable:
            assert {each.rule for each in fires} <= {"down"}, "told what is inhibited"
        risen = False
        for each in one.members:
            key = (each.fingerprint, each.since)
            severity, _ = self.told.get(key, (None, False))
            assert severity is None or each.severity <= severity, "an alert became less severe"
            assert each.resolved is None or severity is not None, "the end of something that was not told"
            risen = risen or (severity is not None and each.severity < severity)
            if each.resolved is None:
                assert not self.hidden(each.rule, each.labels.get("lock")), "told what is silenced"
                self.owed.pop(each.labels.get("lock") if each.rule == "boom" else None, None)
            self.told[key] = (each.severity, each.resolved is not None)
        if one.reason == "escalated":
            assert risen, "an escalation without a step"
            assert not all(map(self.acknowledged, fires)), "escalated what is acknowledged"
        self.last[one.group] = one
        self.sent.append(self.now)
        assert sum(at > self.now - HOUR for at in self.sent) <= TIMING.most_per_hour, "too many in an hour"

    @invariant()
    def an_alert_takes_each_step_once(self):
        for one in self.engine.state.alerts.values():
            assert one.step <= 2
            assert one.raised <= 2

    def teardown(self):
        """At the end, every owed alert was sent, every lasting one repeated, and then its end sent."""
        self.look = Look(subjects={"zombie": (Subject({"lock": "a"}, "gone"),)})
        self.decisions = Decisions()
        begin = self.now
        while self.now < begin + 2.5 * HOUR:
            self.step(20.0)
        assert not self.owed, "an alert was lost"
        assert self.last["alive"].reason == "repeat", "what goes on is repeated"
        self.look = Look()
        while self.now < begin + 4 * HOUR:
            self.step(20.0)
        assert self.last["alive"].reason == "all_resolved"
        assert not [key for key, (_, ended) in self.told.items() if not ended and key not in self.left], (
            "an end was lost"
        )
        assert self.engine.state.alerts == {}
        assert self.engine.state.groups == {}
        assert self.engine.state.windows["boom"] == {} if "boom" in self.engine.state.windows else True


BOUNDS = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # to shrink a long history takes longer than to read it
    suppress_health_check=list(HealthCheck),
)
TestAlerts = Alerts.TestCase
TestAlerts.settings = BOUNDS


# -- the machine can fail

_due, _settle, _after, _allowed, _hide = (
    grouping.due,
    grouping.settle,
    grouping.after_sending,
    Engine._allowed,
    Engine._hide,
)


def _at_ticks(group, alerts, timing):
    found = _due(group, alerts, timing)
    return (found[0] - 1.0, found[1]) if found and found[1] == "repeat" else found


def _news_at_once(group, alerts, timing):
    return _due(group, alerts, timing._replace(group_interval=0.0))


def _repeats_acknowledged(group, alerts, timing):
    found = _due(group, alerts, timing)
    if found is None and group.last is not None and grouping.firing(alerts):
        return group.last + timing.repeat_interval, "repeat"
    return found


def _escalates_for_ever(alert, rule, now):
    return escalating.escalate(alert, rule, now) or alert.step > 1


def _forgets_inhibition(self, now):
    self.state.alerts = {key: one for key, one in self.state.alerts.items() if one.rule != "down"}


def _inhibits_when_firing(self, decisions, now):
    _hide(self, decisions, now)
    if not any(one.rule == "down" and one.fired is not None for one in self.state.alerts.values()):
        for one in self.state.alerts.values():
            one.hidden = "" if one.hidden == "inhibited" else one.hidden


def _loses_what_ended(self, name, rule_, found, now):
    _take(self, name, rule_, found, now)
    for key in [
        key for key, one in self.state.alerts.items() if one.rule == name and key not in found.matters
    ]:
        if found.unread is not None and self.state.alerts[key].resolved is None:
            del self.state.alerts[key]


def _forgets_resolutions(group, alerts, now):
    _after(group, alerts, now)
    for key in list(group.told):
        del group.told[key]


_take, _resume = Engine._take, Engine._resume


def _forgets_to_be_quiet(self, now):
    _resume(self, now)
    self._quiet_until = 0.0


MUTANTS = {
    "repeats early": (grouping, "due", _at_ticks),
    "tells news at once": (grouping, "due", _news_at_once),
    "repeats what is acknowledged": (grouping, "due", _repeats_acknowledged),
    "takes a step again": (engine, "escalate", _escalates_for_ever),
    "forgets the outage in a restart": (Engine, "_resume", _forgets_inhibition),
    "inhibits only when it fires": (Engine, "_hide", _inhibits_when_firing),
    "forgets what has happened": (Engine, "_take", _loses_what_ended),
    "forgets what was told": (grouping, "after_sending", _forgets_resolutions),
    "tells at once after a restart": (Engine, "_resume", _forgets_to_be_quiet),
    "has no limit": (Engine, "_allowed", lambda *_: True),
    "ignores silences": (engine, "matches", lambda *_: False),
    "forgets while a dead engine's lock lasts": (turns, "TERM", -1000.0),
    "tells while nobody looks": (turns, "undecided", lambda *_: False),
    "acknowledges nothing": (Engine, "_acknowledge", lambda *_: None),
}


@pytest.mark.full  # a control of the machine
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_finds_each_mutant(mutant):
    where, name, broken = MUTANTS[mutant]
    bounds = settings(
        BOUNDS, max_examples=2000, database=None, derandomize=True, phases=[Phase.generate], print_blob=False
    )
    with ExitStack() as stack:
        stack.enter_context(patch.object(where, name, broken))
        with pytest.raises(AssertionError):
            run_state_machine_as_test(Alerts, settings=bounds)
