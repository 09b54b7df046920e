"""The hot calls of the etcd store as exchanges: step by step without a server, and on an event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import threading
import time
from types import SimpleNamespace

import pytest

from lockkit.lib.clock import SYSTEM
from lockkit.store.exchanges import Connect, Pause, Send, Together
from lockkit.store.performing_aio import OnLoop
from lockkit.store.spi import (
    ABSENT,
    RELEASED,
    Busy,
    Granted,
    OpenOptions,
    Refused,
    Unknown,
)
from lockkit.testing.claims import claim, states, take
from lockkit.testing.processes import installed
from lockkit_etcd import acquiring, gateway, moving, releasing, renewing
from lockkit_etcd.address import parse
from lockkit_etcd.backend import open_store
from lockkit_etcd.gateway_http import Garbled, Parser, Reply
from lockkit_etcd.gateway_json import kept_answers
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.watching import Watches
from support.by_hand import ByHand
from support.calls_on_loop import every_call
from support.etcd_transports import SCHEMES, open_etcd
from support.servers.etcd import EtcdServer
from support.servers.started import started

BUDGET = 2.0


# -- step by step


def store(url="etcd://one:1,two:2"):
    """A store that was not opened: nothing of it connects."""
    return EtcdStore(gateway.connect(parse(url), SYSTEM), OpenOptions())


def b64(text):
    return base64.b64encode(text.encode()).decode()


def said(status=200, **document):
    """The replies of a server."""
    head = {"member_id": "7", "raft_term": "3", "revision": "20"}
    body = {"header": head, **document} if status == 200 else document
    return [Reply(status, json.dumps(body).encode(), True)]


LEARNED = said(), said()
"""The answers to the two reads that show the raft term."""
LEASE = said(TTL="30")
GRANTED = said(succeeded=True, responses=[{"response_put": {}}])


def asked(step):
    """The member that a step asks, and the path."""
    assert isinstance(step, Send)
    return step.to.host, step.packed.split(b" ")[1].decode().removeprefix("/v3/")


class Driven(ByHand):
    """An exchange of etcd that is performed by hand."""

    @property
    def paths(self):
        return [asked(step)[1] for step in self.steps]


def test_an_acquire_learns_the_term_takes_a_lease_and_holds():
    driven = Driven(acquiring.acquire(store(), claim(), True, BUDGET))

    driven(*LEARNED, LEASE, GRANTED)

    assert driven.result.fence == 20
    assert driven.paths == ["kv/range", "kv/range", "lease/grant", "kv/txn"]
    ends = {step.end for step in driven.steps}
    assert max(ends) <= time.monotonic() + BUDGET


def test_a_try_that_meets_a_holder_is_busy():
    one = claim(wait=False)
    value = {"v": 1, "claim": "ab" * 16, "state": "HELD", "weight": 1, "capacity": 1, "kind": "mutex"}
    holder = {
        "key": b64("lockkit/default/q/a/other-0"),
        "value": b64(json.dumps(value)),
        "create_revision": "5",
        "mod_revision": "5",
        "lease": "9",
    }
    driven = Driven(acquiring.acquire(store(), one, True, BUDGET))

    mark, queue = {"response_range": {}}, {"response_range": {"kvs": [holder]}}
    driven(*LEARNED, LEASE, said(responses=[mark, queue]))

    assert isinstance(driven.result, Busy)
    assert driven.result.holder.claim_id == ("ab" * 16)[:12]


def test_a_read_without_an_answer_is_sent_to_the_next_member_within_the_same_end():
    driven = Driven(acquiring.acquire(store(), claim(), True, BUDGET))
    first = driven.step

    driven(TimeoutError("timed out"))

    assert asked(first) == ("one", "kv/range")
    assert asked(driven.step) == ("two", "kv/range")
    assert first.end < driven.step.end <= time.monotonic() + BUDGET


def test_a_write_without_an_answer_is_unknown_and_the_next_call_begins_with_the_next_member():
    etcd, one = store(), claim()
    driven = Driven(acquiring.acquire(etcd, one, True, BUDGET))(*LEARNED, LEASE)

    with pytest.raises(Unknown):
        driven(ConnectionError("hung up"))

    assert etcd.entries[one.token].hold.doubtful
    assert asked(next(acquiring.acquire(etcd, one, True, BUDGET)))[0] == "two"


def test_a_write_is_sent_to_the_next_member_where_no_connection_could_be_opened():
    etcd = store()
    driven = Driven(acquiring.acquire(etcd, claim(), True, BUDGET))(*LEARNED, LEASE)
    opening = etcd.transport.opening(driven.step.to, driven.step.end)
    assert next(opening) == Connect(("one", 1), driven.step.end)
    with pytest.raises(Refused) as refused:
        opening.throw(ConnectionRefusedError("nobody"))

    driven(refused.value)

    assert asked(driven.step) == ("two", "kv/txn")


def test_an_expired_login_is_renewed_and_the_request_is_sent_again():
    driven = Driven(acquiring.acquire(store("etcd://me:secret@one:1"), claim(), True, BUDGET))
    expired = said(401, code=16, message="etcdserver: invalid auth token")

    driven(said(token="first"), expired, said(token="second"))

    assert driven.paths == ["auth/authenticate", "kv/range", "auth/authenticate", "kv/range"]
    assert b"Authorization: first\r\n" in driven.steps[1].packed
    assert b"Authorization: second\r\n" in driven.steps[3].packed
    assert driven.steps[3].end == driven.steps[1].end


def test_a_login_that_expires_again_at_once_is_an_error():
    driven = Driven(acquiring.acquire(store("etcd://me:secret@one:1"), claim(), True, BUDGET))
    expired = said(401, code=16, message="etcdserver: invalid auth token")

    with pytest.raises(Refused, match="login has expired"):
        driven(said(token="first"), expired, said(token="second"), expired)


def test_a_lease_that_is_gone_is_replaced():
    driven = Driven(acquiring.acquire(store(), claim(), True, BUDGET))
    gone = said(404, code=5, message="etcdserver: requested lease not found")

    driven(*LEARNED, LEASE, gone, LEASE, GRANTED)

    assert isinstance(driven.result, Granted)
    assert driven.paths[2:] == ["lease/grant", "kv/txn", "lease/grant", "kv/txn"]


def held(etcd):
    one = claim()
    granted = Driven(acquiring.acquire(etcd, one, True, BUDGET))(*LEARNED, LEASE, GRANTED).result
    return one, granted.fence


def test_a_heartbeat_is_a_keepalive_and_a_read():
    etcd = store()
    one, fence = held(etcd)
    lease = str(etcd.entries[one.token].hold.id)
    driven = Driven(renewing.renew(etcd, Watches(etcd), [(one, fence)], BUDGET))
    while isinstance(driven.step, Together):
        (make,) = driven.step.make
        alone = Driven(make())
        assert asked(alone.step) == ("one", "lease/keepalive")
        head = {"member_id": "7", "raft_term": "3"}
        kept = {"result": {"header": head, "ID": lease, "TTL": "30"}}
        alone([Reply(200, json.dumps(kept).encode() + b"\n", True)])
        driven(None)

    newest = {"key": b64(etcd.entries[one.token].key.decode()), "create_revision": str(fence)}
    driven(said(responses=[{"response_range": {}}, {"response_range": {"kvs": [newest]}}]))

    assert [each.state for each in driven.result] == ["HELD"]


def test_a_release_is_one_transaction_and_also_revokes_a_lease_on_which_a_request_may_be_under_way():
    etcd = store()
    one, _ = held(etcd)
    deleted = said(succeeded=True, responses=[{"response_delete_range": {"deleted": "1"}}] * 2)
    release = Driven(releasing.release(etcd, one, BUDGET, how="released"))
    assert release(deleted).result == RELEASED
    assert release.paths == ["kv/txn"]

    other, _ = held_on_a_free_lease(etcd)
    etcd.entries[other.token].hold.doubtful = True
    release = Driven(releasing.release(etcd, other, BUDGET, how="released"))
    assert release(deleted, said()).result == RELEASED
    assert release.paths == ["kv/txn", "lease/revoke"]


def held_on_a_free_lease(etcd):
    one = claim()
    return one, Driven(acquiring.acquire(etcd, one, True, BUDGET))(GRANTED).result.fence


def test_an_emergency_release_uses_connections_of_its_own_of_another_member():
    etcd = store()
    one, _ = held(etcd)
    driven = Driven(releasing.emergency_release(etcd, one, BUDGET, how="released"))

    assert asked(driven.step)[0] == "two"
    assert driven.step.to.fresh
    assert not driven.step.keep(said())


def test_a_claim_that_another_call_moves_is_looked_at_again_after_a_pause():
    etcd = store()
    one, fence = held(etcd)
    other = SimpleNamespace(over=False)
    assert etcd.begin_move(etcd.entries[one.token], other)

    driven = Driven(moving.extend(etcd, one, fence, 60, BUDGET))
    assert isinstance(driven.step, Pause)
    etcd.end_move(etcd.entries[one.token], other)
    driven(None)

    assert asked(driven.step)[1] == "kv/txn"


def test_no_lock_is_held_while_an_answer_is_waited_for():
    etcd = store()
    one, fence = held(etcd)
    exchanges = [
        acquiring.acquire(etcd, claim("other"), True, BUDGET),
        acquiring.acquire(etcd, one, False, BUDGET),
        renewing.renew(etcd, Watches(etcd), [(one, fence)], BUDGET),
        moving.extend(etcd, one, fence, 60, BUDGET),
        releasing.release(etcd, one, BUDGET, how="released"),
    ]

    for exchange in exchanges:
        next(exchange)
        assert not etcd._ends._is_owned()
        assert not etcd.raft._mutex._is_owned()
        exchange.close()
        assert not etcd._ends._is_owned()


# -- replies


REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = (
    b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_replies_are_read_wherever_they_are_cut(size):
    parser, text = Parser(), REPLY + CHUNKED
    found = [reply for at in range(0, len(text), size) for reply in parser.feed(text[at : at + size])]

    assert found == [Reply(200, b"{}", True), Reply(404, b"[]", False)]
    assert parser.between


def test_what_is_not_http_is_garbled():
    with pytest.raises(Garbled):
        Parser().feed(b"220 mail.example.org ESMTP\r\n\r\n")


def kept_line(lease, ttl, term=2, member=1):
    header = f'{{"member_id":"{member}","raft_term":"{term}"}}'
    return f'{{"result":{{"header":{header},"ID":"{lease}","TTL":"{ttl}"}}}}\n'.encode()


def test_each_lease_of_a_keepalive_has_its_own_answer():
    lines = [kept_line(1, 30), kept_line(2, 30), kept_line(3, 0), kept_line(4, 30, term=3), kept_line(5, 30)]
    lines.append(kept_line(6, 30, member=9))

    kept = kept_answers(b"".join(lines), 5.0)

    assert {lease: (each.ttl, each.term, each.member, each.sent) for lease, each in kept.items()} == {
        1: (30, 2, 1, 5.0),
        2: (30, 2, 1, 5.0),
        3: (0, 2, 1, 5.0),
        4: (30, 3, 1, 5.0),
        5: (30, 2, 1, 5.0),
        6: (30, 2, 9, 5.0),
    }


@pytest.mark.parametrize(
    "end",
    [kept_line(3, 30)[:-9], b'{"error":{"code":14}}\n' + kept_line(4, 30), b"\xff\n" + kept_line(4, 30)],
    ids=["cut", "an error", "no text"],
)
def test_the_answers_to_keepalives_end_at_a_line_that_is_none(end):
    assert list(kept_answers(kept_line(1, 30) + b"\n" + kept_line(2, 30) + end, 5.0)) == [1, 2]


# -- on an event loop


needs_etcd = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture
def opened(server):
    with contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        yield store


@pytest.fixture
def on_loop(opened, monkeypatch):
    """Runs ``told(exchanges, perform)`` on an event loop that may start no thread and no connection."""

    def run(told):
        exchanges = opened.extras.exchanges

        async def main():
            performer = OnLoop(exchanges, "here")
            try:
                return await told(exchanges, performer.perform)
            finally:
                await performer.close()

        def refused(*_):
            raise AssertionError("not on an event loop")

        with asyncio.Runner() as runner:
            runner.get_loop()
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refused)
                patch.setattr(type(opened.store.transport._performer), "perform", refused)
                patch.setattr(time, "sleep", refused)
                return runner.run(main())

    return run


@needs_etcd
def test_fifty_names_at_a_time_are_taken_renewed_and_released_on_one_loop(on_loop, opened):
    async def told(exchanges, perform):
        await asyncio.gather(*[every_call(exchanges, perform, f"loop-{at}") for at in range(50)])

    on_loop(told)
    assert opened.names("loop-", BUDGET) == []


@needs_etcd
def test_a_heartbeat_of_many_claims_asks_for_several_batches_at_a_time_on_a_loop(on_loop, opened):
    async def told(_, perform):
        end = time.monotonic() + 5.0
        return await perform(opened.store.transport.keepalive(range(1, 1201), end))

    assert on_loop(told).keys() == set(range(1, 1201))


@needs_etcd
def test_a_loop_that_is_cut_short_leaves_the_lease_in_doubt(on_loop, opened):
    mine = claim("cut")

    async def told(exchanges, perform):
        def hushed():
            exchange, answer = exchanges.acquire(mine, True, 5.0), None
            while True:
                step = exchange.send(answer)
                if b"kv/txn" in step.packed:
                    asyncio.current_task().cancel()
                    try:
                        exchange.throw(asyncio.CancelledError())
                    except asyncio.CancelledError:
                        return
                answer = yield step

        with contextlib.suppress(asyncio.CancelledError):
            await perform(hushed())
            await asyncio.sleep(0)
        asyncio.current_task().uncancel()
        return await perform(exchanges.abandon(mine, 5.0))

    assert on_loop(told) == ABSENT
    assert opened.store.entries == {}


class Stepped(ByHand):
    """An exchange that an open store performs step by step."""

    def __init__(self, opened, exchange):
        super().__init__(exchange)
        self._opened = opened

    def go_on(self, steps):
        """Do so many steps, or all that are left. Returns whether the exchange has that many."""
        for _ in range(steps):
            if self.step is None:
                return False
            self.hear(performed(self._opened, self.step))
        return True


def performed(opened, step):
    def alone():
        return (yield step)

    return opened.perform(alone())


def cancelled_at(opened, exchange, steps):
    """Cancel an exchange after some of its steps. Returns the pending request; None if it has fewer steps."""
    cut = Stepped(opened, exchange)
    if not cut.go_on(steps) or cut.step is None:
        return None
    under_way = cut.step
    with pytest.raises(asyncio.CancelledError):
        cut.fail(asyncio.CancelledError())
    return under_way


@needs_etcd
@pytest.mark.parametrize("turn", [False, True], ids=["free", "after-a-wait"])
@pytest.mark.parametrize("terms", [{}, {"min_hold": 3600}, {"lock_delay": 3600}], ids=str)
def test_a_request_that_arrives_at_any_moment_of_the_release_leaves_nothing(opened, server, terms, turn):
    """Each request of an acquire, delayed past each number of release requests: the lock ends up free."""
    played = 0
    with contextlib.closing(open_store(server.url(), OpenOptions())) as other:
        for steps, moment in itertools.product(range(6), range(5)):
            mine = claim("late", **terms)
            if turn:
                holder, _ = take(other, "late")
                opened.acquire(mine, True, BUDGET)
                other.release(holder, BUDGET)
            late = cancelled_at(opened, acquiring.acquire(opened.store, mine, not turn, BUDGET), steps)
            release = Stepped(opened, releasing.release(opened.store, mine, BUDGET, how="unused"))
            if late is not None and release.go_on(moment):
                performed(opened, late)
                played += 1
            release.go_on(100)

            assert release.step is None
            assert states(other, "late") == [], f"request {steps} arrived after {moment} of the release"
            one, _ = take(other, "late")
            other.release(one, BUDGET)
    assert played >= 3


@needs_etcd
@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_calls_that_yield_what_they_send_are_offered(server, scheme):
    with contextlib.closing(open_etcd(f"{scheme}://{server.address}", OpenOptions())) as store:
        assert (store.extras.exchanges is None) is ("grpc" in scheme)
