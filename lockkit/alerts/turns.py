"""Turns of the engines on one store: what an engine does with its state while another one looks at the locks. Pure.

An engine that is not elected may have been replaced by a living one, which tells from now on. Or the lock is still that of a dead one, such as
of this engine before it was killed. Only time tells them apart; see the decision "An engine that is not elected keeps its state for a while".
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.rules import Condition, Missed, Seen
from lockkit.alerts.state import State

__all__ = ["TERM", "leaving", "looks", "take_turns", "undecided"]

TERM = 30.0
"""The ttl in seconds of the lock by which the engine that looks is elected, so the longest time for which a dead one keeps it."""


def take_turns(
    rules: Mapping[str, Condition], state: State, now: float, group_wait: float, *, elected: bool
) -> None:
    """Note whose turn it is, after a look at a store that answered.

    Args:
        rules: The rules in force.
        state: The state, which is changed.
        now: The time.
        group_wait: The time that another engine has for its first notification, besides :data:`TERM`.
        elected: Whether this engine is the one that looks.
    """
    if elected:
        state.looked = now
        if state.elsewhere is not None:  # a job may have run meanwhile, so this time does not count
            away = now - state.elsewhere
            state.held = {lock: at + away if at <= state.elsewhere else at for lock, at in state.held.items()}
            state.elsewhere = None
        return
    if state.elsewhere is None:
        state.elsewhere = now
    if not _undecided(state, now, group_wait):
        _leave_to_the_other(rules, state, now)


def undecided(rule: Condition | None, state: State, now: float, group_wait: float) -> bool:
    """Whether nothing may be told of a rule, because nobody knows yet who looks for it."""
    return looks(rule) and _undecided(state, now, group_wait)


def leaving(rule: Condition | None, state: State, now: float, group_wait: float) -> bool:
    """Whether this is the step in which what is over of a rule can still be told, before another engine tells of it under the same key.

    An engine that has begun to look waits for one ``group_wait`` before its first notification, and did not begin before this one looked last.
    """
    return looks(rule) and state.elsewhere == now and now - state.looked < group_wait


def _undecided(state: State, now: float, group_wait: float) -> bool:
    return state.elsewhere is not None and now - state.elsewhere <= TERM + group_wait


def looks(rule: Condition | None) -> bool:
    """Whether a rule is about what only the elected engine sees."""
    return isinstance(rule, Missed) or (isinstance(rule, Seen) and rule.what != "unreachable")


def _leave_to_the_other(rules: Mapping[str, Condition], state: State, now: float) -> None:
    """Forget what looks have shown: the other engine tells it, under the same keys. To say now that all is over would end what it tells."""
    for key, one in list(state.alerts.items()):
        if looks(rules.get(one.rule)):
            del state.alerts[key]
            if one.rule in state.groups:
                state.groups[one.rule].told.pop(key, None)
    state.held = dict.fromkeys(state.held, now)
