"""Leaders of etcd that stood still and come back: what they revoke must be of no use to anybody any more.

The elections are scripted: a real server stores and grants; a transport before it chooses the term that
it reports, and keeps the term in which each lease was granted. A leader that comes back revokes every
lease of a term before the present one: all that a deposed leader can know.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from msgspec.structs import replace

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.store.spi import RELEASED, Granted, OpenOptions, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.processes import installed
from lockkit.values.names import claim_id
from lockkit_etcd import moving
from lockkit_etcd.backend import EtcdBackend
from lockkit_etcd.leases import EtcdLeases
from lockkit_etcd.moving import Move, move
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.terms import RaftTerms
from lockkit_etcd.transport import Delete, Header, Kept, LeaseGone, Put, Txn
from support.etcd_transports import SCHEMES, Exchanging, asked, connect
from support.handlers import Handler
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
TTL = 30


server = started(EtcdServer)


class Elections:
    """A transport to a real server whose raft term is scripted.

    Attributes:
        term: The present one.
        granted: In which term each lease was granted.
        shown: The terms that the next answers show, in place of the present one.
        in_grant: Called once, between the next grant and its answer.
        in_keepalive: Called once, before the next keepalives.
        before_txn: Called once, before the next transaction that writes, with it.
        lost: The number of transactions that write, and whose answer is lost.
        undone: They are not done either.
        stale: The term of a deposed leader that still answers requests outside the log; None for none.
        back: How many revisions the servers seem to have been set back, by a backup.
    """

    def __init__(self, transport):
        self._transport = transport
        self.term = 1
        self.granted = {}
        self.shown = []
        self.in_grant = self.before_txn = self.in_keepalive = None
        self.lost = 0
        self.undone = False
        self.stale = None
        self.back = 0
        self.sent = []

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def elect(self):
        self.term += 1

    def goes_on(self):
        """A deposed leader goes on, and revokes what it knows before it learns that it is deposed."""
        for lease, term in self.granted.items():
            if term < self.term:
                with contextlib.suppress(LeaseGone):
                    self._transport.revoke(lease, BUDGET)

    def _shown(self, header, *, logged=False):
        term = self.term if logged or self.stale is None else self.stale
        return Header(1, self.shown.pop(0) if self.shown else term, header.revision - self.back)

    def txn(self, request, budget):
        writes = any(type(op) is Put for op in request.then)
        if writes:
            self.sent.append(request)
            if self.before_txn:
                call, self.before_txn = self.before_txn, None
                call(request)
            if self.lost:
                self.lost -= 1
                if not self.undone:
                    self._transport.txn(request, budget)
                raise Unknown(OutcomeUnknown("the answer is lost"))
        answer = self._transport.txn(request, budget)
        return replace(answer, header=self._shown(answer.header, logged=bool(request.when)))

    def range(self, request, budget):
        header, found = self._transport.range(request, budget)
        return self._shown(header), found

    def grant(self, lease, ttl, budget):
        granted = self._transport.grant(lease, ttl, budget)
        self.granted[lease] = self.term
        if self.in_grant:
            call, self.in_grant = self.in_grant, None
            call()
        return replace(granted, header=self._shown(granted.header))

    def keepalive(self, leases, budget):
        if self.in_keepalive:
            call, self.in_keepalive = self.in_keepalive, None
            call()
        kept = self._transport.keepalive(leases, budget)
        return {id_: Kept(each.ttl, 1, self.term, each.sent) for id_, each in kept.items()}

    def fresh(self):
        return self


@pytest.fixture
def clock():
    return ShiftedClock()


@pytest.fixture
def etcds(server, clock):
    """Stores, each with elections of its own making, on one server that has nothing stored."""
    server.call("kv/deleterange", covered("lockkit/"))
    with contextlib.ExitStack() as stack:

        def another(scheme="etcd"):
            elections = Elections(connect(f"{scheme}://{server.address}", clock))
            return elections, stack.enter_context(
                contextlib.closing(EtcdBackend(Exchanging(elections), OpenOptions(clock=clock, budget=20.0)))
            )

        yield another


@pytest.fixture
def etcd(etcds):
    return etcds()


def crossed(elections, clock, renewed):
    """A leader pauses for longer than a ttl, comes back, and revokes; held claims are renewed meanwhile."""
    elections.elect()
    for _ in range(2):
        clock.advance(TTL * 0.6)
        renewed()
    elections.goes_on()


def held(store, clock, claims):
    """Renew claims that hold: each must be, and for most of a ttl."""
    for one, answer in zip(claims, store.renew(claims, BUDGET), strict=True):
        assert answer.state == "HELD", (one, answer)
        assert answer.basis + TTL > clock.now() + TTL * 0.6, "its basis has moved"


# -- what must hold


def holds_outlive_a_leader_that_comes_back(elections, store, clock):
    claims = [take(store, f"lock-{at}", ttl=TTL) for at in range(3)]
    crossed(elections, clock, lambda: held(store, clock, claims))
    held(store, clock, claims)
    assert [states(store, f"lock-{at}") for at in range(3)] == [["HELD"]] * 3


def a_grant_of_the_old_leader_that_is_answered_after_the_election_is_of_the_old_term(elections, store, clock):
    claims = [take(store, ttl=TTL)]
    elections.elect()
    elections.in_grant = elections.elect
    held(store, clock, claims)
    for _ in range(2):
        clock.advance(TTL * 0.6)
        held(store, clock, claims)
    elections.goes_on()
    held(store, clock, claims)


def a_member_that_reads_under_one_leader_and_answers_under_the_next_shows_no_term(elections, store, clock):
    claims = [take(store, ttl=TTL)]
    elections.shown = [2]
    states(store)
    claims.append(take(store, "b", ttl=TTL))
    crossed(elections, clock, lambda: held(store, clock, claims))
    held(store, clock, claims)


def a_plain_read_of_a_deposed_leader_proves_no_keepalive(elections, store, clock):
    for at, ask in enumerate((renew, lambda store, one, _: store.acquire(one, False, BUDGET))):
        one, fence = take(store, f"lock-{at}", ttl=TTL)
        basis = store.store.entries[one.token].hold.basis
        elections.elect()
        elections.stale = elections.term - 1
        clock.advance(TTL * 0.3)

        answer = ask(store, one, fence)

        lease = store.store.entries[one.token].hold
        assert answer.basis == basis or elections.granted[lease.id] == elections.term
        elections.stale = None


def waiters_keep_their_places_when_a_leader_comes_back(elections, store, clock):
    holder, fence = take(store, ttl=TTL)
    waiters = [queue(store, ttl=TTL) for _ in range(3)]
    order = [info.claim_id for info in store.inspect("a", BUDGET).claims]

    def renewed():
        held(store, clock, [(holder, fence)])
        assert [renew(store, one).state for one in waiters] == ["WAITING"] * 3

    crossed(elections, clock, renewed)
    assert [info.claim_id for info in store.inspect("a", BUDGET).claims] == order
    for one in waiters:
        store.release(holder, BUDGET)
        answer = store.acquire(one, False, BUDGET)
        assert isinstance(answer, Granted)
        assert answer.fence > fence
        holder, fence = one, answer.fence


def a_lease_of_the_pool_does_not_outlive_its_term(elections, store, clock):
    before, _ = take(store, ttl=TTL)
    other = take(store, "other", ttl=TTL)
    store.release(before, BUDGET)
    elections.elect()
    held(store, clock, [other])
    after, _ = take(store, ttl=TTL)
    assert elections.granted[store.store.entries[after.token].hold.id] == elections.term


def a_backup_revives_no_lease(elections, store, clock):
    """The backup is older than a claim, not than its lease, and the servers' term is the same again."""
    gone, stays = take(store, "gone", ttl=TTL), take(store, "stays", ttl=TTL)
    freed, _ = take(store, "freed", ttl=TTL)
    free = store.store.entries[freed.token].hold.id
    store.release(freed, BUDGET)
    elections.elect()
    held(store, clock, [gone, stays])  # they move
    elections._transport.txn(Txn((), (Delete(store.store.entries[gone[0].token].key),)), BUDGET)
    elections.back = 50
    store.store.entries[
        stays[0].token
    ].placed += 50  # revisions of keys are as they are, and its last move is yet to come

    clock.advance(TTL / 3)
    assert [answer.state for answer in store.renew([gone, stays], BUDGET)] == ["LOST", "HELD"]
    for _ in range(4):
        clock.advance(TTL / 3)
        held(store, clock, [stays])
    after, _ = take(store, ttl=TTL)
    assert store.store.entries[after.token].hold.id != free, "a claim of the backup may be on it"


