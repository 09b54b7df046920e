"""Stores that hang: probes and other stores are answered meanwhile."""

from __future__ import annotations

import shutil
import threading

import pytest

import lockkit
from lockkit.server import make_app, readiness, workers

from .conftest import Site

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server")


@pytest.fixture
def hanging(client, tmp_path, serving, token_file):
    """A server over a store that answers and one that hangs, with more requests for it than threads."""
    from support.servers.redis import RedisServer

    with (
        RedisServer() as server,
        lockkit.connect(server.url(), state_dir=str(tmp_path / "state"), request_timeout=3600) as other,
    ):
        other.inspect("x")
        application = make_app([client, other], token_file=str(token_file))
        site = Site(client, application, serving(application, timeout_graceful_shutdown=1))
        answers = []
        _, hung = application.stores.all
        server.pause()
        threads = [
            threading.Thread(
                target=lambda: answers.append(site.get(f"/api/lock?name=x&store={hung.id}").status),
                daemon=True,
            )
            for _ in range(workers._MOST + 6)
        ]
        for one in threads:
            one.start()
        # The six that are too many are refused; all others wait.
        for _ in range(3000):
            if answers.count(503) >= 6:
                break
            threads[0].join(0.01)
        assert answers == [503] * 6
        yield site, hung, answers
        assert answers == [503] * 6  # the questions have waited all the time
        server.resume()
        for one in threads:
            one.join(60)
        assert answers.count(200) == workers._MOST


def test_the_process_says_that_it_lives(hanging):
    site, _, _ = hanging

    assert site.get("/livez", token=None).status == 200


def test_a_question_about_another_store_is_answered(hanging):
    site, _, _ = hanging
    healthy = site.application.stores.all[0]

    with site.client.lock("x").acquire():
        assert site.get(f"/api/lock?name=x&store={healthy.id}").json["locks"][0]["state"] == "held"


def test_a_server_is_ready_if_one_store_answers(hanging):
    site, _, _ = hanging

    assert site.get("/readyz", token=None).status == 200


def test_a_server_all_of_whose_stores_hang_is_not_ready_however_many_ask(hanging, monkeypatch):
    site, hung, _ = hanging
    monkeypatch.setattr(site.application.stores, "all", (hung,))
    asked = []
    monkeypatch.setattr(hung.readiness, "_ask", lambda usual=hung.readiness._ask: (asked.append(1), usual()))

    assert {site.get("/readyz", token=None).status for _ in range(20)} == {503}
    assert len(asked) == 1
    assert site.get("/livez", token=None).status == 200


def test_a_store_that_goes_on_is_ready_again(hanging, monkeypatch):
    site, hung, _ = hanging
    monkeypatch.setattr(readiness, "_COUNTS", 0.0)
    free = threading.Event()
    monkeypatch.setattr(hung.readiness, "_ask", lambda: free.wait(60))
    monkeypatch.setattr(site.application.stores, "all", (hung,))

    before = site.get("/readyz", token=None).status
    free.set()
    hung.readiness._asked.result(60)

    assert before == 503
    assert site.get("/readyz", token=None).status == 200
