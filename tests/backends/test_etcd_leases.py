"""The answers that a hold on etcd bases its validity on, reused leases, and the effect of late copies."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import ABSENT, RELEASED, Granted, Lapsed, OpenOptions, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, settled, states, take
from lockkit.testing.processes import installed, until
from lockkit_etcd.backend import open_store
from lockkit_etcd.gateway import Gateway
from support.etcd_transports import asked
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdRefused
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@contextlib.contextmanager
def opened(url):
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        yield store


@pytest.fixture(autouse=True)
def empty(server):
    for each in leases(server):
        with contextlib.suppress(EtcdRefused):
            server.call("lease/revoke", {"ID": each})


@pytest.fixture
def store(server):
    with opened(server.url()) as store:
        yield store


@pytest.fixture
def proxy(server):
    with Proxy((server.host, server.port)) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy):
    """A store whose connections can be held."""
    with opened(f"etcd://{proxy.address}") as store:
        yield store


def lease_of(store, one):
    return store.store.entries[one.token].hold


def leases(server):
    return set(map(int, server.leases()))


# -- the basis


def test_a_hold_counts_from_the_sending_of_the_grant_of_its_lease(store):
    before = SYSTEM.now()
    one = claim(ttl=30)
    answer = store.acquire(one, True, BUDGET)
    assert before <= answer.basis <= SYSTEM.now()
    assert answer.basis == lease_of(store, one).basis


def test_an_acquire_that_joins_a_lease_inherits_its_basis_not_the_present(store):
    first, _ = take(store, ttl=30)
    basis = lease_of(store, first).basis
    store.release(first, BUDGET)
    second = claim(ttl=30)
    assert store.acquire(second, True, BUDGET).basis == basis


def test_an_acquire_does_not_join_a_lease_that_is_half_over(store):
    first, _ = take(store, ttl=2)
    old = lease_of(store, first)
    store.release(first, BUDGET)
    until(lambda: not old.young(SYSTEM.now()), "more than half of it is over")
    second, began = claim(ttl=2), SYSTEM.now()
    answer = store.acquire(second, True, BUDGET)
    assert answer.basis >= began
    assert lease_of(store, second) is not old


def test_a_renewal_moves_the_basis_to_the_sending_of_the_keepalive(store):
    one, fence = take(store, ttl=30)
    before = SYSTEM.now()
    renewal = renew(store, one, fence)
    assert renewal.state == "HELD"
    assert before <= renewal.basis <= SYSTEM.now()


def test_a_leader_that_stood_still_while_another_was_elected_renews_nothing():
    with EtcdCluster() as cluster:
        old = cluster.leader()
        with opened(old.url()) as store:
            one, fence = take(store, ttl=30)
            assert renew(store, one, fence).state == "HELD"
            before = lease_of(store, one)
            basis = before.basis
            old.pause()
            cluster.until_healthy()
            old.resume()
            answers = []
            until(lambda: answers.append(tried(store, one, fence)) or answers[-1] is not None, "it answers")
            assert answers[-1].state in ("HELD", "UNKNOWN")
            assert before.basis == basis
            if answers[-1].state == "HELD" and answers[-1].basis != basis:  # it knows of the new term by then
                assert lease_of(store, one) is not before
                assert lease_of(store, one).basis == answers[-1].basis


def tried(store, one, fence):
    """The renewal, or None while the member does not serve."""
    with contextlib.suppress(Refused, Unknown):
        return renew(store, one, fence)


# -- one lease for each claim


def test_a_lease_is_used_again_after_a_definite_release(store):
    first, _ = take(store)
    lease = lease_of(store, first)
    store.release(first, BUDGET)
    second, _ = take(store)
    assert lease_of(store, second) is lease


def test_two_claims_never_share_a_lease(store):
    names = [take(store, f"lock-{at}")[0] for at in range(5)]
    assert len({lease_of(store, one).id for one in names}) == 5


def test_a_claim_waits_on_a_short_lease_and_holds_on_its_own(store):
    holder, _ = take(store, ttl=600)
    waiter = queue(store, ttl=600)
    entry = store.store.entries[waiter.token]
    assert (entry.wait.length, entry.hold.length) == (6, 600)
    store.release(holder, BUDGET)
    assert isinstance(store.acquire(waiter, False, BUDGET), Granted)
    assert entry.wait is None


def test_a_lease_is_revoked_and_not_used_again_after_an_acquire_without_an_answer(server, proxy, behind):
    warm, _ = take(behind)
    behind.release(warm, BUDGET)
    one = claim()
    proxy.hold(to_server=False)
    with pytest.raises(Unknown):
        behind.acquire(one, True, 0.3)
    proxy.heal()
    answer = settled(lambda: behind.acquire(one, True, BUDGET))
    assert isinstance(answer, Granted)
    lease = lease_of(behind, one).id
    assert settled(lambda: behind.release(one, BUDGET)) == RELEASED
    assert lease not in leases(server)
    again, _ = take(behind)
    assert lease_of(behind, again).id != lease


def test_a_try_that_is_refused_after_one_without_an_answer_leaves_nothing_that_could_grant(
    server, proxy, behind
):
    with opened(server.url()) as other:
        holder, _ = take(other)
        one = claim(wait=False)
        warm, _ = take(behind, "warm")
        behind.release(warm, BUDGET)
        proxy.hold()
        with pytest.raises(Unknown):
            behind.acquire(one, True, 0.3)
        spoilt = lease_of(behind, one).id
        proxy.drop()
        proxy.heal()
        settled(lambda: behind.acquire(one, True, BUDGET))
        settled(lambda: behind.abandon(one, BUDGET))
        assert spoilt not in leases(server)
        other.release(holder, BUDGET)
        assert states(other) == []


# -- late copies


def spied(monkeypatch):
    """Every transaction, as it was asked for."""
    sent = []
    real = Gateway.txn

    def txn(self, request, budget):
        sent.append(request)
        return real(self, request, budget)

    monkeypatch.setattr(Gateway, "txn", txn)
    return sent


@pytest.mark.parametrize("ending", ["abandon", "emergency_release"])
def test_a_copy_of_an_acquire_that_arrives_after_it_was_given_up_is_refused(server, proxy, behind, ending):
    warm, _ = take(behind, "warm")
    behind.release(warm, BUDGET)
    one = claim()
    proxy.hold()
    with pytest.raises(Unknown):
        behind.acquire(one, True, 0.2)
    (late,) = [each for each in proxy.connections if any(piece for _, piece in each.to_server._waiting)]
    with opened(server.url()) as other:
        # The client gives it up over another way to the server, while the copy is still under way.
        behind.store.transport.close()
        behind.store.transport, behind.perform = other.store.transport, other.perform
        assert getattr(behind, ending)(one, BUDGET) == ABSENT
        proxy.heal()
        until(lambda: late not in proxy.connections or not late.to_server._waiting, "the copy has arrived")
        assert isinstance(take(other)[1], int)


def test_a_copy_of_every_request_of_a_claim_that_is_over_changes_nothing(store, server, monkeypatch):
    sent = spied(monkeypatch)
    holder, _ = take(store)
    one = queue(store)
    store.release(holder, BUDGET)
    store.acquire(one, False, BUDGET)
    copies = list(sent)
    store.abandon(one, BUDGET)
    store.abandon(holder, BUDGET)
    for lease in store.store.leases._free.values():
        for each in lease:
            server.call("lease/revoke", {"ID": each.id})
    successor, fence = take(store)
    before = store.inspect("a", BUDGET).claims
    for copy in copies:
        with contextlib.suppress(Exception):
            asked(store).txn(copy, BUDGET)
    after = store.inspect("a", BUDGET).claims
    assert [(each.claim_id, each.fence, each.state) for each in after] == [
        (each.claim_id, each.fence, each.state) for each in before
    ]
    assert renew(store, successor, fence).state == "HELD"


def test_requests_that_waited_at_a_member_that_stood_still_hold_nothing(server):
    """A real late copy: the server carries it out when it goes on, seconds after it was given up."""
    with opened(server.url()) as store:
        warm, _ = take(store, "warm")
        store.release(warm, BUDGET)
        one = claim()
        server.pause()
        with pytest.raises(Unknown):
            store.acquire(one, True, 0.3)
        with pytest.raises((Unknown, Refused)):
            store.abandon(one, 0.3)
        server.resume()
        settled(lambda: store.abandon(one, BUDGET))
        assert store.acquire(one, True, BUDGET) == Lapsed("late")
        assert states(store) == []
        taken, _ = take(store)
        store.release(taken, BUDGET)


def test_a_claim_that_this_client_gave_up_is_not_asked_for_again(store):
    one = claim()
    assert store.abandon(one, BUDGET) == ABSENT
    assert store.acquire(one, True, BUDGET) == Lapsed("late")


# -- what goes by itself


def test_free_leases_are_revoked_when_the_store_is_closed(server):
    before = leases(server)
    with opened(server.url()) as store:
        one, _ = take(store)
        store.release(one, BUDGET)
        assert leases(server) > before
    assert leases(server) == before


def test_closing_a_store_whose_server_is_gone_takes_no_time():
    with EtcdServer() as server, opened(server.url()) as store:
        one, _ = take(store)
        store.release(one, BUDGET)
        server.pause()
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 5  # and not until the server goes on
        server.resume()


def test_a_lease_that_ended_under_the_pool_costs_one_more_try(store, server):
    one, _ = take(store)
    lease = lease_of(store, one)
    store.release(one, BUDGET)
    server.call("lease/revoke", {"ID": lease.id})
    again, _ = take(store)
    assert lease_of(store, again) is not lease


def test_min_hold_blocks_on_although_its_owner_is_gone(server):
    with opened(server.url()) as store:
        take(store, "slow", ttl=1, min_hold=4)
        began = time.monotonic()
    with opened(server.url()) as other:
        until(lambda: states(other, "slow") == ["LINGERING"], "its lease ends")
        waiter = queue(other, "slow")
        until(lambda: isinstance(other.acquire(waiter, False, BUDGET), Granted), "min_hold ends")
        assert time.monotonic() - began >= 3.9
        other.release(waiter, BUDGET)


def test_many_threads_take_turns_with_few_leases(store, server):
    """Leases are used again: what a busy client asks for does not grow with what it does."""
    before = leases(server)

    def work():
        for _ in range(20):
            one = claim("turns", ttl=30)
            answer = store.acquire(one, True, BUDGET)
            while not isinstance(answer, Granted):
                answer = store.acquire(one, False, BUDGET)
            store.release(one, BUDGET)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases(server) - before) <= 16


def test_a_claim_with_min_hold_that_does_not_get_to_hold_leaves_no_lease_of_that_length(store, server):
    holder, _ = take(store, "slow")
    before = leases(server)
    tried = claim("slow", min_hold=3600, wait=False)
    store.acquire(tried, True, BUDGET)
    waiter = queue(store, "slow", min_hold=3600)
    store.acquire(waiter, False, BUDGET)
    left = [server.call("lease/timetolive", {"ID": each}) for each in leases(server) - before]
    assert [each for each in left if int(each.get("TTL", 0)) > 100] == []
    store.release(holder, BUDGET)
    assert isinstance(store.acquire(waiter, False, BUDGET), Granted)
    store.release(waiter, BUDGET)
    assert states(store, "slow") == ["LINGERING"]


def test_what_is_remembered_of_claims_that_are_over_does_not_grow(store):
    for at in range(6000):
        store.store.bury(f"{at:032x}")
    assert len(store.store._gone) == 4096
    assert store.store.buried(f"{5999:032x}")


@pytest.mark.parametrize("age", [0.0, 1.0])
@pytest.mark.parametrize(
    "terms", [{"max_hold": 30.0}, {"min_hold": 0.01}], ids=lambda terms: next(iter(terms))
)
def test_claims_whose_time_counts_exactly_leave_no_lease_each(server, store, terms, age):
    for at in range(10):
        one, _ = take(store, f"x{at}", ttl=30, **terms)
        store.store.entries[one.token].hold.basis -= age
        assert store.release(one, BUDGET) == RELEASED

    long = [
        each for each in leases(server) if server.call("lease/timetolive", {"ID": each})["grantedTTL"] == "30"
    ]
    assert len(long) <= 1


def test_a_claim_whose_time_counts_exactly_revokes_one_older_lease_at_most(store, monkeypatch):
    """Each takes a round trip, and those of other claims may be many."""
    for one in [take(store, f"x{at}", ttl=30)[0] for at in range(10)]:
        store.store.entries[one.token].hold.basis -= 1.0
        assert store.release(one, BUDGET) == RELEASED
    revoked, real = [], store.store.transport.revoke
    monkeypatch.setattr(
        store.store.transport, "revoke", lambda lease, end: revoked.append(lease) or real(lease, end)
    )

    take(store, "exact", ttl=30, max_hold=30.0)

    assert len(revoked) == 1
