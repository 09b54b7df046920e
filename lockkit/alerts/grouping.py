"""Groups: when and why a notification about the alerts of a rule is due. Pure.

The words and their order are Alertmanager's, with one difference: a repeat is due exactly ``repeat_interval``
after the last notification, not at the next tick of ``group_interval`` after that.
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.notification import Member, Notification, Reason
from lockkit.alerts.rules import worse
from lockkit.alerts.state import Active, Group
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Timing", "after_sending", "due", "member", "notification", "settle"]


class Timing(NamedTuple):
    """The settings of a notification's time, in seconds; see the settings ``alerts.*``."""

    group_wait: float
    group_interval: float
    repeat_interval: float | None
    most_per_hour: int


def firing(alerts: Mapping[str, Active]) -> dict[str, Active]:
    """The alerts that may be sent now: those that fire and are not hidden."""
    return {
        key: one
        for key, one in alerts.items()
        if one.fired is not None and one.resolved is None and not one.hidden
    }


def ended(group: Group, alerts: Mapping[str, Active]) -> Reason:
    """The reason of a notification about alerts that have ended."""
    return "resolved_member" if len(over(group, alerts)) < len(group.told) else "all_resolved"


def over(group: Group, alerts: Mapping[str, Active]) -> list[str]:
    """The alerts that were sent as firing, and have ended."""
    return [key for key in group.told if key not in alerts or alerts[key].resolved is not None]


def settle(group: Group, alerts: Mapping[str, Active], now: float) -> None:
    """Note since when there is news. An alert that began and ended since the last notification is no news."""
    news = any(key not in group.told for key in firing(alerts)) or bool(over(group, alerts))
    if not news:
        group.news = None
    elif group.news is None:
        group.news = now


def due(group: Group, alerts: Mapping[str, Active], timing: Timing) -> tuple[float, Reason] | None:
    """When the next notification is due, and why; None if none is.

    Args:
        group: The group, settled.
        alerts: The alerts of the group.
        timing: The times.
    """
    fires = firing(alerts)
    if group.last is None:
        return (group.news + timing.group_wait, "first") if group.news is not None and fires else None
    found: list[tuple[float, Reason]] = []
    if any(one.raised > group.told.get(key, one.raised) for key, one in fires.items()):
        found.append((group.last, "escalated"))
    if group.news is not None:
        at = max(group.last + timing.group_interval, group.news + timing.group_wait)
        found.append((at, _news(group, alerts, fires)))
    if timing.repeat_interval is not None and any(
        not one.acknowledged_by for key, one in fires.items() if key in group.told
    ):
        found.append((group.last + timing.repeat_interval, "repeat"))
    return min(found, key=lambda one: one[0], default=None)


def _news(group: Group, alerts: Mapping[str, Active], fires: Mapping[str, Active]) -> Reason:
    if not group.told:
        return "first"
    if any(key not in group.told for key in fires):
        return "new_member"
    return ended(group, alerts)


def notification(
    key: str, group: Group, alerts: Mapping[str, Active], reason: Reason, now: float
) -> Notification:
    """The notification itself: what fires, the most severe first, then what has ended."""
    fires = sorted(
        firing(alerts).items(), key=lambda one: (one[1].severity, one[1].since, sorted(one[1].labels.items()))
    )
    gone = [(name, alerts[name]) for name in over(group, alerts) if name in alerts]
    members = tuple(member(name, one) for name, one in [*fires, *gone])
    severity = members[0].severity if members else "P2"
    for one in members if not fires else ():
        severity = worse(severity, one.severity)
    return Notification(key, reason, severity, members, now, group.escalations)


def after_sending(group: Group, alerts: dict[str, Active], now: float) -> None:
    """Remember what was sent, and forget the alerts whose end was sent."""
    gone = over(group, alerts)
    hidden = {key: raised for key, raised in group.told.items() if key not in gone}
    group.told = hidden | {key: one.raised for key, one in firing(alerts).items()}
    for key in gone:
        alerts.pop(key, None)
    group.last, group.news = now, None


def member(key: str, one: Active) -> Member:
    """An alert as notifications and lists show it."""
    return Member(
        key,
        one.rule,
        one.severity,
        one.labels,
        one.text,
        one.since,
        one.times,
        one.command,
        one.resolved,
        one.acknowledged_by,
        one.began,
        "" if one.acknowledged_by or one.resolved is not None else f"lockkit alerts ack {key}",
    )
