"""The outbox on the test's clock: no loss while there is room, order kept, the limit in every window."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockkit.alerts import outbox as module
from lockkit.alerts.outbox import Batch, Outbox, Space
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.pacing import Limits, Wait
from lockkit.alerts.summary import GROUP
from support.notifications import notification


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return self.at

    def wall(self):
        return self.at + 1e9


class Service:
    """The other side: accepts alerts or fails as requested, and records what it has seen, and when."""

    def __init__(self, clock):
        self.clock = clock
        self.messages = []
        self.numbers = []

    def take(self, batch):
        self.messages.append(self.clock.at)
        self.numbers += [kept.notification.at for kept in batch.parts]


def opened(clock, folder=None, **more):
    return Outbox("mail", folder, clock=clock, chance=lambda: 0.5, **more)


def groups(batch):
    return [kept.notification.group for kept in batch.parts]


REJECTED = NotDelivered("answered 400: too long", rejected=True)
IN_DOUBT = ("rejected", "well", "well", "maybe taken")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["P0", "P1", "P2"])),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 20.0, 61.0, 400.0])),
        st.tuples(
            st.just("try"),
            st.sampled_from(["well", "refused", "429", "rejected", "maybe taken", "maybe not"]),
        ),
        st.tuples(st.just("restart"), st.just("")),
    ),
    max_size=80,
)


def each_once_in_order(seen_all, put, urgent, rejected):
    """A service saw every alert at least once, those of a group in order, unless it has rejected them."""
    # What was in doubt comes again, and an earlier one that was rejected may have come in between.
    last_seen = list(dict.fromkeys(reversed(seen_all)))[::-1]
    for group in range(3):
        seen = [number for number in last_seen if number % 3 == group]
        assert seen == sorted(seen), "in the order of the group"
    for number in {*put} - {*last_seen}:
        later = {other for other in last_seen if other > number and other % 3 == number % 3}
        overtaken = later & urgent and number not in urgent
        refused = (later and rejected[number]) or rejected[number] >= 10
        assert overtaken or refused, (
            "each once at least, unless it was refused or a P0 of its group went ahead"
        )


@given(STEPS, st.integers(1, 6))
# The first fails until the service works for another one; the fourth is of the group of the first.
@example([("put", "P0")] * 4 + [("try", "refused"), ("wait", 3.0)] * 3, 2)
# The fourth was perhaps taken; the next process knows neither that, nor that the first was rejected.
@example([*[("put", "P0")] * 4, *[("try", how) for how in IN_DOUBT], ("restart", "")], 3)
@settings(max_examples=300, deadline=None)
def test_whatever_fails_nothing_is_lost_or_out_of_order_and_the_limit_holds(steps, most):
    folder = Path(tempfile.mkdtemp(prefix="lockkit-outbox-"))
    clock = Clock()
    service = Service(clock)
    limits = Limits(most=most, window=60.0, longest=100.0)
    box = opened(clock, folder / "s", limits=limits)
    put = []
    urgent, rejected = set(), Counter()

    def attempt(how):
        todo = box.next()
        if not isinstance(todo, Batch):
            return todo
        if how in ("well", "maybe taken"):
            service.take(todo)
        error = {
            "well": None,
            "refused": NotDelivered("no"),
            "429": NotDelivered("slow down", retry_after=30.0),
            "rejected": REJECTED,
            "maybe taken": TimeoutError("no answer"),
            "maybe not": ConnectionResetError("gone"),
        }[how]
        if how == "rejected":
            rejected.update(kept.notification.at for kept in todo.parts)
        box.settle(todo, error)
        return None

    try:
        for kind, what in steps:
            if kind == "put":
                told = notification(len(put), severity=what, at=float(len(put)), group=f"g{len(put) % 3}")
                assert box.add(told)
                put.append(told.at)
                if what == "P0":
                    urgent.add(told.at)
            elif kind == "wait":
                clock.at += what
            elif kind == "restart":
                box.close()
                box = opened(clock, folder / "s", limits=limits)
            else:
                attempt(what)
        # The service works again: everything arrives, in a time that the limit and the pauses allow.
        for _ in range(500):
            if not len(box):
                break
            todo = attempt("well")
            if isinstance(todo, Wait):
                assert todo.seconds is not None
                assert todo.seconds <= 3600.0
                clock.at += todo.seconds
        box.close()
    finally:
        shutil.rmtree(folder)

    each_once_in_order(service.numbers, put, urgent, rejected)
    for at in service.messages:
        assert sum(at - 60.0 < other <= at for other in service.messages) <= most, "in every window"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_on_a_channel_that_keeps_state_the_last_notification_of_each_group_arrives(numbers):
    clock = Clock()
    box = opened(clock, limits=Limits(most=2, window=60.0), keeps_state=True)
    for at, number in enumerate(numbers):
        box.add(notification(number, at=float(at)))

    seen = []
    while len(box):
        todo = box.next()
        if isinstance(todo, Wait):
            clock.at += todo.seconds
            continue
        seen.append((todo.notification.group, todo.notification.at))
        box.settle(todo, None)

    assert dict(seen) == {f"emergency_rate {number}": float(at) for at, number in enumerate(numbers)}
    assert len(seen) + box.counts.superseded == len(numbers)


def test_what_the_limit_held_back_comes_as_one_message_that_says_so():
    clock = Clock()
    box = opened(clock, limits=Limits(most=2, window=60.0))
    for number in range(4):
        box.add(notification(number, severity="P0" if number == 3 else "P2"))

    first = box.next()
    box.settle(first, None)
    rest = box.next()

    assert groups(first) == ["emergency_rate 0"]
    assert groups(rest) == ["emergency_rate 1", "emergency_rate 2", "emergency_rate 3"]
    told = rest.notification
    assert (told.group, told.severity) == (GROUP, "P0")
    assert told.members[0].text.startswith("3 notifications were held back")
    assert [member.fingerprint for member in told.members[1:]] == ["f3", "f1", "f2"]
    box.settle(rest, None)
    assert (box.counts.delivered, box.counts.summarised) == (2, 3)


def test_a_p0_finds_room_when_others_do_not(caplog):
    box = opened(Clock(), space=Space(notifications=8))
    for number in range(8):
        box.add(notification(number, severity="P2"))

    assert (len(box), box.counts.dropped) == (6, 2)
    assert box.add(notification(9, severity="P0"))
    assert [record.message for record in caplog.records] == [
        "alerts for channel mail are dropped: 6 wait already"
    ]


def test_the_room_is_limited_in_bytes_too(tmp_path):
    box = opened(Clock(), tmp_path / "s", space=Space(size=10_000))
    taken = [box.add(notification(number, text="x" * 1000)) for number in range(12)]
    box.close()

    assert 3 < sum(taken) < 8
    assert box.counts.dropped == 12 - sum(taken)


def test_what_a_service_rejects_holds_up_nothing_and_is_given_up_in_the_end(caplog):
    clock = Clock()
    box = opened(clock)
    for number in range(2):
        box.add(notification(number))
    todo = box.next()
    assert groups(todo) == ["emergency_rate 0"]
    box.settle(todo, REJECTED)

    # Set aside and shown, while the other one goes at once.
    todo = box.next()
    assert groups(todo) == ["emergency_rate 1"]
    box.settle(todo, None)
    assert (len(box), box.set_aside, box.last_error) == (1, 1, "answered 400: too long")

    for _ in range(9):
        wait = box.next()
        assert 0.0 < wait.seconds <= 300.0
        clock.at += wait.seconds
        todo = box.next()
        assert groups(todo) == ["emergency_rate 0"]
        box.settle(todo, REJECTED)
    # The message is lost only if the service takes another one by then: else the key may be wrong.
    clock.at += 1000.0
    box.settle(box.next(), REJECTED)
    assert (len(box), box.counts.given_up) == (1, 0)
    box.add(notification(2))
    todo = box.next()
    assert groups(todo) == ["emergency_rate 2"]
    box.settle(todo, None)
    assert (len(box), box.set_aside, box.last_error, box.counts.given_up) == (0, 0, "", 1)
    assert "emergency_rate 0" in caplog.records[-1].message


def test_a_service_that_rejects_everything_loses_nothing():
    clock = Clock()
    box = opened(clock, limits=Limits(most=1000))
    for number in range(20):
        box.add(notification(number, group=f"g{number % 3}"))
    for _ in range(500):
        todo = box.next()
        if isinstance(todo, Wait):
            clock.at += todo.seconds
        else:
            box.settle(todo, REJECTED)

    assert (len(box), box.counts.given_up) == (20, 0)


@pytest.mark.parametrize(
    "error", [REJECTED, NotDelivered("554 content rejected"), OSError("broken")], ids=str
)
@pytest.mark.parametrize("group", ["same", "another"])
@pytest.mark.parametrize("keeps_state", [False, True])
def test_one_that_always_fails_holds_up_no_p0(error, group, keeps_state):
    """Nor does the channel's pause, once it has failed for long; even if it is not known to be refused."""
    clock = Clock()
    box = opened(clock, keeps_state=keeps_state, limits=Limits(most=1000))
    box.add(notification(0, severity="P2", group="same", text="poison"))
    came = {}

    def go_on(until):
        while clock.at < until:
            todo = box.next()
            if isinstance(todo, Wait):
                clock.at = until if todo.seconds is None else min(clock.at + todo.seconds, until)
                continue
            bad = any("poison" in member.text for member in todo.notification.members)
            box.settle(todo, error if bad else None)
            if not bad:
                came[todo.notification.members[0].fingerprint] = clock.at

    for number in range(1, 4):
        go_on(clock.at + 5000.0)
        put = clock.at
        box.add(notification(number, severity="P0", group=group))
        go_on(clock.at + 10.0)
        assert came[f"f{number}"] == put


