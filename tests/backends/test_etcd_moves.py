"""Claims on etcd that move to another lease, are ended by others, or go on blocking in their place."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time

import pytest

from lockkit.errors import OutcomeUnknown
from lockkit.store.spi import RELEASED, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.interrupts import CtrlC
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit.values.names import claim_id
from lockkit_etcd.backend import open_store
from lockkit_etcd.transport import Delete, LeaseGone, Put, Txn
from support.etcd_transports import asked
from support.handlers import Handler
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
SHORT, LONG = 2.0, 3.0


server = started(EtcdServer)


@pytest.fixture
def opened(server):
    server.wipe()
    with contextlib.ExitStack() as stack:

        def another():
            store = open_store(server.url(), OpenOptions())
            stack.callback(store.close)
            return store

        yield another


def answer_lost(store, monkeypatch, state="HELD"):
    """Have the next transaction that writes a claim of this state be done, and its answer be lost."""
    transport, lost = asked(store), []
    real = transport.txn

    def txn(request, budget):
        answer = real(request, budget)
        if not lost and any(type(op) is Put and f'"{state}"'.encode() in op.value for op in request.then):
            lost.append(True)
            raise Unknown(OutcomeUnknown("the answer is lost"))
        return answer

    monkeypatch.setattr(transport, "txn", txn)
    return lost


def kept_up(store, one, fence, seconds):
    """Renew for a while: as long as it is answered HELD, the store must have it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = renew(store, one, fence).state
        if answer == "HELD":
            assert states(store) == ["HELD"], "S2: held, as its holder is told, but the store has it no more"
        else:
            assert answer == "UNKNOWN"
        threading.Event().wait(0.3)
    return answer


def test_a_claim_whose_extend_had_no_answer_is_kept_wherever_it_is(opened, monkeypatch):
    store = opened()
    one, fence = take(store, ttl=SHORT)
    lost = answer_lost(store, monkeypatch)

    with pytest.raises(Unknown):
        store.extend(one, fence, LONG, BUDGET)

    assert lost
    assert kept_up(store, one, fence, 2.5 * LONG) == "HELD"
    assert store.release(one, BUDGET) == RELEASED
    assert states(store) == []


def test_a_dead_holder_blocks_for_its_ttl_although_it_has_waited_on_a_longer_lease(opened, monkeypatch):
    holder, store = opened(), opened()
    first, _ = take(holder, ttl=30)
    second = queue(store, ttl=SHORT)
    entry = store.store.entries[second.token]
    entry.wait.term = 0  # so the first heartbeat moves the claim
    lost = answer_lost(store, monkeypatch, "WAITING")
    assert renew(store, second).state == "UNKNOWN"
    assert (lost, entry.unsure, [each.length > SHORT for each in entry.spoilt]) == ([True], True, [True])
    assert holder.release(first, BUDGET) == RELEASED
    granted = store.acquire(second, False, BUDGET)

    assert renew(store, second, granted.fence).state == "HELD"

    (row,) = store.inspect("a", BUDGET).claims
    assert row.deadline - time.time() <= SHORT + 1.0, "S11: rounded up to whole seconds, and no longer"


def test_a_holder_that_extends_after_another_has_stays_on_the_lease_it_is_on(opened):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=SHORT)
    assert other.extend(one, fence, SHORT, BUDGET).state == "HELD"
    assert renew(mine, one, fence).state == "HELD"

    assert mine.extend(one, fence, LONG, BUDGET).state == "HELD"

    assert kept_up(mine, one, fence, 2.5 * LONG) == "HELD"


def test_an_annotation_does_not_hide_where_another_has_moved_a_claim(opened):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=SHORT)
    assert other.extend(one, fence, LONG, BUDGET).state == "HELD"

    assert other.annotate("a", claim_id(one.token), {"said": 1}, BUDGET)

    assert kept_up(mine, one, fence, 2.5 * LONG) == "HELD"


