"""Rules for a held card, by readings at given times: no driver, no store and no clock."""

from __future__ import annotations

import pytest

from lockkit.gpu.noticing import GAP, SHORT, STEP, CardNews, Course, Reading, Rules, news_in, news_patch
from lockkit.values.sizes import GIB, MIB

MINUTE = 60.0


def course(**limits):
    return Course(Rules(**{"idle_below": 3, "idle_after": 1200.0, **limits}))


def kinds(notices):
    return [one.kind for one in notices]


def idle(course, begin, end, utilisation=0):
    """Readings every half minute. Returns the times at which one of them brought a notice."""
    told, at = [], begin
    while at <= end:
        told += [(at, kind) for kind in kinds(course.take(Reading(utilisation), at))]
        at += 30.0
    return told


def test_a_card_that_does_nothing_for_twenty_minutes_is_reported_once():
    one = course()
    assert idle(one, 0.0, 60 * MINUTE) == [(20 * MINUTE, "gpu_idle")]
    (notice,) = course(idle_after=0.0).take(Reading(2), 0.0)
    assert notice.why == "it has computed less than 3 % of the time for 0 s"


def test_a_moment_of_work_begins_the_time_anew_and_it_is_reported_again():
    one = course()
    assert idle(one, 0.0, 19.5 * MINUTE) == []
    assert one.take(Reading(3), 20 * MINUTE) == []
    assert one.idle_since is None
    assert idle(one, 20.5 * MINUTE, 50 * MINUTE) == [(40.5 * MINUTE, "gpu_idle")]
    one.take(Reading(50), 50.5 * MINUTE)
    assert idle(one, 51 * MINUTE, 71 * MINUTE) == [(71 * MINUTE, "gpu_idle")]


@pytest.mark.parametrize("reading", [Reading(None), Reading()])
def test_a_card_whose_utilisation_cannot_be_told_is_never_idle(reading):
    one = course()
    idle(one, 0.0, 19 * MINUTE)
    assert one.take(reading, 19.5 * MINUTE) == []
    assert idle(one, 20 * MINUTE, 39.5 * MINUTE) == []


def test_of_the_time_between_two_readings_far_apart_nothing_is_known():
    one = course()
    one.take(Reading(0), 0.0)
    assert one.take(Reading(0), 20 * MINUTE) == []
    assert one.idle_since == 20 * MINUTE
    assert one.take(Reading(0), 20 * MINUTE + GAP) == []
    assert one.idle_since == 20 * MINUTE


def test_the_limits_are_those_of_the_configuration():
    assert idle(course(idle_after=None), 0.0, 60 * MINUTE) == []
    assert idle(course(idle_below=50, idle_after=MINUTE), 0.0, 2 * MINUTE, utilisation=49) == [
        (MINUTE, "gpu_idle")
    ]
    assert idle(course(idle_below=0), 0.0, 60 * MINUTE) == []


def test_a_holder_that_uses_more_than_it_declared_is_reported_once_until_it_no_longer_does():
    one = course()

    def take(used, at, declared=8 * GIB):
        return one.take(Reading(99, used, declared=declared), at)

    assert take(8 * GIB, 0.0) == []
    (notice,) = take(9 * GIB, 30.0)
    assert (notice.kind, notice.why) == ("gpu_overused", "9 GiB used, 8 GiB declared")
    assert take(10 * GIB, 60.0) == []
    assert take(None, 90.0) == []
    assert take(10 * GIB, 120.0) == []
    assert take(8 * GIB, 150.0) == []
    assert kinds(take(8 * GIB + 1, 180.0)) == ["gpu_overused"]
    assert take(90 * GIB, 210.0, declared=None) == []


def test_each_fault_is_reported_once_and_those_at_the_grant_never():
    one = course()
    one.faults = ("it hums",)
    assert [notice.why for notice in one.take(Reading(99, faults=("it hums", "Xid 79")), 0.0)] == ["Xid 79"]
    assert one.take(Reading(99, faults=("Xid 79",)), 30.0) == []
    assert kinds(one.found(("Xid 48", "Xid 79"))) == ["gpu_faulty"]
    assert one.faults == ("it hums", "Xid 79", "Xid 48")


def test_news_is_what_has_changed_since_it_was_told():
    one = course()
    one.take(Reading(0, GIB), 0.0)
    assert one.news(0.0, 1000.0) == CardNews(GIB, None, 1000.0)
    one.take(Reading(0, GIB + STEP - 1), 30.0)
    assert one.news(30.0, 1030.0) is None
    one.take(Reading(0, GIB), SHORT)
    assert one.news(SHORT, 1060.0) == CardNews(GIB, 1000.0, 1060.0)
    one.take(Reading(0, GIB + STEP), SHORT + 30)
    assert one.news(SHORT + 30, 1090.0) == CardNews(GIB + STEP, 1000.0, 1090.0)
    one.untold()
    assert one.news(SHORT + 30, 1090.0) is not None
    one.take(Reading(80, None), SHORT + 60)
    assert one.news(SHORT + 60, 1120.0) == CardNews(None, None, 1120.0)
    assert course().news(0.0, 0.0) is None


@pytest.mark.parametrize(
    "news", [CardNews(5 * MIB, 1000.0, 2000.0), CardNews(None, None, 2000.0), CardNews(0, None, 0.0)]
)
def test_news_in_a_note_can_be_read_again(news):
    assert news_in(news_patch(news)) == news


@pytest.mark.parametrize(
    "own",
    [
        *(None, [], {}, {"gpu": 7}, {"gpu": {"used": "much"}}, {"gpu": {"used": True, "at": -1}}),
        {"gpu": {"used": 10**400, "at": 10**400, "idle_since": 1e17}},
    ],
)
def test_a_note_that_another_program_wrote_is_read_as_far_as_it_can(own):
    assert news_in({"lockkit": own}) in (None, CardNews())
