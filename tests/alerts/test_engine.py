"""The alert engine, on a clock that the test moves: what is told, when, and why."""

from __future__ import annotations

import msgspec
import pytest

from lockkit.alerts.conditions import fingerprint
from lockkit.alerts.decoding import decode
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import Happening, Look, Subject, counted, of_alert, of_event
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.state import Acknowledgement, Decisions, Silence, State
from lockkit.facts import Alert, Event
from lockkit.values.durations import utc

TIMING = Timing(group_wait=30.0, group_interval=300.0, repeat_interval=1000.0, most_per_hour=1000)


class World:
    """An engine, its clock, and what people decided."""

    def __init__(self, rules=None, timing=TIMING, now=10_000.0):
        self.rules = decode(SHIPPED, rules or {})
        self.timing = timing
        self.now = now
        self.decisions = Decisions()
        self.engine = Engine(self.rules, timing, now=now)

    def step(self, after=0.0, *happenings, look=None):
        self.now += after
        return self.engine.step(self.now, happenings, look, self.decisions)

    def until(self, after, *, look=None, every=1.0):
        """Steps until ``after`` seconds have passed; the notifications with their times since now."""
        begin, told = self.now, []
        while self.now < begin + after:
            told += [(self.now - begin, one) for one in self.step(every, look=look)]
        return told

    def restart(self, after=0.0):
        kept = msgspec.json.encode(self.engine.state)
        self.now += after
        self.engine = Engine(self.rules, self.timing, msgspec.json.decode(kept, type=State), now=self.now)

    def acknowledge(self, key, by="ann"):
        self.decisions.acknowledged[key] = Acknowledgement(by, self.now)

    def silence(self, seconds, **about):
        self.decisions.silences.append(Silence("1", "ann", self.now, self.now + seconds, **about))


def lost(lock="a", severity="P1"):
    return of_alert(Alert("lost", severity, f"{lock} is lost", lock, "c0ffee"))


def zombies(*locks, **more):
    return Look(subjects={"zombie": tuple(Subject({"lock": lock}, "gone") for lock in locks)}, **more)


@pytest.fixture
def world():
    return World()


def reasons(told):
    return [(at, one.reason) for at, one in told]


# -- what is the matter


def test_an_alert_is_told_after_group_wait_with_all_that_a_person_needs(world):
    assert world.step(0.0, lost("it's")) == []
    [(at, told)] = world.until(100)
    assert (at, told.reason, told.severity, told.group) == (30.0, "first", "P1", "lost")
    [one] = told.members
    assert one.fingerprint == fingerprint("lost", {"lock": "it's"})
    assert one.text == "it's is lost"
    assert one.command == """lockkit explain 'it'"'"'s'"""
    assert (one.since, one.times, one.resolved) == (10_000.0, 1, None)


def test_events_of_one_subject_are_one_alert_with_a_count(world):
    for _ in range(5):
        world.step(1.0, lost("a"), lost("b"))
    [(_, told)] = world.until(60)
    assert [(one.labels, one.times) for one in told.members] == [({"lock": "a"}, 5), ({"lock": "b"}, 5)]


def test_more_than_ten_emergency_releases_in_an_hour_are_one_more_alert(world):
    event = of_alert(Alert("emergency_release", "P1", "slow", "a"))
    for _ in range(10):
        assert not any(one.group == "emergency_releases" for one in world.step(60.0, event))
    assert not any(one.group == "emergency_releases" for _, one in world.until(60))
    world.step(0.0, event)
    told = [one for _, one in world.until(400) if one.group == "emergency_releases"]
    assert told[0].members[0].text == "11 emergency releases within 60 min."
    assert told[0].severity == "P0"


def test_ten_in_more_than_an_hour_are_not(world):
    event = of_alert(Alert("emergency_release", "P1", "slow", "a"))
    told = []
    for _ in range(30):
        told += world.step(400.0, event)
    assert {one.group for one in told} == {"emergency_release"}