def test_a_holder_learns_that_a_copy_of_its_lease_was_released(server, opened, tmp_path):
    with (
        connect(server.url(), state_dir=str(tmp_path)) as mine,
        connect(server.url(), state_dir=str(tmp_path)) as other,
    ):
        lease = mine.lock("copied", ttl=SHORT).acquire(timeout=5)

        assert other.adopt(lease.handle()).release().outcome == "RELEASED"

        with other.lock("copied", ttl=SHORT).acquire(timeout=5) as next_:
            assert lease.lost.wait(PATIENCE)
            assert not lease.valid()
            assert next_.valid()


def guarded(opened, **terms):
    """A claim that had queued, was granted, and is released before its min_hold is over."""
    stores = [opened() for _ in range(3)]
    holders = [take(stores[0], ttl=30, **terms)[0] for _ in range(terms.get("capacity", 1))]
    blocking = queue(stores[1], ttl=30, min_hold=20.0, **terms)
    behind = [queue(stores[2], ttl=30, **terms) for _ in range(2)]
    stores[0].release(holders[0], BUDGET)
    assert isinstance(stores[1].acquire(blocking, False, BUDGET), Granted)
    assert stores[1].release(blocking, BUDGET) == RELEASED
    return stores, holders, behind


def test_min_hold_is_kept_for_a_claim_that_had_queued(opened):
    stores, _, (behind, _) = guarded(opened)

    assert isinstance(stores[2].acquire(behind, False, BUDGET), Queued)


def test_what_goes_on_blocking_takes_the_place_of_its_claim_and_no_other(opened):
    stores, holders, (behind, last) = guarded(opened, capacity=2, kind="semaphore")

    stores[0].release(holders[1], BUDGET)

    assert isinstance(stores[2].acquire(behind, False, BUDGET), Granted)
    assert isinstance(stores[2].acquire(last, False, BUDGET), Queued)


