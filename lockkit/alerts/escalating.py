"""Escalation: ordered steps, by age or by rate, for alerts that nobody has acknowledged. Pure."""

from __future__ import annotations

from lockkit.alerts.rules import Rule, worse
from lockkit.alerts.state import Active

__all__ = ["escalate"]


def escalate(alert: Active, rule: Rule, now: float) -> bool:
    """Take the steps that are due, each once. Returns whether somebody should be notified.

    The steps repeat for ``rule.rounds`` rounds. The first starts when the alert fires, a further one with the
    last step of the one before; its steps are reminders, because the severity is reached.
    """
    if alert.fired is None or alert.resolved is not None or alert.hidden or alert.acknowledged_by:
        return False
    told = False
    while (number := _due(alert, rule, now)) is not None:
        again = alert.step >= len(rule.escalate)
        severity = alert.severity
        for step in rule.escalate[alert.step % len(rule.escalate) : number % len(rule.escalate) + 1]:
            severity = worse(severity, step.to)
        told = told or again or severity != alert.severity
        alert.severity, alert.step, alert.escalated = severity, number + 1, now
    return told


def _due(alert: Active, rule: Rule, now: float) -> int | None:
    """The number of the furthest step of this round that is due; None if none is."""
    length = len(rule.escalate)
    if not length or alert.step >= length * rule.rounds:
        return None
    turn, done = divmod(alert.step, length)
    assert alert.fired is not None
    begin = (
        alert.fired
        if turn == 0
        else alert.escalated - (0.0 if not done else rule.escalate[done - 1].after or 0.0)
    )
    found = None
    for index in range(done, length):
        step = rule.escalate[index]
        by_age = step.after is not None and now - begin >= step.after
        by_rate = step.above is not None and turn == 0 and alert.count > step.above
        if by_age or by_rate:
            found = turn * length + index
    return found