def test_a_share_counts_only_with_enough_of_them(world):
    timeout, acquired = Happening("event.timeout"), Happening("event.acquired")
    world.step(0.0, *[timeout] * 3, *[acquired] * 16)
    assert world.until(60) == []
    world.step(0.0, acquired)
    [(_, told)] = world.until(60)
    assert told.members[0].text == "15.0% of the waits within 10 min ran out of time."


def test_a_share_at_its_limit_is_none(world):
    world.step(0.0, Happening("event.timeout", number=10), Happening("event.acquired", number=90))
    assert world.until(60) == []


def test_counters_count_by_their_differences(world):
    before, now = {"release_script_errors": 3, "busy": 7}, {"release_script_errors": 5, "busy": 7}
    [one] = counted(before, now)
    world.step(0.0, one)
    [(_, told)] = world.until(60)
    assert told.members[0].text.startswith("The store answered 2 release requests")
    assert counted({"busy": 9}, {"busy": 2}) == [Happening("counter.busy", number=2)]


def test_an_alert_that_says_its_own_severity(world):
    world.step(0.0, of_alert(Alert("overdue", "P2", "old", "a")))
    world.step(1.0, of_alert(Alert("overdue", "P1", "older", "a")))
    assert [one.severity for _, one in world.until(60)] == ["P1"]


def test_what_is_seen_must_last_as_long_as_the_rule_says(world):
    for _ in range(11):
        world.step(10.0, look=zombies("a"))  # the rule wants two minutes
    world.step(10.0, look=zombies())
    for _ in range(12):
        assert world.step(10.0, look=zombies("b")) == []
    assert [one.reason for _, one in world.until(60, look=zombies("b"))] == ["first"]


def test_a_look_ends_the_alerts_of_the_locks_that_it_has_read_and_no_other():
    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("read", "unread"))
    [told] = [one for _, one in world.until(400, look=zombies(unread=("unread", "another")))]
    assert told.reason == "resolved_member"
    assert [one.labels["lock"] for one in told.members if one.resolved] == ["read"]
    [told] = [one for _, one in world.until(400, look=zombies(unread=("another",)))]
    assert told.reason == "all_resolved"


def test_an_alert_of_several_locks_ends_when_each_of_them_was_read():
    world = World({"zombie": {"for": "0s", "by": ["host"]}})
    world.until(31, look=zombies("a", "b"))
    goes_on = [
        zombies(unread=("b",)),
        zombies("c", unread=("b",)),  # a was read, b was not
        zombies(unread=("a", "b")),
        zombies(unread=("a", "b", "c")),
    ]
    for look in goes_on:
        world.step(1.0, look=look)
        world.restart(after=1.0)
        assert [one.resolved for one in world.engine.state.alerts.values()] == [None]
    world.step(1.0, look=zombies(unread=("a", "d")))
    assert [one.resolved for one in world.engine.state.alerts.values()] == [world.now]


def test_another_process_that_looks_takes_over_without_a_word():
    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("a"))
    assert world.until(2000, look=Look(elected=False)) == []
    assert world.engine.state.alerts == {}


def test_the_lock_of_a_dead_engine_makes_nobody_forget_what_was_told():
    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("ends", "stays"))
    begun = {one.labels["lock"]: one.since for one in world.engine.state.alerts.values()}
    for key in world.engine.state.alerts:
        world.acknowledge(key)
    world.restart(after=2.0)
    assert world.until(31, look=Look(elected=False)) == []
    [(_, told)] = world.until(600, look=zombies("stays"))
    assert (told.reason, [one.labels["lock"] for one in told.members]) == (
        "resolved_member",
        ["stays", "ends"],
    )
    assert (told.members[0].since, told.members[0].acknowledged_by) == (begun["stays"], "ann")
    assert told.members[0].acknowledge == "", "somebody deals with it already"


