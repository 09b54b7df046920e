"""Release, one effect at a time, interrupted wherever it can be."""

from __future__ import annotations

import pytest

from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.facts import Capabilities, HookReport
from lockkit.lib.leaving import Level
from lockkit.protocol.effects import (
    REQUESTS,
    AwaitHook,
    Lost,
    Notify,
    Orphan,
    Pause,
    RecordFailure,
    StartHook,
)
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import Pipeline, releasing
from lockkit.store.spi import ABSENT, RELEASED, Claim, Refused, Terms, Unknown

CAPABILITIES = Capabilities(scope="process")
UNKNOWN = Unknown(BackendUnavailable("no answer"))
HOOKS = ("scrub", "notify")


class Handle:
    """The lease that a user has."""

    callbacks = last_calls = ()

    def __init__(self):
        self.level = Level(self)


@pytest.fixture
def release(clock):
    user = Handle()

    def make(*, plugins=(), doubtful=False, handed=True, **terms):
        hold = Hold(Claim("1", Terms("a", ttl=6.0, **terms)), 5, clock.now(), CAPABILITIES, doubtful=doubtful)
        hold.levels = (user.level,) if handed else ()
        return Pipeline(hold, "normal", plugins)

    return make


@pytest.fixture
def start(driven, clock):
    return lambda release: driven(releasing(release, clock.now))


def play(run, clock, answers=(), default=RELEASED):
    """Answer to the end: hooks with DONE, calls with what is given. Returns the kinds of effects."""
    met, answers = [], list(answers)
    while not run.done:
        effect = run.effect
        met.append(type(effect).__name__)
        if type(effect) is AwaitHook:
            run.answer(HookReport(effect.plugin, "DONE"))
        elif type(effect) is Pause:
            clock.forward(max(0.0, effect.until - clock.now()))
            run.answer()
        elif isinstance(effect, REQUESTS):
            answer = answers.pop(0) if answers else default
            if isinstance(answer, BaseException):
                clock.forward(effect.budget if answer is UNKNOWN else 0.0)
                run.fail(answer)
            else:
                run.answer(answer)
        else:
            run.answer()
    return met


def test_the_plain_order(release, start, clock):
    it = release(plugins=HOOKS)
    run = start(it)
    assert [kind for kind in play(run, clock) if kind != "Notify"] == [
        "StartHook",
        "AwaitHook",
        "StartHook",
        "AwaitHook",
        "Release",
    ]
    assert run.result.outcome == "RELEASED"
    assert [hook.plugin for hook in it.hooks] == list(HOOKS)
    assert it.hold.report is run.result


def test_cleanup_runs_while_it_is_valid_and_the_hold_is_over_before_the_release_is_sent(
    release, start, clock
):
    it = release(plugins=HOOKS)
    run = start(it)
    assert it.hold.valid(clock.now())
    while type(run.effect) in (StartHook, AwaitHook, Notify):
        assert it.hold.valid(clock.now())
        run.answer(HookReport(run.effect.plugin, "DONE") if type(run.effect) is AwaitHook else None)
    assert isinstance(run.effect, REQUESTS)
    assert not it.hold.valid(clock.now())


def test_a_doubtful_hold_is_abandoned(release, start, clock):
    run = start(release(doubtful=True))
    assert play(run, clock) == ["Abandon"]


def test_a_lost_hold_is_told_and_goes_ungracefully(release, start, clock):
    it = release()
    clock.forward(6.0)
    run = start(it)
    assert type(run.effect) is Lost
    run.answer()
    call = run.until(*REQUESTS)
    assert call.how == "ungraceful"
    assert play(run, clock, [ABSENT]) == ["Release"]
    assert run.result.outcome == "LOST"
    assert not it.stolen


@pytest.mark.parametrize("handed, how", [(True, "released"), (False, "unused")])
def test_a_release_says_whether_a_caller_ever_had_the_lease(release, start, handed, how):
    assert start(release(handed=handed)).until(*REQUESTS).how == how


def test_a_lost_hold_counts_as_used_although_no_caller_has_it_yet(release, start, clock):
    it = release(handed=False)
    clock.forward(6.0)
    run = start(it)
    run.answer()
    assert run.until(*REQUESTS).how == "ungraceful", "a thread that stands still may hand it out"


def test_absent_on_the_first_send_while_valid_is_a_loss_with_an_alert(release, start, clock):
    it = release()
    run = start(it)
    assert play(run, clock, [ABSENT]) == ["Release", "Notify"]
    assert run.result.outcome == "LOST"
    assert it.stolen


def test_absent_after_an_unknown_release_is_the_work_of_that_release(release, start, clock):
    it = release()
    run = start(it)
    assert "EmergencyRelease" not in play(run, clock, [Unknown(BackendUnavailable("reset")), ABSENT])
    assert run.result.outcome == "RELEASED"
    assert not it.stolen


def test_absent_after_an_unknown_release_of_a_lost_hold_is_still_a_loss(release, start, clock):
    it = release()
    clock.forward(6.0)
    run = start(it)
    run.answer()
    play(run, clock, [UNKNOWN, ABSENT])
    assert run.result.outcome == "LOST"
    assert not it.stolen


def test_absent_after_a_refusal_is_still_a_loss(release, start, clock):
    run = start(release())
    play(run, clock, [Refused(BackendUnavailable("busy")), ABSENT])
    assert run.result.outcome == "LOST"


def test_a_final_refusal_goes_on_to_the_emergency_layer_at_once_and_casts_no_doubt(release, start, clock):
    it = release()
    run = start(it)
    met = play(run, clock, [Refused(PermissionDenied("no"), retry=False), ABSENT])
    assert met[:2] == ["Release", "EmergencyRelease"]
    assert run.result.outcome == "LOST"


