"""Handles: what a lease and its copies say and refuse, on the memory store."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import threading
import time
import tracemalloc
import warnings

import pytest

import lockkit
from lockkit.errors import AcquireTimeout, ConfigError, LeaseLost, NotHeld, OutcomeUnknown
from lockkit.facts import ClaimInfo, Owner
from lockkit.protocol.hold import Hold
from lockkit.store.spi import Unknown
from lockkit.sync.lease import LeaseCopy
from lockkit.testing.children import in_child
from lockkit.testing.processes import until
from lockkit.values.names import new_token


@pytest.fixture
def client(request, tmp_path):
    with lockkit.connect(
        f"memory://{request.node.nodeid.encode().hex()[:60]}", state_dir=str(tmp_path)
    ) as client:
        yield client


@pytest.fixture
def lease(client):
    lease = client.lock("a", ttl=30).acquire()
    yield lease
    lease.release()


def test_a_lease_says_what_it_holds(lease):
    assert lease.name == "a"
    assert lease.ttl == 30
    assert lease.fence > 0
    assert len(lease.claim_id) == 12
    assert 29 < lease.remaining() < 30
    assert lease.report is None
    assert lease.lost_because == ""
    assert lease.requests == {}
    lease.ensure_held()
    lease.confirm()


def test_the_token_appears_only_where_it_is_asked_for(client, lease, caplog):
    caplog.set_level(logging.DEBUG)
    with client.lock("b").acquire() as other:
        told = (
            f"{lease!r} {lease} {client!r} {client.leases()!r} "
            f"{client.inspect('a')!r} {client.adopt(lease.handle())!r}"
        )
    assert lease.token not in told
    assert lease.claim_id in told
    assert other.token not in caplog.text
    assert other.claim_id in caplog.text


def test_released_says_what_to_do_next(client):
    lease = client.lock("a").acquire()
    report = lease.release("done")
    assert (report.outcome, report.reason, report.name, report.fence) == (
        "RELEASED",
        "done",
        "a",
        lease.fence,
    )
    assert lease.report is report
    assert report.released
    for call in (lease.ensure_held, lease.confirm, lambda: lease.extend(60)):
        with pytest.raises(NotHeld, match="was released"):
            call()
    assert lease.remaining() == 0
    assert not lease.lost.is_set()


def test_busy_names_a_holder_only_where_somebody_holds(client, monkeypatch):
    ahead = ClaimInfo("a", "0" * 12, "WAITING", Owner("ann", "box", 4711), 0, 0, since=time.time())
    driver = client.driver()
    monkeypatch.setattr(driver, "acquire", lambda attempt: setattr(attempt, "holder", ahead))
    with pytest.raises(AcquireTimeout, match="'a' is busy; next is ann@box pid 4711, ") as caught:
        client.lock("a").acquire(timeout=0)
    assert caught.value.holder is ahead


def test_evicted_now_says_that_it_is_lost(client, lease):
    client.evict("a", lease.claim_id, reason="test", now=True)
    with pytest.raises(LeaseLost, match="may have lapsed") as caught:
        lease.confirm()
    assert caught.value.name == "a"
    assert caught.value.hint
    assert lease.lost.is_set()
    with pytest.raises(LeaseLost):
        lease.ensure_held()
    with pytest.raises(LeaseLost):
        lease.__exit__(None, None, None)


def test_on_lost_is_called_once_also_if_it_is_lost_already(client, lease):
    early, late, calls = threading.Event(), threading.Event(), []
    lease.on_lost(lambda: (calls.append("early"), early.set()))
    client.evict("a", lease.claim_id, reason="test", now=True)
    with pytest.raises(LeaseLost):
        lease.confirm()
    assert early.wait(30)
    lease.on_lost(lambda: (calls.append("late"), late.set()))
    assert late.wait(30)
    with pytest.raises(LeaseLost):
        lease.confirm()
    client.driver().dispatcher.flush(5)
    assert calls == ["early", "late"]


def test_a_callback_that_raises_is_logged_and_the_next_one_called(client, lease, caplog):
    called = threading.Event()
    lease.on_lost(lambda: 1 / 0)
    lease.on_lost(called.set)
    client.evict("a", lease.claim_id, reason="test", now=True)
    with pytest.raises(LeaseLost):
        lease.confirm()
    assert called.wait(30)
    client.driver().dispatcher.flush(5)
    assert "ZeroDivisionError" in caplog.text


def unanswered(client, monkeypatch, seconds=0.0):
    """The budgets of questions that nobody answers."""
    budgets = []

    def ask(_claim, _create, budget):
        budgets.append(budget)
        time.sleep(seconds)
        raise Unknown(OutcomeUnknown("no answer"))

    monkeypatch.setattr(client.driver().backend, "acquire", ask)
    return budgets


def test_confirm_leaves_time_to_stop_where_nobody_answers(client, monkeypatch):
    lease = client.lock("a", ttl=3, auto_renew=False).acquire()
    budgets = unanswered(client, monkeypatch)
    with pytest.raises(OutcomeUnknown):
        lease.confirm()
    assert max(budgets) <= 1.5


def test_confirm_says_that_the_lease_is_lost_if_it_ran_out_while_nobody_answered(client, monkeypatch):
    lease = client.lock("a", ttl=0.3, auto_renew=False).acquire()
    unanswered(client, monkeypatch, 0.4)
    with pytest.raises(LeaseLost):
        lease.confirm()
    assert lease.lost.is_set()


@pytest.mark.parametrize("ttl", [29.9, 0, -1, float("nan"), float("inf"), True, "60", None, 1e12])
def test_extend_refuses_what_makes_no_sense(lease, ttl):
    with pytest.raises(ConfigError):
        lease.extend(ttl)
    assert lease.ttl == 30


def test_a_copy_is_never_valid_and_ends_exactly_its_claim(client, lease):
    for twin in (copy.copy(lease), copy.deepcopy(lease), pickle.loads(pickle.dumps(lease))):
        assert not twin.valid()
        assert (twin.name, twin.fence, twin.claim_id) == (lease.name, lease.fence, lease.claim_id)
        with pytest.raises(NotHeld, match="no client"):
            twin.release()
        with pytest.raises(NotHeld, match="no client"):
            twin.held()
    bound = client.adopt(json.loads(json.dumps(lease.handle())))
    assert bound.held()
    assert pickle.loads(pickle.dumps(bound)).claim_id == lease.claim_id
    lease.release()
    assert not bound.held()
    assert bound.release().outcome == "LOST"


TOKEN = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "handle",
    [
        {},
        None,
        [],
        "a",
        {"name": "a"},
        {"name": "", "token": TOKEN, "fence": 1},
        {"name": "a", "token": TOKEN, "fence": "?"},
        {"name": "a", "token": TOKEN, "fence": 1, "v": 9},
        {"name": "a", "token": "x", "fence": 1},
        {"name": "a", "token": None, "fence": 1},
        {"name": "a", "token": TOKEN + "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "fence": 1},
        {"name": "a", "token": TOKEN + "\n", "fence": 1},
    ],
)
def test_what_is_no_handle_is_refused_and_not_quoted(client, handle):
    with pytest.raises(ConfigError) as told:
        client.adopt(handle)
    assert TOKEN not in str(told.value)


def test_a_handle_that_is_one_is_taken(client):
    assert client.adopt({"name": "a", "token": TOKEN, "fence": 1}).release().outcome == "LOST"


def test_a_handle_of_another_namespace_is_refused(client, lease):
    handle = {**lease.handle(), "namespace": "prod"}
    with pytest.raises(
        ConfigError, match="namespace 'prod', but this client uses namespace 'default'"
    ) as told:
        client.adopt(handle)
    assert lease.token not in str(told.value)
    with pytest.raises(ConfigError, match="namespace"):
        client.adopt(LeaseCopy(handle))
    assert lease.valid()


def test_a_handle_with_the_name_of_another_lock_ends_nothing(client, lease):
    assert client.adopt({**lease.handle(), "name": "b"}).release().outcome == "LOST"
    lease.confirm()
    assert [copy.claim_id for copy in client.leases()] == [lease.claim_id], "it is still renewed"
    assert lease.release().outcome == "RELEASED"


def test_only_a_pulseless_claim_is_handed_over(client, lease):
    with pytest.raises(ConfigError, match="tied to this process"):
        lease.hand_over()
    script = client.lock("script", ttl=30, pulseless=True).acquire()
    handle = script.hand_over()
    assert not script.valid()
    assert script.release().outcome == "KEPT"
    assert client.inspect("script").holders[0].claim_id == script.claim_id
    assert client.adopt(handle).release().outcome == "RELEASED"


def test_a_dropped_lease_warns_at_the_line_that_took_it_and_a_released_one_does_not(client):
    lock = client.lock("a", ttl=30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lock.acquire().release()
        gc.collect()
        assert caught == []
        lock.acquire()
        gc.collect()
    assert [(warning.category, warning.filename) for warning in caught] == [(ResourceWarning, __file__)]
    assert client.inspect("a").holders, "it may still be worked under"


def test_a_lease_is_passed_between_threads(client, lease):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(lease.release().outcome))
    thread.start()
    thread.join(30)
    assert answers == ["RELEASED"]
    assert not lease.valid()


def test_holds_that_fell_are_not_kept(client):
    def kept():
        return sum(isinstance(thing, Hold) for thing in gc.get_objects())

    before = kept()
    for number in range(1000):
        lease = client.lock(f"job:{number}", ttl=30).acquire()
        client.evict(lease.name, lease.claim_id, reason="test", now=True)
        with pytest.raises(LeaseLost):
            lease.confirm()
        del lease
    gc.collect()
    # A thread of the client forgets them, late on a busy machine; their ttl is longer than this wait.
    until(lambda: kept() - before < 200, "the holds are forgotten", 15)


def test_levels_that_were_left_are_not_kept(client):
    lock = client.lock("a", ttl=30, reentrant=True)
    with lock.acquire():
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(2000):
                with lock:
                    pass
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 20_000


def test_a_signal_handler_that_locks_the_same_name_may_come_while_a_hold_is_forgotten(client):
    class Interrupted(dict):
        def get(self, *asked):
            found = super().get(*asked)
            if self.handler is not None:
                handler, self.handler = self.handler, None
                handler()
            return found

    registry = client.driver().registry
    taken = registry.holds = Interrupted(registry.holds)
    taken.handler = None
    lock, kept = client.lock("a"), []
    lease = lock.acquire()
    hold = registry.holds["a"][0]
    lease.release()
    for handler in (lambda: lock.acquire().release(), lambda: kept.append(lock.acquire())):
        registry.change("a", new=hold)
        taken.handler = handler
        registry.change("a", old=hold)
    assert [other.claim_id for other in registry.holds.get("a", [])] == [kept[0].claim_id]
    kept[0].release()
    assert registry.holds.get("a", []) == []


def test_a_try_passes_on_a_timeout_of_its_tokens(client, lease):
    lock = client.lock("b")

    def slow():
        with client.lock("a", timeout=0).acquire():
            return new_token()

    lease.detach()
    lock.tokens = slow

    with pytest.raises(AcquireTimeout, match="'a' is busy"):
        lock.try_acquire()
    assert not client.inspect("b").claims


@pytest.mark.parametrize("token", [None, 5, "", "a/b", "A" * 32])
def test_what_is_no_token_makes_no_claim(client, token):
    lock = client.lock("b")
    lock.tokens = lambda: token

    with pytest.raises(ConfigError, match="32 hex digits"):
        lock.acquire(timeout=1)
    with client.lock("b").acquire(timeout=0):
        pass


def test_a_lock_made_before_a_fork_shows_the_child_as_the_owner_of_its_claims(tmp_path):
    with lockkit.connect(f"sqlite:{tmp_path}/x.db") as client:
        lock = client.lock("b")
        lock.acquire().release()

        def owner():
            with lock.acquire():
                return client.inspect("b").claims[0].owner.pid == os.getpid()

        assert in_child(owner)


def test_a_level_that_was_released_is_over_although_the_hold_goes_on(client):
    lock = client.lock("r", ttl=30, reentrant=True)
    with lock.acquire() as outer:
        inner = lock.acquire()
        inner.release()
        assert outer.valid()
        assert not inner.valid()
        assert inner.remaining() == inner.time_to_stop() == 0.0
        for call in (inner.ensure_held, inner.confirm, lambda: inner.extend(60), lambda: inner.beat(0.5)):
            with pytest.raises(NotHeld):
                call()
        assert outer.ttl == 30


def test_a_writer_that_has_only_a_level_that_reads_left_stays_the_writer(client):
    both = client.rwlock("w", ttl=30, reentrant=True)
    writer, reader = both.write().acquire(), both.read().acquire()
    writer.release()
    assert both.write().held()
    assert both.read().held()
    assert reader.exclusive
    again = both.write().try_acquire()
    reader.release()
    again.release()
    assert not both.write().held()
    assert not client.inspect("w").claims


def test_a_lease_that_is_no_longer_valid_says_why_at_once(client):
    """Before the thread that declares holds lost has looked."""
    lease = client.lock("l", ttl=30, auto_renew=False).acquire()
    hold = lease._hold
    assert lease.lost_because == ""
    hold.basis -= 60
    hold.expires -= 60
    assert (lease.valid(), lease.lost_because) == (False, "lost")
    lease.release()
    assert lease.lost_because in ("", "lost")
