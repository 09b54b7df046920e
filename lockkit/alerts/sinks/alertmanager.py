"""Alertmanager, API v2 (https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml).

Each member is an alert, which Alertmanager knows and routes by its labels: the rule as ``alertname``, the
labels, the fingerprint, the severity. Once the severity rises, the same request ends the alerts with lower
ones. A firing alert gets an end far away, because Alertmanager would resolve it after ``resolve_timeout``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.alerts.commands import shown
from lockkit.alerts.notification import Member, Notification, Severity
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.rules import WORST
from lockkit.alerts.sinks.posting import post
from lockkit.values.durations import rfc3339

__all__ = ["LASTS", "Alertmanager", "alerts"]

LASTS = 24 * 3600.0
"""Seconds for which an alert fires at Alertmanager if lockkit, which repeats and ends it, is gone."""
_PATH = "/api/v2/alerts"
_MOST_TRIES = 5
"""The most requests for one notification; two are enough unless Alertmanager's clock goes back."""


class Alertmanager:
    """The sink. Later notifications of a group replace earlier ones.

    Args:
        url: Returns the address of the Alertmanager, with its prefix if any; called for each notification.
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
        # Alertmanager ignores an end in the future of its clock. So no end may be later than its clock at the
        # receipt: at the earliest the time of the answer, in whole seconds, less the request's duration.
        latest = notification.at - 1.0
        for _ in range(_MOST_TRIES):
            began = time.monotonic()
            answer = post(
                f"{url}{_PATH}",
                alerts(notification, latest),
                timeout=self._timeout,
                ca_file=self._ca_file,
                headers=headers,
                accepted=(200,),
            )
            if answer.date is None:
                return
            taken = answer.date - (time.monotonic() - began)
            if all(min(end, latest) <= taken for end in _ends(notification)):
                return
            latest = taken - 1.0
        raise NotDelivered("the end of an alert is in the future of Alertmanager's clock, which goes back")


def alerts(notification: Notification, latest: float) -> list[dict[str, object]]:
    """The alerts of a notification as Alertmanager's API has them, with no end later than ``latest``."""
    at = notification.at
    risen = [
        one._replace(severity=severity, resolved=at if one.resolved is None else one.resolved)
        for one in notification.members
        for severity in _before(one)
    ]
    return [_alert(member, at, latest) for member in (*notification.members, *risen)]


def _before(member: Member) -> Sequence[Severity]:
    """The severities that an alert had before it rose, or may have had."""
    if member.began is None:
        return ()
    return WORST[WORST.index(member.severity) + 1 : WORST.index(member.began) + 1]


def _ends(notification: Notification) -> list[float]:
    """The ends in a notification."""
    risen = [notification.at] if any(map(_before, notification.members)) else []
    return risen + [one.resolved for one in notification.members if one.resolved is not None]


def _alert(member: Member, at: float, latest: float) -> dict[str, object]:
    labels = {_label(name): value for name, value in member.labels.items() if value}
    end = at + LASTS if member.resolved is None else min(member.resolved, latest)
    told: dict[str, object] = {
        "labels": {
            **labels,
            "alertname": member.rule,
            "fingerprint": member.fingerprint,
            "severity": member.severity,
            "job": "lockkit",
        },
        "annotations": _told(
            summary=member.text,
            command=shown(member.command),
            ack=member.acknowledge,
            times=str(member.times),
            acknowledged_by=member.acknowledged_by,
        ),
        "startsAt": rfc3339(min(member.since, end)),
        "endsAt": rfc3339(end),
    }
    if member.link:
        told["generatorURL"] = member.link
    return told


def _told(**annotations: str) -> Mapping[str, str]:
    return {name: value for name, value in annotations.items() if value}


def _label(name: str) -> str:
    """A label's name as Prometheus allows it."""
    allowed = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return allowed if re.match(r"[A-Za-z_]", allowed) else f"_{allowed}"
