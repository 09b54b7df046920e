"""Troubles of a session of ZooKeeper: it expires, is cut off, or moves, or its servers are cut off."""

from __future__ import annotations

import contextlib
import resource
import threading
import time

import pytest

pytest.importorskip("kazoo")

from kazoo.exceptions import NoNodeError

from lockkit.errors import AcquireTimeout, BackendError
from lockkit.lib.clock import SYSTEM
from lockkit.protocol.hold import Hold
from lockkit.store.spi import ABSENT, RELEASED, Granted, Lapsed, OpenOptions, Refused, Unknown
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import PATIENCE, until
from lockkit.testing.stage import Work, _standing
from lockkit.values.names import claim_id
from lockkit_zookeeper import store as module
from lockkit_zookeeper.address import declared, parse
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.private import Create2, GetEphemerals, KazooConnection
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session
from support.harnesses.zookeeper import claims_of, only_watches, vanish
from support.servers.proxy import Proxy
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble

TICK = 0.15
TTL = 2.4
LONG = 8.0


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def opened(server, request):
    with contextlib.ExitStack() as stack:

        def another(url=None):
            url = url or server.url(f"/{request.node.name}")
            store = open_store(f"{url}?tick={TICK}&max_ttl=9", OpenOptions())
            stack.callback(store.close)
            return store

        yield another


@pytest.fixture
def store(opened):
    return opened()


def mine(**terms):
    return claim(ttl=TTL, **terms)


def session(store, one):
    return store.entry(one.token)[0]


def client_id(session):
    return session.connection._client.identity


def there(server, path):
    with server.connect() as client:
        return client.exists(path) is not None


@pytest.fixture
def proxied(server, request):
    with Proxy((server.host, server.port)) as proxy:
        proxy.url = f"zookeeper://{proxy.address}/{request.node.name}"
        yield proxy


# -- expiry


def test_an_expired_session_loses_its_claims_and_the_next_has_a_new_one(store, server):
    one, fence = take(store, ttl=TTL)
    other, _ = take(store, "b", ttl=TTL)

    server.expire(client_id(session(store, one)))

    until(lambda: renew(store, one, fence).state == "LOST", "the loss is noticed")
    assert renew(store, other, 1).state == "LOST"
    assert isinstance(store.acquire(one, False, BUDGET), Lapsed)
    assert isinstance(store.acquire(one, True, BUDGET), Lapsed), "S5: brought back under its old token"
    _, later = take(store, ttl=TTL)
    assert later > fence


def test_a_waiter_whose_session_expires_queues_again_and_is_served(server, request):
    url = f"{server.url('/' + request.node.name)}?tick={TICK}"
    with connect(url) as holder, connect(url) as client:
        lease = holder.lock("a", ttl=TTL).acquire(2.0)
        standing, got = threading.Event(), []
        lock = client.lock("a", ttl=TTL)

        def wait():
            with lock.acquire(20.0, on_wait=lambda _: standing.set()) as mine:
                got.append(mine.fence)

        thread = threading.Thread(target=wait)
        thread.start()
        assert standing.wait(5.0)
        store = client.driver().backend
        (waiting,) = [session for session, _ in claims_of(store)]
        server.expire(client_id(waiting))
        until(lambda: any(s is not waiting for s, e in claims_of(store) if not e.ended), "it queues again")
        assert not got, "told that it holds, on a session that had died"
        lease.release()
        thread.join(10.0)
        assert got
        assert got[0] > lease.fence


def test_what_the_servers_end_is_told_as_lost_once(server, request):
    told = []
    with connect(f"{server.url('/' + request.node.name)}?tick={TICK}") as client:
        lease = client.lock("a", ttl=TTL, on_lost=lambda: told.append(1)).acquire(2.0)
        (mine,) = [session for session, _ in claims_of(client.driver().backend)]
        server.expire(client_id(mine))
        assert lease.lost.wait(TTL)
        until(lambda: told, "it is told")
        assert not lease.valid()
        assert lease.release().outcome == "LOST"
        assert told == [1]