def test_what_is_told_says_how_to_acknowledge_it():
    world = World({"zombie": {"for": "0s"}})
    [(_, told)] = world.until(31, look=zombies("a"))
    (key,) = world.engine.state.alerts

    assert told.members[0].acknowledge == f"lockkit alerts ack {key}"


def test_what_is_over_is_told_even_if_another_process_looks_then():
    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("a"))
    world.step(1.0, look=zombies())
    assert [one.reason for _, one in world.until(400, look=Look(elected=False))] == ["all_resolved"]


def test_what_is_over_is_told_before_another_engine_tells_of_the_same_group_or_not_at_all():
    """Both have one key for it at a service, and the end of one would end what the other tells."""
    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("a"))
    world.step(1.0, look=zombies())
    world.until(28)
    assert [(at, one.reason) for at, one in world.until(400, look=Look(elected=False))] == [
        (1.0, "all_resolved")
    ]

    world = World({"zombie": {"for": "0s"}})
    world.until(31, look=zombies("a"))
    world.step(1.0, look=zombies())
    world.until(30)  # it was stopped, or has not looked; the other one may have told something by now
    assert world.until(400, look=Look(elected=False)) == []
    assert world.engine.state.alerts == {}


def test_any_engine_of_a_store_tells_of_what_looks_show_under_one_name_and_each_of_its_own():
    rules = decode(SHIPPED, {"zombie": {"for": "0s"}})

    def told(engine, now):
        found = engine.step(now, [lost()], zombies("a")) + engine.step(now + 60, [], zombies("a"))
        return {one.group: one.origin for one in found}

    one, two = (Engine(rules, TIMING, now=1000.0, store="store", origin=name) for name in ("one", "two"))
    assert told(one, 1000.0) == {"zombie": "store", "lost": "one"}
    assert told(two, 1000.0) == {"zombie": "store", "lost": "two"}

    kept = msgspec.json.decode(msgspec.json.encode(one.state), type=State)
    again = Engine(
        {}, TIMING, kept, now=1200.0, store="store", origin="three"
    )  # the rules were removed meanwhile
    ends = [each for now in (1300.0, 1700.0) for each in again.step(now)]
    assert {each.group: (each.reason, each.origin) for each in ends} == {
        "zombie": ("all_resolved", "store"),
        "lost": ("all_resolved", "one"),
    }


def test_where_hosts_share_no_store_all_that_an_engine_tells_has_its_own_name():
    engine = Engine(decode(SHIPPED, {"zombie": {"for": "0s"}}), TIMING, now=1000.0, origin="one")
    engine.step(1000.0, [], zombies("a"))
    assert [one.origin for one in engine.step(1060.0, [], zombies("a"))] == ["one"]


def test_nothing_that_looks_show_is_told_or_repeated_until_it_is_known_who_looks():
    world = World({"zombie": {"for": "0s"}}, TIMING._replace(repeat_interval=50.0))
    world.step(0.0, look=zombies("a"))
    assert world.until(59, look=Look(elected=False)) == []
    assert [one.reason for _, one in world.until(1, look=zombies("a"))] == ["first"]


def test_the_time_in_which_another_process_looked_is_no_missed_run():
    world = World({"missed_run": {"periods": {"nightly": "1h"}}})
    world.step(0.0, look=Look())
    world.until(3000, look=Look(), every=10.0)
    world.until(60, look=Look(elected=False), every=10.0)
    assert world.until(600, look=Look(), every=10.0) == []
    assert [one.group for _, one in world.until(100, look=Look(), every=10.0)] == ["missed_run"]


def test_a_missed_run_goes_on_while_it_is_not_known_who_looks():
    world = World({"missed_run": {"periods": {"nightly": "1h"}}})
    world.until(3700, look=Look(), every=10.0)
    world.restart()
    world.until(40, look=Look(elected=False), every=10.0)
    assert world.until(900, look=Look(), every=10.0) == []


