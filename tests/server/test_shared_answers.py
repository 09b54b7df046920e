"""One answer for many who ask: what they get while a new one takes long."""

from __future__ import annotations

import threading

import pytest

from lockkit.errors import BackendUnavailable
from lockkit.server import watching
from lockkit.server.sharing import Shared


class Slow:
    """A function that returns its number of calls, and that waits in some of them."""

    def __init__(self):
        self.calls, self.go, self.begun = 0, threading.Event(), threading.Event()
        self.slow, self.failing = False, False

    def __call__(self):
        self.calls += 1
        if self.slow:
            self.begun.set()
            assert self.go.wait(60)
        if self.failing:
            raise BackendUnavailable("no answer")
        return self.calls


def test_the_answer_before_is_given_while_a_new_one_takes_long():
    make = Slow()
    shared = Shared(make, 0.0, 0.05)
    assert shared.get() == 1
    make.slow = True
    while not make.begun.is_set():
        assert shared.get() == 1
    assert [shared.get() for _ in range(3)] == [1, 1, 1]
    assert make.calls == 2, "it is asked once, however many wait"
    make.slow = False
    make.go.set()
    while shared.get() == 1:
        pass
    assert shared.get() >= 2


@pytest.mark.parametrize("why", ["changed", "failed", "no patience"])
def test_an_answer_from_before_a_change_or_a_failure_is_given_to_nobody(why):
    make = Slow()
    shared = Shared(make, 0.0, None if why == "no patience" else 0.05)
    assert shared.get() == 1
    if why == "changed":
        shared.forget()
    if why == "failed":
        make.failing = True
        with pytest.raises(BackendUnavailable):
            shared.get()
        make.failing = False
    make.slow, calls, got = True, make.calls, []
    asking = threading.Thread(target=lambda: got.append(shared.get()))
    asking.start()
    assert make.begun.wait(60)
    asking.join(0.2)
    assert got == []
    make.go.set()
    asking.join(60)
    assert got == [calls + 1]


def test_one_slow_read_of_the_store_is_no_error_for_who_looks_at_its_locks(site, client, monkeypatch):
    with client.lock("job").acquire():
        first = site.get("/api/locks").json
        assert [one["name"] for one in first["locks"]] == ["job"]
        go, real = threading.Event(), watching.look

        def slow(*args):
            assert go.wait(120)
            return real(*args)

        monkeypatch.setattr(watching, "look", slow)
        try:
            assert not threading.Event().wait(0.6)  # until a new look is due
            again = site.get("/api/locks")
        finally:
            go.set()
        assert (again.status, again.json["read_at"]) == (200, first["read_at"])


def test_a_look_is_as_old_as_its_beginning(site, client, monkeypatch):
    real, after = watching.look, []

    def noting(*args):
        after.append(watching.time.time())
        return real(*args)

    monkeypatch.setattr(watching, "look", noting)
    assert site.get("/api/locks").json["read_at_seconds"] <= after[0]