def test_claims_of_one_ttl_share_a_session_and_a_ttl_that_goes_out_of_use_has_none(store, monkeypatch):
    one, two = take(store, "a", ttl=TTL)[0], take(store, "b", ttl=TTL)[0]
    three = take(store, "c", ttl=TTL + 1)[0]
    shared, other = session(store, one), session(store, three)
    assert session(store, two) is shared
    assert other is not shared
    assert shared.connection.session != other.connection.session
    store.release(three, BUDGET)
    monkeypatch.setattr(module, "_IDLE", 0.0)
    take(store, "d", ttl=TTL + 2)
    assert other.ended
    assert not shared.ended, "S10: a session that claims depend on was ended"
    assert renew(store, one, store.entry(one.token)[1].fence).state == "HELD"


def test_a_claim_does_not_join_a_session_that_was_left_while_it_came(store, monkeypatch):
    """The claim would be lost at once; and if it was asked for again, it could be in the queue twice."""
    longer = claim(ttl=TTL + 1)
    store.release(take(store, "b", ttl=TTL + 1)[0], BUDGET)
    monkeypatch.setattr(module, "_IDLE", 0.0)
    join, met = Session.join, []

    def late(self, one):
        if one is longer and not met:
            met.append(self)
            store.release(take(store, "c", ttl=TTL + 2)[0], BUDGET)  # which ends what is idle
            until(lambda: self.ended, "the session is left")
        return join(self, one)

    monkeypatch.setattr(Session, "join", late)
    assert isinstance(asked(store, longer), Refused)
    assert not met[0].entries
    answer = store.acquire(longer, True, BUDGET)
    assert isinstance(answer, Granted)
    assert [info.fence for info in store.inspect("a", BUDGET).claims] == [answer.fence]
    assert renew(store, longer, answer.fence).state == "HELD"


def test_a_session_that_somebody_joins_while_it_is_to_be_left_stays(store, monkeypatch):
    store.release(take(store, "b", ttl=TTL + 1)[0], BUDGET)
    monkeypatch.setattr(module, "_IDLE", 0.0)
    retire, joined = Session.retire, []

    def slow(self):
        if self.timeout == TTL + 1 and not joined:
            joined.append(take(store, ttl=TTL + 1))
        return retire(self)

    monkeypatch.setattr(Session, "retire", slow)
    take(store, "c", ttl=TTL + 2)
    ((one, fence),) = joined
    assert renew(store, one, fence).state == "HELD"
    take(store, "d", ttl=TTL + 1)
    assert session(store, one) is store.at(TTL + 1, time.monotonic() + BUDGET), (
        "it has two sessions of one ttl"
    )


def test_at_the_least_ttl_a_healthy_session_never_has_less_than_half_of_it_left(request):
    """Or an acquire would have to wait until the session is confirmed."""
    tick = 0.8  # a busy machine holds every one of the processes up for tenths of a second
    least = declared(parse(f"zookeeper://h?tick={tick}")).min_ttl
    with ZooKeeperServer(tick=tick) as slow:
        url = f"{slow.url('/' + request.node.name)}?tick={tick}"
        with contextlib.closing(open_store(url, OpenOptions())) as store:
            mine = store.at(least, time.monotonic() + BUDGET)
            oldest, end = 0.0, SYSTEM.now() + 1.5 * least
            while SYSTEM.now() < end:
                oldest = max(oldest, SYSTEM.now() - mine.basis)
                time.sleep(0.01)
            assert not mine.ended
            assert oldest < least / 2


# -- cut connections


def create(piece):
    return b"\x00\x00\x00\x0f" in piece[:16] and b"/lockkit/" in piece


@pytest.mark.parametrize("wait", [True, False])
def test_a_connection_cut_right_after_a_create_committed(opened, proxied, server, wait):
    store = opened(proxied.url)
    one = claim(ttl=LONG, wait=wait)  # less than half of it may pass until the create is sent
    with server.connect() as look:
        parent = lasting_queue(look, proxied)
        warm, _ = take(store, ttl=LONG)
        freshly_confirmed(session(store, warm))
        store.release(warm, BUDGET)
        proxied.hold(to_server=False)  # what it answers is lost
        work = Work(lambda: asked(store, one))
        until(lambda: there_by_id(server, proxied, one), "the create is committed")
        proxied.drop()
        assert isinstance(work.result(), Unknown)
        proxied.heal()
        answer = again(lambda: store.acquire(one, True, BUDGET))
        (node,) = look.get_children(parent)
        stat = look.exists(f"{parent}/{node}")
    assert isinstance(answer, Granted), "busy with itself"
    assert answer.fence == stat.czxid
    assert store.release(one, BUDGET) == RELEASED


