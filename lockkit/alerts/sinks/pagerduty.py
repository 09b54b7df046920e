"""PagerDuty, Events API v2 (https://developer.pagerduty.com/docs/events-api-v2-overview): incidents.

A group's key is the ``dedup_key``: later notifications update its incident, and the last one resolves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from lockkit.alerts.commands import shown
from lockkit.alerts.notification import Notification, Severity
from lockkit.alerts.sinks.posting import post
from lockkit.alerts.wording import as_text, subject
from lockkit.values.names import digest

__all__ = ["ENDPOINT", "PagerDuty", "event"]

ENDPOINT = "https://events.pagerduty.com/v2/enqueue"
"""The address for accounts in the US; those in the EU have ``https://events.eu.pagerduty.com/v2/enqueue``."""
_SEVERITIES: Mapping[Severity, str] = {"P0": "critical", "P1": "error", "P2": "warning"}
_MOST_SUMMARY = 1024
_MOST_KEY = 255
_MOST_MEMBERS = 50
_WHERE = ("host", "namespace", "lock")


class PagerDuty:
    """The sink. Later notifications of a group replace earlier ones.

    Args:
        key: Returns the integration key of the service, a secret; called for each event.
        endpoint: The address.
        timeout: Seconds that an attempt may take.
        ca_file: A file with the certificates to trust instead of the system's.
    """

    keeps_state = True

    def __init__(
        self, key: Callable[[], str], endpoint: str = ENDPOINT, *, timeout: float = 10.0, ca_file: str = ""
    ) -> None:
        self.secrets: tuple[str, ...] = ()
        self._key = key
        self._endpoint = endpoint
        self._timeout = timeout
        self._ca_file = ca_file

    def __call__(self, notification: Notification) -> None:
        key = self._key()
        self.secrets = (key,)
        post(
            self._endpoint,
            event(notification, key),
            timeout=self._timeout,
            ca_file=self._ca_file,
            accepted=(202,),
        )


def event(notification: Notification, key: str) -> dict[str, object]:
    """The event for a notification, as PagerDuty's documentation describes it."""
    dedup = notification.group
    if len(dedup) > _MOST_KEY:
        dedup = f"{dedup[:180]} {digest(dedup)}"
    told: dict[str, object] = {
        "routing_key": key,
        "event_action": "resolve" if notification.reason == "all_resolved" else "trigger",
        "dedup_key": dedup,
    }
    if notification.reason == "all_resolved":
        return told
    labels = notification.members[0].labels if notification.members else {}
    firing = [member for member in notification.members if member.resolved is None]
    began = min((member.since for member in firing), default=notification.at)
    told["client"] = "lockkit"
    if notification.members and (link := notification.members[0].link):
        told["client_url"] = link
    told["payload"] = {
        "summary": subject(notification)[:_MOST_SUMMARY],
        "source": next((labels[name] for name in _WHERE if labels.get(name)), "lockkit"),
        "severity": _SEVERITIES[notification.severity],
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "component": labels.get("lock") or labels.get("gpu") or "lockkit",
        "class": notification.members[0].rule if notification.members else "lockkit",
        "custom_details": {
            "text": as_text(notification)[:20_000],
            "reason": notification.reason,
            "alerts": [
                {
                    "rule": member.rule,
                    "text": member.text[:500],
                    "next": shown(member.command),
                    "fingerprint": member.fingerprint,
                    "ack": member.acknowledge,
                    "page": member.link,
                    **member.labels,
                }
                for member in firing[:_MOST_MEMBERS]
            ],
        },
    }
    return told
