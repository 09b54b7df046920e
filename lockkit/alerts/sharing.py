"""A channel's share of notifications: alerts of its severities, and those sent to it until they end. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from lockkit.alerts.notification import Member, Notification, Reason, Severity

__all__ = ["Told", "merged", "remember", "share"]

Told: TypeAlias = dict[str, set[str]]
"""The alerts whose start was sent to a channel, and whose end was not: their fingerprints, by group."""


def share(notification: Notification, told: Told, severities: Collection[Severity]) -> Notification | None:
    """The notification as a channel gets it: resolved once all that the channel knows of the group is over.

    Args:
        notification: The notification.
        told: The alerts that were sent to the channel.
        severities: The severities for which the channel is.

    Returns:
        A notification of alerts with these severities, and of those sent before; None without news for it.
    """
    known = told.get(notification.group, set())
    members = tuple(
        one for one in notification.members if one.severity in severities or one.fingerprint in known
    )
    if members and len(members) == len(notification.members):
        return notification
    reason = _reason(notification.reason, members, known)
    if reason is None:
        return None
    firing = [one.severity for one in members if one.resolved is None]
    severity = min(firing or [one.severity for one in members], default=notification.severity)
    return notification._replace(reason=reason, severity=severity, members=members)


def _reason(reason: Reason, members: Sequence[Member], known: Collection[str]) -> Reason | None:
    firing = {one.fingerprint for one in members if one.resolved is None}
    ended = {one.fingerprint for one in members} - firing
    if not firing:
        if reason == "all_resolved":
            return reason if members or known else None
        if not ended:
            return None
        return "all_resolved" if ended.issuperset(known) else "resolved_member"
    if reason in ("new_member", "resolved_member"):
        if firing.issubset(known):
            return "resolved_member" if ended else None
        return "new_member" if known else "first"
    return reason


def remember(told: Told, notification: Notification) -> None:
    """Note what was sent to a channel."""
    known = told.pop(notification.group, set())
    for one in notification.members:
        (known.add if one.resolved is None else known.discard)(one.fingerprint)
    if known and notification.reason != "all_resolved":
        told[notification.group] = known


def merged(notifications: Sequence[Notification]) -> Notification:
    """The last of a group's notifications, with the ends from earlier ones that no later one mentions."""
    last = notifications[-1]
    ended: dict[str, Member] = {}
    for notification in notifications:
        for one in notification.members:
            ended.pop(one.fingerprint, None)
            if one.resolved is not None and notification is not last:
                ended[one.fingerprint] = one
    return last._replace(members=(*last.members, *ended.values()))
