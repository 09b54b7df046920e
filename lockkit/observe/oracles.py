"""The oracles: plugins that know whether the owner of a claim lives, where this host cannot see it.

Each oracle has its own thread and a time limit, and no new call before the last one returned. One that
raises, is late, or answers other than True, False or None has failed: another's word alone removes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING

from lockkit.observe.decisions import OracleAnswer
from lockkit.plugins.calling import Implementation, call_within

if TYPE_CHECKING:
    from lockkit.facts import Owner

__all__ = ["HOOK", "Oracles"]

HOOK = "lockkit_owner_alive"
SECONDS = 5.0
"""Seconds that an oracle may take for an answer."""


class Oracles:
    """All oracles of a client. Answers are kept until :meth:`forget`, so that each owner is asked about once.

    Args:
        implementations: The implementations of the hook.
        seconds: How long each may take.
    """

    def __init__(self, implementations: Sequence[Implementation], seconds: float = SECONDS) -> None:
        self._implementations = implementations
        self._seconds = seconds
        self._mutex = RLock()
        self._under_way: dict[str, int] = {}
        self._known: dict[Owner, tuple[OracleAnswer, ...]] = {}

    def forget(self) -> None:
        """Forget all answers, because a new look begins."""
        self._known.clear()

    def ask(self, owner: Owner) -> tuple[OracleAnswer, ...]:
        """The answer of each oracle, within the time limit."""
        if owner not in self._known:
            self._known[owner] = self._ask(owner)
        return self._known[owner]

    def _ask(self, owner: Owner) -> tuple[OracleAnswer, ...]:
        free = [one for one in self._implementations if not self._under_way.get(one[0])]
        calls = [(plugin, self._counted(plugin, call)) for plugin, call in free]
        outcomes = {one.plugin: one for one in call_within(self._seconds, HOOK, calls, {"owner": owner})}
        found = []
        for plugin, _ in self._implementations:
            outcome = outcomes.get(plugin)
            if outcome is None:
                found.append(
                    OracleAnswer(plugin, None, "it has not returned from an earlier question", failed=True)
                )
            elif outcome.error is not None:
                why = f"{type(outcome.error).__name__}: {outcome.error}"[:200]
                found.append(OracleAnswer(plugin, None, why, failed=True))
            elif outcome.value is None or isinstance(outcome.value, bool):
                found.append(
                    OracleAnswer(
                        plugin, outcome.value, f"{plugin} says so" if outcome.value is not None else ""
                    )
                )
            else:
                found.append(
                    OracleAnswer(plugin, None, f"{type(outcome.value).__name__} is no answer", failed=True)
                )
        return tuple(found)

    def _counted(self, plugin: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(**keywords: object) -> object:
            self._add(plugin, 1)
            try:
                return call(**keywords)
            finally:
                self._add(plugin, -1)

        return counted

    def _add(self, plugin: str, by: int) -> None:
        with self._mutex:
            self._under_way[plugin] = self._under_way.get(plugin, 0) + by