def test_one_that_fails_without_a_reason_is_given_up_once_the_service_has_taken_ten_others(caplog):
    clock = Clock()
    box = opened(clock, limits=Limits(most=1000))
    box.add(notification(0))
    for number in range(1, 60):
        box.add(notification(number))
        for _ in range(20):
            todo = box.next()
            if isinstance(todo, Wait):
                clock.at += 1.0
            else:
                box.settle(todo, OSError("554") if groups(todo) == ["emergency_rate 0"] else None)

    assert (len(box), box.counts.given_up, box.counts.delivered) == (0, 1, 59)


def test_what_was_rejected_is_not_summed_up_with_the_others():
    box = opened(Clock(), limits=Limits(most=2, window=60.0))
    for number in range(4):
        box.add(notification(number, severity="P0"))
    box.settle(box.next(), REJECTED)
    box.settle(box.next(), None)

    assert groups(box.next()) == ["emergency_rate 2", "emergency_rate 3"]


def test_one_that_was_set_aside_does_not_come_after_a_later_one_of_its_group():
    clock = Clock()
    box = opened(clock)
    box.add(notification(0, group="g"))
    box.settle(box.next(), REJECTED)
    box.add(notification(1, group="g", reason="all_resolved"))
    box.settle(box.next(), None)

    assert (len(box), box.counts.superseded) == (0, 1)


