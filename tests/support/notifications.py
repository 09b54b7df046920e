"""Notifications for tests of alerts."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.notification import Member, Notification, Reason, Severity

__all__ = ["SINCE", "notification"]

SINCE = 1_764_270_000.0
"""27 November 2025, 19:00:00 UTC."""


def notification(
    number: int = 0,
    *,
    group: str | None = None,
    reason: Reason = "first",
    severity: Severity = "P1",
    labels: Mapping[str, str] | None = None,
    text: str = "",
    times: int = 1,
    command: str = "lockkit why gpu:0",
    at: float | None = None,
    step: int = 0,
    link: str = "",
) -> Notification:
    """A notification about one alert, which two numbers tell apart. It is over if the reason says so."""
    member = Member(
        fingerprint=f"f{number}",
        rule="emergency_rate",
        severity=severity,
        labels={"lock": f"gpu:{number}", "host": "node3", "namespace": "prod", "owner": "ann@node3:4711"}
        if labels is None
        else labels,
        text=text or f"12 emergency releases of gpu:{number} in an hour",
        since=SINCE,
        times=times,
        command=command,
        resolved=SINCE + 720.0 if reason == "all_resolved" else None,
        acknowledge="" if reason == "all_resolved" else f"lockkit alerts ack f{number}",
        link=link,
    )
    key = f"emergency_rate {number}" if group is None else group
    return Notification(key, reason, severity, (member,), SINCE + 720.0 + number if at is None else at, step)
