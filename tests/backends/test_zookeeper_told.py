"""Messages to a holder, a waiter and an operator when ZooKeeper fails them, and the nodes left then."""

from __future__ import annotations

import contextlib
import threading

import pytest

pytest.importorskip("kazoo")

from kazoo.exceptions import NoNodeError

from lockkit.errors import IncompatibleLayout
from lockkit.protocol.beating import Beats
from lockkit.store.spi import GRACE
from lockkit.sync.client import connect
from lockkit.testing.processes import until
from lockkit_zookeeper.layout import read_queue
from support.servers.proxy import Proxy
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.15
TTL = 9.0


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def client(server, request, tmp_path):
    clients = []

    def make(url=None, longest=TTL):
        made = connect(
            f"{url or server.url(f'/{request.node.name}')}?tick={TICK}&max_ttl={longest:g}",
            state_dir=str(tmp_path),
        )
        clients.append(made)
        return made

    yield make
    for made in clients:
        made.close()


def held(client, **options):
    """A lease that is never renewed by time, so that a loss before its end was told by the store."""
    return client.lock("a", ttl=TTL, auto_renew=False, **options).acquire(timeout=5)


def sessions(client):
    return list(client.driver().backend.sessions())


def children(server, path):
    with server.connect() as admin, contextlib.suppress(NoNodeError):
        return admin.get_children(path)
    return []


def test_a_holder_is_told_at_once_that_its_session_has_ended(server, client):
    mine = client()
    lease = held(mine)
    (proxy,) = [each.connection for each in sessions(mine) if each.entries]

    server.expire(proxy._client.identity)

    assert lease.lost.wait(5.0)
    assert not lease.valid()


def test_a_holder_is_told_at_once_that_somebody_has_deleted_its_node(server, client, request):
    lease = held(client())
    queue = f"/{request.node.name}/lockkit/default/q/a"
    (node,) = children(server, queue)

    with server.connect() as admin:
        admin.delete(f"{queue}/{node}")

    assert lease.lost.wait(5.0)


def test_a_claim_whose_time_is_up_goes_and_its_holder_who_counts_too_is_asked_for_nothing(
    server, client, request, monkeypatch
):
    told = []
    monkeypatch.setattr(Beats, "suspect", lambda _, token: told.append(token))
    queue = f"/{request.node.name}/lockkit/default/q/a"

    lease = client().lock("a", ttl=1.8, auto_renew=False).acquire(timeout=5)

    assert lease.lost.wait(5.0)
    until(lambda: children(server, queue) == [], "its node is removed")
    assert told == []


def test_a_session_that_comes_back_with_a_shorter_timeout_is_given_up(client, tmp_path):
    with ZooKeeperServer(tick=TICK) as other, client(other.url(), 60.0) as mine:
        lease = mine.lock("a", ttl=60.0, auto_renew=False).acquire(timeout=5)
        other.stop()
        other._sessions = (other._sessions[0], 2.0)
        other.start()

        assert lease.lost.wait(45.0)
        assert not lease.valid()


def test_a_waiter_keeps_its_place_through_an_outage_that_its_session_survives(
    server, client, request, monkeypatch
):
    path = f"/{request.node.name}"
    with Proxy((server.host, server.port)) as proxy:
        lease, order = client(longest=2 * TTL).lock("a", ttl=2 * TTL).acquire(timeout=5), []

        def wait(mine, who):
            standing = threading.Event()

            def take():
                with mine.lock("a", ttl=2 * TTL).acquire(30, on_wait=lambda _: standing.set()):
                    order.append(who)

            thread = threading.Thread(target=take)
            thread.start()
            assert standing.wait(5.0)
            return thread

        first = wait(client(f"zookeeper://{proxy.address}{path}", 2 * TTL), "first")
        second = wait(client(longest=2 * TTL), "second")
        queue = f"{path}/lockkit/default/q/a"
        assert len(children(server, queue)) == 3
        proxy.hold()
        threading.Event().wait(GRACE + 1.5)
        proxy.heal()
        lease.release()
        first.join(20)
        second.join(20)

    assert order == ["first", "second"]


def test_evict_works_where_the_servers_grant_less_than_the_longest_ttl(client):
    with ZooKeeperServer(tick=TICK, longest_session=3.0) as other, client(other.url()) as mine:
        lease = mine.lock("a", ttl=2.4).acquire(timeout=5)

        assert mine.evict("a", lease.claim_id, reason="test").outcome == "MARKED"
        assert lease.lost.wait(5.0)


def test_the_note_of_an_eviction_at_once_goes_when_it_has_served(server, client, request):
    mine, operator = client(), client()
    lease = mine.lock("a", ttl=2.4).acquire(timeout=5)
    (session,) = [each for each in sessions(mine) if each.entries]
    notes = f"/{request.node.name}/lockkit/default/c/{session.connection.session % 2**64:016x}"

    assert operator.evict("a", lease.claim_id, reason="test", now=True).outcome == "REMOVED"

    assert children(server, notes) == [lease.claim_id]
    until(lambda: children(server, notes) == [], "the note is taken away")


def test_a_claim_that_is_refused_for_a_strangers_node_leaves_none_of_its_own(server, client, request):
    mine = client()
    held(mine).release()
    queue = f"/{request.node.name}/lockkit/default/q/a"
    with server.connect() as admin:
        admin.create(f"{queue}/strange", makepath=True)  # the server may take an empty queue away

    with pytest.raises(IncompatibleLayout):
        mine.lock("a", ttl=TTL).try_acquire()

    until(lambda: children(server, queue) == ["strange"], "only the stranger's is left")


@pytest.mark.parametrize("number", ["0000000000", "2147483647", "-2147483648", "-999999999", "-000000001"])
def test_a_number_is_read_wherever_the_servers_counter_is(number):
    token = "0123456789abcdef" * 2

    assert read_queue([f"{token}-1-1-{number}"], "a").place(token) == 0