def a_backup_is_noticed_although_neither_terms_nor_revisions_go_back(elections, store, clock):
    """As after ``--bump-revision``. The backup has all leases, the oldest claims, and one released since."""
    stays, freed = take(store, "stays", ttl=TTL), take(store, "freed", ttl=TTL)
    free = store.store.entries[freed[0].token].hold.id
    store.release(freed[0], BUDGET)
    gone = [take(store, name, ttl=TTL) for name in ("gone", "newest")]
    assert store.store.entries[gone[0][0].token].hold.id == free
    for one, _ in gone:
        elections._transport.txn(Txn((), (Delete(store.store.entries[one.token].key),)), BUDGET)

    clock.advance(TTL / 3)
    found = [answer.state for answer in store.renew([stays, *gone], BUDGET)]
    assert found == ["HELD", "LOST", "LOST"]
    for one, _ in gone:
        store.release(one, BUDGET)
    clock.advance(TTL / 3)
    held(store, clock, [stays])
    after, _ = take(store, ttl=TTL)
    assert store.store.entries[after.token].hold.id != free, "a claim of the backup may be on it"


# -- the mistakes


def any_keepalive_counts(patch):
    patch.setattr(
        EtcdLeases, "counts", staticmethod(lambda term, kept, shown: kept is not None and kept.ttl > 0)
    )


