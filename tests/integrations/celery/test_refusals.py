"""The table of what becomes of a task that did not get its lock."""

from __future__ import annotations

import pytest

from lockkit.errors import (
    AcquireTimeout,
    BackendUnavailable,
    CapacityMismatch,
    Drained,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.facts import ClaimInfo, Drain, LockInfo, Owner
from lockkit.integrations.celery.options import LockOptions
from lockkit.integrations.celery.refusals import stands, what_next

BUSY, DOWN, DRAINED = AcquireTimeout("busy"), BackendUnavailable("down"), Drained("d", drain=Drain("n"))


@pytest.mark.parametrize(
    "options, error, after",
    [
        ({}, BUSY, "again"),
        ({"on_busy": "skip"}, BUSY, "skip"),
        ({"on_busy": "fail"}, BUSY, "fail"),
        ({"on_busy": "wait"}, BUSY, "fail"),
        ({}, DOWN, "again"),
        ({}, OutcomeUnknown("?"), "again"),
        ({"on_busy": "skip"}, DOWN, "fail"),
        ({"on_busy": "skip", "on_unavailable": "retry"}, DOWN, "again"),
        ({"on_unavailable": "fail"}, DOWN, "fail"),
        ({"on_unavailable": "run"}, DOWN, "run"),
        ({"on_unavailable": "run"}, BUSY, "again"),
        ({}, DRAINED, "again"),
        ({"on_busy": "skip"}, DRAINED, "fail"),
        ({}, PermissionDenied("no"), "fail"),
        ({"on_unavailable": "run"}, PermissionDenied("no"), "fail"),
        ({}, CapacityMismatch("no"), "fail"),
    ],
)
def test_a_task_without_its_lock(options, error, after):
    assert (
        what_next(LockOptions(lock="a", **options), error, None, twin=False, sendable=True, late=True)
        == after
    )


@pytest.mark.parametrize("left, sendable", [(0.0, True), (5.0, False), (None, False)])
def test_a_task_fails_when_its_wait_is_over_or_no_message_can_be_sent(left, sendable):
    assert what_next(LockOptions(lock="a"), BUSY, left, twin=False, sendable=sendable, late=False) == "fail"


@pytest.mark.parametrize(
    "options, left, after",
    [
        ({}, None, "again"),
        ({}, 0.0, "drop"),
        ({"on_busy": "skip"}, None, "drop"),
        ({"on_busy": "fail"}, None, "drop"),
        ({"on_busy": "wait"}, None, "drop"),
        ({"on_duplicate": "skip"}, None, "drop"),
        ({"on_duplicate": "retry", "on_busy": "skip"}, None, "again"),
    ],
)
def test_the_result_of_a_running_task_is_never_overwritten_by_its_twin(options, left, after):
    assert (
        what_next(LockOptions(lock="a", **options), BUSY, left, twin=True, sendable=True, late=False) == after
    )


@pytest.mark.parametrize(
    "options, error, after",
    [
        ({}, BUSY, "back"),
        ({"on_busy": "skip"}, BUSY, "back"),
        ({"on_busy": "fail"}, BUSY, "back"),
        ({"on_busy": "wait"}, BUSY, "back"),
        ({"on_duplicate": "retry"}, BUSY, "back"),
        ({"on_duplicate": "skip"}, BUSY, "drop"),
        ({"on_unavailable": "run"}, DOWN, "run"),
    ],
)
@pytest.mark.parametrize("left", [None, 0.0])
def test_a_copy_that_is_not_acknowledged_yet_is_neither_sent_nor_dropped(options, error, after, left):
    options = LockOptions(lock="a", **options)
    assert what_next(options, error, left, twin=True, sendable=True, late=True) == after


@pytest.mark.parametrize("on_busy", ["retry", "wait", "skip", "fail"])
@pytest.mark.parametrize(
    "left, sendable, after", [(None, True, "again"), (0.0, True, "fail"), (None, False, "fail")]
)
def test_a_task_that_finds_its_own_earlier_run_is_sent_again_as_long_as_it_may(
    on_busy, left, sendable, after
):
    options = LockOptions(lock="a", on_busy=on_busy)
    assert what_next(options, BUSY, left, twin=False, sendable=sendable, late=True, earlier=True) == after


HELD = ClaimInfo("a", "1", "HELD", Owner(), 1, 0)


@pytest.mark.parametrize(
    "now, still",
    [
        ((HELD,), True),
        ((HELD._replace(claim_id="2", state="LINGERING"), HELD._replace(alive=True)), True),
        ((), False),
        ((HELD._replace(claim_id="2"),), False),
        ((HELD._replace(state="LINGERING"),), False),
        ((HELD._replace(alive=False),), False),
    ],
)
def test_a_twin_stands_only_while_the_same_claim_holds_the_lock(now, still):
    assert stands(HELD, LockInfo("a", now)) is still


def test_a_twin_of_which_nothing_is_known_does_not_stand():
    assert not stands(None, LockInfo("a", (HELD,)))
    assert not stands(HELD, None)
