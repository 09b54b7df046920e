"""Mistakes of the acquisition of several locks, as patches."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lockkit.hold import Hold
from lockkit.protocol import composing
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import Means, Steps, Together
from lockkit.protocol.effects import Effect
from support.mutants.mutant import patched

__all__ = [
    "all_in_the_given_order",
    "any_gives_nothing_back",
    "gate_lets_all_pass",
    "goes_on_without_the_gate",
    "second_grant_is_kept",
]


def all_in_the_given_order() -> AbstractContextManager[None]:
    """all_of acquires in the order in which the program gave the locks."""
    acquire, turns = composing._all_of, itertools.cycle((1, -1))  # noqa: SLF001

    def as_given(together: Together, attempts: Sequence[Attempt], means: Means) -> Steps:
        return acquire(together, attempts[:: next(turns)], means)

    return patched(composing, _all_of=as_given)


def any_gives_nothing_back() -> AbstractContextManager[None]:
    """any_of leaves its places in the other queues."""
    give_back = composing._giving_back  # noqa: SLF001

    def keep(together: Together, means: Means, but: Collection[Attempt] = ()) -> Generator[Effect, Any, None]:
        if not but:
            yield from give_back(together, means)

    return patched(composing, _giving_back=keep)


def second_grant_is_kept() -> AbstractContextManager[None]:
    """any_of steps every attempt that was woken, and gives back only those that wait."""
    first = composing._first  # noqa: SLF001

    def greedy(
        together: Together,
        attempts: Sequence[Attempt],
        count: int,
        means: Means,
        held: Sequence[Hold],
        got: list[Attempt],
    ) -> Generator[Effect, Any, list[Attempt]]:
        more = min(count + 1, len(attempts))
        yield from first(together, attempts, more, means, held, got)
        del got[count:]
        return got

    return patched(composing, _first=greedy)


def gate_lets_all_pass() -> AbstractContextManager[None]:
    """A pool whose gate any number of requests hold."""
    acquire = composing._some_of  # noqa: SLF001

    def open_gate(together: Together, gate: Attempt, *rest: Any) -> Steps:
        gate.terms = gate.terms._replace(capacity=10, kind="semaphore")
        return acquire(together, gate, *rest)

    return patched(composing, _some_of=open_gate)


def goes_on_without_the_gate() -> AbstractContextManager[None]:
    """A request that has lost the gate goes on waiting."""
    return patched(composing, _holds=lambda _attempts: [])