def test_a_service_that_is_down_is_never_given_up():
    clock = Clock()
    box = opened(clock, limits=Limits(most=30))
    box.add(notification(0))
    for _ in range(200):
        clock.at += 1000.0
        box.settle(box.next(), NotDelivered("answered 503"))

    assert len(box) == 1


def test_without_a_disk_it_waits_in_memory_and_that_is_said(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    box = opened(Clock(), tmp_path / "file")

    assert box.add(notification(0))
    assert box.counts.unspooled == 1
    assert "has no spool" in caplog.records[0].message


def test_a_failing_channel_is_logged_at_each_doubling_and_without_secrets(caplog):
    caplog.set_level(logging.WARNING)
    clock = Clock()
    box = opened(clock)
    box.add(notification(0))
    for _ in range(9):
        clock.at += 1000.0
        box.settle(
            box.next(), OSError("no route to https://ann:tops3cret@h/T0/B0 with tops3cret"), ("tops3cret",)
        )

    told = [record.message for record in caplog.records]
    assert [line.partition(" in a row")[0] for line in told] == [
        f"channel mail failed ({failures}" for failures in (1, 2, 4, 8)
    ]
    assert "tops3cret" not in "".join(told) + box.last_error


def test_the_property_can_fail(monkeypatch):
    # Counting only what was certainly taken breaks the limit.
    right = module.after_failure
    monkeypatch.setattr(
        module, "after_failure", lambda *given, **named: right(*given, **{**named, "maybe": False})
    )
    steps = [("put", "P1"), *(step for _ in range(3) for step in (("try", "maybe taken"), ("wait", 3.0)))]

    with pytest.raises(AssertionError, match="in every window"):
        test_whatever_fails_nothing_is_lost_or_out_of_order_and_the_limit_holds.hypothesis.inner_test(
            steps, 1
        )
