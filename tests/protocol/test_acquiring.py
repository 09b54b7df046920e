"""Acquire, one effect at a time: what is asked of the store, and what is left when it ends."""

from __future__ import annotations

import itertools

import pytest

from lockkit.errors import AcquireTimeout, BackendUnavailable, CapacityMismatch, PermissionDenied
from lockkit.facts import Capabilities, ClaimInfo, Owner
from lockkit.protocol.acquiring import acquiring
from lockkit.protocol.attempt import OUTAGE_LIMIT, Attempt
from lockkit.protocol.effects import (
    REQUESTS,
    Abandon,
    Acquire,
    Notify,
    Orphan,
    Pause,
    Release,
    WaitForWake,
    Withdraw,
)
from lockkit.store.spi import Busy, Granted, Lapsed, Queued, Refused, Terms, Unknown

CAPABILITIES = Capabilities(scope="process")
UNKNOWN = Unknown(BackendUnavailable("no answer"))
REFUSED = Refused(BackendUnavailable("not now"))
DENIED = Refused(PermissionDenied("never"), retry=False)


@pytest.fixture
def start(driven, clock):
    def begin(timeout=10.0, *, wait=True, ttl=6.0, **terms):
        tokens = (f"{number:032x}" for number in itertools.count(1))
        deadline = None if timeout is None else clock.now() + timeout
        attempt = Attempt(
            Terms(**{"name": "a", "ttl": ttl} | terms), deadline, wait, token=lambda: next(tokens)
        )
        return attempt, driven(acquiring(attempt, CAPABILITIES, clock.now, clock.wall, lambda: 0.5))

    return begin


def granted(clock, fence=7):
    return Granted(fence, clock.now())


def test_a_free_lock_is_one_call(start, clock):
    attempt, run = start()
    assert run.effect[:2] == (attempt.claim, True)
    assert type(run.effect) is Acquire
    run.answer(granted(clock))
    assert run.result.fence == 7
    assert run.result.valid(clock.now())
    assert attempt.sent, "until somebody takes charge of the hold"


def test_an_unknown_create_is_replayed_with_the_same_token_and_makes_the_hold_doubtful(start, clock):
    _, run = start()
    first = run.effect[:2]
    run.fail(UNKNOWN)
    assert run.until(Acquire)[:2] == first
    run.answer(granted(clock))
    assert run.result.doubtful


def test_create_is_not_sent_again_once_it_is_known_to_stand(start, clock):
    _, run = start()
    run.answer(Queued(1, blockers=("1",)))
    run.until(WaitForWake)
    run.answer()
    assert run.effect.create is False
    run.fail(UNKNOWN)
    assert run.until(Acquire).create is False


def test_an_answer_that_comes_after_its_basis_has_run_out_grants_nothing(start, clock):
    attempt, run = start(timeout=None)
    first, answer = attempt.claim, granted(clock)
    clock.forward(6.0)
    run.answer(answer)
    assert run.until(Release).claim == first
    run.answer("RELEASED")
    assert run.until(Pause).until > clock.now()
    call = run.until(Acquire)
    assert call.claim.token != first.token
    assert call.create is True


def test_grants_that_are_over_when_they_are_read_are_asked_for_at_doubling_intervals(start, clock):
    _, run = start(timeout=None, max_hold=0.1)
    pauses = []
    for _ in range(8):
        run.until(Acquire)
        answer = granted(clock)
        clock.forward(0.2)
        run.answer(answer)
        pauses.append(run.until(Pause).until - clock.now())
        clock.forward(pauses[-1])
    assert pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0])


@pytest.mark.parametrize("wait", [False, True])
def test_grants_that_are_over_when_they_are_read_are_trouble_and_neither_busy_nor_a_timeout(
    start, clock, wait
):
    _, run = start(timeout=1.0 if wait else 0, wait=wait, max_hold=0.1)
    asked = 0
    while not run.done:
        run.until(Acquire)
        asked += 1
        answer = granted(clock)
        clock.forward(0.2)
        run.answer(answer)
        if type(run.effect) is Withdraw:
            run.until(Release)
            run.answer("RELEASED")
        while type(run.effect) in (Notify, Pause):
            if type(run.effect) is Pause:
                clock.forward(max(run.effect.until - clock.now(), 0.0))
            run.answer()
    assert type(run.raised) is BackendUnavailable
    assert "ran out before it could be used" in str(run.raised)
    assert asked > 2, "not at the first"