def lasting_queue(look, proxied):
    """Make the claims' parent, which the server does not remove when empty, as it does a container."""
    parent = f"/{proxied.url.rpartition('/')[2]}/lockkit/default/q/a"
    look.ensure_path(parent)
    return parent


def freshly_confirmed(session):
    """Wait until the session is confirmed anew: an acquire awaits an answer after half of the ttl."""
    before = session.basis
    until(lambda: session.basis > before, "the session is confirmed")


def asked(store, one, budget=BUDGET):
    try:
        return store.acquire(one, True, budget)
    except (Refused, Unknown) as trouble:
        return trouble


def again(call, seconds=5.0):
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (Refused, Unknown):
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_create_that_was_given_up_while_cut_off_leaves_nothing(opened, proxied, server):
    store = opened(proxied.url)
    warm, _ = take(store, ttl=TTL)
    store.release(warm, BUDGET)
    proxied.hold()
    one = mine()
    assert isinstance(asked(store, one, 0.3), Unknown)
    with pytest.raises((Refused, Unknown)):
        store.abandon(one, 0.3)
    assert isinstance(asked(store, one, 0.3), Lapsed), "it was given up"

    proxied.heal()  # and the create arrives after all

    again(lambda: store.abandon(one, BUDGET))
    assert not there_by_id(server, proxied, one)
    assert isinstance(store.acquire(one, True, BUDGET), Lapsed)


def test_a_release_that_goes_on_in_the_background_is_not_told_as_refused(opened, proxied, server):
    """The next request may find the claim gone: by the release, not by somebody else."""
    store = opened(proxied.url)
    one, _ = take(store, ttl=LONG)
    proxied.cut()
    until(lambda: not session(store, one).connection.up, "it is cut off")

    with pytest.raises(Unknown, match="cannot reach"):
        store.release(one, 0.1)

    proxied.heal()
    until(lambda: not there_by_id(server, proxied, one), "it is removed")
    assert again(lambda: store.release(one, BUDGET)) == ABSENT


def test_many_that_were_given_up_do_not_keep_a_session_from_being_confirmed(opened, proxied, server):
    """Behind a server that is slow: what became of each is asked for, and nothing waits for an answer."""
    store = opened(proxied.url)
    kept, fence = take(store, "kept", ttl=9.0)
    mine = session(store, kept)
    proxied.hold()
    given_up = [claim(ttl=9.0) for _ in range(40)]
    calls = [Work(lambda one=one: asked(store, one, 0.01)) for one in given_up]
    for one, call in zip(given_up, calls, strict=True):
        assert isinstance(call.result(), Unknown)
        mine.end(mine.entries[one.token], "absent")
    proxied.delay = 0.3
    proxied.heal()
    for one in given_up:
        mine.maintenance.remove(mine.entries[one.token])
    before = mine.basis
    until(lambda: list(mine.entries) == [kept.token], "it is definite that they are gone", 6.0)
    until(lambda: mine.basis > before, "the session is confirmed meanwhile", 6.0)
    assert renew(store, kept, fence).state == "HELD"
    assert states(store) == []


def test_evictions_do_not_keep_a_session_from_being_confirmed(opened, proxied):
    """Behind a server that is slow, with many that are looked after."""
    store, other = opened(), opened(proxied.url)
    kept, fence = take(other, "kept", ttl=9.0)
    mine = session(other, kept)
    for at in range(12):
        one, _ = take(store, f"evicted {at}", ttl=9.0)
        session(store, one).confirming._read_notes = lambda _: True  # it does not look
        assert other.evict(f"evicted {at}", claim_id(one.token), BUDGET).outcome == "MARKED"
    assert session(other, kept) is mine
    assert len(mine.maintenance.due) == 12
    proxied.delay = 0.3
    time.sleep(1.0)
    before = mine.clock.now()
    until(lambda: mine.basis > before, "the session is confirmed meanwhile", 6.0)
    assert renew(other, kept, fence).state == "HELD"
    proxied.delay = 0.0