def test_a_missed_run_is_told_once_its_period_is_over():
    world = World({"missed_run": {"periods": {"nightly": "1h"}}})
    world.step(0.0, look=Look())
    world.until(3000, look=Look(), every=10.0)
    world.step(0.0, of_event(Event("released", "nightly")))  # it ran in this process
    world.until(3000, look=Look(), every=10.0)
    world.step(0.0, look=Look(held=frozenset({"nightly"})))  # it was seen
    assert world.until(3600, look=Look(), every=10.0) == []
    [(_, told)] = world.until(60, look=Look(), every=10.0)
    last = utc(world.engine.state.held["nightly"])
    text = f"nightly was not held for 60 min (since {last}); its job should run every 60 min."
    assert told.members[0].text == text
    world.step(0.0, look=Look(held=frozenset({"nightly"})))
    assert [one.reason for _, one in world.until(400, look=Look(), every=10.0)] == ["all_resolved"]


def test_the_time_in_which_nobody_looked_is_no_missed_run():
    world = World({"missed_run": {"periods": {"nightly": "1h"}}})
    world.step(0.0, look=Look())
    world.until(3000, look=Look(), every=10.0)
    world.restart(after=50_000.0)
    assert world.until(590, look=Look(), every=10.0) == []
    assert [one.group for _, one in world.until(100, look=Look(), every=10.0)] == ["missed_run"]


def test_a_run_that_its_holder_has_left_in_the_store_counts_although_nobody_saw_it():
    world = World({"missed_run": {"periods": {"nightly": "1h"}}})
    world.step(0.0, look=Look())
    began = world.now
    world.until(3000, look=Look(), every=10.0)
    assert world.until(3500, look=Look(last={"nightly": began + 2990.0}), every=10.0) == []
    assert [
        one.group for _, one in world.until(150, look=Look(last={"nightly": began + 2990.0}), every=10.0)
    ] == ["missed_run"]


def test_an_engine_that_begins_afterwards_knows_when_a_job_last_ran():
    world = World({"missed_run": {"periods": {"nightly": "1h", "weekly": "8d"}}})
    last = {"nightly": world.now - 4000.0, "weekly": world.now - 4000.0}
    [(_, told)] = world.until(100, look=Look(last=last), every=10.0)
    assert [one.labels["lock"] for one in told.members] == ["nightly"]


def test_more_subjects_than_are_told_apart_are_one_alert_together(world):
    world.step(0.0, *(lost(f"lock{number}") for number in range(700)))
    [(_, told)] = world.until(60)
    assert len(told.members) == 501
    others = [one for one in told.members if "others" in one.labels]
    assert [one.times for one in others] == [200]


def test_alerts_that_pile_up_untold_become_one_together_but_those_there_are_stay_apart():
    world = World(timing=TIMING._replace(most_per_hour=0))
    world.step(0.0, look=zombies("other rule"))
    for first, count in ((0, 500), (500, 499), (1000, 4), (0, 3)):
        world.step(100_000.0)
        world.step(0.0, *(lost(f"lock{number}") for number in range(first, first + count)))
    alerts = [one for one in world.engine.state.alerts.values() if one.rule == "lost"]
    assert sorted(one.times for one in alerts) == [1] * 997 + [2] * 3 + [3]
    assert [one.times for one in alerts if "others" in one.labels] == [3]


# -- when and why it is told


def test_what_comes_and_goes_within_group_wait_says_nothing():
    world = World({"zombie": {"for": "0s"}})
    world.until(29, look=zombies("a"))
    assert world.until(1000, look=zombies()) == []


def test_what_has_happened_is_told_even_if_its_window_is_shorter_than_group_wait():
    world = World({"lost": {"window": "2s"}})
    world.step(0.0, lost())
    assert reasons(world.until(400)) == [(30.0, "first"), (330.0, "all_resolved")]


