"""Changes of the locks reach every viewer, from one poller."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from lockkit.errors import BackendUnavailable
from lockkit.server import make_app, watching

from .conftest import TOKENS, Site


class Stream:
    """An open stream of events."""

    def __init__(self, site, path="/api/events", token="view", **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given["authorization"] = f"Bearer {TOKENS[token]}"
        self.connection.request("GET", path, headers=given)
        self.response = self.connection.getresponse()

    def next(self):
        """The next change; None if the stream has ended."""
        while line := self.response.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        return None

    def until(self, name):
        """The first change that tells a name."""
        while (change := self.next()) is not None:
            if name in change["names"]:
                return change
        raise AssertionError("the stream has ended")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()
        self.connection.close()


@pytest.fixture
def quick(client, token_file, serving):
    """A server that looks often."""
    application = make_app([client], token_file=str(token_file))
    application.stores.all[0].watch._interval = 0.05
    application.stores.all[0].watch._shared._seconds = 0.02
    return Site(client, application, serving(application))


def test_a_stream_begins_with_the_state_and_goes_on_with_changes(quick, client):
    with client.lock("first").acquire(), Stream(quick) as stream:
        begin = stream.next()
        with client.lock("second").acquire():
            change = stream.until("second")
        gone = stream.until("second")

    assert begin["more"] is True
    assert begin["summary"]["held"] == 1
    assert change["more"] is False
    assert change["summary"]["held"] == 2
    assert gone["summary"]["held"] == 1


def test_a_viewer_that_comes_back_hears_of_all_that_it_missed(quick, client):
    with Stream(quick) as staying, Stream(quick) as stream:
        number = stream.next()["number"]
        with client.lock("missed").acquire():
            staying.until("missed")
            with Stream(quick, last_event_id=str(number)) as again:
                change = again.next()

    assert "missed" in change["names"]
    assert change["more"] is False


@pytest.mark.parametrize("number", ["1", "99999999999999999", "nonsense", "9" * 50])
def test_a_viewer_of_an_earlier_server_is_told_to_look_at_everything(quick, number):
    with Stream(quick, last_event_id=number) as stream:
        assert stream.next()["more"] is True


def test_a_store_that_does_not_answer_leaves_a_state_with_its_time(quick, client, monkeypatch):
    with client.lock("x").acquire(), Stream(quick) as stream:
        at = stream.next()["read_at_seconds"]
        with monkeypatch.context() as patch:

            def away(*_args):
                raise BackendUnavailable("the store is away")

            patch.setattr(watching, "look", away)
            stale = stream.next()
            while not stale["stale"]:
                stale = stream.next()
            shown = quick.get("/api/stores").json["stores"][0]
        back = stream.next()

    assert stale["error"] == "the store is away"
    assert stale["stale_since_seconds"] >= at
    assert stale["summary"]["held"] == 1
    assert shown["stale_since_seconds"] == stale["stale_since_seconds"]
    assert back["stale"] is False


def test_one_poller_looks_for_all_viewers_and_ends_with_them(quick, client, monkeypatch):
    looks = []

    def counting(*args, usual=watching.look):
        looks.append(threading.current_thread().name)
        return usual(*args)

    monkeypatch.setattr(watching, "look", counting)
    streams = [Stream(quick) for _ in range(5)]
    with client.lock("x").acquire():
        for stream in streams:
            stream.until("x")
    poller = quick.application.stores.all[0].watch._thread
    for stream in streams:
        stream.__exit__()

    poller.join(30)
    assert not poller.is_alive()
    assert set(looks) <= {"lockkit-server-poller", "lockkit-server-look"}


def test_there_are_no_more_viewers_than_allowed(quick, monkeypatch):
    monkeypatch.setattr(watching, "VIEWERS", 1)
    with Stream(quick) as stream:
        stream.next()
        refused = quick.get("/api/events")

    assert (refused.status, refused.json["error"]) == (503, "too_many_viewers")
    assert refused.headers["retry-after"]


def test_a_stream_ends_when_its_token_is_removed(quick, client, token_file):
    with Stream(quick) as stream:
        stream.next()
        token_file.write_text(f"other admin {'n' * 40}\n")
        with client.lock("x").acquire():
            while stream.next() is not None:
                pass


def test_streams_end_with_the_application(quick):
    with Stream(quick) as stream:
        stream.next()
        quick.application.close()

        assert stream.next() is None


def test_a_hold_that_stays_as_it_is_is_no_change(quick, client):
    with client.lock("x", max_hold=3600).acquire():
        watch = quick.application.stores.all[0].watch
        watch.look()
        number = watch._number
        for _ in range(50):
            watch.forget()
            watch.look()

    assert watch._number == number