def test_a_short_cut_costs_nothing_and_watches_are_armed_anew(opened, proxied, server, monkeypatch):
    only_watches(monkeypatch)
    url = f"{proxied.url}?tick={TICK}"
    with connect(url) as client, connect(url.replace(proxied.address, server.address)) as other:
        lease = client.lock("a", ttl=TTL).acquire(2.0)
        blocked = other.lock("b", ttl=TTL).acquire(2.0)
        got, lock = threading.Event(), client.lock("b", ttl=TTL)

        def wait():
            with lock.acquire(60.0):
                got.set()

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: _standing(lock), "it waits")
        for _ in range(3):
            opened_before = proxied.opened
            proxied.drop()
            until(lambda before=opened_before: proxied.opened > before, "it comes back")
        time.sleep(TTL)
        assert lease.valid()
        assert not lease.lost.is_set()
        lease.confirm()
        blocked.release()
        assert got.wait(PATIENCE), "the watch was not armed anew"
        thread.join(PATIENCE)


def test_validity_ends_in_silence_and_nothing_brings_it_back(opened, proxied, server):
    store = opened(proxied.url)
    one, fence = take(store, ttl=TTL)
    proxied.hold()
    lost_at = None
    end = time.monotonic() + 2 * TTL
    hold = Hold(one, fence, store.entry(one.token)[1].basis, store.capabilities)
    while time.monotonic() < end and lost_at is None:
        with contextlib.suppress(Unknown, Refused):
            renewal = store.renew([(one, fence)], 0.1)[0]
            now = SYSTEM.now()
            if renewal.state == "LOST" or not hold.renewed(renewal.basis, now):
                lost_at = now
        there = there_by_id(server, proxied, one)  # takes a while
        assert there or not hold.valid(SYSTEM.now()), "S3: valid and not in the store"
        time.sleep(0.02)
    assert lost_at is not None
    assert not hold.valid(SYSTEM.now())
    proxied.heal()
    until(lambda: not there_by_id(server, proxied, one), "S11: the lost claim goes")
    assert isinstance(again(lambda: store.acquire(one, False, BUDGET)), Lapsed)


def given_up(store, one, proxied):
    """Have the client give up a claim's session while it is cut off. The servers would keep it for long."""
    mine = session(store, one)
    proxied.hold()
    proxied.drop()
    until(lambda: not mine.connection.up, "the cut is noticed")
    with mine.mutex:
        mine.basis -= 20.0
        for entry in mine.entries.values():
            entry.deadline -= 20.0
    mine.poke()
    until(lambda: mine.ended, "it is given up")
    return mine


def test_what_is_left_of_a_session_that_was_given_up_is_not_taken_for_gone(opened, proxied, server):
    store = opened(proxied.url)
    one, _ = take(store, ttl=9.0)
    mine = given_up(store, one, proxied)
    assert there_by_id(server, proxied, one)
    for call in (store.release, store.abandon, store.emergency_release):
        with pytest.raises((Refused, Unknown)):
            call(one, 0.2)
    proxied.heal()
    until(lambda: not mine.alive, "it is left")
    assert store.release(one, BUDGET) == ABSENT
    assert not there_by_id(server, proxied, one)


def test_a_client_that_is_well_again_ends_the_session_that_it_gave_up(opened, proxied, server):
    """The client\'s waiter is behind the given-up claim until its session ends; new leaders delay that."""
    store, other = opened(proxied.url), opened()
    held, _ = take(store, ttl=9.0)
    waiter, behind = queue(store, ttl=9.0), queue(other, ttl=9.0)
    given_up(store, held, proxied)
    assert len(children(server, proxied)) == 3
    proxied.heal()
    until(lambda: len(children(server, proxied)) == 1, "S11: what is left of it goes", 5.0)
    assert isinstance(other.acquire(behind, False, BUDGET), Granted)
    assert isinstance(again(lambda: store.acquire(waiter, False, BUDGET)), Lapsed)


def test_what_was_not_lost_by_time_is_left_until_nobody_can_believe_in_it(opened, proxied, server):
    store = opened(proxied.url)
    one, _ = take(store, ttl=2.4)
    mine, entry = store.entry(one.token)
    mine.over("kazoo stumbled")
    while there_by_id(server, proxied, one):
        time.sleep(0.01)
    assert SYSTEM.now() >= entry.deadline, "S3: ended while its holder could believe in it"


def test_a_store_that_is_closed_ends_no_session_any_more(opened, proxied, server):
    store = opened(proxied.url)
    one, _ = take(store, ttl=9.0)
    mine = given_up(store, one, proxied)
    store.close()
    until(lambda: not mine.alive, "its keeper ends")
    proxied.heal()
    assert there_by_id(server, proxied, one)


