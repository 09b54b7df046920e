"""Commands that go on looking bear a store that is away for a while."""

from __future__ import annotations

import json
import time
from importlib import import_module

import pytest

import lockkit
from lockkit.cli import main
from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.store.spi import Refused
from lockkit_memory.backend import MemoryBackend

AWAY = Refused(BackendUnavailable("nobody answers"))
REQUEST = "100ms"
"""As long as any request may take."""


class Store:
    """A memory store in which ``x`` is held, and that can be away."""

    def __init__(self, url):
        self.url = f"{url}?request_timeout={REQUEST}"
        self.client = lockkit.connect(url)
        self.lease = self.client.lock("x").acquire()
        self.looks = 0
        self.away = lambda: None

    def look(self, inspect):
        """In place of ``inspect``."""
        self.looks += 1
        trouble = self.away()
        if trouble is not None:
            raise trouble
        return inspect()

    def leave(self, seconds, trouble=AWAY):
        """Be away from the second look on, and free afterwards."""
        began = []

        def away():
            if self.looks == 1:
                return None
            began.append(time.monotonic())
            if began[-1] - began[0] < seconds:
                return trouble
            self.lease.release()
            return None

        self.away = away


@pytest.fixture
def store(request, tmp_path, monkeypatch):
    for name in ("HOME", "LOCKKIT_STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    store = Store(f"memory://{request.node.name.encode().hex()[:60]}")
    inspect = MemoryBackend.inspect
    monkeypatch.setattr(
        MemoryBackend,
        "inspect",
        lambda backend, name, budget: store.look(lambda: inspect(backend, name, budget)),
    )
    yield store
    store.lease.release()
    store.client.close()


@pytest.mark.parametrize("options", [[], ["--timeout", "20s"]])
def test_wait_bears_an_outage_that_is_longer_than_a_request(store, capsys, options):
    store.leave(0.5)
    assert main.run(["wait", "x", "--url", store.url, *options]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == ["trying again: nobody answers"]


def test_wait_says_what_is_wrong_when_its_timeout_ends_in_an_outage(store, capsys):
    store.leave(60)
    began = time.monotonic()
    assert main.run(["wait", "x", "--url", store.url, "--timeout", "600ms"]) == 69
    assert time.monotonic() - began > 0.25
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lockkit: nobody answers (to check it: lockkit doctor --url ")


def test_wait_without_a_timeout_bears_an_outage_as_long_as_an_acquire_does(store, monkeypatch):
    wait = import_module("lockkit.cli.commands.wait")
    assert wait.OUTAGE_LIMIT == 30.0
    monkeypatch.setattr(wait, "OUTAGE_LIMIT", 0.4)
    store.leave(60)
    began = time.monotonic()
    assert main.run(["wait", "x", "--url", store.url]) == 69
    assert time.monotonic() - began > 0.2


def test_wait_asks_a_store_that_never_answered_again_for_as_long_as_a_request_may_take(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    began = time.monotonic()
    assert main.run(["wait", "x", "--url", "redis://127.0.0.1:1?request_timeout=1500ms"]) == 69
    assert time.monotonic() - began > 0.7
    assert "cannot reach" in capsys.readouterr().err


def test_wait_does_not_bear_what_will_not_pass(store):
    store.leave(60, Refused(PermissionDenied("never"), retry=False))
    assert main.run(["wait", "x", "--url", store.url]) == 69
    assert store.looks == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_says_that_the_store_is_away_and_goes_on(store, capsys, as_json):
    def away():
        if store.looks > 20:
            raise KeyboardInterrupt
        return AWAY if 2 <= store.looks < 12 else None

    store.away = away
    more = ["--json"] if as_json else []
    args = ["status", "x", "--watch", "--interval", "10ms", "--url", store.url, *more]
    assert not main.run(args)
    out, err = capsys.readouterr()
    if as_json:
        assert {json.loads(row)["message"] for row in err.splitlines()} == {"nobody answers"}
        assert {json.loads(row)["schema"] for row in out.splitlines()} == {"lockkit.status/1"}
    else:
        rows = out.splitlines()
        at = rows.index("trying again: nobody answers")
        assert any("held" in row for row in rows[:at])
        assert any("held" in row for row in rows[at:])


def test_a_watch_of_a_store_that_was_never_there_ends(store):
    store.away = lambda: AWAY
    assert main.run(["status", "x", "--watch", "--url", store.url]) == 69
