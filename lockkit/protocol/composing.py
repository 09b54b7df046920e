"""Acquire several locks together: all of them, any one of them, or some members of a pool.

The generators here run one :func:`~lockkit.protocol.acquiring.acquiring` for each lock and pass its requests
on. When all of them wait, they yield one :class:`~lockkit.protocol.effects.WaitForAny`.

Rules kept here:

- *All of them*: one lock after the other, by name, so that no two such acquisitions wait for each other.
- *Any of them*: a claim in each queue. The first grant wins, and every other claim is given back.
- *Some of them*: the members of a pool have one **gate**, a mutex. Only its holder asks for members. It keeps
  what it gets, and passes the gate on when it has enough or gives up. Otherwise two that want two members
  each could get one each, and wait for ever. One that loses the gate stops, and gives its members back.
- Two claims, one in the queue of each, hold a member within another one. One without the other is given back.
- Which members will do may change while a request waits (:mod:`lockkit.protocol.choosing`). A claim for a
  member that no longer does is given up.
- A failure leaves nothing behind: all is given back, last first, before the error is raised.
- Until all is held, a claim lapses like a waiter, not like a holder, because a stopped process must not keep
  it. So a claim becomes process-bound only then.
- If a hold is lost meanwhile, the acquisition fails; if it was just renewed too late, the caller starts anew.
- A lock that the store refuses for good, for a damaged claim perhaps, is left out while enough others remain.
- The time is checked before each further lock: many quick requests add up. A complete whole is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

from lockkit.errors import (
    AcquireCancelled,
    AcquireTimeout,
    BackendError,
    DeadlockDetected,
    LeaseLost,
    LockkitError,
)
from lockkit.facts import LOSSES
from lockkit.protocol import denials
from lockkit.protocol.acquiring import giving_up
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.effects import Effect, Extend, WaitForAny
from lockkit.protocol.hold import Hold
from lockkit.protocol.invalid import lapsed
from lockkit.protocol.telling_together import TogetherTold
from lockkit.protocol.together import Candidate, Run, Together, Tools, holds, late
from lockkit.store.spi import Refused, Unknown

__all__ = ["NoChooser", "PlaceLost", "Steps", "all_of", "any_of", "some_of"]

_AGAIN = 0.05
"""Seconds after which an unanswered request is sent again."""
Steps = Generator[Effect, Any, "list[Attempt] | None"]
"""An acquisition of several locks. Returns the attempts that hold, or None on a definite "busy"."""


class PlaceLost(LeaseLost):
    """Raised while an acquisition waits: one of its holds was not renewed in time, as in a stopped process.

    A request that waits starts anew then. Users see the LeaseLost that :meth:`plain` returns.
    """

    def plain(self) -> LeaseLost:
        """The same error, as users see it."""
        return LeaseLost(self.message, name=self.name, hint=self.hint)


class NoChooser:
    """The absence of a chooser: all candidates will do, in the given order.

    :class:`~lockkit.protocol.choosing.Choosing`, which asks a chooser, takes its place.

    Attributes:
        until: CLOCK_BOOTTIME seconds at which to ask again; None for never.
        outside: Whether the request must not delay others: even all held members could not meet it.
    """

    until: float | None = None
    outside = False

    def best(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """The candidates that will do now, the best first."""
        return candidates

    def refuses(self, name: str) -> bool:  # noqa: ARG002
        """Whether a candidate that is waited for, or held already, is to be given up."""
        return False

    def ask(self, held: Collection[str]) -> Generator[Effect, Any, None]:  # noqa: ARG002
        """Find out which of the candidates will do now, beside those that are held."""
        yield from ()

    def judge(self, name: str) -> Generator[Effect, Any, bool]:  # noqa: ARG002
        """Whether a candidate that was granted just now is to be kept."""
        yield from ()
        return True


def all_of(together: Together, attempts: Sequence[Attempt], tools: Tools) -> Steps:
    """Acquire all of several locks, one after the other.

    Args:
        together: Gets the attempts that have started.
        attempts: One for each lock, sorted; all with the same deadline.
        tools: The parts of its client that it needs.

    Raises:
        LeaseLost: A hold was lost while the acquisition waited for another lock.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, for the first lock that failed.
    """
    return _leaving_nothing(together, _all_of(together, attempts, tools), tools)


def _all_of(together: Together, attempts: Sequence[Attempt], tools: Tools) -> Steps:
    for attempt in attempts:
        if not (yield from _run_one(together, (attempt,), tools)):
            yield from _giving_back(together, tools)
            return None
    _raise_if_lost(holds(attempts), tools.now())
    yield from _completing(attempts, tools)
    return [*attempts]


def any_of(together: Together, tries: Sequence[Attempt], claims: Sequence[Attempt], tools: Tools) -> Steps:
    """Acquire one of several locks: the first that is free, else the one whose turn comes first.

    Args:
        together: Gets the attempts that have started.
        tries: One for each lock that does not wait, in order of preference.
        claims: One for each lock that waits, in the same order; none for an acquisition that does not wait.
        tools: The parts of its client that it needs.

    Raises:
        DeadlockDetected: The thread or task would wait for itself at each of the locks.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, for the first lock that failed.
    """
    return _leaving_nothing(together, _any_of(together, tries, claims, tools), tools)


def _any_of(together: Together, tries: Sequence[Attempt], claims: Sequence[Attempt], tools: Tools) -> Steps:
    others = len(tries)  # that the store has not refused for good
    for attempt in tries:
        if claims and late(together, attempt, tools.now()):
            break
        if (yield from _run_one(together, (attempt,), tools, others=others > 1)):
            return [attempt]
        others -= attempt.hopeless
    if not claims:
        return None
    candidates = [Candidate(attempt.terms.name, (), (attempt,)) for attempt in claims]
    got: dict[str, Sequence[Attempt]] = {}
    try:
        yield from _wait_for_first(together, None, candidates, 1, tools, NoChooser(), got)
    except AcquireTimeout as error:
        raise denials.none_in_time(error, [candidate.name for candidate in candidates]) from None
    kept = _attempts_of(got)
    yield from _giving_back(together, tools, kept)
    return kept


def some_of(
    together: Together,
    pool: str,
    gate: Attempt,
    candidates: Sequence[Candidate],
    count: int,
    tools: Tools,
    members: NoChooser,
) -> Steps:
    """Acquire some members of a pool: those that are free now, in order, and then those that come free.

    Args:
        together: Gets the attempts that have started.
        pool: The pool, for errors.
        gate: The attempt for the gate. It waits if the acquisition does.
        candidates: The members that would do, the best first. Any ``count`` of them must fit together.
        count: The number of members.
        tools: The parts of its client that it needs.
        members: Decides which of the candidates will do now.

    Raises:
        LeaseLost: The gate, or a member that it had got already, was lost while it waited for the others.
        DeadlockDetected: The thread or task would wait for itself at too many of the members.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, or as ``members``.
    """
    got: dict[str, Sequence[Attempt]] = {}
    steps = _some_of(together, gate, candidates, count, tools, members, got)
    return _leaving_nothing(together, _explain_timeout(steps, together, pool, gate, got, count), tools)


def _some_of(
    together: Together,
    gate: Attempt,
    candidates: Sequence[Candidate],
    count: int,
    tools: Tools,
    members: NoChooser,
    got: dict[str, Sequence[Attempt]],
) -> Steps:
    if not (yield from _run_one(together, (gate,), tools)):
        return None
    yield from members.ask(got)
    if gate.wait:
        yield from _stand_outside(together, gate, tools, members)
    others = len(candidates)
    for name, tries, _ in members.best(candidates):
        if gate.wait and late(together, tries[0], tools.now()):
            break
        if not (yield from _run_one(together, tries, tools, others=others > count)):
            others -= any(attempt.hopeless for attempt in tries)
            continue
        if (yield from members.judge(name)):
            got[name] = tries
            if len(got) == count and (yield from _still_good(name, got, tools, members)):
                break
        else:
            yield from _giving_up(tries, tools)
    if len(got) < count:
        if not gate.wait:
            yield from _giving_back(together, tools)
            return None
        yield from _wait_for_first(together, gate, candidates, count, tools, members, got)
    kept = _attempts_of(got)
    _raise_if_lost(holds([gate]))
    _raise_if_lost(holds(kept), tools.now())
    yield from _completing(kept, tools)
    yield from _giving_back(together, tools, kept)
    best = [one.name for one in members.best(candidates) if one.name in got]
    return _attempts_of({name: got[name] for name in [*best, *got]})


def _explain_timeout(
    steps: Steps, together: Together, pool: str, gate: Attempt, got: Collection[str], count: int
) -> Steps:
    """Have the error of a wait whose time is up say how far it got, and why other members did not do."""
    try:
        return (yield from steps)
    except AcquireTimeout as error:
        have = None if gate.hold is None else len(got)
        raise denials.too_few(error, pool, have, count, together.refused) from None


# -- parts of all three


def _leaving_nothing(together: Together, steps: Steps, tools: Tools) -> Steps:
    """Run an acquisition; if it fails, give back what it has before the error is raised."""
    try:
        return (yield from steps)
    except AcquireCancelled:  # the client closes, and its background removes everything
        raise
    except LockkitError:
        yield from _giving_back(together, tools)
        raise


def _completing(attempts: Sequence[Attempt], tools: Tools) -> Generator[Effect, Any, None]:
    """Have the store keep a complete acquisition by the terms of a hold.

    Raises:
        PlaceLost, LeaseLost: A hold was lost before.
        BackendError: The store has refused.
    """
    for attempt in attempts:
        hold, later = attempt.hold, attempt.later
        while hold is not None and later is not None and hold.claim.terms != later:
            claim = hold.claim._replace(terms=later)
            try:
                renewal = yield Extend(claim, hold.fence, attempt.request_timeout)
            except (Refused, Unknown) as trouble:
                if not trouble.retry:
                    raise attempt.named(trouble.error) from None
                yield WaitForAny({}, [hold], tools.now() + _AGAIN)  # the hold itself says for how long
            else:
                if renewal.state != "HELD":
                    hold.lose("evicted" if renewal.why == "evicted" else "lost")
                hold.extended(claim, renewal.basis, tools.now())
            _raise_if_lost([hold], tools.now())


def _giving_back(
    together: Together, tools: Tools, but: Collection[Attempt] = ()
) -> Generator[Effect, Any, None]:
    """Give up all attempts, except some."""
    yield from _giving_up([attempt for attempt in together.attempts if attempt not in but], tools)


def _giving_up(attempts: Sequence[Attempt], tools: Tools) -> Generator[Effect, Any, None]:
    """Give up attempts, last first; once the store has not answered, in the background."""
    sure = True
    for attempt in reversed(attempts):
        gone = yield from giving_up(attempt, tools.now, asks=sure)
        sure = sure and gone


def _run_one(
    together: Together, attempts: Sequence[Attempt], tools: Tools, *, others: bool = False
) -> Generator[Effect, Any, bool]:
    """Run one attempt, or two that hold together, to the end; whether they hold. No hold may be lost then.

    With ``others`` an attempt that the store refuses for good does not hold; without, its error is raised.
    """
    run = Run(together, attempts, tools)
    running = run.running
    try:
        yield from run.go_on(running.begin)
        while running.effect is not None:
            held = holds(together.attempts)
            yield WaitForAny({run.number: run.wait}, held)
            _raise_if_lost(held)
            yield from run.go_on(running.answered)
    except BackendError:
        if not (others and any(attempt.hopeless for attempt in attempts)):
            raise
        yield from _giving_up(attempts, tools)
        return False
    if not running.value:
        yield from _giving_up(attempts, tools)
    return bool(running.value)


def _wait_for_first(
    together: Together,
    gate: Attempt | None,
    candidates: Sequence[Candidate],
    count: int,
    tools: Tools,
    members: NoChooser,
    got: dict[str, Sequence[Attempt]],
) -> Generator[Effect, Any, None]:
    """Queue with several candidates at once until ``count`` hold. The caller gives up the others.

    A candidate that would be a self-deadlock, or that the store refuses for good, is left out while enough
    others remain. ``got`` has the candidates that hold already, with their attempts, and gets the others.
    """
    waiting: dict[str, Run] = {}
    told = TogetherTold(together, gate, [one.name for one in candidates], count, tools.now())
    group = f"{int(tools.random() * 2**48):012x}"
    _name_group(candidates, group, count)

    def step(name: str, run: Run, resume: Callable[[], None]) -> Generator[Effect, Any, None]:
        nonlocal candidates
        waiting.pop(name, None)
        try:
            yield from run.go_on(resume)
        except (DeadlockDetected, BackendError) as error:
            passing = isinstance(error, BackendError) and not any(one.hopeless for one in run.attempts)
            if len(candidates) == count or run.attempt.ended_deadlock or passing:
                raise
            candidates = [one for one in candidates if one.name != name]
            _name_group(candidates, group, count)
            yield from _giving_up(run.attempts, tools)
            return
        if run.waits:
            waiting[name] = run
        elif (yield from members.judge(name)):
            got[name] = run.attempts
            if len(got) == count:
                yield from _still_good(name, got, tools, members)
        else:
            yield from _giving_up(run.attempts, tools)

    while True:
        yield from _dropping(waiting, got, tools, members)
        yield from _stand_outside(together, gate, tools, members)
        for name, _, claims in members.best(candidates):
            if name not in got and name not in waiting:
                run = Run(together, claims, tools)
                yield from step(name, run, run.running.begin)
                if len(got) == count:
                    return
        while members.until is None or tools.now() < members.until:
            held = holds(together.attempts)
            waits = {run.number: run.wait for run in waiting.values()}
            woken = yield WaitForAny(waits, held, members.until)
            _raise_if_lost(held)
            for name, run in sorted(waiting.items(), key=lambda item: item[1].number):
                if run.number in woken:
                    yield from step(name, run, run.running.answered)
                    if len(got) == count:
                        return
            yield from told.due(tools.now(), got, [run.attempt for run in waiting.values()])
        yield from members.ask(got)


def _stand_outside(
    together: Together, gate: Attempt | None, tools: Tools, members: NoChooser
) -> Generator[Effect, Any, None]:
    """Leave the gate while the chooser says that not even all held members would do; then queue again."""
    while members.outside and gate is not None:
        yield from _giving_up((gate,), tools)
        yield from _until_inside(members)
        yield from _run_one(together, (gate,), tools)
        yield from members.ask(())


def _until_inside(members: NoChooser) -> Generator[Effect, Any, None]:
    while True:
        yield WaitForAny({}, (), members.until)
        yield from members.ask(())
        if not members.outside:
            return


def _still_good(
    newest: str, got: dict[str, Sequence[Attempt]], tools: Tools, members: NoChooser
) -> Generator[Effect, Any, bool]:
    """Judge older grants than the newest once more, and give up bad members; whether all are good."""
    count = len(got)
    for name in [name for name in got if name != newest]:
        if not (yield from members.judge(name)):
            yield from _giving_up(got.pop(name), tools)
    return len(got) == count


def _dropping(
    waiting: dict[str, Run], got: dict[str, Sequence[Attempt]], tools: Tools, members: NoChooser
) -> Generator[Effect, Any, None]:
    """Give up the candidates that no longer do; all, if the request is to leave the gate."""
    for name in [name for name in waiting if members.outside or members.refuses(name)]:
        yield from _giving_up(waiting.pop(name).attempts, tools)
    for name in [name for name in got if members.outside or members.refuses(name)]:
        yield from _giving_up(got.pop(name), tools)


def _name_group(candidates: Sequence[Candidate], group: str, count: int) -> None:
    """Note in each claim, for the deadlock search, how many candidates are left and how many are needed."""
    of = len(candidates)
    for candidate in candidates:
        for attempt in candidate.claims:
            attempt.group = (group, of, count) if of > 1 else None


def _attempts_of(got: Mapping[str, Sequence[Attempt]]) -> list[Attempt]:
    return [attempt for attempts in got.values() for attempt in attempts]


def _raise_if_lost(holds: Sequence[Hold], now: float = 0.0) -> None:
    """Check that none of the holds is lost.

    Args:
        holds: The holds.
        now: The time, before they are handed over: the heartbeat may not have noticed yet that one ran out.

    Raises:
        PlaceLost: One was not renewed in time.
        LeaseLost: One is lost for another reason.
    """
    for hold in holds:
        if hold.lost_why or not (hold.process_bound or hold.fresh(now)):
            error = lapsed(hold, LOSSES["lapsed"])
            silent = hold.lost_why in ("", "lapsed", "lost")
            raise PlaceLost(error.message, name=error.name, hint=error.hint) if silent else error
