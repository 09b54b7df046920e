"""Alertmanager, API v2 (https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml): an alert for each member.

Alertmanager knows an alert by its labels. So they are the same when it fires and when it ends: the rule as ``alertname``, the labels, and the
fingerprint. The severity may rise, and is an annotation. An alert that fires has an end far away, because Alertmanager would otherwise take it as
resolved after its ``resolve_timeout``; lockkit ends it itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from lockkit.alerts.commands import shown
from lockkit.alerts.notification import Member, Notification
from lockkit.alerts.sinks.posting import post

__all__ = ["LASTS", "Alertmanager", "alerts"]

LASTS = 24 * 3600.0
"""Seconds for which an alert fires at Alertmanager if lockkit, which repeats and ends it, is gone."""
_PATH = "/api/v2/alerts"


class Alertmanager:
    """The sink. Later notifications of a group replace earlier ones.

    Args:
        url: Returns the address of the Alertmanager, with the prefix if it has one; called for each notification.
        token: Returns the bearer token; None if there is none.
        timeout: Seconds that an attempt may take.
        ca_file: A file with the certificates to trust instead of the system's.
    """

    keeps_state = True

    def __init__(
        self,
        url: Callable[[], str],
        token: Callable[[], str] | None = None,
        *,
        timeout: float = 10.0,
        ca_file: str = "",
    ) -> None:
        self.secrets: tuple[str, ...] = ()
        self._url = url
        self._token = token
        self._timeout = timeout
        self._ca_file = ca_file

    def __call__(self, notification: Notification) -> None:
        url = self._url().rstrip("/").removesuffix(_PATH)
        headers = {}
        if self._token is not None:
            token = self._token()
            self.secrets = (token,)
            headers["Authorization"] = f"Bearer {token}"
        post(
            f"{url}{_PATH}",
            alerts(notification),
            timeout=self._timeout,
            ca_file=self._ca_file,
            headers=headers,
            accepted=(200,),
        )


def alerts(notification: Notification) -> list[dict[str, object]]:
    """The alerts of a notification as Alertmanager's API has them."""
    return [_alert(member, notification) for member in notification.members]


def _alert(member: Member, notification: Notification) -> dict[str, object]:
    labels = {_label(name): value for name, value in member.labels.items() if value}
    end = member.resolved
    if end is None:
        end = notification.at + LASTS
    told: dict[str, object] = {
        "labels": {**labels, "alertname": member.rule, "fingerprint": member.fingerprint, "job": "lockkit"},
        "annotations": _told(
            summary=member.text,
            severity=member.severity,
            command=shown(member.command),
            times=str(member.times),
            acknowledged_by=member.acknowledged_by,
        ),
        "startsAt": _rfc3339(member.since),
        "endsAt": _rfc3339(max(end, member.since)),
    }
    return told


def _told(**annotations: str) -> Mapping[str, str]:
    return {name: value for name, value in annotations.items() if value}


def _label(name: str) -> str:
    """A label's name as Prometheus allows it."""
    allowed = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return allowed if re.match(r"[A-Za-z_]", allowed) else f"_{allowed}"


def _rfc3339(seconds: float) -> str:
    whole, millis = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{millis:03d}Z"
