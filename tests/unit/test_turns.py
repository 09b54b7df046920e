"""Turns: how many calls of a client are under way, and what becomes of those without an answer."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from lockkit.errors import OutcomeUnknown
from lockkit.store import turns
from lockkit.store.exchanges import Await
from lockkit.store.spi import Refused, Unknown
from lockkit.store.turns import Turns

BUDGET = 2.0
STEADY = 0.8
"""Seconds after which an answer lets neither more nor fewer calls in."""
_tokens = itertools.count()


@pytest.fixture
def clock(monkeypatch):
    """The time, which only waits and answers pass."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def some():
    return Turns("here")


def begun(some, token, *, late=True):
    """A call that has its turn, and waits for its answer."""

    def ask(rest):
        answer = yield rest
        return answer

    call = some.take(token, ask, BUDGET, late=late)
    return call, next(call)


def answered(call, value=None):
    with pytest.raises(StopIteration) as done:
        call.send(value)
    return done.value.value


def full(some):
    """Calls, as many as may be under way."""
    calls = []
    while True:
        call, step = begun(some, f"t{next(_tokens)}")
        if type(step) is Await:
            call.close()
            return calls
        calls.append(call)


def test_a_call_has_its_whole_budget_where_nobody_waits(clock, some):
    call, rest = begun(some, "a")
    assert rest == BUDGET
    assert answered(call, "yes") == "yes"


def test_a_call_waits_until_another_is_answered_and_looks_at_nothing_meanwhile(clock, some):
    """Hundreds that look for their turn keep a processor busy, and their claims' heartbeat is late."""
    calls = full(some)
    waiting, step = begun(some, "late")
    assert not step.bell.rung()

    answered(calls[0])

    assert step.bell.rung()
    clock.now += 0.1
    assert 1.5 < waiting.send(True) < BUDGET


def test_calls_that_wait_get_their_turns_in_order_those_in_the_queue_first(clock, some):
    calls = full(some)
    first, second, asks = (begun(some, name, late=name != "asks") for name in ("first", "second", "asks"))
    clock.now += STEADY

    for (call, step), done in zip((asks, first, second), calls, strict=False):
        assert not step.bell.rung()
        answered(done)
        assert step.bell.rung()
        call.send(True)


def test_a_call_that_waits_goes_before_one_that_comes_later(clock, some):
    calls = full(some)
    earlier, step = begun(some, "earlier")
    newcomer, step_of_newcomer = begun(some, "newcomer")
    clock.now += STEADY

    answered(calls[0])

    assert (step.bell.rung(), step_of_newcomer.bell.rung()) == (True, False)
    assert type(begun(some, "last")[1]) is Await
    earlier.close()
    newcomer.close()


def test_a_call_that_is_cut_short_passes_its_turn_on(clock, some):
    calls = full(some)
    (cut, _), (_, step) = (begun(some, name) for name in ("cut", "next"))
    clock.now += STEADY
    answered(calls[0])
    assert not step.bell.rung()

    with pytest.raises(KeyboardInterrupt):
        cut.throw(KeyboardInterrupt())

    assert step.bell.rung()


def test_a_call_that_waits_no_longer_takes_no_turn(clock, some):
    calls = full(some)
    (cut, _), (_, step) = (begun(some, name) for name in ("cut", "next"))
    cut.close()
    clock.now += STEADY

    answered(calls[0])

    assert step.bell.rung()


def wait_to_the_end(clock, call, step):
    clock.now += step.seconds
    call.send(step.bell.rung())


def test_a_call_whose_turn_does_not_come_was_not_sent(clock, some):
    calls = full(some)
    call, step = begun(some, "late")

    with pytest.raises(Refused) as refused:
        wait_to_the_end(clock, call, step)

    assert (refused.value.busy, refused.value.retry) == (True, True)
    assert clock.now < 100.0 + 0.75 * BUDGET, "a turn that comes late leaves time for the call"
    assert calls


def test_a_call_whose_turn_comes_at_its_last_moment_is_sent(clock, some):
    calls = full(some)
    call, step = begun(some, "late")
    clock.now += step.seconds
    answered(calls[0])

    assert call.send(False) == BUDGET - step.seconds


def test_a_server_that_answers_nobody_is_no_crowd(clock, some):
    """A wait without a timeout goes on as long as the store is only busy, so this must not count as busy."""
    calls = full(some)
    clock.now += 31.0
    calls += full(some)
    call, step = begun(some, "late")

    with pytest.raises(Refused) as refused:
        wait_to_the_end(clock, call, step)

    assert not refused.value.busy


@pytest.mark.parametrize("end", [Unknown(OutcomeUnknown("no answer")), GeneratorExit()])
def test_a_call_without_an_answer_keeps_its_turn_for_as_long_again(clock, some, end):
    calls = full(some)
    clock.now += 1.0
    with pytest.raises(type(end)):
        calls[0].throw(end)
    for call in calls[1:]:
        answered(call)
    others = full(some)
    assert len(others) < len(calls) - 1, "and its end lets fewer in"

    clock.now += 1.1

    assert len(full(some)) == 1, "its turn is free now; the others are under way"
    assert others


def test_a_refused_call_is_over_at_once(clock, some):
    calls = full(some)
    with pytest.raises(Refused):
        calls[0].throw(Refused(OutcomeUnknown("no")))
    assert len(full(some)) in (1, 2)


def test_quick_answers_let_more_calls_in_and_slow_ones_fewer(clock, some):
    def rounds(took):
        for _ in range(60):
            calls = full(some)
            clock.now += took
            for call in calls:
                answered(call)
        return len(calls)

    at_first = len(full(Turns("here")))
    more, as_many, fewer = rounds(0.01), rounds(0.8), rounds(1.5)

    assert fewer <= 8 < at_first < more <= 64
    assert as_many == more, "the server is far away, and keeps up"


def test_a_turn_that_nobody_ended_is_over_with_its_budget(clock, some):
    calls = full(some)
    clock.now += BUDGET + 0.1
    assert len(full(some)) == len(calls)
