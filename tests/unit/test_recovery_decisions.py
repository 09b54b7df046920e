"""The decisions of recovery, as a function of what was seen: every doubt speaks for the holder."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.facts import ClaimInfo, Keeper, Owner
from lockkit.observe.decisions import (
    ClaimFacts,
    OracleAnswer,
    Tiers,
    answer_of_this_host,
    asks_oracles,
    counted,
    decide,
    heartbeat,
    life,
    same_claim,
    tier_of,
    within_limit,
)
from lockkit.observe.oracles import Oracles
from lockkit.store.judging import NOBODY

NOW = 1_000_000.0
OWNER = Owner("ann", "box", 4711, "boot", 1.0, "train.py")
TIERS = Tiers()
ALIVE, DEAD, UNSURE = (
    OracleAnswer("a", True),
    OracleAnswer("b", False, "its pod is gone"),
    OracleAnswer("c", None),
)


def held(age=1.0, silent=1.0, **more):
    """A claim that was taken, and last renewed, so many seconds ago."""
    fields = {"ttl": 30.0, "since": NOW - age, "renewed": NOW - silent} | more
    return ClaimInfo("backup", "0123456789ab", fields.pop("state", "HELD"), OWNER, 7, 0, **fields)


def decided(claim, *answers, **more):
    return decide(ClaimFacts(claim, NOW, (answer_of_this_host(claim), *answers), **more), TIERS)


def test_a_claim_whose_owner_is_dead_is_removed():
    found = decided(held(process="gone", alive=False, evidence="process 4711 on this host has ended"))

    assert (found.action, found.kind) == ("remove", "gone")
    assert found.why == "its owner is gone: process 4711 on this host has ended"


@pytest.mark.parametrize("state", ["HELD", "WAITING", "OFFERED"])
def test_a_dead_owner_counts_in_every_place_of_the_queue(state):
    assert decided(held(state=state, process="gone", alive=False)).action == "remove"


@pytest.mark.parametrize("order", [(ALIVE, DEAD), (DEAD, ALIVE), (DEAD, UNSURE, ALIVE)])
def test_one_oracle_that_sees_the_owner_alive_outweighs_all_others(order):
    assert life(order) is True
    assert decided(held(), *order).action == "leave"
    assert decided(held(process="gone", alive=False), *order).action == "leave"


@pytest.mark.parametrize(
    "answers, lives",
    [((), None), ((UNSURE,), None), ((DEAD,), False), ((UNSURE, DEAD), False), ((ALIVE,), True)],
)
def test_an_owner_is_dead_only_if_an_oracle_says_so(answers, lives):
    assert life(answers) is lives


def test_the_word_of_an_oracle_is_enough_for_an_owner_that_is_not_seen_from_here():
    assert decided(held(silent=25.0), DEAD).why == "its owner is gone: its pod is gone"


def test_a_stopped_holder_is_not_gone_however_long_it_is_silent():
    claim = held(
        age=5000.0, silent=5000.0, process="stopped", evidence="process 4711 on this host is stopped"
    )

    assert decided(claim).action == "tell"
    assert decided(claim, DEAD).action == "tell"


def test_what_still_works_under_the_claim_of_a_dead_owner_keeps_it():
    claim = held(process="gone", alive=False)

    for found in (
        decided(claim, survivors=(Keeper(99, "sh"),)),
        decided(claim._replace(kept_by=(Keeper(99, "sh"),))),
    ):
        assert (found.action, found.kind) == ("tell", "survivors")
        assert found.why.endswith("these processes work on: pid 99 (sh); to end it: kill 99")
    both = decided(claim._replace(kept_by=(Keeper(99, "sh"),)), survivors=(Keeper(99, "sh"), Keeper(100)))
    assert both.why.endswith("; to end them: kill 99 100")


def test_processes_that_could_not_be_looked_at_may_still_work():
    found = decided(held(process="gone", alive=False), hidden="the processes of bob cannot be seen")

    assert (found.action, found.kind) == ("tell", "gone")


@pytest.mark.parametrize(
    "claim",
    [
        held(age=5000.0, state="LINGERING", process="gone", alive=False),
        held(age=5000.0, silent=5000.0, evidence=NOBODY),
        held(age=5000.0, silent=5000.0, note={"acquire": "secret"}, alive=False),
        held(age=5000.0, silent=25.0, evicted=True),
        held(age=5000.0, silent=25.0, state="WAITING"),
    ],
    ids=["lingering", "of acquire", "of acquire by its note", "evicted already", "only waiting"],
)
def test_what_ends_by_itself_is_left_alone(claim):
    assert decided(claim).action == "leave"


@pytest.mark.parametrize("age", [10.0, 301.0, 601.0, 901.0, 1e6])
@pytest.mark.parametrize(
    "more", [{"silent": 1.0}, {"renewed": 0.0}, {"process_bound": True}, {"silent": 25.0, "alive": True}]
)
def test_a_long_task_that_may_be_at_work_is_never_evicted(age, more):
    found = decided(held(age=age, **more))

    assert found.action == ("leave" if age < 300.0 else "tell")


@pytest.mark.parametrize(
    "age, action", [(10.0, "leave"), (301.0, "tell"), (601.0, "evict"), (901.0, "evict")]
)
def test_a_hold_without_a_heartbeat_is_evicted_from_the_soft_age_on(age, action):
    assert decided(held(age=age, silent=25.0)).action == action


@pytest.mark.parametrize(
    "age, tier", [(299.9, ""), (300.0, "warning"), (600.0, "soft"), (899.0, "soft"), (900.0, "hard")]
)
def test_each_age_is_reached_at_its_second(age, tier):
    assert tier_of(age, TIERS) == tier


@pytest.mark.parametrize("silent, beat", [(0.0, "live"), (20.0, "live"), (20.1, "missed"), (31.0, "missed")])
def test_two_of_three_heartbeats_have_to_be_missing(silent, beat):
    assert heartbeat(held(silent=silent), NOW) == beat


def test_a_store_that_does_not_tell_of_renewals_leaves_them_unknown():
    assert heartbeat(held(renewed=0.0), NOW) == heartbeat(held(process_bound=True), NOW) == "unknown"


def test_oracles_are_asked_only_where_their_word_may_matter():
    assert not asks_oracles(held(process="alive", alive=True, silent=29.0), NOW)
    assert not asks_oracles(held(silent=1.0), NOW)
    assert not asks_oracles(held(silent=29.0, evidence=NOBODY), NOW)
    assert asks_oracles(held(silent=25.0), NOW)
    assert asks_oracles(held(renewed=0.0), NOW)
    assert asks_oracles(held(process="gone", alive=False), NOW)


@pytest.mark.parametrize(
    "change, action, same",
    [
        ({}, "remove", True),
        ({"renewed": NOW}, "remove", True),
        ({"renewed": NOW + 19.0}, "evict", False),
        ({"renewed": NOW}, "evict", True),
        ({"claim_id": "ffffffffffff"}, "remove", False),
        ({"fence": 8}, "remove", False),
        ({"state": "LINGERING"}, "remove", False),
    ],
)
def test_an_action_stands_only_while_the_claim_is_as_it_was_seen(change, action, same):
    assert same_claim(held(), held()._replace(**change), action) is same


def test_the_false_of_an_oracle_removes_nothing_while_another_one_failed_to_answer():
    failed = OracleAnswer("d", None, "TimeoutError: 5 s", failed=True)

    found = decided(held(silent=25.0), DEAD, failed)

    assert (found.action, found.kind) == ("tell", "gone")
    assert "no answer came from d (TimeoutError: 5 s)" in found.why
    assert decided(held(silent=25.0), DEAD, UNSURE).action == "remove"
    assert decided(held(process="gone", alive=False), failed).action == "remove"  # this host knows for itself


@pytest.mark.parametrize(
    "listed",
    [
        None,
        "x",
        {"a": 1},
        [10**400, -(10**400)],
        [float("nan"), float("inf")],
        [True, None, "1"],
        [NOW + 1e9] * 20,
        [NOW - 3600.0],
    ],
)
def test_times_that_cannot_be_those_of_actions_do_not_count(listed):
    assert counted(listed, NOW) == []


def test_times_of_the_last_hour_count_also_if_a_clock_is_a_little_ahead():
    assert counted([NOW - 3599, NOW + 60.0, NOW + 61.0], NOW) == [NOW - 3599.0, NOW + 60.0]


def test_actions_are_counted_by_the_hour():
    assert within_limit([NOW - 3601.0, NOW - 10.0], NOW, 2)
    assert not within_limit([NOW - 3599.0, NOW - 10.0], NOW, 2)
    assert not within_limit([NOW + 5.0], NOW, 1)
    assert not within_limit([], NOW, 0)


@given(
    st.sampled_from(["HELD", "WAITING", "OFFERED", "LINGERING"]),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.sampled_from([None, True, False]),
    st.sampled_from(["alive", "stopped", "gone", "unknown"]),
    st.lists(st.sampled_from([ALIVE, DEAD, UNSURE]), max_size=3),
    st.booleans(),
)
def test_nothing_is_done_to_a_claim_that_anybody_sees_alive_or_that_is_renewed(
    state, age, silent, alive, process, answers, kept
):
    claim = held(age=age, silent=silent, state=state, alive=alive, process=process)

    found = decided(claim, *answers, survivors=(Keeper(1),) if kept else ())

    if ALIVE in answers or alive is True or process == "stopped" or kept:
        assert found.action in ("tell", "leave")
    if found.action == "remove":
        assert alive is False or DEAD in answers
    if found.action == "evict":
        assert heartbeat(claim, NOW) == "missed"
        assert age >= TIERS.soft


# -- the oracles themselves


def told(owner):
    raise LookupError("no such cluster")


def test_an_oracle_that_raises_is_late_or_answers_nonsense_cannot_tell():
    waiting = threading.Event()
    oracles = Oracles(
        [
            ("raises", told),
            ("late", lambda owner: waiting.wait(60)),
            ("nonsense", lambda owner: "dead"),
            ("number", lambda owner: 0),
            ("sure", lambda owner: False),
        ],
        seconds=0.3,
    )

    answers = {one.oracle: one for one in oracles.ask(OWNER)}

    assert {one: answer.alive for one, answer in answers.items()} == {
        "raises": None,
        "late": None,
        "nonsense": None,
        "number": None,
        "sure": False,
    }
    assert answers["raises"].told == "LookupError: no such cluster"
    oracles.forget()
    assert {one for one, answer in answers.items() if answer.failed} == {
        "raises",
        "late",
        "nonsense",
        "number",
    }
    assert "has not returned" in {one.oracle: one.told for one in oracles.ask(OWNER)}["late"]
    waiting.set()


def test_an_oracle_is_asked_once_about_an_owner_until_a_new_look_begins():
    asked = []

    def oracle(owner):
        asked.append(owner)

    oracles = Oracles([("one", oracle)])

    oracles.ask(OWNER)
    oracles.ask(OWNER)
    assert len(asked) == 1
    oracles.forget()
    oracles.ask(OWNER)
    assert len(asked) == 2
