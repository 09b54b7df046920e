"""Heartbeats of many locks at once: what was renewed counts, whatever became of the rest."""

from __future__ import annotations

import threading

import pytest

from lockkit.store.spi import Claim, OpenOptions, Terms, Unknown
from lockkit.values.names import claim_id, new_token
from lockkit_redis import renewing
from lockkit_redis.backend import open_store
from lockkit_redis.connection import Connection, pack
from lockkit_redis.keys import Keys
from support.servers.redis import RedisServer

MANY = 3 * renewing._ROW


@pytest.fixture(scope="module")
def store():
    with RedisServer() as server:
        store = open_store(server.url(), OpenOptions())
        yield store
        store.close()


@pytest.fixture(scope="module")
def beats(store):
    claims = [Claim(new_token(), Terms(f"lock {at}", ttl=300.0)) for at in range(MANY)]
    beats = [(claim, store.acquire(claim, True, 2.0).fence) for claim in claims]
    # So the server knows the script: else a row is sent twice, and the rows are counted here.
    store.renew(beats, 5.0)
    return beats


def silent(monkeypatch, store, rows):
    """The commands of a batch are sent, and nobody hears an answer."""
    exchange, sent = Connection.exchange, []

    def spied(self, packed, end, replies):
        sent.append(replies)
        answers = exchange(self, packed, end, replies)
        if len(sent) in rows:
            raise TimeoutError("timed out")
        return answers

    monkeypatch.setattr(Connection, "exchange", spied)
    return store.store.clock.now()


def test_all_are_renewed_in_rows(store, beats):
    began = store.store.clock.now()
    renewals = store.renew(beats, 5.0)
    assert all(each.state == "HELD" and each.basis >= began for each in renewals)


def test_a_row_that_is_not_answered_does_not_cost_what_the_others_renewed(monkeypatch, store, beats):
    began = silent(monkeypatch, store, rows={2})
    renewals = store.renew(beats, 5.0)
    assert len(renewals) == MANY
    row = ["HELD"] * renewing._ROW
    assert [each.state for each in renewals] == row + ["UNKNOWN"] * renewing._ROW + row
    assert all(each.basis >= began for each in renewals if each.state == "HELD")
    assert "no answer" in renewals[renewing._ROW].trouble


def test_when_no_row_is_answered_the_beat_is_unanswered(monkeypatch, store, beats):
    silent(monkeypatch, store, rows={1, 2, 3})
    with pytest.raises(Unknown, match="no answer"):
        store.renew(beats, 5.0)


def test_several_claims_of_one_name_and_what_became_of_each(store):
    held, lost, waits = (
        Claim(new_token(), Terms("shared", kind="semaphore", capacity=2), True) for _ in range(3)
    )
    fence, other = store.acquire(held, True, 2.0).fence, store.acquire(lost, True, 2.0).fence
    store.acquire(waits, True, 2.0)
    renewals = store.renew([(held, fence), (lost, other + 1), (waits, None)], 2.0)
    assert [(each.state, each.why) for each in renewals] == [("HELD", ""), ("LOST", "fence"), ("WAITING", "")]
    assert store.annotate("shared", claim_id(held.token), {"ask_release": {"by": "me"}}, 2.0)
    (asked,) = store.renew([(held, fence)], 2.0)
    assert asked.requests == {"ask_release": {"by": "me"}}


def test_a_name_that_a_stranger_has_spoiled_does_not_cost_the_others(store):
    one, two = (Claim(new_token(), Terms(name, ttl=30.0)) for name in ("sound", "spoiled"))
    fences = [store.acquire(each, True, 2.0).fence for each in (one, two)]
    queue = Keys.of("default", "spoiled").queue
    (node,) = store.store.servers()
    store.store.call(node, pack("SET", queue, "x"), 2.0)
    sound, spoiled = store.renew(list(zip((one, two), fences, strict=True)), 2.0)
    assert (sound.state, spoiled.state) == ("HELD", "UNKNOWN")
    assert "somebody else has written to it" in spoiled.trouble
    with pytest.raises(Unknown, match="somebody else"):
        store.renew([(two, fences[1])], 2.0)
    store.store.call(node, pack("DEL", queue), 2.0)


def test_a_server_that_has_forgotten_the_script_learns_it_once_for_all(monkeypatch, store, beats):
    store.renew(beats, 5.0)
    (node,) = store.store.servers()
    store.store.call(node, pack("SCRIPT", "FLUSH"), 2.0)
    exchange, sent = Connection.exchange, []

    def spied(self, packed, end, replies):
        sent.append(replies)
        return exchange(self, packed, end, replies)

    monkeypatch.setattr(Connection, "exchange", spied)
    assert {each.state for each in store.renew(beats, 5.0)} == {"HELD"}
    assert sent == [renewing._ROW + 1, renewing._ROW, renewing._ROW + 1, renewing._ROW + 1]


def test_another_batch_is_planned_anew(store, beats):
    store.renew(beats, 5.0)
    (first,) = [plan for plan in store.store.plans.values() if plan.beats == beats]
    some = [*beats[:99], (beats[99][0], beats[99][1] + 1)]
    for _ in range(2):
        assert [each.state for each in store.renew(some, 2.0)] == [*["HELD"] * 99, "LOST"]
    right = beats[:100]  # begins like it and is as long
    assert [each.state for each in store.renew(right, 2.0)] == ["HELD"] * 100
    store.renew(beats, 5.0)
    assert any(plan is first for plan in store.store.plans.values())
    for at in range(20):
        store.renew(beats[at : at + 60], 2.0)
        store.renew([beats[at]], 2.0)
    assert len(store.store.plans) <= renewing._PLANS


def test_claims_with_notes_are_renewed_like_others(store):
    claims = [Claim(new_token(), Terms(f"noted {at}"), True, {"a": at}) for at in range(60)]
    beats = [(claim, store.acquire(claim, True, 2.0).fence) for claim in claims]
    for _ in range(2):
        assert {each.state for each in store.renew(beats, 2.0)} == {"HELD"}


def test_many_threads_renew_at_once(store, beats):
    wrong = []

    def renew(start):
        for at in range(start, start + 300, 10):
            batch = beats[at : at + 60]
            wrong.extend(each for each in store.renew(batch, 5.0) if each.state != "HELD")

    threads = [threading.Thread(target=renew, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