def children(server, proxied):
    with server.connect() as look:
        return look.get_children(f"/{proxied.url.rpartition('/')[2]}/lockkit/default/q/a")


def there_by_id(server, proxied, one):
    parent = f"/{proxied.url.rpartition('/')[2]}/lockkit/default/q/a"
    with server.connect() as look, contextlib.suppress(NoNodeError):
        return any(node.startswith(one.token) for node in look.get_children(parent))
    return False


def test_a_dead_client_blocks_no_longer_than_its_ttl_and_a_tick_or_two(opened, server):
    store, other = opened(), opened()
    one, fence = take(store, ttl=TTL)
    hold = Hold(one, fence, store.entry(one.token)[1].basis, store.capabilities)
    waiter = queue(other, ttl=TTL)
    vanish(store)
    died = time.monotonic()
    while not isinstance(other.acquire(waiter, False, BUDGET), Granted):
        assert not (time.monotonic() - died > TTL + 5.0), "L1: it blocks on"
        time.sleep(0.01)
    assert not hold.valid(SYSTEM.now()), "S3: valid while another holds"


# -- parents


def test_a_parent_reaped_between_two_uses(store, server, request):
    parent = f"/{request.node.name}/lockkit/default/q/a"
    fences = []
    for _ in range(3):
        one, fence = take(store, ttl=TTL)
        fences.append(fence)
        store.release(one, BUDGET)
        until(lambda: not there(server, parent), "the empty parent is reaped")
    assert fences == sorted(set(fences)), (
        "S4: the fence must not be the number in the queue, which begins anew"
    )


# -- ensembles


@pytest.fixture
def ensemble():
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=40) as ensemble:
        yield ensemble


def test_the_leader_is_killed_while_locks_are_held_and_awaited(ensemble):
    url = f"{ensemble.url('/app')}?tick={TICK}&max_ttl=12"
    with connect(url) as client, connect(url) as other:
        lease = client.lock("a", ttl=9.0).acquire(5.0)
        standing, got = threading.Event(), []

        def wait():
            with other.lock("a", ttl=9.0).acquire(30.0, on_wait=lambda _: standing.set()) as mine:
                got.append(mine.fence)

        thread = threading.Thread(target=wait)
        thread.start()
        assert standing.wait(5.0)

        ensemble.kill_leader()

        assert lease.valid()
        lease.confirm()
        assert not got
        assert lease.release().outcome == "RELEASED"
        thread.join(15.0)
        assert got
        assert got[0] > lease.fence, "S4: fences rise across leaders"


def test_a_follower_cut_from_its_leader_answers_pings_but_validity_ends_in_time(ensemble):
    follower = ensemble.followers()[0]
    leader = ensemble.leader()
    with connect(f"{follower.url('/app')}?tick={TICK}&max_ttl=9") as client:
        lease = client.lock("a", ttl=TTL).acquire(5.0)
        time.sleep(TTL)
        assert lease.valid()
        with connect(f"{leader.url('/app')}?tick={TICK}&max_ttl=9") as other:
            successor = []

            def take_over():
                with other.lock("a", ttl=TTL).acquire(30.0):
                    successor.append(lease.valid())

            thread = threading.Thread(target=take_over)
            thread.start()
            ensemble.cut_off(follower)
            thread.join(20.0)
            assert successor == [False], "S3: valid while another holds"
            assert lease.lost.wait(PATIENCE)
            ensemble.heal()


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_leader_that_does_not_know_that_it_is_deposed_makes_no_session_valid(comes_back):
    """The old leader answers one `sync` after the other, and connect requests too."""
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=200) as ensemble:
        old = ensemble.leader()
        with connect(f"{old.url('/app')}?tick={TICK}&max_ttl=9") as client:
            lease = client.lock("a", ttl=9.0 if comes_back else TTL).acquire(5.0)
            (mine,) = [session for session, _ in claims_of(client.driver().backend)]
            new = ensemble.depose(old)
            if comes_back:
                turn = mine.connection.turn
                mine.connection.bounce()
                until(lambda: mine.connection.turn > turn, "the old leader lets the session come back")
            with (
                connect(f"{new.url('/app')}?tick={TICK}&max_ttl=9") as other,
                other.lock("a", ttl=TTL).acquire(PATIENCE),
            ):
                assert not lease.valid(), "S3: valid while another holds"
                assert old.mode == "leader", "it has noticed, so this proves nothing"
            ensemble.heal()


