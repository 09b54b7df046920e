"""Deliberate mistakes in the ZooKeeper store: each must be noticed by what is meant to notice it."""

from __future__ import annotations

import contextlib
import time

import pytest

pytest.importorskip("kazoo")

from kazoo.protocol.serialization import Create2, Sync, Transaction

import lockkit.protocol.acquiring
from lockkit.store.spi import ABSENT, RELEASED, Busy, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.shapes import MUTEX, SEMAPHORE
from lockkit_zookeeper import acquiring, confirming, entries, watching
from lockkit_zookeeper.backend import open_store
from lockkit_zookeeper.confirming import Confirming
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import Queue
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore
from support.harnesses.zookeeper import TICK, ZooKeeperHarness
from support.mutants.onstores import fails, scenarios
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble

TTL = 2.4
LONG = 8.0


class CountsInTheQueue(Create2):
    """The fence is the number in the queue."""

    @classmethod
    def deserialize(cls, data, offset):
        path, stat = super().deserialize(data, offset)
        return path, stat._replace(czxid=int(path[-10:]))


def for_ever(hold):
    def broken(self, now, basis, span):
        hold(self, now, basis, span)
        self.deadline = float("inf")

    return broken


def creates_first(_):
    """Make the node of a try first, and refuse the try if there is anybody before it."""

    def broken(self, queue):
        if queue is None:
            queue = self.create()
        if queue.place(self.entry.token) < queue.grants:
            return self.judge(queue)
        self.withdraw()
        self.session.end(self.entry, "late")
        self.session.gone(self.entry)
        return Busy(1)

    return broken


def since_the_basis(hold):
    return lambda claim, fence, basis, *rest, since, **more: hold(
        claim, fence, basis, *rest, since=basis, **more
    )


KIT = {
    "the fence is the number in the queue": (
        "S4-fence-rises",
        acquiring,
        "Create2",
        lambda _: CountsInTheQueue,
    ),
    "notes are not read": ("S6-evicted", Confirming, "_read_notes", lambda _: lambda self, notes: True),
    "what nobody speaks for lasts as long as its session": (
        "S2-grant-without-lease",
        Entry,
        "hold",
        for_ever,
    ),
    "an offer lasts as long as its session": ("S2-slow-offer", entries, "GRACE", lambda _: 1e9),
    "a waiter lasts as long as its session": ("L5-dead-waiter", entries, "GRACE", lambda _: 1e9),
    "nothing is watched": ("L3-hand-off", watching.NodeWatch, "arm", lambda _: lambda self: None),
    "a try makes its node before it looks": ("L3-try-storm", acquiring._Acquiring, "try_it", creates_first),
    "max_hold counts from the basis of the session": (
        "L6-max-hold-from-grant",
        lockkit.protocol.acquiring,
        "Hold",
        since_the_basis,
    ),
    "a token may be used again": (
        "S12-late-after-success",
        ZooKeeperStore,
        "bury",
        lambda _: lambda *_: None,
    ),
}


@pytest.mark.filterwarnings("ignore")  # a scenario that fails half-way leaves its leases to the collector
@pytest.mark.parametrize("mutant", KIT)
def test_the_kit_kills_it_by_the_expected_scenario(mutant, tmp_path, monkeypatch):
    name, owner, attribute, broken = KIT[mutant]
    monkeypatch.setattr(owner, attribute, broken(getattr(owner, attribute)))
    played = [each for each in scenarios(name) if each.shape in (MUTEX, SEMAPHORE)]
    # A storm that grants nothing busies a processor to its end; one that grants is over within a second.
    monkeypatch.setattr("lockkit.testing.scenarios.handoffs._STORM", 8.0)
    assert any(fails(each, ZooKeeperHarness, folder(tmp_path, at)) for at, each in enumerate(played)), mutant


def folder(scratch, at):
    made = scratch / str(at)
    made.mkdir()
    return made


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def store(server, request):
    with contextlib.closing(
        open_store(f"{server.url('/' + request.node.name)}?tick={TICK}&max_ttl=9", OpenOptions())
    ) as store:
        yield store


# -- the basis


def confirmed_too_early(store, monkeypatch):
    """Whether a session ever counts from a beat without two later answers, or from after the last write."""
    one, _ = take(store, ttl=TTL)
    mine = store.entry(one.token)[0]
    sent, written = [mine.basis], [mine.basis]
    send = mine.connection.send

    def noted(request):
        if isinstance(request, (Sync, Transaction)):
            sent.append(mine.clock.now())
        if isinstance(request, Transaction):
            written.append(mine.clock.now())
        return send(request)

    monkeypatch.setattr(mine.connection, "send", noted)
    before, patched = mine.basis, mine.clock.now()
    end = time.monotonic() + 1.5 * TTL
    while time.monotonic() < end:
        basis, later = mine.basis, [at for at in sent if at >= mine.basis]
        if basis > patched and (len(later) < 3 or basis > max(written)):
            return True
        with contextlib.suppress(Unknown):  # a busy machine may leave the session unconfirmed for a while
            store.renew([(one, store.entry(one.token)[1].fence)], BUDGET)
        time.sleep(0.005)
    assert mine.basis > before, "it was never confirmed"
    return False


def test_a_basis_from_fewer_beats_or_without_a_write_is_noticed(store, monkeypatch):
    assert not confirmed_too_early(store, monkeypatch)


def test_a_basis_without_a_write_is_a_mistake(store, monkeypatch):
    monkeypatch.setattr(confirming, "agreement", Sync)
    monkeypatch.setattr(confirming, "agreed", lambda _: True)
    assert confirmed_too_early(store, monkeypatch)


