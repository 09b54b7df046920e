"""Renew, one batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.errors import BackendUnavailable
from lockkit.facts import Capabilities
from lockkit.protocol.beating import Beats
from lockkit.protocol.effects import Lost, Notify, Orphan, Renew
from lockkit.protocol.hold import Hold
from lockkit.protocol.renewing import batch, due, losing, patience, renewing, waiter_interval
from lockkit.store.spi import POLL_CAP, Claim, Refused, Renewal, Terms, Unknown

CAPABILITIES = Capabilities(scope="process")


@dataclass
class Waiting:
    claim: Claim
    woken: int = 0
    unanswered: int = 0

    def wake(self):
        self.woken += 1

    def missed(self):
        self.unanswered += 1


@pytest.fixture
def hold(clock):
    def make(token="1", fence=5, doubtful=False, **terms):
        claim = Claim(token, Terms("a", ttl=6.0, **terms))
        return Hold(claim, fence, clock.now(), CAPABILITIES, doubtful=doubtful)

    return make


@pytest.fixture
def beat(driven, clock):
    def begin(*members):
        counts = []
        run = driven(renewing(members, clock.now, 2.0, counts.append))
        run.counts = counts
        return run

    return begin


def test_a_hold_is_renewed_with_its_fence_and_a_waiter_without_one(hold, beat):
    held = hold()
    waiting = Waiting(Claim("2", Terms("a")))
    run = beat(held, waiting)
    assert type(run.effect) is Renew
    assert run.effect.beats == [(held.claim, 5), (waiting.claim, None)]


def test_an_answer_moves_the_basis_and_is_counted(hold, beat, clock):
    held = hold()
    run = beat(held)
    clock.forward(2.0)
    run.answer([Renewal("HELD", basis=clock.now())])
    assert run.result is True
    assert run.counts == [1]
    assert held.basis == clock.now()


def test_an_older_answer_moves_nothing_back(hold, beat, clock):
    held = hold()
    basis = held.basis
    run = beat(held)
    run.answer([Renewal("HELD", basis=basis - 1.0)])
    assert held.basis == basis


def test_an_answer_that_comes_when_the_hold_has_run_out_revives_nothing(hold, beat, clock):
    held = hold()
    run = beat(held)
    basis = clock.now()
    clock.forward(6.0)
    run.answer([Renewal("HELD", basis=basis + 5.9)])
    orphan = run.effect
    assert type(orphan) is Orphan
    run.answer()
    assert type(run.effect) is Lost
    run.answer()
    assert not held.valid(clock.now())
    assert run.counts == [0]


def test_a_loss_is_told_once_and_its_claim_goes_on_blocking_until_it_has_run_out(hold, beat):
    held = hold(doubtful=True)
    run = beat(held)
    run.answer([Renewal("LOST", why="evicted")])
    orphan = run.effect
    assert (orphan.after, orphan.abandon, orphan.how) == (held.expires, True, "ungraceful")
    assert run.answer().effect.why == "evicted"
    run.answer()
    again = beat(held)
    again.answer([Renewal("LOST", why="evicted")])
    assert again.done


def test_an_answer_for_a_hold_that_was_ended_meanwhile_is_dropped(hold, beat, clock):
    held = hold()
    basis = held.basis
    run = beat(held)
    held.end()
    clock.forward(1.0)
    run.answer([Renewal("HELD", basis=clock.now())])
    assert run.done
    assert held.basis == basis
    assert not held.valid(clock.now())


@pytest.mark.parametrize(
    "state, woken", [("WAITING", 0), ("OFFERED", 1), ("LOST", 1)], ids=["waits", "offered", "lost"]
)
def test_a_waiter_is_woken_by_whatever_is_news_to_it_and_never_holds(beat, state, woken):
    member = Waiting(Claim("2", Terms("a")))
    run = beat(member)
    run.answer([Renewal(state)])
    assert run.done
    assert member.woken == woken


@pytest.mark.parametrize("kind", [Refused, Unknown])
def test_a_renewal_that_failed_is_told_and_is_no_loss(hold, beat, clock, kind):
    held, waiting = hold(), Waiting(Claim("2", Terms("a")))
    run = beat(held, waiting)
    run.fail(kind(BackendUnavailable("gone")))
    assert type(run.effect) is Notify
    assert run.effect.what.kind == "renewal_failed"
    run.answer()
    assert run.result is False
    assert held.valid(clock.now())
    assert waiting.unanswered == 1


def test_losing_a_hold_that_is_lost_or_ended_does_nothing(hold, driven):
    lost, ended = hold(), hold()
    assert driven(losing(lost, "lost")).kinds() == ["Orphan", "Lost"]
    assert driven(losing(lost, "lost")).kinds() == []
    ended.end()
    assert driven(losing(ended, "lost")).kinds() == []


def test_a_hold_is_due_at_a_third_of_its_own_ttl(hold, clock):
    held, now = hold(), clock.now()
    assert due(held.basis, 6.0, 0.0, now) == now + 2.0
    assert now + 1.8 <= due(held.basis, 6.0, 1.0, now) < now + 2.0


def test_a_hold_with_an_old_basis_is_not_due_at_once(clock):
    """A store that counts from what it has long known would only tell it again."""
    now = clock.now()
    assert due(now - 2.0, 6.0, 0.0, now) == now + 1.0
    assert due(now - 5.0, 6.0, 1.0, now) == now + 0.225


@pytest.mark.parametrize("deadline, interval", [(6.0, 2.0), (3.0, 1.0), (60.0, POLL_CAP), (0.0, POLL_CAP)])
def test_a_waiter_is_renewed_three_times_before_its_deadline_and_once_a_poll_cap(deadline, interval):
    assert waiter_interval(deadline) == interval


def test_nothing_but_renew_is_ever_called(hold, beat):
    run = beat(hold("1"), hold("2"))
    assert type(run.effect) is Renew
    run.answer([Renewal("HELD", basis=0.0)] * 2)
    assert run.done


def test_what_is_not_known_of_one_claim_moves_nothing_wakes_nobody_and_is_told(hold, beat, clock):
    held, other = hold(), hold("2", 7)
    waiting = Waiting(Claim("3", Terms("a")))
    run = beat(held, other, waiting)
    clock.forward(2.0)
    before = held.basis
    run.answer(
        [Renewal("UNKNOWN", trouble="its node is away"), Renewal("HELD", clock.now()), Renewal("UNKNOWN")]
    )
    assert type(run.effect) is Notify
    assert (run.effect.what.kind, run.effect.what.data["error"]) == ("renewal_failed", "its node is away")
    run.answer()
    assert run.result is True
    assert (held.basis, other.basis) == (before, clock.now())
    assert (waiting.woken, waiting.unanswered) == (0, 1)
    assert run.counts == [1]


def batches(members, now, longest=2.0):
    left = members
    while left:
        together, left, budget = batch(left, now, longest)
        yield together, budget


@given(st.lists(st.none() | st.floats(-1.0, 60.0), min_size=1, max_size=12))
def test_a_batch_is_cut_by_budgets(lefts):
    claims = [Claim(str(at), Terms("a", ttl=60.0)) for at in range(len(lefts))]
    members = [
        Waiting(claim) if left is None else Hold(claim, 1, left - 60.0, CAPABILITIES)
        for claim, left in zip(claims, lefts, strict=True)
    ]

    def most(member):
        return patience(member if isinstance(member, Hold) else None, 0.0, 2.0)

    sent = []
    for together, budget in batches(members, now=0.0):
        for member in together:
            assert budget <= most(member) <= 2 * budget, (
                "it is cut shorter than what it could wait for, or waits too long"
            )
        sent += together
        assert all(most(member) > budget for member in members if member not in sent)
    assert sorted(map(id, sent)) == sorted(map(id, members))


def test_the_most_urgent_of_a_batch_come_first_and_of_the_waiters_those_that_missed_most(clock):
    now = clock.now()
    claims = [Claim(str(at), Terms("a", ttl=60.0)) for at in range(5)]
    members = [
        Waiting(claim) if left is None else Hold(claim, 1, now + left - 60.0, CAPABILITIES)
        for claim, left in zip(claims, [50.0, None, 30.0, None, 40.0], strict=True)
    ]
    members[3].unanswered = 2

    together, others, _ = batch(members, now, 2.0)

    assert [member.claim.token for member in together] == ["2", "4", "0", "3", "1"]
    assert others == []


@pytest.mark.parametrize("waits", [False, True], ids=["holds", "and a waiter"])
def test_no_claim_starves_while_a_store_has_time_for_only_a_part_of_each_batch(driven, clock, waits):
    """The store renews five claims in a batch's half second: enough for 25 claims of 6 s that take turns."""
    beats = Beats(clock.now, lambda: 0.0, 0.0, 0.5, lambda _: None)
    holds = [
        Hold(Claim(str(at), Terms(f"n{at}", ttl=6.0)), at, clock.now(), CAPABILITIES) for at in range(25)
    ]
    for hold in holds:
        beats.hold(hold)
    if waits:
        beats.waiter(Claim("w", Terms("a")), lambda: None)
    for _ in range(40):
        clock.forward(max(beats.next() - clock.now(), 0.0))
        run = driven(beats.beating())
        while not run.done:
            if type(run.effect) is Renew:
                sent, many = clock.now(), len(run.effect.beats)
                part = min(many, int(run.effect.budget / 0.1))
                clock.forward(0.1 * part)
                run.answer([Renewal("HELD", sent)] * part + [Renewal("UNKNOWN")] * (many - part))
            else:
                run.answer()

        assert [hold.name for hold in holds if not hold.valid(clock.now())] == []


def test_a_claim_that_waits_is_renewed_in_time_after_a_renewal_that_took_long(driven, clock):
    """Each 2 s, for a deadline of 6 s; counted from the answer, only two slow renewals would fit."""
    beats = Beats(clock.now, lambda: 0.0, 6.0, 2.0, lambda _: None)
    waiter = beats.waiter(Claim("w", Terms("a")), lambda: None)
    for took, after in [(0.1, 2.0), (1.5, 2.0), (1.9, 2.15)]:
        clock.forward(waiter.next - clock.now())
        sent = clock.now()
        run = driven(beats.beating())
        clock.forward(took)
        run.answer([Renewal("WAITING")])
        assert run.done
        assert waiter.next == pytest.approx(sent + after)