def test_a_leader_that_does_not_know_that_it_is_deposed_says_of_no_claim_that_it_never_came():
    """The successor ran a create of the session, its answer was lost, and the old leader has the session."""
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=200, maxSessionTimeout=60_000) as ensemble:
        old = ensemble.leader()
        options, one = f"?tick={TICK}&max_ttl=60", claim(ttl=40.0)
        with contextlib.closing(open_store(old.url("/app") + options, OpenOptions())) as store:
            take(store, ttl=40.0)  # so there is a queue
            mine, terms = store.for_claim(one.terms, time.monotonic() + BUDGET)
            entry = mine.join(one._replace(terms=terms))
            entry.sent = True
            new = ensemble.depose(old)
            twin = Connection(
                parse(new.url("/app") + options), mine.timeout, SYSTEM, identity=mine.connection.identity
            )
            twin.start()
            path = f"{store.paths.queue('a')}/{entry.token}-1-1-"
            Call(twin, time.monotonic() + PATIENCE).ask(Create2(path, b"", store.acl, 3))
            twin.close(goodbye=False).join()

            with pytest.raises(Unknown):
                store.release(one, BUDGET)
            until(lambda: mine.maintenance._removals[one.token].answer, "it asks in the background, too")
            assert old.mode == "leader", "it has noticed, so this proves nothing"
            ensemble.heal()
            until(lambda: store.entry(one.token) is None, "the claim is removed")
            assert not mine.ended
        with new.connect() as look:
            assert not [node for node in look.get_children("/app/lockkit/default/q/a") if entry.token in node]


def test_a_leader_that_does_not_know_that_it_is_deposed_says_of_no_claim_that_it_is_absent():
    """The claim was made at the successor. Calls that change claims then fail; none may report it missing."""
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=200, maxSessionTimeout=60_000) as ensemble:
        old = ensemble.leader()
        options = f"?tick={TICK}&max_ttl=60"
        with connect(old.url("/app") + options, ttl=40.0, request_timeout=1.0) as client:
            client.lock("a").acquire(5.0).release()
            new = ensemble.depose(old)
            with (
                connect(new.url("/app") + options, ttl=40.0) as other,
                other.semaphore("a", 2).acquire(PATIENCE) as lease,
            ):
                for call in (
                    lambda: client.evict("a", lease.claim_id, reason="it hangs"),
                    lambda: client.evict("a", lease.claim_id, reason="it hangs", now=True),
                    lambda: client.annotate("a", lease.claim_id, {"seen": True}),
                    lambda: client.resize("a", 3),
                    lambda: client.adopt(lease.handle()).release(),
                ):
                    with pytest.raises(BackendError):
                        call()
                assert old.mode == "leader", "it has noticed, so this proves nothing"
                ensemble.heal()


def test_a_lagging_follower_grants_nothing_that_the_leader_would_not(ensemble):
    follower, leader = ensemble.followers()[0], ensemble.leader()
    with (
        connect(f"{follower.url('/app')}?tick={TICK}&max_ttl=12") as late,
        connect(f"{leader.url('/app')}?tick={TICK}&max_ttl=12") as client,
    ):
        late.lock("a", ttl=9.0).acquire(5.0).release()
        ensemble.lag(follower, 0.15)
        for _ in range(3):
            with client.lock("a", ttl=9.0).acquire(5.0) as lease:
                assert late.lock("a", ttl=9.0).try_acquire() is None, "S2: it did not see who was before it"
                with pytest.raises(AcquireTimeout):
                    late.lock("a", ttl=9.0).acquire(1.0)
                assert lease.valid()
            with late.lock("a", ttl=9.0).acquire(5.0) as mine:
                assert mine.fence > lease.fence
        ensemble.heal()


