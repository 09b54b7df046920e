"""Drains on both faces: locks taken together, short forms, decorated functions, and the three async calls."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

import lockkit
import lockkit.aio
from lockkit.errors import BackendUnavailable, CapabilityError, ConfigError, Drained
from lockkit.facts import Capabilities, Drain
from lockkit.shared import draining
from lockkit.store.spi import Refused


def test_locks_taken_together_are_refused_with_the_reason_and_leave_nothing(lockkit_client):
    client, other = lockkit_client, lockkit_client.elsewhere
    other.drain("new kernel")
    a, b = client.lock("a"), client.lock("b")
    takings = (
        lambda: client.all_of([a, b]).acquire(timeout=5),
        lambda: client.any_of([a, b]).acquire(timeout=5),
        lambda: client.any_of([a, b]).try_acquire(),
        lambda: client.pool("cards", ["0", "1"]).acquire(count=2, timeout=5),
        lambda: client.rwlock("index").read().acquire(timeout=5),
        lambda: client.semaphore("licences", 3).acquire(timeout=5),
    )
    for take in takings:
        with pytest.raises(Drained, match="new kernel") as refused:
            take()
        assert refused.value.drain.owner.task == "elsewhere"
    assert client.names(deep=True) == []


def test_what_all_of_has_got_is_given_back_when_the_namespace_is_drained_meanwhile(lockkit_client):
    client, other = lockkit_client, lockkit_client.elsewhere
    theirs = other.lock("b").acquire()
    drained = []

    def drain_once(waiting):
        if not drained:
            drained.append(other.drain("now"))

    with pytest.raises(Drained, match="now"):
        client.all_of([client.lock("a"), client.lock("b")]).acquire(timeout=30, on_wait=drain_once)

    assert client.names(deep=True) == ["b"]
    theirs.ensure_held()
    theirs.release()


def test_a_decorated_function_and_the_short_form_raise_it(lockkit_client):
    client = lockkit_client

    @client.locked("job", timeout=0, on_busy="skip")
    def job():
        return "done"

    client.elsewhere.drain()
    with pytest.raises(Drained):
        job()
    with pytest.raises(Drained), client.lock("a"):
        pass
    client.elsewhere.undrain()
    assert job() == "done"


def test_the_calls_with_await(async_lockkit_client):
    async def play():
        client = async_lockkit_client
        held = await client.lock("a").acquire()
        queued = asyncio.Event()
        acquiring = client.lock("a").acquire(timeout=30, on_wait=lambda _: queued.set())
        waiting = asyncio.ensure_future(acquiring.__aenter__())
        await queued.wait()
        mark = await client.drain("new kernel")
        with pytest.raises(Drained, match="new kernel"):
            await waiting
        with pytest.raises(Drained):
            await client.lock("b").try_acquire()
        await held.confirm()
        assert await client.drained() == mark
        assert await client.drained("another") is None
        assert (await held.release()).released
        assert await client.undrain() == mark
        assert await client.drained() is None
        async with client.lock("b").acquire(timeout=5):
            pass

    asyncio.run(play())


def test_reasons_are_checked_before_anything_is_asked(lockkit_client):
    for reason in ("x" * 201, "two\nlines", " ", None, 7):
        with pytest.raises(ConfigError, match="reason"):
            lockkit_client.drain(reason)
    assert lockkit_client.drained() is None
    with pytest.raises(ConfigError):
        lockkit_client.drained("not/allowed")


def test_a_namespace_of_the_same_store_is_another(lockkit_client):
    with (
        lockkit.connect("memory://drains", namespace="a") as one,
        lockkit.connect("memory://drains", namespace="b") as two,
    ):
        mark = one.drain("only a")
        assert two.drained() is None
        assert two.drained("a") == mark
        assert two.namespaces() == ["a"]
        two.lock("x").acquire(timeout=1).release()


def test_a_store_that_cannot_drain_is_not_asked():
    asked = []
    opening = SimpleNamespace(
        capabilities=Capabilities(scope="host"), url="x:", driver=lambda: asked.append(1)
    )
    for call in (lambda: draining.drain(opening, "r"), lambda: draining.undrain(opening)):
        with pytest.raises(CapabilityError, match="cannot drain a namespace"):
            call()
    assert draining.drained(opening) is None
    assert not asked


def test_a_waiter_that_cannot_be_woken_is_refused_in_its_turn_and_the_drain_is_no_failure(
    lockkit_client, monkeypatch
):
    client, other = lockkit_client, lockkit_client.elsewhere
    held, queued, refused = other.lock("a").acquire(), threading.Event(), []

    def wait():
        try:
            client.lock("a").acquire(timeout=30, on_wait=lambda _: queued.set())
        except Drained as error:
            refused.append(error)

    def fails(*_):
        raise Refused(BackendUnavailable("no answer"), retry=False)

    thread = threading.Thread(target=wait)
    thread.start()
    assert queued.wait(30)
    monkeypatch.setattr(other.driver().backend.extras.drains, "turn_away", fails)
    mark = other.drain()
    held.release()
    thread.join(30)
    assert [error.drain for error in refused] == [mark]


def test_the_limit_of_a_mark_counts_the_bytes_that_are_stored():
    from lockkit.store.drains import mark_of
    from lockkit.store.spi import NOTE_LIMIT

    assert len(mark_of(Drain("", "\N{LOCK}" * 200))) < NOTE_LIMIT
    with pytest.raises(ConfigError, match=f"at most {NOTE_LIMIT} bytes"):
        mark_of(Drain("", "\N{LOCK}" * 400))  # 1,600 bytes of UTF-8, 4,800 as they are stored


def test_a_mark_that_cannot_be_read_drains_all_the_same():
    from lockkit.store.drains import drain_of, refused

    for mark in ("", "no json", "[]", '{"since": "x", "reason": 7}', b"\xff"):
        assert drain_of(mark, "prod").namespace == "prod"
        assert isinstance(refused(mark, "prod").error, Drained)