def test_a_wait_without_a_timeout_does_not_go_on_for_ever_with_grants_of_no_use(start, clock):
    _, run = start(timeout=None, max_hold=0.1)
    began = clock.now()
    while not run.done:
        if type(run.effect) is Pause:
            clock.forward(run.effect.until - clock.now())
        answer = None
        if type(run.effect) is Acquire:
            answer = granted(clock)
            clock.forward(0.2)
        run.answer(answer)
    assert type(run.raised) is BackendUnavailable
    assert OUTAGE_LIMIT <= clock.now() - began < OUTAGE_LIMIT + 3


@pytest.mark.parametrize("trouble", [Refused, Unknown])
def test_a_wait_without_a_timeout_goes_on_as_long_as_the_store_is_only_busy(start, clock, trouble):
    _, run = start(timeout=None)
    began = clock.now()
    while clock.now() < began + 10 * OUTAGE_LIMIT:
        run.until(Acquire)
        run.fail(trouble(BackendUnavailable("is busy"), busy=True))
        run.until(Pause)
        clock.forward(2.0)
    run.until(Acquire)
    run.answer(granted(clock))
    assert run.result is not None


def test_a_host_that_slept_between_asking_and_reading_goes_on(start, clock):
    _, run = start(timeout=None)
    answer = granted(clock)
    clock.forward(10 * OUTAGE_LIMIT)
    run.answer(answer)
    run.until(Release)
    run.answer("RELEASED")
    run.until(Acquire)
    run.answer(granted(clock))
    assert run.result is not None


def test_lapsed_means_a_new_token_at_the_tail_and_nobody_renews_the_old_one(start, clock):
    attempt, run = start()
    first = attempt.claim
    run.answer(Queued(1))
    run.until(WaitForWake)
    run.answer().answer(Lapsed())
    assert type(run.effect) is Withdraw
    assert run.effect.claim is first
    call = run.until(*REQUESTS)
    assert call.claim.token != first.token
    assert call.create is True


def test_a_doubtful_claim_that_lapsed_is_abandoned_before_the_next_token(start):
    attempt, run = start()
    first = attempt.claim
    run.fail(UNKNOWN)
    run.until(*REQUESTS)
    run.answer(Lapsed("late"))
    assert run.until(*REQUESTS).__class__ is Abandon
    assert run.effect.claim == first
    run.answer("ABSENT")
    assert run.until(*REQUESTS).claim.token != first.token


def test_a_definite_busy_leaves_nothing_to_take_back(start):
    attempt, run = start(0, wait=False)
    run.answer(Busy(1))
    assert run.done
    assert run.result is None
    assert attempt.leftover() is None


def test_busy_after_an_unknown_try_abandons_it(start):
    _, run = start(0, wait=False)
    run.fail(UNKNOWN)
    run.until(*REQUESTS)
    run.answer(Busy(1))
    assert run.until(*REQUESTS).__class__ is Abandon
    run.answer("ABSENT")
    assert run.done
    assert run.result is None


