"""The ttl that the servers of ZooKeeper grant: the negotiated timeout of a session."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

pytest.importorskip("kazoo")

from lockkit.errors import ConfigError
from lockkit.protocol.hold import span
from lockkit.store.spi import Granted, OpenOptions, Refused
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, claim, renew, take
from lockkit_zookeeper.address import least
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.private import SetData
from lockkit_zookeeper.requests import Call
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.2
LEAST = least(TICK, TICK)
SHORTEST, LONGEST = 2.4, 4.0


server = started(ZooKeeperServer, tick=TICK, shortest_session=SHORTEST, longest_session=LONGEST)


@pytest.fixture
def url(server, request):
    return f"{server.url('/' + request.node.name.partition('[')[0])}?tick={TICK}&max_ttl=9"


@pytest.fixture
def opened(url):
    with contextlib.ExitStack() as stack:

        def another(**options):
            return stack.enter_context(contextlib.closing(open_store(url, OpenOptions(**options))))

        yield another


def granted(store, name="a", **terms):
    """The session and the ttl of a claim that is granted."""
    one = claim(name, **terms)
    answer = store.acquire(one, True, BUDGET)
    assert isinstance(answer, Granted)
    return store.entry(one.token)[0], answer.ttl


def live(store):
    return [session for session in store.sessions() if not session.ended]


@pytest.mark.parametrize("asked, expected", [(1.7, SHORTEST), (3.0, 3.0), (8.0, LONGEST)])
def test_the_negotiated_timeout_is_the_ttl(url, asked, expected):
    with connect(url) as client, client.lock("a", ttl=asked).acquire(5.0) as lease:
        can = client.capabilities
        assert lease.ttl == expected
        assert lease.remaining() <= span(expected, can.drift, can.margin)
        (info,) = client.inspect("a").claims
        assert info.ttl == expected, "an eviction waits for the ttl in the node"


def test_the_log_tells_it_once_for_each_ttl_and_the_capabilities_have_what_was_learned(url, caplog):
    with connect(url) as client:
        assert (client.capabilities.min_ttl, client.capabilities.max_ttl) == (LEAST, 9.0)
        for _ in range(2):
            for asked in (1.7, 8.0):
                client.lock("a", ttl=asked).acquire(5.0).release()
        assert (client.capabilities.min_ttl, client.capabilities.max_ttl) == (SHORTEST, LONGEST)
        # A lock that is made now asks for what there is.
        assert client.lock("a", ttl=8.0).terms.ttl == LONGEST
    told = [record.message for record in caplog.records if "was asked for" in record.message]
    assert [message.partition(" was asked")[0] for message in told] == ["a ttl of 1.7 s", "a ttl of 8 s"]
    assert "maxSessionTimeout" in told[1]


def test_servers_whose_shortest_session_is_long_may_have_long_ticks_and_that_is_told(url, caplog):
    with connect(url) as client:
        client.lock("a", ttl=1.7).acquire(5.0).release()
    assert "?tick=1.2" in next(each.message for each in caplog.records if "tickTime" in each.message)


def test_the_tick_and_the_margin_are_those_of_the_url_whatever_the_servers_grant(opened):
    store = opened()
    before = store.address, store.capabilities.margin
    granted(store, ttl=1.7)
    assert (store.address, store.capabilities.margin) == before


def test_strict_refuses_a_stated_ttl_that_the_servers_do_not_grant_and_fits_a_default(caplog):
    with ZooKeeperServer(tick=TICK, longest_session=LONGEST) as other:
        url = f"{other.url('/app')}?tick=0.25&max_ttl=9"
        with connect(url, strict=True) as client, client.lock("a").acquire(5.0) as lease:
            assert lease.ttl == LONGEST
        with connect(url, strict=True) as client:
            early = client.lock("a", ttl=8.0)  # before the servers were asked for anything
            with pytest.raises(ConfigError, match=r"strict refuses a ttl of 8 s.* grants 4 s"):
                early.acquire(5.0)
            assert client.inspect("a").claims == ()
            with client.lock("a", ttl=3.0).acquire(5.0) as lease:
                assert lease.ttl == 3.0
    assert "was asked for" not in caplog.text


def test_less_than_is_safe_is_refused_with_what_to_change():
    with (
        ZooKeeperServer(tick=TICK, longest_session=LEAST / 2) as short,
        connect(f"{short.url('/app')}?tick={TICK}&max_ttl=9") as client,
    ):
        with pytest.raises(
            ConfigError, match=rf"at most {LEAST / 2:g} s, and this needs {LEAST:g} s"
        ) as refused:
            client.lock("a", ttl=5).acquire(5.0)
        assert "raise maxSessionTimeout" in refused.value.hint
        assert "?tick=" in refused.value.hint
        assert client.inspect("a").claims == ()


# -- sessions


def test_a_session_within_a_tick_of_the_ttl_is_used_again(opened):
    store = opened()
    one, ttl = granted(store, "a", ttl=3.0)
    other, near = granted(store, "b", ttl=3.0 + TICK / 2)
    assert other is one
    assert near == ttl == 3.0
    assert granted(store, "c", ttl=3.0 + 2 * TICK)[0] is not one


def test_strict_has_no_session_of_nearly_the_stated_ttl(opened):
    store = opened(strict=False)
    store._strict = True
    one, _ = granted(store, "a", ttl=3.0, asked=3.0)
    other, ttl = granted(store, "b", ttl=3.1, asked=3.1)
    assert other is not one
    assert ttl == 3.1


def test_all_ttls_beyond_the_limit_share_a_session(opened):
    store = opened()
    sessions = {granted(store, f"l{ttl}", ttl=ttl)[0] for ttl in (5.0, 6.0, 7.0, 8.0)}
    assert len(sessions) == 1
    assert len(live(store)) == 1, "that of the default ttl, which was beyond it as well"


def test_a_client_has_at_most_eight_sessions_and_ends_one_without_claims_first():
    with (
        ZooKeeperServer(tick=TICK) as wide,
        contextlib.closing(open_store(f"{wide.url('/app')}?tick={TICK}&max_ttl=9", OpenOptions())) as store,
    ):
        held = [granted(store, f"l{number}", ttl=2.0 + 0.5 * number)[0] for number in range(7)]
        assert len(live(store)) == 8
        assert len(set(held)) == 7
        session, ttl = granted(store, "more", ttl=6.0)
        assert session is held[-1], "the nearest"
        assert ttl == 5.0
        assert len(live(store)) == 8
        one = next(entry.claim for entry in held[2].entries.values())
        store.release(one, BUDGET)
        session, ttl = granted(store, "again", ttl=6.0)
        assert ttl == 6.0
        assert held[2].ended
        assert len(live(store)) == 8


def test_the_note_of_an_eviction_lasts_for_the_ttl_of_the_claim_or_there_is_none(opened):
    """A claim of a client that was granted more, as by a member of the ensemble with another limit."""
    holder, other = opened(), opened()
    one, fence = take(holder, ttl=3.0)
    session, entry = holder.entry(one.token)
    (info,) = holder.inspect("a", BUDGET).claims
    data = json.dumps({"v": 1, "min_reader": 1, "kind": "mutex", "ttl": 8.0}).encode()
    Call(session.connection, time.monotonic() + BUDGET).ask(SetData(entry.path, data, -1))
    with pytest.raises(Refused) as refused:
        other.evict("a", info.claim_id, BUDGET)
    assert isinstance(refused.value.error, ConfigError)
    assert renew(holder, one, fence).state == "HELD"
