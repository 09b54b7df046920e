"""Several attempts that belong together, run one after the other or side by side, and their holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lockkit.facts import Capabilities
from lockkit.lib.namedtuples import NamedTuple
from lockkit.protocol import denials
from lockkit.protocol.acquiring import acquiring
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call
from lockkit.protocol.effects import WAITS, Effect, Keep, Now, Pause, WaitForWake
from lockkit.protocol.hold import Hold
from lockkit.protocol.running import Running

if TYPE_CHECKING:
    from lockkit.drivers.jobs import Job

__all__ = ["Candidate", "Run", "Together", "Tools", "holds", "late"]

_LEAST = 0.05
"""Seconds that a try may take at least, even if the tries before it took all of the time."""
_LATE = 0.2
"""Seconds after its time in which an acquisition still asks for locks, so that short timeouts get several."""

_NONE: Mapping[str, str] = {}
_PLAIN = Call()


class Tools(NamedTuple):
    """Parts of its client that an acquisition needs; see :func:`~lockkit.protocol.acquiring.acquiring`."""

    capabilities: Capabilities
    now: Now
    wall: Callable[[], float]
    random: Callable[[], float]


class Together:
    """Several attempts that succeed or fail together; see :class:`~lockkit.protocol.attempt.UnderWay`.

    Attributes:
        call: What the acquire was called with.
        attempts: The attempts that have started.
        current: The attempt that was stepped last: the one that failed, after a failure.
        over: Whether the acquisition ended in an exception.
        handed: Whether somebody has handles of the holds, so that nothing is to be taken back.
        runs: Whether the thread, or the event loop, of the acquisition can go on with it.
        until: When tries, which do not wait, have taken too long in all, or the acquisition's time is up;
            None before the first try.
        start: When the first attempt started; None before that.
        job: See :class:`~lockkit.protocol.attempt.UnderWay`.
        refused: Why each of the other members of a pool does not do now, by member.
    """

    job: Job[Any] | None = None
    refused: Mapping[str, str] = _NONE
    over = handed = False
    until: float | None = None
    start: float | None = None
    runs: Callable[[], bool] = staticmethod(lambda: True)

    def __init__(self, call: Call = _PLAIN) -> None:
        self.call = call
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


class Candidate(NamedTuple):
    """A lock or a member that would do. All of its tries, or all of its claims, hold it together.

    Attributes:
        name: The lock or the member.
        tries: The attempts that do not wait: two for a member within another one; likewise ``claims``.
        claims: The attempts that wait; none for an acquisition that does not wait.
    """

    name: str
    tries: Sequence[Attempt]
    claims: Sequence[Attempt]


class Run:
    """A run of the attempts that hold a candidate together, one after the other.

    Attributes:
        attempts: The attempts.
        number: The number, among all of the acquisition, of the attempt that runs.
        running: Returns whether all of them hold.
    """

    __slots__ = ("_together", "attempts", "number", "running")

    def __init__(self, together: Together, attempts: Sequence[Attempt], tools: Tools) -> None:
        self._together = together
        self.attempts = attempts
        self.number = -1
        self.running = Running(self._in_turn(tools))

    @property
    def attempt(self) -> Attempt:
        """The attempt that runs, or has run last."""
        return self._together.attempts[self.number]

    @property
    def waits(self) -> bool:
        """Whether the run waits, and has not ended."""
        return self.running.effect is not None

    @property
    def wait(self) -> WaitForWake | Pause:
        """The wait of the attempt that runs."""
        effect = self.running.effect
        assert isinstance(effect, WaitForWake | Pause)
        return effect

    def go_on(self, resume: Callable[[], None]) -> Generator[Effect, Any, None]:
        """Run on until an attempt waits or all end, and pass on the effects."""
        if self.number >= 0:
            self._together.current = self.attempt
        running = self.running
        resume()
        while running.effect is not None and not isinstance(running.effect, WAITS):
            try:
                result = yield running.effect
            except BaseException as error:
                running.failed(error)
            else:
                running.answered(result)

    def _in_turn(self, tools: Tools) -> Generator[Effect, Any, bool]:
        for attempt in self.attempts:
            self.number = _added(self._together, attempt, tools)
            hold = yield from acquiring(attempt, *tools)
            if hold is None:
                return False
            attempt.hold = hold
            yield Keep(hold)
        return True


def _added(together: Together, attempt: Attempt, tools: Tools) -> int:
    """Add an attempt to those that may have left something, before it starts; its number.

    Raises:
        AcquireTimeout: The time was up before the turn of this lock came.
        BackendUnavailable: The tries, which do not wait, took too long in all.
    """
    now = tools.now()
    together.current = attempt
    if together.start is None:
        together.start = now
    elif late(together, attempt, now):
        attempt.start = together.start
        raise (
            attempt.timeout(now, tools.wall())
            if attempt.wait
            else denials.too_slow(attempt.terms.name, now - attempt.start)
        )
    if together.attempts:
        attempt.beside = holds(together.attempts)
    if attempt.claim is not None:  # given up before, and named again: it has no claim in the store
        attempt.hold = None
        return together.attempts.index(attempt)
    together.attempts.append(attempt)
    if not attempt.wait:
        if together.until is None:
            together.until = now + attempt.request_timeout
        if attempt.deadline is not None:
            together.until = min(together.until, attempt.deadline)
        attempt.request_timeout = max(min(attempt.request_timeout, together.until - now), _LEAST)
    return len(together.attempts) - 1


def late(together: Together, attempt: Attempt, now: float) -> bool:
    """Whether it is too late to ask for one more lock."""
    end = attempt.deadline if attempt.wait else together.until
    return end is not None and now >= end + _LATE


def holds(attempts: Sequence[Attempt]) -> list[Hold]:
    """The holds that attempts have, and have not given back."""
    return [attempt.hold for attempt in attempts if attempt.hold is not None and attempt.sent]