def the_answer_to_a_grant_shows_its_term(patch):
    real = EtcdLeases.grant

    def grant(self, *given, **named):
        lease = yield from real(self, *given, **named)
        lease.term = max(self._terms.shown.values())
        return lease

    patch.setattr(EtcdLeases, "grant", grant)


def one_answer_shows_the_term(patch):
    real = RaftTerms.heard

    def heard(self, header, since, before, revision):
        return real(self, header, since, {header.member: header.term}, revision)

    patch.setattr(RaftTerms, "heard", heard)


def waiters_stay_where_they_are(patch):
    from lockkit_etcd import renewing

    patch.setattr(renewing, "_read_waits", lambda *_: {})


def the_pool_serves_on(patch):
    patch.setattr(EtcdLeases, "usable", lambda self, lease: lease.young(self._clock.now()))


def terms_begin_anew(patch):
    real = RaftTerms.heard
    patch.setattr(RaftTerms, "heard", lambda self, header, *asked: real(self, header, *asked) and header.term)


def only_headers_tell(patch):
    patch.setattr(RaftTerms, "begin_anew", lambda *_: None)


def the_look_is_a_plain_read(patch):
    patch.setattr(EtcdStore, "logged", lambda _, *gets: Txn((), gets))


MUTANTS = {
    any_keepalive_counts: holds_outlive_a_leader_that_comes_back,
    the_answer_to_a_grant_shows_its_term: (
        a_grant_of_the_old_leader_that_is_answered_after_the_election_is_of_the_old_term
    ),
    one_answer_shows_the_term: (
        a_member_that_reads_under_one_leader_and_answers_under_the_next_shows_no_term
    ),
    the_look_is_a_plain_read: a_plain_read_of_a_deposed_leader_proves_no_keepalive,
    waiters_stay_where_they_are: waiters_keep_their_places_when_a_leader_comes_back,
    terms_begin_anew: a_backup_revives_no_lease,
    only_headers_tell: a_backup_is_noticed_although_neither_terms_nor_revisions_go_back,
    the_pool_serves_on: a_lease_of_the_pool_does_not_outlive_its_term,
}


