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
from lockkit.facts import Drain
from lockkit.integrations.celery.options import LockOptions
from lockkit.integrations.celery.refusals import what_next

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
    assert what_next(LockOptions(lock="a", **options), error, None, twin=False, sendable=True) == after


@pytest.mark.parametrize("left, sendable", [(0.0, True), (5.0, False), (None, False)])
def test_a_task_fails_when_its_wait_is_over_or_no_message_can_be_sent(left, sendable):
    assert what_next(LockOptions(lock="a"), BUSY, left, twin=False, sendable=sendable) == "fail"


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
    assert what_next(LockOptions(lock="a", **options), BUSY, left, twin=True, sendable=True) == after