def test_a_timeout_takes_its_claim_back_and_says_so(start, clock):
    attempt, run = start(timeout=3.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer()
    assert type(run.effect) is Withdraw
    run.answer()
    assert type(run.effect) is Release
    assert run.effect.how == "unused"
    run.answer("RELEASED")
    assert isinstance(run.raised, AcquireTimeout)
    assert attempt.leftover() is None


@pytest.mark.parametrize(
    "state, told",
    [
        ("HELD", "held by"),
        ("LINGERING", "still blocked after"),
        ("OFFERED", "next is"),
        ("WAITING", "next is"),
    ],
)
def test_a_timeout_names_a_holder_only_where_somebody_holds(start, clock, state, told):
    _, run = start(timeout=3.0)
    owner = Owner("ann", "box", 4711)
    ahead = ClaimInfo("a", "0" * 12, state, owner, 6, 0, since=clock.wall())
    run.answer(Queued(1, holder=ahead))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer().answer().answer("RELEASED")
    assert run.raised.message == f"timed out after 3 s waiting for 'a'; {told} {owner}, 3 s"


def test_the_line_that_a_timeout_hints_at_can_be_pasted(start, clock):
    _, run = start(timeout=3.0, name="my job")
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer().answer().answer("RELEASED")
    assert run.raised.hint.endswith(": lockkit explain 'my job'")


def test_a_timeout_whose_release_is_unknown_leaves_an_orphan(start, clock):
    attempt, run = start(timeout=3.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer().answer().fail(UNKNOWN)
    assert type(run.effect) is Orphan
    assert run.effect.claim is attempt.claim
    run.answer()
    assert isinstance(run.raised, AcquireTimeout)
    assert attempt.leftover() is None, "the orphan list has it"


def test_there_is_no_time_left_for_the_foreground_long_after_the_timeout(start, clock):
    _, run = start(timeout=3.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(9.0)
    assert run.answer().answer() is run
    assert type(run.effect) is Orphan


def test_a_store_that_never_answered_is_an_error_of_the_store_and_not_a_timeout(start, clock):
    attempt, run = start(timeout=1.0)
    while not run.done:
        if type(run.effect) is Acquire:
            clock.forward(run.effect.budget)
            run.fail(UNKNOWN)
        elif isinstance(run.effect, REQUESTS):
            run.fail(UNKNOWN)
        else:
            clock.forward(max(0.0, run.effect.until - clock.now())) if type(run.effect) is Pause else None
            run.answer()
    assert isinstance(run.raised, BackendUnavailable)
    assert clock.now() <= 100.0 + 1.0 + 0.5, "L2"
    assert attempt.leftover() is None


def test_when_the_time_is_up_after_a_refusal_the_reason_is_told_and_not_a_timeout(start, clock):
    """As when too few replicas have a claim that is due: it was given back, so the next answer is Lapsed."""
    attempt, run = start(timeout=3.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    run.answer().fail(REFUSED)
    run.until(*REQUESTS)
    run.answer(Lapsed("absent"))
    run.until(Acquire)
    clock.forward(1.0)
    run.fail(REFUSED)
    run.until(Pause)
    clock.forward(2.0)
    run.answer()
    assert run.raised is REFUSED.error
    assert attempt.leftover() is None


def test_a_refusal_that_has_passed_makes_no_timeout_an_error_of_the_store(start, clock):
    _, run = start(timeout=3.0)
    run.fail(REFUSED)
    run.until(*REQUESTS)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer()
    assert run.until(*REQUESTS).__class__ is Release
    run.answer("RELEASED")
    assert isinstance(run.raised, AcquireTimeout)


@pytest.mark.parametrize("cut_short", [True, False])
def test_a_last_request_that_the_timeout_cut_short_says_less_than_the_refusal_before_it(
    start, clock, cut_short
):
    _, run = start(timeout=10.0)
    run.fail(REFUSED)
    assert type(run.effect) is Pause
    clock.forward(9.99 if cut_short else 8.0)
    run.answer()
    assert (run.effect.budget < 2.0) is cut_short
    clock.forward(run.effect.budget)
    run.fail(UNKNOWN)
    assert run.until(*REQUESTS).__class__ is Abandon
    run.answer("ABSENT")
    assert run.raised is (REFUSED if cut_short else UNKNOWN).error


@pytest.mark.parametrize("last", [REFUSED, DENIED], ids=["passing", "final"])
def test_a_refusal_in_the_time_that_is_left_says_less_than_the_one_before_unless_it_is_final(
    start, clock, last
):
    """As where a server that loads its data does not even answer in the end."""
    loading = Refused(BackendUnavailable("it is still loading"))
    _, run = start(timeout=10.0)
    run.fail(loading)
    clock.forward(9.99)
    run.answer()
    assert run.effect.budget < 2.0
    clock.forward(run.effect.budget)
    run.fail(last)
    assert run.raised is (loading if last is REFUSED else DENIED).error


def test_what_a_store_will_never_do_is_not_tried_again(start):
    attempt, run = start()
    run.fail(DENIED)
    assert isinstance(run.raised, PermissionDenied)
    assert run.raised.name == "a"
    assert attempt.leftover() is None, "refused is definite: nothing was sent"


def test_a_refusal_after_an_unknown_leaves_the_unknown_to_be_settled(start):
    _, run = start()
    run.fail(UNKNOWN)
    run.until(*REQUESTS)
    run.fail(DENIED)
    assert run.until(*REQUESTS).__class__ is Abandon


def refused_until_it_ends(run, clock):
    """Return what is told meanwhile."""
    told = []
    while not run.done:
        if type(run.effect) is Pause:
            clock.forward(run.effect.until - clock.now())
        if type(run.effect) is Notify:
            told.append(run.effect.what)
        if type(run.effect) is Acquire:
            run.fail(REFUSED)
        else:
            run.answer()
    return told


@pytest.mark.parametrize("slept", [0.0, 57.0])
def test_a_wait_for_ever_bears_an_outage_for_a_while_and_no_longer(start, clock, slept):
    """Patience counts from the first unanswered request, not from the last answer before a long sleep."""
    _, run = start(timeout=None)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(slept)
    began = clock.now()
    run.answer()
    refused_until_it_ends(run, clock)
    assert isinstance(run.raised, BackendUnavailable)
    assert began + OUTAGE_LIMIT <= clock.now() <= began + OUTAGE_LIMIT + 2.0


def test_two_outages_are_not_one(start, clock):
    _, run = start(timeout=None)
    run.answer(Queued(1))
    for _ in range(3):
        run.until(WaitForWake)
        run.answer().fail(REFUSED)
        assert type(run.effect) is Pause
        clock.forward(0.6 * OUTAGE_LIMIT)
        run.answer().answer(Queued(1))
    assert not run.done


def test_an_outage_is_told_once_and_not_before_it_has_lasted_for_a_moment(start, clock):
    _, run = start(timeout=None)
    run.answer(Queued(1))
    run.until(WaitForWake)
    began = clock.now()
    run.answer().fail(REFUSED)
    assert type(run.effect) is Pause, "nothing is told of what is over in a moment"
    (event,) = refused_until_it_ends(run, clock)
    assert event.kind == "unanswered"
    assert event.duration >= 1.0
    assert event.data["error"] == str(REFUSED)
    assert clock.now() - began > OUTAGE_LIMIT


def test_whose_time_is_up_in_an_outage_is_told_of_the_outage(start, clock):
    """The holder that the store named before the outage is another matter."""
    _, run = start(timeout=10.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(7.0)
    run.answer()
    assert run.effect.budget == 2.0
    clock.forward(2.0)
    run.fail(UNKNOWN)
    run.until(Pause)
    clock.forward(1.0)
    run.answer()
    while not run.done:
        run.answer("ABSENT")
    assert run.raised is UNKNOWN.error


@pytest.mark.parametrize("left, outage", [(1.5, True), (0.5, False)])
def test_a_question_that_the_timeout_cuts_short_is_told_if_the_store_had_time_to_answer(
    start, clock, left, outage
):
    _, run = start(timeout=10.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(10.0 - left)
    run.answer()
    assert run.effect.budget == pytest.approx(left)
    clock.forward(run.effect.budget)
    run.fail(UNKNOWN)
    while not run.done:
        run.answer("ABSENT")
    assert isinstance(run.raised, BackendUnavailable if outage else AcquireTimeout)


def test_who_is_answered_again_before_its_time_is_up_is_told_who_is_in_the_way(start, clock):
    _, run = start(timeout=10.0)
    run.answer(Queued(1))
    run.until(WaitForWake)
    run.answer().fail(UNKNOWN)
    run.answer().answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(10.0)
    run.answer()
    while not run.done:
        run.answer("RELEASED")
    assert isinstance(run.raised, AcquireTimeout)


@pytest.mark.parametrize("answer", [Queued(1, capacity=3), Busy(3), Lapsed("resized")])
def test_another_capacity_is_an_error_and_leaves_nothing(start, answer):
    attempt, run = start(wait=not isinstance(answer, Busy))
    run.answer(answer)
    while not run.done:
        run.answer("RELEASED")
    assert isinstance(run.raised, CapacityMismatch)
    assert attempt.leftover() is None


def test_a_waiter_is_not_refused_for_a_resize_that_is_half_done(start, clock):
    """On etcd the first claims of a long queue have the new capacity before the others."""
    _, run = start(timeout=30.0)
    run.answer(Queued(1)).until(WaitForWake)
    run.answer().answer(Queued(1, capacity=3)).until(WaitForWake)
    run.answer().answer(Granted(7, clock.now()))
    assert run.result.fence == 7


def test_a_waiter_is_woken_by_the_earliest_of_its_times(start, clock):
    _, run = start(timeout=30.0)
    run.answer(Queued(1, ask_again_at=clock.now() + 4.0, blockers=("9",)))
    wait = run.until(WaitForWake)
    assert wait.until == clock.now() + 4.0
    assert wait.blockers == ("9",)
    run.answer().answer(Queued(2))
    assert run.until(WaitForWake).until == clock.now() + 30.0


def _answers(clock):
    """Answers that lead through all there is to acquiring."""
    yield lambda: Queued(1, blockers=("1",))
    yield Lapsed
    yield lambda: Granted(3, clock.now() - 100.0)
    yield lambda: Queued(1, blockers=("1",))
    yield lambda: Granted(4, clock.now())


@pytest.mark.parametrize("stop", range(20))
def test_an_interruption_at_any_effect_leaves_something_to_take_back_or_nothing_on_the_store(
    start, clock, stop
):
    attempt, run = start(timeout=None)
    answers = _answers(clock)
    asked = None
    for _ in range(stop):
        if run.done:
            return
        if type(run.effect) is Acquire:
            answer = next(answers)()
            asked = None if isinstance(answer, Lapsed) else run.effect.claim
            run.answer(answer)
        elif isinstance(run.effect, REQUESTS):
            asked = None
            run.answer("RELEASED")
        else:
            run.answer()
    if run.done:
        return
    sending = type(run.effect) is Acquire
    at = run.effect
    run.fail(KeyboardInterrupt())
    assert isinstance(run.raised, KeyboardInterrupt)
    leftover = attempt.leftover()
    if sending:
        assert leftover is not None
        assert leftover.claim is at.claim
        assert leftover.abandon
    elif asked is not None and asked is attempt.claim and not isinstance(at, Withdraw | Notify):
        assert leftover is not None


def test_an_interrupted_wait_releases_its_claim_or_abandons_it_if_a_request_may_be_under_way(
    start,
):
    attempt, run = start(timeout=None)
    run.until(Acquire)
    assert attempt.leftover().abandon
    run.answer(Queued(1))
    run.until(WaitForWake)
    assert not attempt.leftover().abandon
    run.answer()
    run.until(Acquire)
    assert attempt.leftover().abandon, "it asks again"


def test_a_claim_that_waits_after_an_unknown_outcome_is_abandoned(start):
    attempt, run = start(timeout=None)
    run.until(Acquire)
    run.fail(UNKNOWN)
    run.until(Acquire)
    run.answer(Queued(1))
    run.until(WaitForWake)
    assert attempt.leftover().abandon


def test_telling_of_a_long_wait_is_rare(start, clock):
    _, run = start(timeout=None)
    told = 0
    for _ in range(400):
        if type(run.effect) is Notify:
            told += 1
        if type(run.effect) is WaitForWake:
            clock.forward(2.0)
        run.answer(Queued(1) if isinstance(run.effect, REQUESTS) else None)
    assert 2 <= told <= 6


def test_max_hold_counts_from_the_first_request_that_may_have_been_granted(start, clock):
    """The store counts from its grant, whose answer may have been the one that was lost."""
    _, run = start(max_hold=8.0)
    sent = clock.now()
    clock.forward(1.5)
    run.fail(UNKNOWN)
    run.until(*REQUESTS)
    clock.forward(3.0)
    run.answer(granted(clock))
    assert run.result.since == sent
    assert run.result.expires == run.result.latest < sent + 8.0


def test_once_it_is_known_to_wait_an_earlier_unknown_was_no_grant(start, clock):
    _, run = start(max_hold=8.0)
    run.fail(UNKNOWN)
    run.until(*REQUESTS)
    run.answer(Queued(1))
    run.until(WaitForWake)
    clock.forward(3.0)
    run.answer().answer(granted(clock))
    assert run.result.since == clock.now()