@pytest.mark.parametrize("check", MUTANTS.values(), ids=lambda check: check.__name__)
def test_without_the_mistake_it_holds(check, etcd, clock):
    check(*etcd, clock)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_mistake_is_noticed(mutant, etcd, clock, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        MUTANTS[mutant](*etcd, clock)


def test_all_kinds_of_holds_keep_place_and_fence_over_many_elections(etcd, clock, full):
    elections, store = etcd
    claims = [take(store, ttl=TTL, **terms) for terms in full]
    waiter = queue(store, ttl=TTL, **full[0])
    before = [(info.claim_id, info.fence) for info in store.inspect("a", BUDGET).claims]

    def renewed():
        held(store, clock, claims)
        assert renew(store, waiter).state == "WAITING"

    for _ in range(3):
        crossed(elections, clock, renewed)
        renewed()

    assert [(info.claim_id, info.fence) for info in store.inspect("a", BUDGET).claims] == before
    assert [renew(store, *one).state for one in claims] == ["HELD"] * len(claims)
    for one, _ in claims:
        assert store.release(one, BUDGET) == RELEASED
    assert isinstance(store.acquire(waiter, False, BUDGET), Granted)


def test_confirm_moves_a_claim_of_an_earlier_term(etcd, clock):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    elections.elect()
    clock.advance(TTL * 0.6)

    answer = store.acquire(one, False, BUDGET)

    assert answer == Granted(fence, answer.basis)
    assert answer.basis + 1.0 > clock.now()
    elections.goes_on()
    held(store, clock, [(one, fence)])


@pytest.mark.parametrize("undone", [False, True], ids=["it was done", "it was not done"])
def test_a_move_without_an_answer_is_found_out_by_the_next_heartbeat(etcd, clock, undone):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    basis = store.store.entries[one.token].hold.basis
    elections.elect()
    clock.advance(TTL * 0.6)
    elections.lost, elections.undone = 1, undone

    answer = renew(store, one, fence)

    assert answer.state == "UNKNOWN"
    assert store.store.entries[one.token].hold.basis == basis
    held(store, clock, [(one, fence)])
    elections.goes_on()
    held(store, clock, [(one, fence)])
    assert store.release(one, BUDGET) == RELEASED
    assert states(store) == []


def test_a_late_copy_of_a_move_moves_nothing(etcd, clock):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    elections.elect()
    elections.lost, elections.undone = 1, True
    renew(store, one, fence)
    (late,) = elections.sent[-1:]
    held(store, clock, [(one, fence)])
    lease = store.store.entries[one.token].hold.id

    assert not elections.txn(late, BUDGET).succeeded

    (kv,) = asked(store).range(late.otherwise[0], BUDGET)[1].kvs
    assert (kv.lease, kv.created) == (lease, fence)
    assert store.release(one, BUDGET) == RELEASED
    assert not elections.txn(late, BUDGET).succeeded
    assert states(store) == []


def test_a_claim_that_is_released_while_its_move_is_in_doubt_leaves_nothing(etcd, clock, server):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    elections.elect()
    elections.lost = 1
    renew(store, one, fence)
    moved = elections.sent[-1].then[0].lease

    assert store.release(one, BUDGET) == RELEASED

    assert states(store) == []
    assert moved not in set(map(int, server.leases()))


@pytest.mark.parametrize("waits", [False, True], ids=["it holds", "it waits"])
def test_what_others_do_to_a_claim_while_it_moves_is_not_undone(etcds, clock, waits):
    (elections, store), (_, other) = etcds(), etcds()
    blocking, _ = take(store, ttl=TTL, capacity=2, weight=2, kind="semaphore")
    if waits:
        one, fence = queue(store, ttl=TTL, capacity=2, kind="semaphore"), None
    else:
        one, fence = blocking, store.store.entries[blocking.token].fence
    elections.elect()

    def meanwhile(_):
        assert other.annotate("a", claim_id(one.token), {"ask_release": True}, BUDGET)
        assert other.resize("a", 3, BUDGET) == 1 + waits

    elections.before_txn = meanwhile
    answer = renew(store, one, fence)

    assert answer.state == ("WAITING" if waits else "HELD")
    infos = {info.claim_id: info for info in other.inspect("a", BUDGET).claims}
    info = infos[claim_id(one.token)]
    assert (info.note, info.capacity) == ({"ask_release": True}, 3)
    if not waits:
        assert renew(store, one, fence).requests == {"ask_release": True}


def test_a_claim_that_is_evicted_while_it_moves_is_lost(etcds, clock):
    (elections, store), (_, other) = etcds(), etcds()
    one, fence = take(store, ttl=TTL)
    elections.elect()
    elections.before_txn = lambda _: other.evict("a", claim_id(one.token), BUDGET)

    answer = renew(store, one, fence)

    assert (answer.state, answer.why) == ("LOST", "evicted")


def test_a_waiter_whose_turn_comes_while_it_moves_holds(etcd, clock):
    elections, store = etcd
    holder, _ = take(store, ttl=TTL)
    waiter = queue(store, ttl=TTL)
    elections.elect()
    granted = []

    def meanwhile(_):
        store.release(holder, BUDGET)
        granted.append(store.acquire(waiter, False, BUDGET))

    elections.before_txn = meanwhile
    assert renew(store, waiter).state == "OFFERED"

    (answer,) = granted
    assert isinstance(answer, Granted)
    held(store, clock, [(waiter, answer.fence)])
    elections.goes_on()
    held(store, clock, [(waiter, answer.fence)])


def test_an_extended_claim_moves_to_a_lease_of_its_new_length(etcd, clock):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    assert store.extend(one, fence, 2 * TTL, BUDGET).state == "HELD"
    elections.elect()
    held(store, clock, [(one, fence)])
    assert store.store.entries[one.token].hold.length == 2 * TTL


@pytest.mark.parametrize("outcome", ["refused", "unknown"])
def test_a_claim_moves_to_no_lease_that_is_older_than_its_last_renewal(etcd, clock, outcome):
    elections, store = etcd
    one, fence = take(store, ttl=TTL)
    if outcome == "refused":

        def refuse(_):
            raise Refused(BackendUnavailable("too many requests"))

        elections.before_txn = refuse
    else:
        elections.lost, elections.undone = 1, True
    with pytest.raises((Refused, Unknown)):  # the lease for it was granted
        store.extend(one, fence, 2 * TTL, BUDGET)
    for _ in range(2):
        clock.advance(TTL / 3)
        renewed = renew(store, one, fence)
        assert renewed.state == "HELD"
    assert renewed.basis + 1.0 > clock.now()

    answer = store.extend(one, fence, 2 * TTL, BUDGET)

    # Whoever holds it counts the new ttl from the later of the two.
    assert answer.basis >= renewed.basis
    entry = store.store.entries[one.token]
    assert entry.hold.basis == answer.basis
    assert asked(store).remaining(entry.hold.id, BUDGET).ttl >= 2 * TTL - 2


def test_a_shorter_extend_shortens_nothing(etcd, clock):
    """The first of two threads that extend a lease may hear last, and then counts on the ttl it asked for."""
    _, store = etcd
    one, fence = take(store, ttl=TTL)
    store.extend(one, fence, 3 * TTL, BUDGET)
    store.extend(one, fence, 2 * TTL, BUDGET)
    hold = store.store.entries[one.token].hold
    assert asked(store).remaining(hold.id, BUDGET).ttl > 2 * TTL
    clock.advance(TTL)
    held(store, clock, [(one, fence)])
    assert store.inspect("a", BUDGET).claims[0].deadline > clock.wall() + 2 * TTL


def test_terms_that_begin_anew_cost_one_move_and_no_more(etcd, clock):
    """As they do on servers that lost their data: else each heartbeat would move each claim from then on."""
    elections, store = etcd
    elections.term = 9
    before, fence = take(store, ttl=TTL)
    held(store, clock, [(before, fence)])
    elections.term = 2
    held(store, clock, [(before, fence)])
    claims = [(before, fence), take(store, "b", ttl=TTL)]
    held(store, clock, claims)
    leases = [store.store.entries[one.token].hold.id for one, _ in claims]

    for _ in range(3):
        clock.advance(TTL / 3)
        held(store, clock, claims)

    assert [store.store.entries[one.token].hold.id for one, _ in claims] == leases
    elections.term = 9
    held(store, clock, claims)
    elections.goes_on()
    held(store, clock, claims)


def test_whoever_has_the_token_of_a_claim_moves_it_and_its_owner_follows(etcds, clock):
    (elections, store), (theirs, other) = etcds(), etcds()
    one, fence = take(store, ttl=TTL)
    elections.elect()
    theirs.elect()
    clock.advance(TTL * 0.6)

    held(other, clock, [(one, fence)])
    assert renew(store, one, fence).state == "HELD"
    held(store, clock, [(one, fence)])

    elections.granted |= theirs.granted
    elections.goes_on()
    held(store, clock, [(one, fence)])
    held(other, clock, [(one, fence)])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_claims_move_together(etcds, clock, scheme):
    elections, store = etcds(scheme)
    claims = [take(store, f"lock-{at}", ttl=TTL) for at in range(150)]
    elections.elect()
    elections.sent.clear()
    granted = len(elections.granted)

    held(store, clock, claims)

    assert len(elections.granted) - granted == 150
    assert len(elections.sent) <= 20
    elections.goes_on()
    held(store, clock, claims)


def test_what_the_time_does_not_suffice_for_moves_with_the_next_heartbeat(etcd, clock, monkeypatch):
    elections, store = etcd
    claims = [take(store, f"lock-{at}", ttl=TTL) for at in range(20)]
    elections.elect()
    states(store)
    entries = [store.store.entries[one.token] for one, _ in claims]
    moves = [Move(one, entry, fence) for (one, fence), entry in zip(claims, entries, strict=True)]

    with monkeypatch.context() as patched:
        patched.setattr(moving, "_SHARE", 0.0)  # no time to begin with more; what has begun has a minute
        answers = store.perform(move(store.store, moves, time.monotonic() + 60.0))

    assert None in answers
    assert any(answers), "some do move, however slow all is"
    held(store, clock, claims)
    elections.goes_on()
    held(store, clock, claims)


def test_a_claim_that_a_stranger_has_spoiled_keeps_no_other_from_moving(etcd, clock, server):
    elections, store = etcd
    claims = [take(store, f"lock-{at}", ttl=TTL) for at in range(3)]
    spoiled = store.store.entries[claims[0][0].token].key
    server.call("kv/put", {"key": spoiled, "value": b"{}", "ignore_lease": True})
    elections.elect()
    clock.advance(TTL * 0.6)

    assert store.renew(claims, BUDGET)[0].state == "UNKNOWN"

    held(store, clock, claims[1:])
    elections.goes_on()
    held(store, clock, claims[1:])


def test_what_is_nearest_to_its_end_moves_first(etcd, clock):
    elections, store = etcd
    claims = []
    for at in range(3):
        claims.append(take(store, f"lock-{at}", ttl=TTL))
        clock.advance(1.0)
    elections.elect()
    elections.sent.clear()

    held(store, clock, claims[::-1])

    (request,) = elections.sent
    assert [op.key for op in request.then if type(op) is Put] == [
        store.store.entries[one.token].key for one, _ in claims
    ]


# -- the term


@pytest.mark.parametrize("how", ["evicted", "released"])
def test_a_claim_that_somebody_ends_during_a_heartbeat_is_no_sign_of_a_backup(etcd, clock, how):
    """Otherwise all claims of the client would move."""
    elections, store = etcd
    stays, newest = take(store, "stays", ttl=TTL), take(store, "newest", ttl=TTL)
    lease = store.store.entries[stays[0].token].hold
    ends = {
        "evicted": lambda: store.evict("newest", claim_id(newest[0].token), BUDGET, now=True),
        "released": lambda: store.release(newest[0], BUDGET),
    }
    elections.in_keepalive = ends[how]
    clock.advance(TTL / 3)
    assert store.renew([stays, newest], BUDGET)[0].state == "HELD"
    assert store.store.entries[stays[0].token].hold is lease


def test_a_term_is_known_by_the_second_answer_of_the_member_that_showed_it():
    raft = RaftTerms()

    def answer(member, term, asked=None):
        raft.heard(Header(member, term, 1), *(asked or raft.asked))
        return raft.known

    assert answer(1, 7) == 0
    assert answer(2, 7) == 0
    assert answer(1, 7) == 7
    asked = raft.asked
    assert answer(1, 8) == 7
    assert answer(1, 8, asked) == 7, "asked before the first was answered"
    assert answer(2, 8) == 7, "of another member, which had shown the term before"
    assert answer(1, 8) == 8
    assert answer(2, 8) == 8
    assert answer(3, 8) == 8


@pytest.mark.parametrize("member", [1, 3], ids=["the same member", "a new member"])
def test_nothing_is_known_of_terms_any_more_once_a_later_answer_shows_an_earlier_one(member):
    raft = RaftTerms()
    for _ in range(2):
        raft.heard(Header(1, 7, 1), *raft.asked)
    asked = raft.asked
    assert raft.known == 7

    raft.heard(Header(member, 2, 1), *asked)
    assert raft.known == 8, "later than all before"
    raft.heard(Header(member, 2, 1), *asked)
    raft.heard(Header(member, 9, 1), *asked)
    assert raft.known == 8, "asked before the servers were known to have begun anew"
    raft.heard(Header(member, 2, 1), *raft.asked)
    assert raft.known == 10


def test_servers_that_lost_their_data_have_begun_anew_whatever_their_term():
    anew = []
    raft = RaftTerms(lambda: anew.append(raft.known))
    for revision in (90, 100):
        raft.heard(Header(1, 2, revision), *raft.asked)
    asked = raft.asked
    raft.heard(Header(1, 2, 100), *asked)
    assert (raft.known, anew) == (2, []), "nothing was written meanwhile"

    assert raft.heard(Header(1, 2, 3), *asked) == 5
    assert raft.heard(Header(1, 2, 4), *asked) == 5
    assert (raft.known, anew) == (3, [3])
    raft.heard(Header(1, 2, 5), *raft.asked)
    assert (raft.known, raft.revision) == (5, 5)


@pytest.mark.parametrize(
    "term,ttl,shown,counts",
    [(7, 30, 7, True), (7, 30, 8, False), (8, 30, 7, False), (7, 0, 7, False), (0, 30, 7, False)],
)
def test_a_keepalive_counts_in_the_term_of_its_lease_alone(term, ttl, shown, counts):
    assert EtcdLeases.counts(term, Kept(ttl, 1, shown, 0.0), shown) is counts


def test_a_keepalive_that_was_not_answered_does_not_count():
    assert not EtcdLeases.counts(7, None, 7)


def test_a_fresh_connection_tells_of_the_term_too(etcd):
    elections, _ = etcd
    raft = RaftTerms()
    fresh = Exchanging(elections).fresh()
    for _ in range(2):
        fresh.perform(raft.shown_by(fresh.grant(claim_id_number(), 5, time.monotonic() + BUDGET)))
    assert raft.known == elections.term


def claim_id_number():
    return int(claim().token[:12], 16) + 1


def test_a_handler_that_acquires_while_an_answer_is_taken_in_waits_for_nothing():
    def answer(raft, before):
        raft.heard(Header(7, 2, 1), 0, before, 0)

    at, seen = 0, 1
    while at <= seen:
        raft = RaftTerms()
        with Handler(at, lambda raft=raft: answer(raft, {7: 2}), file="lockkit_etcd/terms.py") as struck:
            answer(raft, {7: 2})
        seen, at = max(seen, struck.seen), at + 1
        assert raft.known == 2
    assert at > 3
