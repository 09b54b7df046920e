"""Reports of an acquisition that waits in several queues at once: one for all of them."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence

from lockkit.facts import Event
from lockkit.notes.members import in_pool
from lockkit.protocol import denials
from lockkit.protocol.attempt import FIRST_WARNING, Attempt
from lockkit.protocol.effects import Effect, Notify
from lockkit.protocol.together import Together
from lockkit.values.names import claim_id

__all__ = ["TogetherTold"]

_MOST = 8
"""The most members whose reasons are reported."""


class TogetherTold:
    """Reports that an acquisition still waits: after a minute, two, four, and so on.

    Args:
        together: The acquisition.
        gate: The attempt for the gate of a pool, which holds by then; None for any of several locks.
        names: The locks, or the members.
        count: The number of them that is needed.
        now: CLOCK_BOOTTIME seconds.
    """

    def __init__(
        self, together: Together, gate: Attempt | None, names: Sequence[str], count: int, now: float
    ) -> None:
        self._together = together
        self._gate = gate
        self._names = names
        self._count = count
        self._start = now if together.start is None else together.start
        self._next = self._after(now)

    def _after(self, now: float) -> float:
        return self._start + max(FIRST_WARNING, 2 * (now - self._start))

    def _among(self) -> str:
        of_pool = None if self._gate is None else in_pool(self._gate.terms.name)
        if of_pool is None:
            return denials.listed(self._names)
        number = len(self._names)
        return (
            f"the {f'{number} members' if number > 1 else 'only member'} of pool {of_pool[0]!r} that may do"
        )

    def due(
        self, now: float, got: Collection[str], waiting: Sequence[Attempt]
    ) -> Generator[Effect, None, None]:
        """Report if a report is due.

        Args:
            now: CLOCK_BOOTTIME seconds.
            got: The locks, or the members, that hold already.
            waiting: The attempts that wait.
        """
        if now < self._next:
            return
        self._next = self._after(now)
        if len(self._names) == 1 and waiting:
            return  # the only attempt reports for itself
        first = next((one for one in waiting if one.holder is not None), None)
        here = denials.hold_of(first.holder) if first else None
        data: dict[str, object] = {
            "wanted": self._count,
            "got": len(got),
            "among": self._among(),
            "holder": str(first.holder.owner) if first and first.holder else None,
            "holder_claim": denials.held_claim(first.holder) if first else None,
            "held_at": denials.taken_at(here),
            "refused": dict([*self._together.refused.items()][:_MOST]),
        }
        gate = self._gate
        name = self._names[0] if gate is None else gate.terms.name
        claim = "" if gate is None or gate.claim is None else claim_id(gate.claim.token)
        yield Notify(Event("still_waiting", name, claim, duration=now - self._start, data=data))
