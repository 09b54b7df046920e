"""A request for one of several locks, with tries that do not wait, while the store is busy or silent."""

from __future__ import annotations

import pytest

from lockkit.errors import BackendUnavailable
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import NoChooser, any_of, some_of
from lockkit.protocol.effects import Acquire, WaitForAny
from lockkit.protocol.together import Candidate, Together, Tools
from lockkit.store.spi import Granted, Refused, Terms, Unknown
from lockkit_memory import CAPABILITIES

SECONDS = 300.0
"""Much longer than a try, or an outage, may take."""


@pytest.fixture(params=["any_of", "some_of"])
def start(request, driven, clock):
    """Begins a request for one of ``a`` and ``b``; its generator, up to the first try."""

    def begin(timeout):
        deadline = None if timeout is None else clock.now() + timeout
        tries, claims = (
            [Attempt(Terms(name, ttl=600.0), deadline, wait) for name in "ab"] for wait in (False, True)
        )
        for attempt, then in zip(tries, claims, strict=True):
            attempt.then = then
        together, tools = Together(), Tools(CAPABILITIES, clock.now, clock.wall, lambda: 0.5)
        if request.param == "any_of":
            return driven(any_of(together, tries, claims, tools))
        gate = Attempt(Terms("gate", ttl=600.0), deadline)
        candidates = [Candidate(*each) for each in zip("ab", zip(tries), zip(claims), strict=True)]
        run = driven(some_of(together, "p", gate, candidates, 1, tools, NoChooser()))
        return run.answer(Granted(1, clock.now()))

    return begin


def fail(run, clock, trouble, seconds):
    """Have each request fail, for some seconds or to the end; the requests for claims that wait."""
    end, waiting = clock.now() + seconds, []
    while not run.done and clock.now() < end:
        if isinstance(run.effect, Acquire):
            waiting += [run.effect] if run.effect.claim.wait else []
            clock.forward(run.effect.budget)
            run.fail(trouble)
        elif isinstance(run.effect, WaitForAny):
            clock.forward(1.0)
            run.answer(set(run.effect.waits))
        else:
            run.answer()
    return waiting


@pytest.mark.parametrize("kind", [Refused, Unknown])
@pytest.mark.parametrize("timeout", [None, 2 * SECONDS])
def test_a_request_that_waits_queues_while_the_store_is_only_busy(start, clock, kind, timeout):
    run = start(timeout)
    waiting = fail(run, clock, kind(BackendUnavailable("is busy"), busy=True), SECONDS)
    assert {effect.claim.terms.name for effect in waiting} == {"a", "b"}

    while not (isinstance(run.effect, Acquire) and run.effect.claim.wait):
        run.answer(set(run.effect.waits) if isinstance(run.effect, WaitForAny) else None)
    name = run.effect.claim.terms.name
    run.answer(Granted(7, clock.now())).kinds()
    assert [attempt.terms.name for attempt in run.result] == [name]


def test_an_outage_is_waited_out_only_within_a_timeout(start, clock):
    silence = Unknown(BackendUnavailable("no answer"))
    run = start(2 * SECONDS)
    assert fail(run, clock, silence, SECONDS)
    assert not run.done

    run, began = start(None), clock.now()
    assert fail(run, clock, silence, SECONDS) == []
    assert isinstance(run.raised, BackendUnavailable)
    assert clock.now() < began + 10.0


def test_a_failure_that_does_not_pass_ends_the_request_at_once(start, clock):
    run = start(2 * SECONDS)
    assert fail(run, clock, Refused(BackendUnavailable("full"), retry=False, busy=True), SECONDS) == []
    assert str(run.raised) == "full"
