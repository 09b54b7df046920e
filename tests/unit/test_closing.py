"""A client that is closed while a thread of it asks for a lock."""

from __future__ import annotations

import threading

import pytest

import lockkit
from lockkit.errors import AcquireCancelled


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/locks.db"


def test_what_is_granted_while_the_client_closes_is_not_left_held(url, monkeypatch):
    client = lockkit.connect(url)
    store = client.driver().backend
    acquire, granted, heard, ended = store.acquire, threading.Event(), threading.Event(), []

    def slow(*args):
        answer = acquire(*args)
        granted.set()
        heard.wait(5.0)
        return answer

    def ask():
        try:
            client.lock("a").acquire()
        except AcquireCancelled as error:
            ended.append(error)

    monkeypatch.setattr(store, "acquire", slow)
    thread = threading.Thread(target=ask)
    thread.start()
    assert granted.wait(5.0)
    threading.Timer(0.1, heard.set).start()
    client.close()
    thread.join(5.0)

    with lockkit.connect(url) as other:
        assert other.inspect("a").claims == ()
    assert len(ended) == 1


def test_who_asks_a_driver_that_is_closed_is_refused_before_anything_is_sent(url, monkeypatch):
    client = lockkit.connect(url)
    driver = client.driver()
    lock = client.lock("a")
    monkeypatch.setattr(driver.backend, "acquire", None)
    driver.closed = True
    with pytest.raises(AcquireCancelled, match="is closed"):
        lock.acquire()
    client.close()
