"""The thread of a channel: never blocks a caller, ends in time, and delivers everything after a restart."""

from __future__ import annotations

import logging
import threading

import pytest

from lockkit.alerts.delivery import Delivery, attempt
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.pacing import Limits
from lockkit.testing.processes import until
from support.notifications import notification

QUICK = Limits(first=0.01, longest=0.05)


class Sink:
    """A sink that fails as often as a test says, and keeps what it delivered."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.seen = []
        self.came = threading.Condition()

    def __call__(self, told):
        with self.came:
            if self.errors:
                raise self.errors.pop(0)
            self.seen.append(told)
            self.came.notify_all()

    def wait(self, number):
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= number, 30.0)
            return [one.group for one in self.seen]


@pytest.fixture
def delivery(request):
    made = []

    def make(sink, folder=None, **more):
        made.append(Delivery("ops", sink, folder, limits=more.pop("limits", QUICK), **more))
        return made[-1]

    yield make
    for one in made:
        one.close(0.0)


def test_a_sink_is_a_function(delivery):
    seen = []
    one = delivery(seen.append)

    assert one.put(notification())
    assert one.flush(30.0)
    assert seen == [notification()]


def test_what_fails_is_tried_again_in_order(delivery, caplog):
    sink = Sink(OSError("no route"), NotDelivered("answered 503"), TimeoutError())
    one = delivery(sink)
    for number in range(3):
        one.put(notification(number, group="g"))

    assert sink.wait(3) == ["g"] * 3
    assert [told.members[0].fingerprint for told in sink.seen] == ["f0", "f1", "f2"]
    assert one.flush(30.0)
    state = one.state()
    assert (state.waiting, state.failures, state.last_error) == (0, 0, "")
    assert (state.counts.delivered, state.counts.failed) == (3, 3)
    assert "no route" in caplog.text


def test_one_that_is_refused_is_shown_and_holds_up_no_other(delivery):
    sink = Sink(*[NotDelivered("answered 400", rejected=True)])
    one = delivery(sink, limits=Limits(first=1000.0, longest=1000.0))
    for number in range(2):
        one.put(notification(number))

    assert sink.wait(1) == ["emergency_rate 1"]
    while one.state().waiting > 1:
        one.flush(0.01)
    state = one.state()
    assert (state.waiting, state.set_aside, state.last_error) == (1, 1, "answered 400")


def test_even_a_sink_that_exits_does_not_end_the_thread(delivery):
    sink = Sink(SystemExit(3), KeyboardInterrupt())
    delivery(sink).put(notification())

    assert sink.wait(1) == ["emergency_rate 0"]


def test_a_hanging_sink_holds_up_nobody_and_what_waits_is_delivered_after_a_restart(
    delivery, tmp_path, caplog
):
    hangs, go_on = threading.Event(), threading.Event()

    def hang(_told):
        hangs.set()
        go_on.wait(60.0)

    one = delivery(hang, tmp_path / "s")
    for number in range(3):
        assert one.put(notification(number))
    assert hangs.wait(30.0)
    assert one.close(0.05) == 3
    assert "has not answered" in caplog.text
    assert not one.put(notification(9))

    sink = Sink()  # in the next process; the lock of this one still stands, so its spool is another
    second = delivery(sink, tmp_path / "s")
    go_on.set()
    one._thread.join(30.0)
    one.close()
    second.close()
    delivery(sink, tmp_path / "s")
    assert sink.wait(2) == ["emergency_rate 1", "emergency_rate 2"]


def test_an_attempt_that_never_ends_is_given_up_and_tried_again(delivery):
    go_on, sink = threading.Event(), Sink()
    calls = []

    def hangs_first(told):
        calls.append(told)
        if len(calls) == 1:
            go_on.wait(60.0)
        sink(told)

    one = delivery(hangs_first, longest=0.2)
    for number in range(2):
        one.put(notification(number, group=f"g{number}"))
    assert sorted(sink.wait(2)) == ["g0", "g1"]
    assert one.flush(30.0)
    assert one.state().counts.failed == 1
    go_on.set()


def test_few_attempts_that_never_end_are_at_work_at_once_and_the_state_tells_of_them(delivery):
    go_on, calls = threading.Event(), []

    def hang(told):
        calls.append(told)
        go_on.wait(60.0)

    one = delivery(hang, longest=0.01)
    one.put(notification())
    until(lambda: one.state().failures > 8, "it is tried again and again")
    assert len(calls) == 4
    assert "4 earlier attempts have not ended" in one.state().last_error
    go_on.set()
    until(lambda: one.state().waiting == 0, "they have ended")


def test_while_a_channel_is_down_nothing_is_lost_by_a_restart(delivery, tmp_path):
    down = Sink(*[OSError("down")] * 10_000)
    one = delivery(down, tmp_path / "s")
    for number in range(5):
        one.put(notification(number))
    assert one.close() == 5

    up = Sink()
    second = delivery(up, tmp_path / "s")
    second.put(notification(5))

    assert up.wait(6) == [f"emergency_rate {number}" for number in range(6)]
    assert second.flush(30.0)
    assert second.close() == 0


def test_a_channel_gets_only_its_severities(delivery):
    sink = Sink()
    one = delivery(sink, severities=("P0",))
    assert one.put(notification(0, severity="P2"))
    assert one.put(notification(1, severity="P0"))

    assert one.flush(30.0)
    assert sink.wait(1) == ["emergency_rate 1"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_a_channel_is_told_the_end_of_what_it_was_told_also_after_a_restart(
    delivery, tmp_path, restart, many
):
    """The alert has left the channel's severities; after many notifications the spool was rewritten."""
    sink = Sink()
    one = delivery(sink, tmp_path / "s", severities=("P2",), limits=Limits(most=1000))
    one.put(notification(0, severity="P2"))
    for number in range(1, 300 if many else 1):
        one.put(notification(number, severity="P2", text="x" * 500))
    assert one.flush(60.0)
    if restart:
        one.close()
        one = delivery(sink, tmp_path / "s", severities=("P2",), limits=Limits(most=1000))
    seen = len(sink.seen)
    one.put(notification(0, severity="P0", reason="all_resolved"))
    one.put(notification(1000, severity="P0", reason="all_resolved"))

    assert one.flush(30.0)
    assert [(told.group, told.reason) for told in sink.seen[seen:]] == [("emergency_rate 0", "all_resolved")]


def test_secrets_are_in_neither_repr_nor_log_nor_state(delivery, caplog):
    caplog.set_level(logging.DEBUG)
    failed = threading.Event()

    class Leaks:
        secrets = ("tops3cret",)

        def __call__(self, _told):
            failed.set()
            raise OSError("POST https://bot:tops3cret@h/hook/tops3cret failed")

    one = delivery(Leaks())
    one.put(notification())
    assert failed.wait(30.0)
    while not one.state().counts.failed:
        one.flush(0.01)

    assert "tops3cret" not in f"{caplog.text} {one!r} {one.state()}"
    assert "failed" in one.state().last_error


def test_one_attempt_says_how_it_went():
    told = notification()
    assert attempt("ops", lambda _: None, told, 30.0)[:3] == ("ops", True, "")

    def refuse(_told):
        raise NotDelivered("answered 403")

    assert attempt("ops", refuse, told, 30.0)[:3] == ("ops", False, "answered 403")
    hangs = threading.Event()
    assert attempt("ops", lambda _: hangs.wait(60.0), told, 0.01).error == "no answer within 0.01 s"
    hangs.set()