def test_a_new_member_waits_for_group_interval():
    world = World({"zombie": {"for": "0s"}})
    world.step(0.0, look=zombies("a"))
    world.until(40, look=zombies("a"))
    told = world.until(400, look=zombies("a", "b"))
    assert reasons(told) == [(290.0, "new_member")]
    assert [one.labels["lock"] for one in told[0][1].members] == ["a", "b"]


def test_a_new_member_long_after_waits_for_group_wait():
    world = World({"zombie": {"for": "0s"}})
    world.until(900, look=zombies("a"))
    assert reasons(world.until(60, look=zombies("a", "b"))) == [(31.0, "new_member")]


def test_a_member_that_ends_and_then_all():
    world = World({"zombie": {"for": "0s"}})
    world.until(40, look=zombies("a", "b"))
    told = world.until(300, look=zombies("b"))
    assert reasons(told) == [(291.0, "resolved_member")]
    assert [(one.labels["lock"], one.resolved is not None) for one in told[0][1].members] == [
        ("b", False),
        ("a", True),
    ]
    [(_, last)] = world.until(600, look=zombies())
    assert last.reason == "all_resolved"
    assert [one.labels["lock"] for one in last.members] == ["b"]
    world.until(400)
    assert world.engine.state.groups == {}


def test_what_ends_and_comes_back_within_group_interval_says_nothing():
    world = World({"zombie": {"for": "0s"}})
    world.until(40, look=zombies("a"))
    world.until(100, look=zombies())
    assert reasons(world.until(1000, look=zombies("a"))) == [(891.0, "repeat")]


def test_repeats_come_exactly_at_repeat_interval_and_at_no_tick():
    world = World({"zombie": {"for": "0s"}}, TIMING._replace(group_interval=700.0))
    world.step(0.0, look=zombies("a"))
    assert reasons(world.until(3100, look=zombies("a"))) == [
        (30.0, "first"),
        (1030.0, "repeat"),
        (2030.0, "repeat"),
        (3030.0, "repeat"),
    ]


def test_no_more_than_the_limit_of_an_hour_and_nothing_lost():
    world = World(timing=TIMING._replace(most_per_hour=4, repeat_interval=None))
    kinds = ["lost", "emergency_release", "ownership_violation", "cleanup_overrun", "recovered", "gpu_dirty"]
    world.step(0.0, *(of_alert(Alert(kind, "P1", kind, "a")) for kind in kinds))
    told = world.until(40)
    assert len(told) == 3, "a quarter is for P0"
    world.step(0.0, of_alert(Alert("critical_failure", "P0", "x", "a")))
    assert [one.group for _, one in world.until(40)] == ["critical_failure"]
    assert world.until(3000) == []
    later = world.until(8000, every=10.0)
    groups = {one.group for _, one in [*told, *later]}
    assert set(groups) >= {
        "lost",
        "emergency_release",
        "ownership_violation",
        "cleanup_overrun",
        "recovered",
        "gpu_dirty",
    }


def test_the_room_of_an_hour_goes_to_what_is_new_before_what_is_repeated():
    world = World(timing=TIMING._replace(most_per_hour=4))
    old = Look(subjects={"old": (Subject({"lock": "b"}, "two days"),)})
    repeated = world.until(3100, look=old, every=10.0)
    assert [one.reason for _, one in repeated] == ["first", "repeat", "repeat"], "a quarter is for P0"
    world.step(0.0, lost(), look=old)
    told = world.until(600, look=old, every=10.0)
    assert [(one.group, one.reason) for _, one in told] == [("lost", "first")]


# -- inhibition, silences, acknowledgements