@pytest.mark.parametrize("beats", [1, 2])
def test_a_basis_from_fewer_beats_is_a_mistake(store, monkeypatch, beats):
    monkeypatch.setattr(confirming, "_CONFIRMED", beats)
    if beats == 1:
        monkeypatch.setattr(Confirming, "_read_answers", counts_at_once)
    assert confirmed_too_early(store, monkeypatch)


def counts_at_once(self):
    mine = self._session
    with mine.mutex:
        beat = self._beat
        if beat is None or not beat.ready:
            return
        self._beat = None
        self.next = mine.clock.now() + max(mine.store.address.tick, mine.timeout / 10)
        mine.move(beat.sent, mine.clock.now())


def age_when_joined(store, monkeypatch):
    """The age of the basis of a claim that joins a session confirmed long ago, less the session's age."""
    first, _ = take(store, "first", ttl=LONG)
    mine = store.entry(first.token)[0]
    monkeypatch.setattr(mine.confirming, "_send", lambda _: None)  # it is not confirmed any more
    time.sleep(0.1 * LONG)  # it is joined until half of its timeout is over
    one = claim(ttl=LONG)
    answer = store.acquire(one, True, BUDGET)
    assert isinstance(answer, Granted)
    return answer.basis - mine.basis


def test_who_joins_a_session_has_its_basis(store, monkeypatch):
    assert age_when_joined(store, monkeypatch) == 0.0


def test_validity_from_now_on_an_old_session_is_noticed(store, monkeypatch):
    real = Session.grant

    def from_now(self, entry):
        granted = real(self, entry)
        entry.basis = self.clock.now()
        return granted

    monkeypatch.setattr(Session, "grant", from_now)
    assert age_when_joined(store, monkeypatch) > 0.05 * LONG


def test_a_session_that_is_nearly_over_is_not_joined(store, monkeypatch):
    first, _ = take(store, "first", ttl=TTL)
    mine = store.entry(first.token)[0]
    monkeypatch.setattr(mine.confirming, "_send", lambda _: None)
    time.sleep(0.6 * TTL)
    with pytest.raises(Refused):
        store.acquire(claim(ttl=TTL), True, 0.1)


# -- the ttl that the servers grant


def valid_beyond_its_session():
    """Whether a lease counts as valid for longer than the session where servers grant less than asked for."""
    with (
        ZooKeeperServer(tick=TICK, longest_session=4.5) as short,
        connect(f"{short.url('/app')}?tick={TICK}&max_ttl=9") as client,
    ):
        lease = client.lock("a", ttl=9, auto_renew=False).acquire(5)
        granted = client.driver().backend.entry(lease.token)[0].timeout
        assert granted == 4.5
        valid = lease.remaining()
        lease.release()
        return valid > granted


def test_a_lease_is_valid_no_longer_than_the_session_that_the_servers_grant():
    assert not valid_beyond_its_session()


def test_validity_from_the_asked_ttl_is_noticed(monkeypatch):
    monkeypatch.setattr(acquiring, "Granted", lambda fence, basis, _: Granted(fence, basis))
    assert valid_beyond_its_session()


# -- resizes


def granted_beyond(store):
    """Whether the middle of three fitting claims joins two holders of a lock that is now for two."""
    terms = {"ttl": TTL, "capacity": 3, "kind": "semaphore"}
    heavy, _ = take(store, weight=3, **terms)
    first, middle, last = (queue(store, **terms) for _ in range(3))
    store.release(heavy, BUDGET)
    for one in (first, last):
        assert isinstance(store.acquire(one, False, BUDGET), Granted)
    store.resize("a", 2, BUDGET)
    return not isinstance(store.acquire(middle, False, BUDGET), Queued)


def test_a_marker_that_forgets_who_held_is_noticed(store, monkeypatch):
    assert not granted_beyond(store)
    for info in store.inspect("a", BUDGET).claims:
        store.evict("a", info.claim_id, BUDGET, now=True)
    monkeypatch.setattr(Queue, "grants", property(lambda self: self.fits))
    assert granted_beyond(store)


# -- what a member that lags behind shows


def found_by_a_late_one():
    """Release a claim by its token, by way of a member that lags behind, and return what becomes of it."""
    with ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=40) as ensemble:
        leader, follower = ensemble.leader(), ensemble.followers()[0]
        options = f"/app?tick={TICK}&max_ttl=12"
        with (
            contextlib.closing(open_store(leader.url() + options, OpenOptions())) as store,
            contextlib.closing(open_store(follower.url() + options, OpenOptions())) as late,
        ):
            store.release(take(store, ttl=9.0)[0], BUDGET)
            ensemble.lag(follower, 0.4)
            one, _ = take(store, ttl=9.0)
            answer = late.release(one, 10 * BUDGET)  # each of its requests takes the lag
            ensemble.heal()
            return answer


def test_a_write_before_the_scan_finds_what_is_new():
    assert found_by_a_late_one() == RELEASED


def test_a_scan_without_a_write_is_noticed(monkeypatch):
    monkeypatch.setattr(Call, "settled", lambda self, parent: self.listed(parent, sync=False) or [])
    assert found_by_a_late_one() == ABSENT


# -- sessions are shared


def held_beside_a_release(store):
    one, _ = take(store, ttl=TTL)
    other, fence = take(store, "b", ttl=TTL)
    store.release(one, BUDGET)
    return renew(store, other, fence).state == "HELD" and states(store, "b") == ["HELD"]


def test_a_release_ends_nobody_elses_claim(store):
    assert held_beside_a_release(store)


def test_a_release_that_ends_its_session_is_noticed(store, monkeypatch):
    real = Call.remove

    def broken(self, *args):
        answer = real(self, *args)
        self.connection.close(goodbye=True).join(5.0)
        return answer

    monkeypatch.setattr(Call, "remove", broken)
    assert not held_beside_a_release(store)
