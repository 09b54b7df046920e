"""Heartbeats of many locks at once: what was renewed counts, whatever became of the rest."""

from __future__ import annotations

import pytest

from lockkit.errors import OutcomeUnknown
from lockkit.names import claim_id, new_token
from lockkit.spi import Claim, OpenOptions, Terms, Unknown
from lockkit.testing.servers.redis import RedisServer
from lockkit_redis import renewing
from lockkit_redis.backend import open_store
from lockkit_redis.wire import Wire

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
    return [(claim, store.acquire(claim, True, 2.0).fence) for claim in claims]


def silent(monkeypatch, store, rows):
    """Those rows of commands are sent, and nobody hears an answer."""
    row, sent = Wire.row, []

    def spied(self, packed, budget, count):
        sent.append(count)
        answers = row(self, packed, budget, count)
        if len(sent) in rows:
            raise Unknown(OutcomeUnknown("no answer"))
        return answers

    monkeypatch.setattr(Wire, "row", spied)
    return store.store.clock.now()


def test_all_are_renewed_in_rows(store, beats):
    began = store.store.clock.now()
    renewals = store.renew(beats, 5.0)
    assert all(each.state == "HELD" and each.basis >= began for each in renewals)


def test_a_row_that_is_not_answered_does_not_cost_what_the_others_renewed(monkeypatch, store, beats):
    began = silent(monkeypatch, store, rows={2})
    renewals = store.renew(beats, 5.0)
    assert len(renewals) == MANY
    assert all(each.state == "HELD" for each in renewals)
    moved = [each.basis >= began for each in renewals]
    assert moved == [True] * renewing._ROW + [False] * renewing._ROW + [True] * renewing._ROW


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