STRANGE = {
    "a reader that is no number": b'{"min_reader":"2"}',
    "an owner that is none": b'{"min_reader":9,"owner":"x"}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE.keys())
def test_what_a_stranger_wrote_into_one_queue_costs_no_other(server, opened, value):
    store = opened()
    held, fence = take(store, "good", ttl=30)
    holder, _ = take(store, "bad", ttl=30)
    waiting = queue(store, "bad", ttl=30)
    server.call("kv/put", {"key": b"lockkit/default/q/bad/zzz", "value": value})
    store.release(holder, BUDGET)  # so that a heartbeat reads the whole queue

    renewals = store.renew([(held, fence), (waiting, None)], BUDGET)

    assert [each.state for each in renewals] == ["HELD", "UNKNOWN"]
    with pytest.raises(Refused):
        store.acquire(claim("bad", wait=False), True, BUDGET)


def test_names_that_a_stranger_wrote_are_passed_over(server, opened):
    store = opened()
    take(store, "good", ttl=30)
    server.call("kv/put", {"key": b"lockkit/default/q/\xff/x", "value": b"{}"})

    assert store.names("", BUDGET) == ["good"]


def test_a_release_that_is_repeated_after_an_interruption_gives_no_lease_back_twice(opened, monkeypatch):
    store = opened()
    one, _ = take(store, ttl=30)
    leases, real = store.store.leases, store.store.leases.give_back

    def interrupted(lease):
        real(lease)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(leases, "give_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.release(one, BUDGET)
    second, _ = take(store, "second", ttl=30)
    store.release(one, BUDGET)
    third, _ = take(store, "third", ttl=30)

    entries = store.store.entries
    assert entries[second.token].hold.id != entries[third.token].hold.id


def test_a_moved_claim_leaves_nothing_behind(server, opened):
    store = opened()
    one, fence = take(store, ttl=SHORT)
    assert store.extend(one, fence, LONG, BUDGET).state == "HELD"

    store.release(one, BUDGET)

    until(lambda: not server.call("kv/range", covered("lockkit/default/")).get("kvs"), "no key is left")


def test_ctrl_c_at_the_end_of_a_move_does_not_end_the_renewals_of_the_claim(opened):
    store = opened()

    def strike():
        raise CtrlC

    def extended(at):
        one, fence = take(store, f"x{at}", ttl=SHORT)
        handler = Handler(at, strike, file="lockkit_etcd/store.py", function="end_move")
        with contextlib.suppress(CtrlC), handler:
            store.extend(one, fence, LONG, BUDGET)
        return handler.seen, store.store.entries[one.token]

    places, _ = extended(0)
    assert places
    for at in range(1, places + 1):
        _, entry = extended(at)
        assert entry.settled, at


# -- moves by another client


def late(opened, monkeypatch, *, announced=True):
    """A claim whose client gave up extending it, and the late request: the move, or its announcement."""
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=LONG)
    transport, kept = asked(other), []
    real = transport.txn

    def txn(request, budget):
        puts = [op for op in request.then if type(op) is Put and b'"HELD"' in op.value]
        if not kept and puts and puts[0].same_lease is not announced:
            kept.append(request)
            raise Unknown(OutcomeUnknown("no answer"))
        return real(request, budget)

    monkeypatch.setattr(transport, "txn", txn)
    with pytest.raises(Unknown):
        other.extend(one, fence, LONG, BUDGET)
    lease = next(op.lease for op in kept[0].then if type(op) is Put)

    def nearly_over(left=1):
        return transport.remaining(lease, BUDGET).ttl < left

    def arrives():
        with contextlib.suppress(LeaseGone):
            real(kept[0], BUDGET)

    return mine, other, one, fence, nearly_over, arrives


def stored_until(store, end):
    """The claim must be stored as long as its holder may count on it."""
    while time.clock_gettime(time.CLOCK_BOOTTIME) < end - 0.1:
        assert states(store) == ["HELD"], "S2: its holder is valid, and the store has nothing of it any more"
        threading.Event().wait(0.1)


@pytest.mark.parametrize("confirms", [False, True])
def test_an_extend_of_a_copy_that_arrives_late_leaves_a_holder_no_lease_that_is_nearly_over(
    opened, monkeypatch, confirms
):
    mine, other, one, fence, nearly_over, arrives = late(opened, monkeypatch)
    while not nearly_over():
        answer = mine.acquire(one, False, BUDGET) if confirms else renew(mine, one, fence)
        threading.Event().wait(0.1)

    arrives()

    stored_until(other, answer.basis + LONG)


def test_an_extend_of_a_copy_that_arrives_late_ends_no_hold_that_is_not_renewed_in_between(
    opened, monkeypatch
):
    mine, other, one, _, nearly_over, arrives = late(opened, monkeypatch)
    basis = mine.store.entries[one.token].hold.basis
    while not nearly_over():
        threading.Event().wait(0.1)

    arrives()

    stored_until(other, basis + LONG)


def test_a_holder_that_renews_after_a_late_extend_of_a_copy_is_told_the_truth(opened, monkeypatch):
    mine, _, one, fence, nearly_over, arrives = late(opened, monkeypatch)
    while not nearly_over():
        assert renew(mine, one, fence).state == "HELD"
        threading.Event().wait(0.1)
    arrives()
    until(lambda: nearly_over(0), "that lease has ended")

    assert kept_up(mine, one, fence, LONG) == "HELD"


def test_an_announcement_that_arrives_late_changes_nothing_for_the_holder(opened, monkeypatch):
    mine, _, one, fence, _, arrives = late(opened, monkeypatch, announced=False)

    arrives()

    assert kept_up(mine, one, fence, 2 * LONG) == "HELD"


@pytest.mark.parametrize("what", ["annotate", "evict"])
def test_whatever_others_write_of_a_claim_that_another_moved_its_holder_reads_it(opened, monkeypatch, what):
    mine, other, one, fence, _, arrives = late(opened, monkeypatch)
    arrives()
    if what == "annotate":
        assert other.annotate("a", claim_id(one.token), {"said": 1}, BUDGET)
    else:
        other.evict("a", claim_id(one.token), BUDGET)

    answer = renew(mine, one, fence)

    if what == "annotate":
        assert (answer.state, answer.requests) == ("HELD", {"said": 1})
    else:
        assert (answer.state, answer.why) == ("LOST", "evicted")


@pytest.mark.parametrize("extended", [False, True])
def test_a_holder_learns_that_it_was_evicted_although_a_copy_has_removed_its_claim(opened, extended):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=LONG)
    if extended:
        assert other.extend(one, fence, LONG, BUDGET).state == "HELD"
    other.evict("a", claim_id(one.token), BUDGET)

    assert other.release(one, BUDGET) == RELEASED

    assert renew(mine, one, fence).state == "LOST"


