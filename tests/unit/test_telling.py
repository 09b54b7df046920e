"""Log messages of events: which are written, and which are not."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from lockkit.cli.suggesting import as_called
from lockkit.drivers.dispatch import _LEVELS, Dispatcher
from lockkit.drivers.sentences import SENTENCES, sentence
from lockkit.drivers.telling import Telling
from lockkit.facts import Event
from lockkit.lib.clock import SYSTEM
from lockkit.values.events import KINDS, Counters


def test_a_store_that_is_away_for_thousands_of_holds_is_told_in_a_few_lines(caplog):
    dispatcher = Dispatcher(Counters(), SYSTEM)
    with caplog.at_level(logging.DEBUG):
        for at in range(5_000):
            dispatcher.tell(Event("renewal_failed", f"n{at}", "id", 1))
        dispatcher.tell(Event("lost", "other", "id", 1))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 21, "ten within a second, and a loaded machine may take two"
    assert "other" in lines[-1]


def test_each_loss_is_told(caplog):
    dispatcher = Dispatcher(Counters(), SYSTEM)
    with caplog.at_level(logging.DEBUG):
        for at in range(50):
            dispatcher.tell(Event("lost", f"n{at}", "id", 1))
    assert len(caplog.records) == 50


@pytest.mark.parametrize("in_hand, count", [(True, 1), (False, 0)], ids=["a hold", "the gate of a request"])
def test_a_callback_finds_its_loss_counted_if_somebody_worked_under_it(in_hand, count):
    counters, found = Counters(), []
    dispatcher = Dispatcher(counters, SYSTEM)
    dispatcher.run = lambda callback, name="": callback()
    hold = SimpleNamespace(
        name="a",
        fence=1,
        claim_id="id",
        taken_at=None,
        expires=0.0,
        in_hand=in_hand,
        callbacks=[lambda: found.append(counters.read()["lost"])],
    )

    Telling(counters, dispatcher, SYSTEM, lambda: None).lost(hold, "lost")

    assert found == [count]


def test_how_many_were_not_told_is_told_with_the_next(caplog, monkeypatch):
    at = [100.0]
    monkeypatch.setattr("lockkit.drivers.dispatch.time.monotonic", lambda: at[0])
    dispatcher = Dispatcher(Counters(), SYSTEM)
    with caplog.at_level(logging.DEBUG):
        for _ in range(25):
            dispatcher.tell(Event("renewal_failed", "a", "id", 1))
        at[0] += 1.5
        dispatcher.tell(Event("renewal_failed", "b", "id", 1))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 12
    assert "15 more messages like these were left out" in lines[10]


def test_each_kind_of_event_has_a_sentence_and_a_level():
    assert list(SENTENCES) == list(KINDS)
    assert list(_LEVELS) != []
    assert set(_LEVELS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"holder": None, "error": None, "position": 0, "taken_at": None},
        {"holder": "ann@box pid 7", "error": "no\nanswer\u2028yet", "position": 2, "taken_at": "a.py:3"},
    ],
)
def test_a_log_message_is_one_row_and_shows_no_empty_value(kind, data):
    always = {"plugin": "p", "outcome": "DONE", "capacity": 2, "claims": 3, "resource": "the key 'k'"}
    told = sentence(Event(kind, "a  b\nc", "0123456789ab", 7, "normal", duration=2.0, data=always | data))
    assert told.splitlines() == [told]
    assert repr("a  b\nc") in told
    assert "None" not in told
    assert "  " not in told.replace("a  b", "")
    if data.get("error") and kind in ("renewal_failed", "unanswered", "cleanup"):
        assert "no answer yet" in told


@pytest.mark.parametrize(
    "event,told",
    [
        (
            Event(
                "still_waiting",
                "a",
                "id",
                duration=60.0,
                data={"position": 2, "holder": "ann@box pid 7 (sleep)"},
            ),
            "still waiting for 'a' after 60 s, behind ann@box pid 7 (sleep), with 2 claims ahead (claim id)",
        ),
        (
            Event(
                "still_waiting",
                "@pool/p",
                "id",
                duration=60.0,
                data={
                    "wanted": 2,
                    "got": 1,
                    "among": "the 3 members of pool 'p' that may do",
                    "holder": "ann@box pid 7 (sleep)",
                    "refused": {"b": "busy"},
                },
            ),
            (
                "still waiting for 2 of the 3 members of pool 'p' that may do (has 1) after 60 s, "
                "behind ann@box pid 7 (sleep) (claim id); 'b' will not do: busy"
            ),
        ),
        (
            Event("still_waiting", "a", duration=60.0, data={"wanted": 1, "got": 0, "among": "'a', 'b'"}),
            "still waiting for 1 of 'a', 'b' after 60 s",
        ),
        (
            Event("lost", "a", "id", 7, "lapsed", data={"taken_at": "/srv/a.py:3"}),
            (
                "the hold of 'a', acquired at /srv/a.py:3, may have lapsed (claim id, fence 7): "
                "it was not renewed in time; stop the guarded work"
            ),
        ),
        (
            Event("renewal_failed", "a", "id", 7, data={"error": "no answer"}),
            "could not renew the hold of 'a', which is still valid (claim id, fence 7): no answer",
        ),
        (Event("busy", "a", data={"holder": "ann@box pid 7"}), "'a' is busy, held by ann@box pid 7"),
        (
            Event("released", "a", "id", 7, "normal", duration=3.0),
            "released 'a' after 3 s (claim id, fence 7): normal",
        ),
    ],
)
def test_a_log_message_is_a_sentence(event, told):
    assert sentence(event) == told


def test_the_line_that_forces_a_lock_out_does_not_show_the_password():
    session = SimpleNamespace(url="redis://:hunter2@host/0", profile=None, namespace="prod")
    options, first = as_called(session)
    assert "--url" not in options
    assert "hunter2" not in options + first
    assert "LOCKKIT_URL" in first
