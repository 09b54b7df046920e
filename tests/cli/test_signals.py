"""The exception of a signal ends the command, whatever code is in its way."""

from __future__ import annotations

import signal

import pytest

from lockkit.cli import signals
from lockkit.cli.signals import Signals, Terminated
from lockkit.cli.waiting import Announcer


def swallowed(number: int = signal.SIGTERM) -> None:
    with pytest.raises((Terminated, KeyboardInterrupt)):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("before", [Signals.check, Signals.record])
def test_what_was_swallowed_is_raised_before_anything_begins(number, before):
    with Signals("x") as heard:
        swallowed(number)
        with pytest.raises((Terminated, KeyboardInterrupt)):
            before(heard)


def test_what_was_swallowed_in_a_wait_ends_it_at_the_next_answer_of_the_store(lockkit_client):
    with lockkit_client.hold_elsewhere("x"), Signals("x") as heard:
        announcer = Announcer(lockkit_client, quiet=True, as_json=False, signals=heard)

        def on_wait(waiting):
            announcer(waiting)
            if announcer.waits == 1:
                swallowed()

        with pytest.raises(Terminated):
            lockkit_client.lock("x").acquire(on_wait=on_wait)
    assert announcer.waits == 1


def test_what_a_signal_was_made_into_leaves_as_the_signal():
    with pytest.raises(Terminated, match="SIGHUP while waiting for 'x'"):
        misunderstood(signal.SIGHUP)


def misunderstood(number: int) -> None:
    with Signals("x"):
        swallowed(number)
        raise ZeroDivisionError


def test_a_second_signal_counts_once_cleaning_up_should_be_over(monkeypatch):
    with Signals() as heard:
        swallowed()
        signal.raise_signal(signal.SIGTERM)  # on the way out
        monkeypatch.setattr(heard, "_ends_by", 0.0)
        swallowed(signal.SIGHUP)


def test_a_command_that_came_to_its_end_is_a_success():
    with Signals() as heard:
        swallowed()
    with Signals() as heard:
        heard.record()
        signal.raise_signal(signal.SIGTERM)
        assert heard.take() == [signal.SIGTERM]


def test_the_handlers_are_those_of_before():
    before = [signal.getsignal(number) for number in signals.ENDING]
    with Signals() as heard:
        heard.record()
    assert [signal.getsignal(number) for number in signals.ENDING] == before
