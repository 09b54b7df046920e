"""Holders whose requests and answers are lost, delayed and repeated by the network, while they are paused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from unittest.mock import patch

from lockkit.errors import LockkitError, OutcomeUnknown
from lockkit.guard import FenceGate, repeating
from lockkit.guard.gate import Guarded, Resource
from lockkit.guard.record import Record
from lockkit.store.spi import Unknown
from support.guards.holders import FakeLease, Turns

__all__ = ["Outcomes", "outcomes"]


class Outcomes(NamedTuple):
    """Updates of a counter, as their holders know them."""

    written: int
    unknown: int

    def fit(self, value: int) -> bool:
        """Whether the counter may have this value: it lacks no written update, and has no refused one."""
        return self.written <= value <= self.written + self.unknown


class _Network:
    """A resource behind a bad network: what happens to each request is drawn.

    Args:
        inner: The resource.
        pause: Called before each request.
        faults: 0 nothing; 1 the request is lost; 2 the answer is lost; 3 a second copy arrives later; 4
            the request itself does. From 5 on the same, and the holder does not ask again.
        late: Requests that are still under way, of all holders.
    """

    def __init__(
        self,
        inner: Resource,
        pause: Callable[[], None],
        faults: Iterator[int],
        late: list[Callable[[], object]],
    ) -> None:
        self.inner, self.where, self.largest = inner, inner.where, inner.largest
        self._pause, self._faults, self._late = pause, faults, late

    def step(self, asked: Record, value: bytes | None, end: float) -> Record | None:
        """Let one request pass, or not."""
        self._pause()
        drawn = next(self._faults, 0)
        fault, again = drawn % 5, drawn < 5
        if self._late and drawn % 2:
            self._late.pop(0)()
        if fault in (3, 4):
            self._late.append(lambda: self.inner.step(asked, value, end))
        if fault in (1, 4):
            raise Unknown(OutcomeUnknown("the request was lost"), retry=again)
        answer = self.inner.step(asked, value, end)
        if fault == 2:
            raise Unknown(OutcomeUnknown("the answer was lost"), retry=again)
        return answer

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        """Look, after a pause."""
        self._pause()
        return self.inner.look(end)

    def forget(self) -> None:
        """Remove it."""
        self.inner.forget()


def outcomes(
    resource: Callable[[], Resource], schedule: Sequence[int], faults: Sequence[int], holders: int = 3
) -> Outcomes:
    """Let holders with rising fences add 1 to a counter, twice each, and then let all late requests arrive.

    Args:
        resource: Makes the resource, for each holder anew.
        schedule: The holder that goes on at each step; see :class:`~support.guards.Turns`.
        faults: What happens to each request.
        holders: Their number.
    """
    turns, drawn = Turns(schedule), iter(faults)
    late: list[Callable[[], object]] = []
    written: list[int] = []
    unknown: list[int] = []

    def add(guarded: Guarded, fence: int) -> None:
        number = int(guarded.read() or 0)
        try:
            guarded.write(b"%d" % (number + 1))
        except OutcomeUnknown:
            unknown.append(fence)
        else:
            written.append(fence)

    def holder(fence: int) -> Callable[[], None]:
        def twice() -> None:
            turns.pause()
            network = _Network(resource(), turns.pause, drawn, late)
            try:
                guarded = FenceGate(network, timeout=0.2).open(FakeLease(fence))
                add(guarded, fence)
                add(guarded, fence)
            except LockkitError:
                return

        return twice

    with patch.object(repeating, "FIRST_PAUSE", 0.0002):
        turns.run(*(holder(at + 1) for at in range(holders)))
    for request in late:
        request()
    return Outcomes(len(written), len(unknown))
