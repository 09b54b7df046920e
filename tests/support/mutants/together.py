"""Mistakes of the acquisition of several locks, as patches."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lockkit.protocol import choosing, composing
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import NoChooser, Steps
from lockkit.protocol.effects import Effect
from lockkit.protocol.together import Candidate, Run, Together, Tools
from support.mutants.mutant import patched

__all__ = [
    "all_in_the_given_order",
    "any_gives_nothing_back",
    "dropped_keeps_its_claim",
    "gate_lets_all_pass",
    "goes_on_without_the_gate",
    "half_a_candidate_is_kept",
    "judgement_is_ignored",
    "nothing_is_dropped",
    "second_grant_is_kept",
]


def all_in_the_given_order() -> AbstractContextManager[None]:
    """all_of acquires in the order in which the program gave the locks."""
    acquire, turns = composing._all_of, itertools.cycle((1, -1))  # noqa: SLF001

    def as_given(together: Together, attempts: Sequence[Attempt], tools: Tools) -> Steps:
        return acquire(together, attempts[:: next(turns)], tools)

    return patched(composing, _all_of=as_given)


def any_gives_nothing_back() -> AbstractContextManager[None]:
    """any_of leaves its places in the other queues."""
    give_back = composing._giving_back  # noqa: SLF001

    def keep(together: Together, tools: Tools, but: Collection[Attempt] = ()) -> Generator[Effect, Any, None]:
        if not but:
            yield from give_back(together, tools)

    return patched(composing, _giving_back=keep)


def second_grant_is_kept() -> AbstractContextManager[None]:
    """any_of steps every attempt that was woken, and gives back only those that wait."""
    first, give_back = composing._wait_for_first, composing._giving_back  # noqa: SLF001

    def greedy(
        together: Together,
        gate: Attempt | None,
        candidates: Sequence[Candidate],
        count: int,
        tools: Tools,
        members: NoChooser,
        got: dict[str, Sequence[Attempt]],
    ) -> Generator[Effect, Any, None]:
        more = min(count + 1, len(candidates))
        yield from first(together, gate, candidates, more, tools, members, got)
        for name in [*got][count:]:
            del got[name]

    def only_what_waits(
        together: Together, tools: Tools, but: Collection[Attempt] = ()
    ) -> Generator[Effect, Any, None]:
        yield from give_back(together, tools, [*but, *(one for one in together.attempts if one.hold)])

    return patched(composing, _wait_for_first=greedy, _giving_back=only_what_waits)


def gate_lets_all_pass() -> AbstractContextManager[None]:
    """A pool whose gate any number of requests hold."""
    acquire = composing._some_of  # noqa: SLF001

    def open_gate(together: Together, gate: Attempt, *rest: Any) -> Steps:
        gate.terms = gate.terms._replace(capacity=10, kind="semaphore")
        return acquire(together, gate, *rest)

    return patched(composing, _some_of=open_gate)


def goes_on_without_the_gate() -> AbstractContextManager[None]:
    """A request that has lost the gate goes on waiting."""
    return patched(composing, holds=lambda _attempts: [])


def dropped_keeps_its_claim() -> AbstractContextManager[None]:
    """A request forgets the claims for members that will not do any more, and leaves them in their queues."""

    def forget(
        waiting: dict[str, Run],
        got: dict[str, Sequence[Attempt]],
        tools: Tools,  # noqa: ARG001
        members: NoChooser,
    ) -> Generator[Effect, Any, None]:
        for name in [name for name in waiting if members.refuses(name)]:
            del waiting[name]
        for name in [name for name in got if members.refuses(name)]:
            del got[name]
        yield from ()

    return patched(composing, _dropping=forget)


def kept_ones_are_not_judged_again() -> AbstractContextManager[None]:
    """A request hands over a member that it got long ago without another look at it."""

    def good(*_: Any) -> Generator[Effect, Any, bool]:
        yield from ()
        return True

    return patched(composing, _still_good=good)


@contextmanager
def nothing_is_dropped() -> Iterator[None]:
    """A request holds members that its chooser refuses, and hands them over."""
    with patched(choosing.Choosing, refuses=lambda _self, _name: False), kept_ones_are_not_judged_again():
        yield


def judgement_is_ignored() -> AbstractContextManager[None]:
    """A request keeps a member that its chooser did not find as it should be."""
    judge = choosing.Choosing.judge

    def keep(self: choosing.Choosing, name: str) -> Generator[Effect, Any, bool]:
        yield from judge(self, name)
        return True

    return patched(choosing.Choosing, judge=keep)


def half_a_candidate_is_kept() -> AbstractContextManager[None]:
    """A request that has a member's own claim, but not yet the other one, does not give it back."""
    give_back = composing._giving_back  # noqa: SLF001

    def but_halves(
        together: Together, tools: Tools, but: Collection[Attempt] = ()
    ) -> Generator[Effect, Any, None]:
        halves = [one for one in together.attempts[1:] if one.hold is not None] if but else []
        yield from give_back(together, tools, [*but, *halves])

    return patched(composing, _giving_back=but_halves)
