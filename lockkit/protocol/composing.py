"""Acquire several locks together: all of them, any one of them, or some members of a pool.

The generators here run one :func:`~lockkit.protocol.acquiring.acquiring` for each lock and pass its requests on. When all of them
wait, they yield one :class:`~lockkit.protocol.effects.WaitForAny`.

Rules kept here:

- *All of them*: one lock after the other, in the order of the names, so that no two such acquisitions wait for each other.
- *Any of them*: a claim in each queue. The first grant wins, and every other claim is given back. Nothing is held while it waits.
- *Some of them*: the members of a pool stand behind one **gate**, a mutex. Only its holder asks for members. It keeps what it gets, and
  passes the gate on when it has enough or gives up. Otherwise two that want two members each could get one each, and wait for ever.
  One that loses the gate stops, and gives its members back.
- A failure leaves nothing behind: what is held is given back, last first, before the error is raised.
- If a hold is lost while the acquisition still waits, the acquisition fails.
- The time is compared before each further lock: many requests that are each answered soon take long together. A whole that is
  complete is kept, even if the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from lockkit.cancelling import Cancel
from lockkit.errors import AcquireCancelled, AcquireTimeout, DeadlockDetected, LockkitError
from lockkit.facts import Capabilities
from lockkit.hold import Hold
from lockkit.invalid import lapsed
from lockkit.namedtuples import NamedTuple
from lockkit.protocol import denials
from lockkit.protocol.acquiring import acquiring, giving_up
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.effects import WAITS, Effect, Keep, Now, Pause, WaitForAny, WaitForWake
from lockkit.protocol.running import Running

__all__ = ["Means", "Steps", "Together", "all_of", "any_of", "some_of"]

_LEAST = 0.05
"""Seconds that a try may take at least, even if the tries before it took all of the time."""
_LATE = 0.2
"""Seconds after its time is up in which an acquisition still asks for further locks, so that the shortest timeout gets more than one."""


class Means(NamedTuple):
    """The things of its client that an acquisition needs; see :func:`~lockkit.protocol.acquiring.acquiring`."""

    capabilities: Capabilities
    now: Now
    wall: Callable[[], float]
    random: Callable[[], float]


class Together:
    """Several attempts that succeed or fail together; see :class:`~lockkit.protocol.attempt.UnderWay`.

    Attributes:
        attempts: The attempts that have begun.
        current: The attempt that was stepped last: the one that failed, after a failure.
        over: Whether the acquisition ended in an exception.
        handed: Whether somebody has handles of the holds, so that nothing is to be taken back.
        runs: Tells whether the thread, or the event loop, of the acquisition can go on with it.
        until: When tries, which do not wait, have taken too long in all, or the time of the whole acquisition is up; None before the
            first try.
        start: When the first attempt began; None before that.
        cancel: Ends the waits from another thread; None if nothing does.
    """

    cancel: Cancel | None = None
    over = handed = False
    until: float | None = None
    start: float | None = None
    runs: Callable[[], bool] = staticmethod(lambda: True)

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.current: Attempt | None = None

    @property
    def sent(self) -> bool:
        """See :class:`~lockkit.protocol.attempt.UnderWay`."""
        return not self.handed and any(attempt.sent for attempt in self.attempts)

    @property
    def parts(self) -> Sequence[Attempt]:
        """See :class:`~lockkit.protocol.attempt.UnderWay`."""
        return () if self.handed else tuple(self.attempts)


Steps = Generator[Effect, Any, "list[Attempt] | None"]
"""An acquisition of several locks. Returns the attempts that hold, or None on a definite "busy"."""


def all_of(together: Together, attempts: Sequence[Attempt], means: Means) -> Steps:
    """Acquire all of several locks, one after the other.

    Args:
        together: Gets the attempts that have begun.
        attempts: One for each lock, sorted; all with the same deadline.
        means: The things of its client that it needs.

    Raises:
        LeaseLost: A hold was lost while the acquisition waited for another lock.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, for the first lock that failed.
    """
    return _leaving_nothing(together, _all_of(together, attempts, means), means)


def _all_of(together: Together, attempts: Sequence[Attempt], means: Means) -> Steps:
    got: list[Attempt] = []
    for attempt in attempts:
        if not (yield from _one(together, attempt, means, _holds(got))):
            yield from _giving_back(together, means)
            return None
        got.append(attempt)
    _raise_if_lost(_holds(got))
    return got


def any_of(together: Together, tries: Sequence[Attempt], claims: Sequence[Attempt], means: Means) -> Steps:
    """Acquire one of several locks: the first that is free, else the one whose turn comes first.

    Args:
        together: Gets the attempts that have begun.
        tries: One for each lock that does not wait, in order of preference.
        claims: One for each lock that waits, in the same order; none for an acquisition that does not wait.
        means: The things of its client that it needs.

    Raises:
        DeadlockDetected: The thread or task would wait for itself at each of the locks.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, for the first lock that failed.
    """
    return _leaving_nothing(together, _any_of(together, tries, claims, means), means)


def _any_of(together: Together, tries: Sequence[Attempt], claims: Sequence[Attempt], means: Means) -> Steps:
    for attempt in tries:
        if claims and _late(together, attempt, means.now()):
            break
        if (yield from _one(together, attempt, means, ())):
            return [attempt]
    if not claims:
        return None
    try:
        return (yield from _first(together, claims, 1, means, (), []))
    except AcquireTimeout as error:
        names = [attempt.terms.name for attempt in claims]
        raise denials.none_in_time(error, names) from None


def some_of(
    together: Together,
    pool: str,
    gate: Attempt,
    tries: Sequence[Attempt],
    claims: Sequence[Attempt],
    count: int,
    means: Means,
) -> Steps:
    """Acquire some members of a pool: those that are free now, in order, and then those that come free.

    Args:
        together: Gets the attempts that have begun.
        pool: The pool, for errors.
        gate: The attempt for the gate. It waits if the acquisition does.
        tries: One for each member that would do, which does not wait, in order of preference.
        claims: One for each of these members that waits, in the same order; none for an acquisition that does not wait.
        count: The number of members.
        means: The things of its client that it needs.

    Raises:
        LeaseLost: The gate, or a member that it had got already, was lost while it waited for the others.
        DeadlockDetected: The thread or task would wait for itself at so many of the members that too few are left.
        LockkitError: As :func:`~lockkit.protocol.acquiring.acquiring`, for the first lock that failed.
    """
    got: list[Attempt] = []
    steps = _some_of(together, gate, tries, claims, count, means, got)
    return _leaving_nothing(together, _told(steps, pool, gate, got, count), means)


def _some_of(
    together: Together,
    gate: Attempt,
    tries: Sequence[Attempt],
    claims: Sequence[Attempt],
    count: int,
    means: Means,
    got: list[Attempt],
) -> Steps:
    if not (yield from _one(together, gate, means, ())):
        return None
    for attempt in tries:
        if claims and _late(together, attempt, means.now()):
            break
        if (yield from _one(together, attempt, means, _holds([gate, *got]))):
            got.append(attempt)
            if len(got) == count:
                break
    if len(got) < count:
        if not claims:
            yield from _giving_back(together, means)
            return None
        have = {attempt.terms.name for attempt in got}
        rest = [attempt for attempt in claims if attempt.terms.name not in have]
        missing = count - len(got)
        yield from _first(together, rest, missing, means, _holds([gate, *got]), got)
    _raise_if_lost(_holds([gate, *got]))
    yield from _giving_back(together, means, got)
    order = [attempt.terms.name for attempt in tries]
    return sorted(got, key=lambda attempt: order.index(attempt.terms.name))


def _told(steps: Steps, pool: str, gate: Attempt, got: Sequence[Attempt], count: int) -> Steps:
    """Have the error of a wait whose time is up say how far it got."""
    try:
        return (yield from steps)
    except AcquireTimeout as error:
        have = None if gate.hold is None else len(got)
        raise denials.too_few(error, pool, have, count) from None


# -- what they have in common


def _leaving_nothing(together: Together, steps: Steps, means: Means) -> Steps:
    """Run an acquisition; if it fails, give back what it has before the error is raised."""
    try:
        return (yield from steps)
    except AcquireCancelled:  # the client closes, and its background removes everything
        raise
    except LockkitError:
        yield from _giving_back(together, means)
        raise


def _giving_back(
    together: Together, means: Means, but: Collection[Attempt] = ()
) -> Generator[Effect, Any, None]:
    """Give up all attempts, last first, except some; once the store has not answered, in the background."""
    sure = True
    for attempt in reversed(together.attempts):
        if attempt not in but:
            sure = yield from giving_up(attempt, means.now, asks=sure)


def _one(
    together: Together, attempt: Attempt, means: Means, held: Sequence[Hold]
) -> Generator[Effect, Any, bool]:
    """Run one attempt to its end; whether it holds. Meanwhile none of the holds in ``held`` may be lost."""
    attempt.beside = held
    running = _added(together, attempt, means)
    number = len(together.attempts) - 1
    yield from _go_on(running, running.begin)
    while running.effect is not None:
        yield WaitForAny({number: _wait_of(running)}, held)
        _raise_if_lost(held)
        yield from _go_on(running, running.answered)
    return (yield from _settled(attempt, running))


def _first(
    together: Together,
    attempts: Sequence[Attempt],
    count: int,
    means: Means,
    held: Sequence[Hold],
    got: list[Attempt],
) -> Generator[Effect, Any, list[Attempt]]:
    """Queue with several attempts at once until ``count`` more of them hold, and give the others up.

    An attempt at which the thread or task would wait for itself is left out, as long as enough others remain.

    Returns:
        ``got``, to which those that hold were added.
    """
    count += len(got)
    waiting: dict[int, Running[Hold | None]] = {}
    spare = len(attempts) - (count - len(got))
    group = (f"{int(means.random() * 2**48):012x}", len(attempts), count - len(got))

    def step(
        number: int, running: Running[Hold | None], resume: Callable[[], None]
    ) -> Generator[Effect, Any, None]:
        nonlocal spare, group
        attempt = together.current = together.attempts[number]
        waiting.pop(number, None)
        try:
            yield from _go_on(running, resume)
        except DeadlockDetected:
            spare -= 1
            if spare < 0 or attempt.ended_deadlock:
                raise
            # A look for deadlocks counts the claims that wait, and this one never will.
            group = group[0], group[1] - 1, group[2]
            for one in waiting:
                together.attempts[one].group = group
            return
        if running.effect is not None:
            waiting[number] = running
        elif (yield from _settled(attempt, running)):
            got.append(attempt)

    for attempt in attempts:
        attempt.beside, attempt.group = held, group if len(attempts) > 1 else None
        running = _added(together, attempt, means)
        yield from step(len(together.attempts) - 1, running, running.begin)
        if len(got) == count:
            break
    while len(got) < count:
        waits = {number: _wait_of(running) for number, running in waiting.items()}
        woken = yield WaitForAny(waits, (*held, *_holds(got)))
        _raise_if_lost((*held, *_holds(got)))
        for number in sorted(woken):
            yield from step(number, waiting[number], waiting[number].answered)
            if len(got) == count:
                break
    yield from _giving_back(together, means, [one for one in together.attempts if one.hold is not None])
    return got


def _added(together: Together, attempt: Attempt, means: Means) -> Running[Hold | None]:
    """Add an attempt to those that may have left something, before it begins.

    Raises:
        AcquireTimeout: The time was up before the turn of this lock came.
        BackendUnavailable: The tries, which do not wait, took too long in all.
    """
    now = means.now()
    together.current = attempt
    if together.start is None:
        together.start = now
    elif _late(together, attempt, now):
        attempt.start = together.start
        raise (
            attempt.timeout(now, means.wall())
            if attempt.wait
            else denials.too_slow(attempt.terms.name, now - attempt.start)
        )
    together.attempts.append(attempt)
    if not attempt.wait:
        if together.until is None:
            together.until = now + attempt.request_timeout
        if attempt.deadline is not None:
            together.until = min(together.until, attempt.deadline)
        attempt.request_timeout = max(min(attempt.request_timeout, together.until - now), _LEAST)
    return Running(acquiring(attempt, *means))


def _late(together: Together, attempt: Attempt, now: float) -> bool:
    """Whether it is too late to ask for one more lock."""
    end = attempt.deadline if attempt.wait else together.until
    return end is not None and now >= end + _LATE


def _go_on(running: Running[Hold | None], resume: Callable[[], None]) -> Generator[Effect, Any, None]:
    """Run an attempt on until it waits or ends, and pass on what it asks for."""
    resume()
    while running.effect is not None and not isinstance(running.effect, WAITS):
        try:
            result = yield running.effect
        except BaseException as error:
            running.failed(error)
        else:
            running.answered(result)


def _settled(attempt: Attempt, running: Running[Hold | None]) -> Generator[Effect, Any, bool]:
    """Put the hold of an attempt that has ended into the heartbeat; False if it has none, because the lock is busy."""
    if running.value is None:
        return False
    attempt.hold = running.value
    yield Keep(attempt.hold)
    return True


def _wait_of(running: Running[Hold | None]) -> WaitForWake | Pause:
    effect = running.effect
    assert isinstance(effect, WaitForWake | Pause)
    return effect


def _holds(attempts: Sequence[Attempt]) -> list[Hold]:
    return [attempt.hold for attempt in attempts if attempt.hold is not None]


def _raise_if_lost(holds: Sequence[Hold]) -> None:
    """Check that none of the holds is lost.

    Raises:
        LeaseLost: One is.
    """
    for hold in holds:
        if hold.lost_why:
            raise lapsed(hold, "ended")