@pytest.mark.parametrize("raised", [Refused, Unknown])
def test_errors_that_no_repetition_ends_are_counted_and_a_store_out_of_reach_is_not(
    release, start, clock, raised
):
    """The first error of a broken script, missing right or other layout shows that no request can work."""
    it = release()
    play(start(it), clock, [raised(PermissionDenied("no"), retry=False)])
    assert it.refusals == 1

    it = release()
    play(start(it), clock, default=raised(BackendUnavailable("nobody listens")))
    assert it.outcome == "ABANDONED"
    assert it.refusals == 0


def test_no_answer_at_all_is_abandoned_on_the_record_within_the_request_timeout(release, start, clock):
    it = release()
    began = clock.now()
    run = start(it)
    met = play(run, clock, default=UNKNOWN)
    assert [kind for kind in met if kind in ("Orphan", "RecordFailure")] == ["Orphan", "RecordFailure"]
    assert met.count("Release") >= 1
    assert met.count("EmergencyRelease") >= 1
    assert run.result.outcome == "ABANDONED"
    assert clock.now() - began <= 2.5, "L2"
    assert run.result.expires_by is not None


def test_what_is_bound_to_its_process_lapses_with_it_and_at_no_time(release, start, clock):
    run = start(release(process_bound=True))
    play(run, clock, default=UNKNOWN)
    assert (run.result.outcome, run.result.expires_by) == ("ABANDONED", None)


def test_a_hook_that_overran_is_told(release, start):
    run = start(release(plugins=("slow",)))
    run.answer()
    run.answer(HookReport("slow", "RUNNING"))
    told = []
    while type(run.effect) is Notify:
        told.append(run.effect.what.kind)
        run.answer()
    assert "cleanup_overrun" in told


def through(release, start, clock, interrupt_at, *, drop, default):
    """Run a release whose ``interrupt_at``-th effect meets a Ctrl-C; ``drop``: it hits the driver instead."""
    it = release(plugins=HOOKS)
    met, count = [], 0
    run = start(it)
    hooks = []
    for _ in range(200):
        if run.done:
            break
        effect = run.effect
        if count == interrupt_at:
            count += 1
            if drop:
                run.generator.close()
                run = start(it)
            else:
                run.fail(KeyboardInterrupt())
                if run.raised is not None:
                    it.interrupts.append(run.raised)
                    run = start(it)
            continue
        count += 1
        met.append(effect)
        if type(effect) is StartHook:
            if effect.plugin not in hooks:  # a driver starts it once, however often it is asked
                hooks.append(effect.plugin)
            run.answer()
        elif type(effect) is AwaitHook:
            assert effect.plugin in hooks, "waited for a hook that was never started"
            run.answer(HookReport(effect.plugin, "DONE"))
        elif type(effect) is Pause:
            clock.forward(max(0.0, effect.until - clock.now()))
            run.answer()
        elif isinstance(effect, REQUESTS) and default is UNKNOWN:
            clock.forward(effect.budget)
            run.fail(UNKNOWN)
        else:
            run.answer(default if isinstance(effect, REQUESTS) else None)
    assert run.done
    return it, run, met, hooks


@pytest.mark.parametrize("drop", [False, True], ids=["at-the-effect", "in-the-driver"])
@pytest.mark.parametrize("default", [RELEASED, ABSENT, UNKNOWN], ids=["released", "absent", "unknown"])
@pytest.mark.parametrize("at", range(18))
def test_wherever_it_is_interrupted_it_comes_to_its_end_and_owes_nothing(
    release, start, clock, at, default, drop
):
    it, run, met, hooks = through(release, start, clock, at, drop=drop, default=default)
    report = run.result
    assert report.outcome == {RELEASED: "RELEASED", ABSENT: report.outcome}.get(default, "ABANDONED")
    assert report.outcome in ("RELEASED", "LOST", "ABANDONED")
    assert len(hooks) == len(set(hooks)), "no hook is run twice"
    assert {hook.plugin for hook in it.hooks} == set(HOOKS)
    assert it.hold.ended
    if report.outcome == "ABANDONED":
        assert any(type(effect) is Orphan for effect in met), "somebody removes it"
        assert sum(type(effect) is RecordFailure for effect in met) == 1
    assert not any(isinstance(error, GeneratorExit) for error in it.interrupts)


@pytest.mark.parametrize("drop", [False, True], ids=["at-the-effect", "in-the-driver"])
@pytest.mark.parametrize("at", range(18))
def test_no_alert_of_a_failed_release_is_lost_to_an_interruption(release, start, clock, at, drop):
    _, _, met, _ = through(release, start, clock, at, drop=drop, default=UNKNOWN)
    alerts = {effect.what.kind for effect in met if type(effect) is Notify}
    assert {"emergency_release", "critical_failure", "emergency", "abandoned"} <= alerts


def test_a_loss_whose_telling_was_interrupted_is_told(release, start, clock):
    it = release()
    clock.forward(6.0)
    run = start(it)
    assert type(run.effect) is Lost
    run.fail(KeyboardInterrupt())
    assert isinstance(run.raised, KeyboardInterrupt)
    again = start(it)
    assert type(again.effect) is Lost
    again.answer()
    assert "Lost" not in play(again, clock)


def test_a_request_cut_short_counts_as_sent(release, start, clock):
    """The first release's answer was never read: ABSENT to the next one is its work, not a violation."""
    it = release()
    run = start(it)
    run.until(*REQUESTS)
    run.generator.close()
    again = start(it)
    play(again, clock, [ABSENT])
    assert again.result.outcome == "RELEASED"
    assert not it.stolen
