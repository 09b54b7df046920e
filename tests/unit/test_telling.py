"""What is told of events, and what is not."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from lockkit.cli.suggesting import same_store
from lockkit.clock import SYSTEM
from lockkit.drivers.dispatch import Dispatcher
from lockkit.events import Counters
from lockkit.facts import Event


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
    assert "15 more messages like these" in lines[10]


def test_the_line_that_forces_a_lock_out_does_not_show_the_password():
    session = SimpleNamespace(url="redis://:hunter2@host/0", profile=None, namespace="prod")
    options, first = same_store(session)
    assert "--url" not in options
    assert "hunter2" not in options + first
    assert "LOCKKIT_URL" in first
