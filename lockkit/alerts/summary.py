"""A summary: several notifications that a channel's limit held back, as one."""

from __future__ import annotations

from collections.abc import Sequence

from lockkit.alerts.notification import Member, Notification

__all__ = ["GROUP", "RULE", "summary"]

GROUP = "lockkit:held-back"
"""The group of every summary."""
RULE = "held_back"
"""The rule of the member that says what a summary is."""


def summary(notifications: Sequence[Notification], channel: str, at: float) -> Notification:
    """One notification for several: each alert at its latest, firing ones first, and their number.

    Args:
        notifications: At least one, oldest first.
        channel: The name of the channel.
        at: The time in seconds of the wall clock.
    """
    members: dict[str, Member] = {}
    for notification in notifications:
        for member in notification.members:
            # An alert of several notifications is in the summary once, as the last of them has it.
            members.pop(member.fingerprint, None)
            members[member.fingerprint] = member
    severities = [notification.severity for notification in notifications]
    severity = min(severities)
    first = min(notification.at for notification in notifications)
    told = Member(
        fingerprint=RULE,
        rule=RULE,
        severity=severity,
        labels={"channel": channel},
        text=f"{len(notifications)} notifications were held back, because the channel's limit was reached. "
        "This is what they say together.",
        since=first,
        times=len(notifications),
        command="lockkit alerts list",
    )
    firing = [member for member in members.values() if member.resolved is None]
    over = [member for member in members.values() if member.resolved is not None]
    firing.sort(key=lambda member: (member.severity, member.since))
    return Notification(GROUP, "repeat", severity, (told, *firing, *over), at)
