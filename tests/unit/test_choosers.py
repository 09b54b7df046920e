"""Choosers of requests to pools, on threads: bounded, and whatever they do, nothing is left."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

import lockkit
from lockkit.errors import AcquireCancelled, AcquireTimeout, ConfigError
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from support.choosers import Hangs, Says

GATE = pool_name("p")
A, B = pool_name("p", "a"), pool_name("p", "b")


def nothing_left(client):
    return not any(client.inspect(name).claims for name in (GATE, A, B))


def test_a_request_waits_at_the_gate_until_a_member_will_do(client):
    chooser = Says(a="used by ann", b="dirty")
    told = []
    work = Work(lambda: client.pool("p", ["a", "b"]).acquire(chooser=chooser, on_wait=told.append))
    until(lambda: told and len(chooser.threads) > 3)
    assert (told[-1].name, told[-1].refused) == (GATE, {"a": "used by ann", "b": "dirty"})
    assert client.inspect(A).claims == client.inspect(B).claims == ()
    chooser.choice = lockkit.Choice(["b"], {"a": "used by ann"})
    with work.result() as leases:
        assert leases.members == ("b",)
    assert nothing_left(client)


def test_a_wait_in_a_queue_tells_why_other_members_do_not_do(client):
    pool = client.pool("p", ["a", "b"])
    told = []
    with pool.acquire(among=["a"]):
        work = Work(lambda: pool.acquire(chooser=Says("a", b="dirty"), on_wait=told.append))
        until(lambda: any(waiting.name == A for waiting in told))
        assert next(waiting for waiting in told if waiting.name == A).refused == {"b": "dirty"}
    work.result().release()


def test_a_timeout_says_why_no_member_did(client):
    chooser = Says(a="used by ann", b="dirty")
    with pytest.raises(AcquireTimeout, match="'a' will not do: used by ann; 'b' will not do: dirty"):
        client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=2.0)
    with pytest.raises(AcquireTimeout, match="used by ann"):
        client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=0)
    assert client.pool("p", ["a", "b"]).try_acquire(chooser=chooser) is None
    until(lambda: nothing_left(client))


@pytest.mark.parametrize("method", ["choose", "judge"])
def test_a_chooser_that_raises_ends_the_request_with_its_error(client, method):
    chooser = Says("a")

    def fail(_):
        raise ZeroDivisionError

    setattr(chooser, method, fail)
    for acquire in (client.pool("p", ["a", "b"]).acquire, client.pool("p", ["a", "b"]).try_acquire):
        with pytest.raises(ZeroDivisionError):
            acquire(chooser=chooser)
        until(lambda: nothing_left(client))


def test_a_chooser_that_hangs_ends_the_request_in_time(client):
    chooser = Hangs("a")
    began = time.monotonic()
    with pytest.raises(AcquireTimeout, match="the chooser of pool 'p' gave no answer"):
        client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=0.3)
    assert time.monotonic() - began < 30  # and not for ever
    until(lambda: nothing_left(client))
    chooser.go.set()
    client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=5).release()


def test_an_error_calls_a_chooser_that_hangs_as_the_chooser_wants(client):
    chooser = Hangs("a")
    chooser.called = "the camera"
    with pytest.raises(AcquireTimeout, match="while the camera gave no answer"):
        client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=0.3)
    chooser.go.set()


def test_a_request_whose_chooser_hangs_can_be_cancelled(client):
    chooser, stop = Hangs("a"), lockkit.Cancel()
    work = Work(lambda: client.pool("p", ["a", "b"]).acquire(chooser=chooser, cancel=stop))
    until(lambda: chooser.threads)
    stop.cancel()
    assert isinstance(work.error(), AcquireCancelled)
    until(lambda: nothing_left(client))
    chooser.go.set()


@pytest.mark.parametrize("make", [Hangs, Says])
def test_a_request_ends_when_its_client_is_closed(url, make):
    chooser = make()
    with lockkit.connect(url) as observer:
        client = lockkit.connect(url)
        work = Work(lambda: client.pool("p", ["a", "b"]).acquire(chooser=chooser))
        until(lambda: chooser.threads)
        client.close()
        assert isinstance(work.error(), AcquireCancelled)
        until(lambda: nothing_left(observer))
    if make is Hangs:
        chooser.go.set()


def test_a_chooser_may_use_the_client_and_sees_the_context_of_its_caller(client):
    user = contextvars.ContextVar("user", default="")
    seen = []

    class Looks(Says):
        def choose(self, held):
            seen.append((user.get(), len(client.inspect(GATE).claims), threading.current_thread()))
            return self.choice

    user.set("ann")
    with client.pool("p", ["a", "b"]).acquire(chooser=Looks("b")) as leases:
        assert leases.members == ("b",)
    assert seen[0][:2] == ("ann", 1)
    assert seen[0][2] is not threading.current_thread()


def test_a_lost_gate_ends_a_request_for_which_nothing_will_do(client):
    chooser = Says()
    work = Work(lambda: client.pool("p", ["a", "b"], ttl=3).acquire(chooser=chooser))  # told by a heartbeat
    until(lambda: chooser.threads)
    client.evict(GATE, client.inspect(GATE).claims[0].claim_id, reason="test", now=True)
    assert isinstance(work.error(), lockkit.LeaseLost)
    until(lambda: nothing_left(client))


def test_the_threads_that_ask_choosers_end_with_the_client(url):
    before = {thread.name for thread in threading.enumerate()}
    with lockkit.connect(url) as client:
        client.pool("p", ["a"]).acquire(chooser=Says("a")).release()
    until(lambda: "lockkit-choose" not in {thread.name for thread in threading.enumerate()} - before)


@pytest.mark.parametrize("told", [3, object(), "a", lambda: None])
def test_what_is_no_chooser_is_refused_before_any_io(url, told):
    client = lockkit.connect(url)
    with pytest.raises(ConfigError, match="a chooser has the methods choose and judge"):
        client.pool("p", ["a"]).acquire(chooser=told)
    assert not client.is_open


@pytest.mark.parametrize("every", [0, -1, None, True, float("nan")])
def test_a_chooser_says_how_often_it_wants_to_be_asked(client, every):
    chooser = Says("a")
    chooser.every = every
    with pytest.raises(ConfigError, match=r"chooser\.every"):
        client.pool("p", ["a"]).acquire(chooser=chooser)


def test_a_chooser_is_no_coroutine(client):
    class Waits(Says):
        async def choose(self, held):
            return self.choice

    with pytest.raises(ConfigError, match=r"chooser\.choose must be a plain function"):
        client.pool("p", ["a"]).acquire(chooser=Waits("a"))


# -- members within others

CARDS = {"card": 2, "a": 1, "b": 1, "other": 2}
WITHIN = {"a": "card", "b": "card"}


def test_a_member_within_another_one_takes_its_share_of_that_one(client):
    pool = client.pool("p", CARDS, within=WITHIN)
    with pool.acquire(among=["a"]) as leases:
        assert leases.members == ("a",)
        assert leases.names == (A, pool_name("p", "card"))
        assert pool.try_acquire(among=["card"]) is None
        with pool.acquire(2, among=["b", "other"]) as more:
            assert more.members == ("b", "other")
    with pool.acquire(among=["card"]) as leases:
        assert leases.members == ("card",)
        assert pool.try_acquire(among=["a", "b"]) is None
    assert nothing_left(client)


@pytest.mark.parametrize(
    "within, told",
    [
        ({"a": "none"}, "no member 'none'"),
        ({"none": "card"}, "no member 'none'"),
        ({"a": "a"}, "cannot stand within one itself"),
        ({"a": "card", "card": "other"}, "cannot stand within one itself"),
        ({"a": "card", "other": "card"}, "have a capacity of 3 together, and 'card' has 2"),
        (["a"], "a table of members"),
    ],
)
def test_members_that_cannot_stand_within_others_are_refused(url, within, told):
    with pytest.raises(ConfigError, match=told):
        lockkit.connect(url).pool("p", CARDS, within=within)


def test_a_request_for_several_does_not_name_a_member_and_one_within_it(client):
    pool = client.pool("p", CARDS, within=WITHIN)
    with pytest.raises(ConfigError, match="names both 'a' and 'card', within which it stands"):
        pool.acquire(2)
    pool.acquire().release()


@pytest.mark.parametrize(
    "choice",
    [
        lockkit.Choice(None),
        lockkit.Choice("a"),
        lockkit.Choice([["a"]]),
        lockkit.Choice(["a"], None),
        lockkit.Choice(["a"], {"b": None}),
        lockkit.Choice(["a"], never=3),
    ],
)
def test_a_choice_of_a_wrong_type_is_refused_with_the_name_of_the_pool(client, choice):
    chooser = Says()
    chooser.choice = choice
    with pytest.raises(
        ConfigError, match=r"the choice of the chooser of pool 'p': (order|refused|never) must"
    ):
        client.pool("p", ["a", "b"]).acquire(chooser=chooser, timeout=5)
    assert nothing_left(client)


def test_choosers_that_hang_hold_up_no_other(client):
    hung = [Hangs("a") for _ in range(6)]
    for number, chooser in enumerate(hung):
        with pytest.raises(AcquireTimeout):
            client.pool(f"q{number}", ["a"]).acquire(chooser=chooser, timeout=0.5)
    assert all(chooser.threads for chooser in hung)
    client.pool("p", ["a", "b"]).acquire(chooser=Says("a"), timeout=20).release()
    for chooser in hung:
        chooser.go.set()
