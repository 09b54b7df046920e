"""Ask a request's chooser which pool members will do now; see :class:`~lockkit.values.choosers.Chooser`.

Rules kept here:

- A chooser is asked when the request reaches the gate, and then every few seconds as long as it waits.
- A member will do while the last choice names it. A held one is given back only if a choice refuses it.
- A member that is not as it should be after its grant is left out until the next choice.
- A request that could not be met even if all held members came free, as a choice says, leaves the gate and
  gives back what it has got. It queues again when a choice says otherwise.
- A chooser that gives no answer in time, or no proper one, ends the request.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any

from lockkit.errors import ConfigError
from lockkit.protocol import denials
from lockkit.protocol.attempt import OUTAGE_LIMIT, Attempt
from lockkit.protocol.composing import NoChooser
from lockkit.protocol.effects import Choose, Effect, Judge, Now
from lockkit.protocol.together import Candidate, Together
from lockkit.store.spi import Refused
from lockkit.values.choosers import Choice, Chooser

__all__ = ["Choosing"]

_LEAST = 0.05
"""Seconds that a chooser may take at least, even if the time of the request ends sooner."""


class Choosing(NoChooser):
    """The candidates that will do now, as a chooser says.

    Args:
        chooser: The chooser.
        pool: The pool, for errors.
        members: All members of the pool.
        names: The named members that have room for the request. Others in a choice are ignored.
        together: Gets the reasons why other members do not do.
        gate: The attempt for the gate.
        now: CLOCK_BOOTTIME seconds.
    """

    def __init__(
        self,
        chooser: Chooser,
        pool: str,
        members: Collection[str],
        names: Collection[str],
        together: Together,
        gate: Attempt,
        now: Now,
    ) -> None:
        self._chooser = chooser
        self._called = getattr(chooser, "called", None) or f"the chooser of pool {pool!r}"
        self._every = chooser.every
        self._pool = pool
        self._members = members
        self._names = names
        self._together = together
        self._gate = gate
        self._now = now
        self._order: Sequence[str] = ()

    def best(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """The candidates that will do now, the best first."""
        by_name = {one.name: one for one in candidates}
        return [by_name[name] for name in self._order if name in by_name and not self.refuses(name)]

    def refuses(self, name: str) -> bool:
        """Whether a candidate was refused, or not named."""
        return name in self._together.refused

    def ask(self, held: Collection[str]) -> Generator[Effect, Any, None]:
        """Ask the chooser which of the candidates will do now.

        Raises:
            ConfigError: The request can never be met, or the answer is not a `Choice`.
            AcquireTimeout: The time is up.
            BackendUnavailable: There was no answer in time.
        """
        choice = yield from self._asked(Choose(self._chooser, tuple(held), self._budget()))
        self._check(choice)
        if choice.never is not None:
            raise ConfigError(choice.never, name=self._pool)
        self._order = tuple(dict.fromkeys(choice.order))
        unnamed = {
            name: "it was not chosen" for name in self._names if name not in self._order and name not in held
        }
        refused = {name: why for name, why in choice.refused.items() if name in self._names}
        self._together.refused = unnamed | refused
        self.outside = choice.outside
        at, end = self._now(), self._gate.deadline
        self.until = at + self._every if end is None else min(at + self._every, end)

    def judge(self, name: str) -> Generator[Effect, Any, bool]:
        """Whether the chooser finds that a member that was granted is as it should be.

        Raises:
            AcquireTimeout, BackendUnavailable: As :meth:`ask`.
        """
        why = yield from self._asked(Judge(self._chooser, name, self._budget()))
        if why is None:
            return True
        self._together.refused = {**self._together.refused, name: str(why)}
        return False

    def _asked(self, effect: Choose | Judge) -> Generator[Effect, Any, Any]:
        try:
            return (yield effect)
        except Refused:
            end, now = self._gate.deadline, self._now()
            if self._gate.wait and end is not None and now >= end:
                raise denials.no_choice_in_time(self._pool, self._called, now - self._gate.start) from None
            raise denials.no_choice(self._pool, self._called, effect.budget) from None

    def _budget(self) -> float:
        """Seconds that the chooser may take. While it is asked, the request keeps its place.

        Raises:
            AcquireTimeout: The time is up.
        """
        now, gate = self._now(), self._gate
        if not gate.wait:
            end = self._together.until
            return OUTAGE_LIMIT if end is None else max(end - now, _LEAST)
        if gate.deadline is None:
            return OUTAGE_LIMIT
        if now >= gate.deadline and self.until is not None:
            raise denials.none_will_do(self._pool, now - gate.start)
        return min(max(gate.deadline - now, _LEAST), OUTAGE_LIMIT)

    def _check(self, choice: object) -> None:
        """Raise ConfigError if the answer is not a `Choice`, or names a member that is not in the pool."""
        if not isinstance(choice, Choice):
            raise ConfigError(
                f"the chooser of pool {self._pool!r} must return a lockkit.Choice, not {choice!r}",
                name=self._pool,
            )
        wrong = _wrong(choice)
        if wrong is not None:
            raise ConfigError(f"the choice of the chooser of pool {self._pool!r}: {wrong}", name=self._pool)
        strange = [name for name in (*choice.order, *choice.refused) if name not in self._members]
        if strange or not set(choice.order).isdisjoint(choice.refused):
            what = f"{strange[0]!r}, which is no member" if strange else "a member that it also refuses"
            raise ConfigError(f"the chooser of pool {self._pool!r} chose {what}", name=self._pool)


def _wrong(choice: Choice) -> str | None:
    """Name what is of a wrong type in a choice; None if nothing is."""
    order: object = choice.order
    if isinstance(order, str) or not isinstance(order, Sequence) or not all(map(_text, order)):
        return f"order must be a list of members, not {order!r}"
    outside: object = choice.outside
    if not isinstance(outside, bool):
        return f"outside must be True or False, not {outside!r}"
    refused: object = choice.refused
    if not isinstance(refused, Mapping) or not all(map(_text, (*refused, *refused.values()))):
        return f"refused must have a text for each member, not {refused!r}"
    never: object = choice.never
    return None if never is None or _text(never) else f"never must be a text or None, not {never!r}"


def _text(one: object) -> bool:
    return isinstance(one, str)
