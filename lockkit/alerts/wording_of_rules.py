"""Rules in words, for lists and for the reference."""

from __future__ import annotations

from lockkit.alerts.rules import Condition, Count, Missed, Seen, Share
from lockkit.values import durations

__all__ = ["condition_words", "heard_words", "steps_words"]

_SEEN = {
    "unreachable": "the store does not answer",
    "zombie": "a claim is there whose owner is gone",
    "idle": "a GPU is held, and idle for `gpu.idle_after`",
    "old": "a hold is older than `age_hard`",
}


def condition_words(rule: Condition) -> str:
    """The condition of a rule, in words."""
    told = ""
    match rule:
        case Count():
            least = f"more than {rule.above} of " if rule.above else ""
            told = f"{least}{', '.join(rule.of)} within {durations.exact(rule.window)}"
        case Share():
            told = (
                f"{', '.join(rule.of)} are more than {rule.above:.0%} of {', '.join(rule.among)} within "
                f"{durations.exact(rule.window)}, if there are {rule.least}"
            )
        case Seen():
            told = _SEEN[rule.what]
        case Missed():
            told = ", ".join(
                f"{lock} not held for {durations.exact(period)}" for lock, period in rule.periods.items()
            )
            told = told or "a lock of `periods` is not held for its period"
    return f"{told}, for {durations.exact(rule.hold)}" if rule.hold else told


def heard_words(rule: Condition) -> str:
    """``all`` processes if a rule looks at the store; ``its own`` if it counts events of one process."""
    return "all" if isinstance(rule, (Seen, Missed)) else "its own"


def steps_words(rule: Condition) -> str:
    """The steps of a rule's escalation, in words; empty if it has none."""
    told = []
    for step in rule.escalate:
        ways = [f"after {durations.exact(step.after)}"] if step.after is not None else []
        ways += [f"above {step.above}"] if step.above is not None else []
        told.append(f"{step.to} {' or '.join(ways)}")
    return ", ".join(told)
