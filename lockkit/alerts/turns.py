"""Turns of the engines on one store: an engine's state while another engine looks at the locks. Pure.

An unelected engine may have a living successor, which notifies now. Or a dead one, perhaps itself before a
kill, still has the lock. Time shows; see "An engine that is not elected keeps its state for a while".
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.rules import Condition, Missed, Seen
from lockkit.alerts.state import State

__all__ = ["TERM", "leaving", "looks", "take_turns", "undecided"]

TERM = 30.0
"""The ttl in seconds of the lock that elects the looking engine; a dead one keeps it no longer than that."""


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
    """Whether nothing may be sent for a rule, because it is not known yet who looks for it."""
    return looks(rule) and _undecided(state, now, group_wait)


def leaving(rule: Condition | None, state: State, now: float, group_wait: float) -> bool:
    """Whether, in this step, ends can still be sent for a rule before another engine takes over its keys.

    A newly elected engine waits one ``group_wait`` to notify, and started after this one's last look.
    """
    return looks(rule) and state.elsewhere == now and now - state.looked < group_wait


def _undecided(state: State, now: float, group_wait: float) -> bool:
    return state.elsewhere is not None and now - state.elsewhere <= TERM + group_wait


def looks(rule: Condition | None) -> bool:
    """Whether a rule is about what only the elected engine sees."""
    return isinstance(rule, Missed) or (isinstance(rule, Seen) and rule.what != "unreachable")


def _leave_to_the_other(rules: Mapping[str, Condition], state: State, now: float) -> None:
    """Forget what looks showed: the other engine sends it, under the same keys, which must not end."""
    for key, one in list(state.alerts.items()):
        if looks(rules.get(one.rule)):
            del state.alerts[key]
            if one.rule in state.groups:
                state.groups[one.rule].told.pop(key, None)
    state.held = dict.fromkeys(state.held, now)
