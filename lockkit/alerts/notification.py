"""Notifications: the messages from the alert engine to a sink, which delivers them.

The words are Alertmanager's (https://prometheus.io/docs/alerting/latest/alertmanager/): alerts with the same
labels to group by share a notification, which is sent for a reason and may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Member", "Notification", "Reason", "Severity", "Sink", "keyed"]

Severity: TypeAlias = Literal["P0", "P1", "P2"]
"""P0 wakes somebody at night, P1 is for today, P2 for this week."""
Reason: TypeAlias = Literal["first", "new_member", "resolved_member", "all_resolved", "repeat", "escalated"]
"""Why a notification is sent."""


class Member(NamedTuple):
    """One alert of a group.

    Attributes:
        fingerprint: The alert's name in ``silence``, ``ack`` and the state file: a hash of rule and labels.
        rule: The name of the rule.
        severity: The severity after escalation.
        labels: The subject, such as ``lock``, ``namespace``, ``host``, ``gpu``, ``owner``.
        text: A sentence that describes the problem.
        since: The time at which its condition became true, in seconds of the wall clock.
        times: The number of events or looks that showed it.
        command: The command to type next; empty if there is none.
        resolved: The time at which its condition ended, in seconds of the wall clock; None while it fires.
        acknowledged_by: The person who acknowledged it; empty without one.
        began: The severity with which it began; None if that is not known.
        acknowledge: The command that acknowledges it; empty if it is over, acknowledged, or not an engine's.
        link: The address of the alert on the page of ``lockkit serve``; empty without ``serve.public_url``.
    """

    fingerprint: str
    rule: str
    severity: Severity
    labels: Mapping[str, str]
    text: str
    since: float
    times: int = 1
    command: str = ""
    resolved: float | None = None
    acknowledged_by: str = ""
    began: Severity | None = None
    acknowledge: str = ""
    link: str = ""


class Notification(NamedTuple):
    """A message to people about the alerts of a group.

    Attributes:
        group: The key of the group, the same in all its notifications; sinks that can resolve use it.
        reason: The occasion on which it is sent.
        severity: The highest severity of the members that fire; of all members once they are resolved.
        members: The alerts of the group, those that fire first.
        at: The time of the decision, in seconds of the wall clock.
        step: The number of escalations so far.
        origin: The name of the store, for a rule that looks at it; else of the engine. Channels add it to the
            group's key, so a service has one incident for each, whichever host the engine runs on.
    """

    group: str
    reason: Reason
    severity: Severity
    members: tuple[Member, ...]
    at: float
    step: int = 0
    origin: str = ""


Sink: TypeAlias = Callable[[Notification], None]
"""Delivers a notification, or raises to be retried. Called for one at a time, on a thread of its own."""


def keyed(notification: Notification) -> Notification:
    """The notification with its origin in the group, because a service keeps one state for each group."""
    return notification._replace(group=f"{notification.group} {notification.origin}".rstrip(), origin="")