def test_a_store_that_does_not_answer_inhibits_its_locks_alerts_from_the_first_moment(world):
    down = Look(unreachable="refused")
    world.step(0.0, lost(), look=down)
    told = world.until(300, look=down)
    assert [(at, one.group) for at, one in told] == [(90.0, "store_unreachable")]
    after = world.until(600, look=Look())
    assert [(one.group, one.reason) for _, one in after] == [
        ("lost", "first"),
        ("store_unreachable", "all_resolved"),
    ]


def test_inhibition_by_equal_labels_alone():
    world = World({"gpu_idle": {"window": "1d"}})
    idle = Look(subjects={"idle": (Subject({"lock": "a"}, "x"), Subject({"lock": "b"}, "x"))})
    world.step(0.0, of_alert(Alert("gpu_idle", "P2", "x", "a", data={"uuid": "G"})), look=idle)
    told = world.until(60, look=idle)
    assert {(one.group, *(each.labels["lock"] for each in one.members)) for _, one in told} == {
        ("gpu_idle", "a"),
        ("held_but_idle", "b"),
    }


def test_inhibition_holds_across_a_restart(world):
    world.step(0.0, lost(), look=Look(unreachable="refused"))
    world.until(20, look=None)
    world.restart()
    assert "lost" not in {one.group for _, one in world.until(2000)}


def test_after_a_restart_nothing_is_told_for_one_group_wait(world):
    world.step(0.0, lost())
    world.restart(after=500.0)
    assert reasons(world.until(100)) == [(30.0, "first")]
    world.restart()
    assert world.until(200) == []


def test_a_silence_hides_by_rule_and_label_and_ends(world):
    world.silence(600, rule="l*t", labels={"lock": "a*"})
    world.step(0.0, lost("ab"), lost("b"))
    [(_, told)] = world.until(300)
    assert [one.labels["lock"] for one in told.members] == ["b"]
    after = world.until(400)
    assert [(one.reason, len(one.members)) for _, one in after] == [("new_member", 2)]


def test_a_silence_of_one_alert_hides_no_other(world):
    world.step(0.0, lost("a"), lost("b"))
    [key] = [key for key, one in world.engine.state.alerts.items() if one.labels["lock"] == "a"]
    world.silence(600, fingerprint=key)
    [(_, told)] = world.until(300)
    assert [one.labels["lock"] for one in told.members] == ["b"]


def test_a_silence_of_later_hides_nothing_now(world):
    world.decisions.silences.append(Silence("1", "ann", world.now + 100, world.now + 200))
    world.step(0.0, lost())
    assert reasons(world.until(60)) == [(30.0, "first")]


def test_what_was_told_is_told_to_be_over_even_if_it_is_silenced():
    world = World({"zombie": {"for": "0s"}})
    world.until(40, look=zombies("a"))
    world.silence(10_000, rule="zombie")
    assert reasons(world.until(400, look=zombies())) == [(291.0, "all_resolved")]


def test_an_acknowledged_alert_is_neither_repeated_nor_escalated_but_a_new_one_is_told():
    rules = {"zombie": {"for": "0s", "severity": "P2", "escalate": [{"to": "P1", "after": "10m"}]}}
    world = World(rules)
    world.until(40, look=zombies("a"))
    [key] = world.engine.state.alerts
    world.acknowledge(key)
    assert world.until(5000, look=zombies("a")) == []
    told = world.until(100, look=zombies("a", "b"))
    assert [(one.reason, [each.acknowledged_by for each in one.members]) for _, one in told] == [
        ("new_member", ["ann", ""])
    ]


def test_no_alert_inhibits_one_of_its_own_rule():
    world = World()
    world.rules["lost"] = msgspec.structs.replace(world.rules["lost"], inhibits=("lost",))
    world.step(1.0, lost("a"), lost("b"))
    assert [one.hidden for one in world.engine.state.alerts.values()] == ["", ""]