def test_copies_go_on_extending_a_claim_whose_client_is_dead(opened):
    mine, others = opened(), [opened(), opened()]
    one, fence = take(mine, ttl=SHORT)
    end = time.monotonic() + 3 * SHORT

    while time.monotonic() < end:
        for other in others:
            assert other.extend(one, fence, SHORT, BUDGET).state == "HELD"
            assert states(other) == ["HELD"]
        threading.Event().wait(SHORT / 3)

    assert renew(mine, one, fence).state == "LOST"


def test_a_copy_that_stands_still_for_the_length_of_its_lease_tries_again(opened, monkeypatch):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=LONG)
    transport, ended = asked(other), []
    real = transport.txn

    def txn(request, budget):
        puts = [op for op in request.then if type(op) is Put and op.lease and b'"HELD"' in op.value]
        if not ended and puts:
            ended.append(transport.revoke(puts[0].lease, BUDGET))
        return real(request, budget)

    monkeypatch.setattr(transport, "txn", txn)

    assert other.extend(one, fence, LONG, BUDGET).state == "HELD"
    assert ended


# -- beside earlier versions, which trust the lease in the last note, and keep unknown fields


def stored(server, what):
    """The only key in a part of the namespace: its name, its value and its lease."""
    (kv,) = server.call("kv/range", covered(f"lockkit/default/{what}/"))["kvs"]
    return base64.b64decode(kv["key"]), json.loads(base64.b64decode(kv["value"])), int(kv["lease"])


def moved_as_before(server, store, note):
    """Move the claim as an earlier version does, which names the lease's term in the claim."""
    key, value, _ = stored(server, "q")
    lease = store.perform(store.store.leases.grant(int(LONG), time.monotonic() + BUDGET))
    put = Put(key, json.dumps({**value, "term": lease.term}).encode(), lease.id)
    asked(store).txn(Txn((), (put, *note(lease))), BUDGET)
    return lease.id


def test_a_holder_of_an_earlier_version_moves_whenever_a_copy_has(server, opened):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=LONG)
    before = {stored(server, "q")[2]}
    for _ in range(2):
        assert other.extend(one, fence, LONG, BUDGET).state == "HELD"

        _, value, lease = stored(server, "q")
        note, said, noted = stored(server, "c")
        assert said["lease"] not in before, "the note names no lease that the holder counts on"
        assert noted in before, "and is where the holder renews it"
        assert lease not in before
        assert "term" not in value, "so that the holder does not stay on the lease of the copy"
        before = {moved_as_before(server, mine, lambda _, note=note: (Delete(note),))}


def test_a_holder_learns_that_a_copy_of_an_earlier_version_has_moved_its_claim(server, opened):
    mine, other = opened(), opened()
    one, fence = take(mine, ttl=LONG)
    note = mine.store.note(claim_id(one.token))
    lease = moved_as_before(
        server, other, lambda lease: (Put(note, json.dumps({"lease": lease.id}).encode(), lease.id),)
    )

    assert renew(mine, one, fence).state == "HELD"

    _, value, now = stored(server, "q")
    assert now not in (lease, 0)
    assert "term" not in value
    assert kept_up(mine, one, fence, 2 * LONG) == "HELD"
