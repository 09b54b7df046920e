"""Three etcd members: what becomes of holds and waits when one of them, or all, go away."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

import lockkit
from lockkit.store.spi import Granted, OpenOptions
from lockkit.testing.claims import BUDGET, queue, renew, settled, states, take
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit.testing.stage import Work
from lockkit_etcd.backend import open_store
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
TTL = 6.0


@pytest.fixture
def cluster():
    with EtcdCluster() as cluster:
        yield cluster


@contextlib.contextmanager
def proxies(cluster):
    """A proxy to each member, and the URL that leads over them, the leader first."""
    leader = cluster.leader()
    members = [leader, *(each for each in cluster.members if each is not leader)]
    with contextlib.ExitStack() as stack:
        laid = [stack.enter_context(Proxy((each.host, each.port))) for each in members]
        yield laid, "etcd://" + ",".join(proxy.address for proxy in laid)


def waiting(client, name, timeout=30.0):
    standing = threading.Event()
    work = Work(lambda: client.lock(name, ttl=TTL).acquire(timeout, on_wait=lambda _: standing.set()))
    assert standing.wait(PATIENCE), work.error(0.1)
    return work


def test_the_leader_is_killed_while_locks_are_held_and_awaited(cluster):
    with lockkit.connect(cluster.url()) as client, lockkit.connect(cluster.url()) as other:
        leases = [client.lock(f"lock-{at}", ttl=TTL).acquire() for at in range(10)]
        waits = [waiting(other, f"lock-{at}") for at in range(3)]
        cluster.kill_leader()
        end = time.monotonic() + 1.5 * TTL
        while time.monotonic() < end:
            assert all(lease.valid() for lease in leases)
            assert not any(work.done for work in waits)
            time.sleep(0.05)
        for lease in leases:
            assert lease.release().outcome == "RELEASED"
        for work, lease in zip(waits, leases, strict=False):
            successor = work.result()
            assert successor.fence > lease.fence
            successor.release()
        assert client.stats()["lost"] == 0


def test_all_members_are_restarted_while_locks_are_held_and_awaited(cluster):
    with lockkit.connect(cluster.url()) as client, lockkit.connect(cluster.url()) as other:
        lease = client.lock("a", ttl=2 * TTL).acquire()
        work = waiting(other, "a", 60.0)
        for member in cluster.members:
            member.stop()
        for member in cluster.members:
            member.start(wait=False)
        cluster.until_healthy()
        until(lambda: settled_confirm(lease), "it answers again")
        assert lease.valid()
        assert not work.done
        assert lease.release().outcome == "RELEASED"
        assert work.result(20.0).fence > lease.fence


def settled_confirm(lease):
    try:
        lease.confirm()
    except lockkit.BackendError:
        return False
    return True


def test_each_member_in_turn_is_restarted_and_nothing_is_lost(cluster):
    with lockkit.connect(cluster.url()) as client:
        lease = client.lock("a", ttl=TTL).acquire()
        for member in cluster.members:
            member.stop()
            until(lambda: settled_confirm(lease), "the others serve")
            member.start(wait=False)
            cluster.until_healthy()
            client.lock("b", ttl=TTL).acquire(timeout=5).release()
        assert lease.valid()
        assert lease.release().outcome == "RELEASED"


def test_without_a_majority_nothing_is_granted_and_holds_end_by_their_own_clock(cluster):
    with lockkit.connect(cluster.url()) as client:
        lost = threading.Event()
        lease = client.lock("a", ttl=2.0, on_lost=lost.set).acquire()
        for member in cluster.followers():
            member.pause()
        with pytest.raises((lockkit.BackendError, lockkit.AcquireTimeout)):
            client.lock("b").acquire(timeout=1.0)
        assert lost.wait(PATIENCE)
        assert not lease.valid()
        for member in cluster.members:
            member.resume()
        cluster.until_healthy()
        until(lambda: client.inspect("a").claims == (), "S11: what was lost goes")
        until(lambda: client.inspect("b").claims == (), "L4: what was given up goes")


def test_a_link_that_heals_after_the_holder_called_itself_lost_leaves_no_zombie(cluster):
    """The client of the hold is otherwise well, and another of its claims is renewed all the time."""
    with proxies(cluster) as (laid, url), lockkit.connect(url) as client:
        told = threading.Event()
        keeper = client.lock("other", ttl=60).acquire()
        lease = client.lock("a", ttl=2.0, on_lost=told.set).acquire()
        for proxy in laid:
            proxy.hold(to_server=False)
        assert told.wait(PATIENCE)
        assert not lease.valid()
        for proxy in laid:
            proxy.heal()
        with lockkit.connect(cluster.url()) as other:
            until(lambda: other.inspect("a").claims == (), "S11: what was lost goes")
            other.lock("a", ttl=TTL).acquire(timeout=0).release()
        keeper.confirm()
        assert keeper.valid()


def test_a_follower_that_is_asked_for_keepalives_renews_what_the_leader_keeps(cluster):
    with contextlib.closing(open_store(cluster.followers()[0].url(), OpenOptions())) as store:
        held = [take(store, f"lock-{at}", ttl=3) for at in range(30)]
        for _ in range(8):
            time.sleep(0.5)
            assert {answer.state for answer in store.renew(held, BUDGET)} == {"HELD"}
        assert len(store.names("", BUDGET)) == 30


def test_a_hand_off_crosses_an_election(cluster):
    with (
        contextlib.closing(open_store(cluster.url(), OpenOptions())) as first,
        contextlib.closing(open_store(cluster.url(), OpenOptions())) as second,
    ):
        holder, fence = take(first, ttl=30)
        waiter = queue(second, ttl=30)
        cluster.leader().pause()
        cluster.until_healthy()
        assert settled(lambda: first.release(holder, BUDGET)) in ("RELEASED", "ABSENT")
        answer = settled(lambda: second.acquire(waiter, False, BUDGET))
        assert isinstance(answer, Granted)
        assert answer.fence > fence
        assert settled(lambda: renew(second, waiter, answer.fence)).state in ("HELD", "UNKNOWN")
        assert states(second) == ["HELD"]
        for member in cluster.members:
            member.resume()