def test_a_word_for_an_earlier_alert_counts_for_no_new_one_after_the_clock_was_put_back():
    world = World()
    world.step(1.0, lost())
    [(key, one)] = world.engine.state.alerts.items()
    world.decisions.acknowledged[key] = Acknowledgement("ann", world.now, instance=one.instance)
    world.step(1.0)
    assert one.acknowledged_by == "ann"
    world.step(-5000.0)
    assert one.acknowledged_by == "ann", "the clock alone ends no acknowledgement"
    del world.engine.state.alerts[key]
    world.step(1.0, lost())
    [again] = world.engine.state.alerts.values()
    assert again.since < world.decisions.acknowledged[key].at
    assert again.acknowledged_by == ""


def test_an_acknowledgement_ends_with_its_alert():
    world = World({"zombie": {"for": "0s"}})
    world.until(40, look=zombies("a"))
    [key] = world.engine.state.alerts
    world.acknowledge(key)
    world.until(1000, look=zombies())
    world.until(40, look=zombies("a"))
    assert [one.acknowledged_by for one in world.engine.state.alerts.values()] == [""]


# -- escalation

STEPS = [{"to": "P1", "after": "10m"}, {"to": "P0", "after": "20m"}]


def test_escalation_goes_up_step_by_step_once_each():
    world = World(
        {"zombie": {"for": "0s", "severity": "P2", "escalate": STEPS}}, TIMING._replace(repeat_interval=None)
    )
    world.step(0.0, look=zombies("a"))
    told = world.until(90_000, look=zombies("a"), every=10.0)
    assert [(at, one.reason, one.severity, one.step) for at, one in told] == [
        (30.0, "first", "P2", 0),
        (600.0, "escalated", "P1", 1),
        (1200.0, "escalated", "P0", 2),
    ]
    assert {one.members[0].began for _, one in told} == {"P2"}


def test_rounds_of_an_escalation_are_bounded():
    rules = {"zombie": {"for": "0s", "severity": "P2", "escalate": STEPS, "rounds": 3}}
    world = World(rules, TIMING._replace(repeat_interval=None))
    world.step(0.0, look=zombies("a"))
    told = world.until(90_000, look=zombies("a"), every=10.0)
    assert [at for at, one in told if one.reason == "escalated"] == [
        600.0,
        1200.0,
        1800.0,
        2400.0,
        3000.0,
        3600.0,
    ]


def test_a_rate_takes_its_step_at_once_and_those_before_it():
    steps = [{"to": "P1", "after": "50m"}, {"to": "P0", "above": 3}]
    world = World({"lost": {"severity": "P2", "escalate": steps}})
    world.step(0.0, lost(), lost(), lost())
    assert [one.severity for _, one in world.until(100)] == ["P2"]
    [told] = world.step(1.0, lost())
    assert (told.reason, told.severity, told.members[0].severity) == ("escalated", "P0", "P0")
    assert world.until(280) == []


def test_what_escalates_before_it_is_told_is_told_once():
    world = World()
    world.step(0.0, *[lost()] * 21)
    assert [(one.reason, one.severity) for _, one in world.until(290)] == [("first", "P0")]


# -- clocks, rules that change, and the state


def test_a_clock_that_is_put_back_keeps_all_intervals():
    world = World({"zombie": {"for": "0s"}})
    world.step(0.0, look=zombies("a"))
    world.until(40, look=zombies("a"))
    world.now -= 5000.0
    assert [round(at) for at, _ in world.until(1000, look=zombies("a"))] in ([990], [991])


def test_a_rule_that_is_removed_ends_its_alerts(world):
    world.step(0.0, lost())
    world.until(40)
    world.engine.rules = {name: rule for name, rule in world.rules.items() if name != "lost"}
    assert [one.reason for _, one in world.until(400)] == ["all_resolved"]


def test_the_state_survives_as_json(world):
    world.step(0.0, lost(), Happening("event.timeout"), look=zombies("a"))
    world.until(40)
    state = world.engine.state
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
    assert b'"v":1' in msgspec.json.encode(state)