def test_a_waiter_on_a_lagging_follower_is_let_in_once_the_follower_knows(ensemble, monkeypatch):
    """The woken waiter lists without a `sync`, and must not wait for the next poll either."""
    only_watches(monkeypatch)
    follower, leader = ensemble.followers()[0], ensemble.leader()
    with (
        connect(f"{follower.url('/app')}?tick={TICK}&max_ttl=12") as late,
        connect(f"{leader.url('/app')}?tick={TICK}&max_ttl=12") as client,
    ):
        late.lock("a", ttl=9.0).acquire(5.0).release()
        ensemble.lag(follower, 0.15)
        for _ in range(3):
            lease = client.lock("a", ttl=9.0).acquire(5.0)
            lock = late.lock("a", ttl=9.0)
            waiter = Work(lambda lock=lock: lock.acquire(60.0))
            until(lambda lock=lock: _standing(lock), "it waits")
            assert lease.release().outcome == "RELEASED"
            mine = waiter.result()
            assert mine.fence > lease.fence
            assert mine.release().outcome == "RELEASED"
        ensemble.heal()


def bounced(mine):
    """Cut the connection of a session, and wait until a beat on the next one counts."""
    turn = mine.connection.turn
    mine.connection.bounce()
    until(lambda: mine.connection.turn > turn, "it comes back")
    began = SYSTEM.now()
    until(lambda: mine.basis > began, "it is confirmed again")


def made_for(store, mine, token):
    """Make the node of a claim of a session as it was in a backup; its path."""
    path = f"{store.paths.queue('a')}/{token}-1-9-"
    return Call(mine.connection, time.monotonic() + PATIENCE).ask(Create2(path, b"", store.acl, 3))[0]


def test_a_session_that_comes_back_lets_go_of_claims_that_a_backup_has_and_it_does_not(server, store):
    """Else they would be held for as long as the process holds anything."""
    one, fence = take(store, ttl=LONG, capacity=9)
    mine = session(store, one)
    path = made_for(store, mine, claim().token)
    bounced(mine)
    until(lambda: not there(server, path), "nobody stands behind that claim")
    assert renew(store, one, fence).state == "HELD"
    assert states(store) == ["HELD"]


def test_a_server_that_cannot_list_the_nodes_of_a_session_is_asked_once(server, store, monkeypatch):
    monkeypatch.setattr(GetEphemerals, "type", 9999)
    one, fence = take(store, ttl=LONG, capacity=9)
    mine = session(store, one)
    path = made_for(store, mine, claim().token)
    bounced(mine)
    until(lambda: not mine.confirming._lists, "the server has answered that it does not know the request")
    turn = mine.connection.turn
    bounced(mine)  # the server has cut the connection, too
    later = mine.connection.turn
    assert later <= turn + 2
    for _ in range(3):
        began = SYSTEM.now()
        until(lambda began=began: mine.basis > began, "it is confirmed again")
        assert renew(store, one, fence).state == "HELD"
    assert mine.connection.turn == later
    assert there(server, path)


def test_nodes_are_listed_on_a_later_connection_if_one_is_cut_before(server, store):
    one, fence = take(store, ttl=LONG, capacity=9)
    mine = session(store, one)
    path = made_for(store, mine, claim().token)
    bounced(mine)
    bounced(mine)
    until(lambda: not there(server, path), "nobody stands behind that claim")
    assert renew(store, one, fence).state == "HELD"


class TakesAllDescriptors:
    """Leaves this process no descriptors, for a while."""

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, self.limits[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


def test_a_name_that_is_resolved_without_descriptors_costs_no_session(server, opened):
    store = opened(server.url("/resolved").replace(server.host, "localhost"))
    one, fence = take(store, ttl=LONG)
    mine = session(store, one)
    turn = mine.connection.turn
    with TakesAllDescriptors():
        mine.connection.bounce()
        until(lambda: "files" in mine.connection.trouble, "it tries in vain")
    until(lambda: mine.connection.turn > turn, "it comes back")
    assert renew(store, one, fence).state == "HELD"


def test_a_session_that_is_opened_without_descriptors_does_not_stand_in_the_way_of_the_next(server, store):
    one = claim(ttl=LONG)
    with TakesAllDescriptors(), pytest.raises(Refused):
        store.acquire(one, True, 1.0)
    take(store, ttl=LONG)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread")], ids=lambda each: type(each).__name__
)
def test_an_error_that_kazoo_does_not_expect_ends_a_connection_and_not_its_thread(
    server, store, monkeypatch, error
):
    one, fence = take(store, ttl=LONG)
    mine = session(store, one)
    turn = mine.connection.turn

    def fails(self, timeout):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(KazooConnection, "_read_socket", fails)
    until(lambda: mine.connection.turn > turn, "it comes back")
    assert renew(store, one, fence).state == "HELD"
