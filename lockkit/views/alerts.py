"""Alerts and silences as JSON documents have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lockkit.views.parts import ShownAlert, ShownSilence
from lockkit.views.texts import rfc3339

if TYPE_CHECKING:
    from typing import Literal

    from lockkit.alerts.desk import Listed
    from lockkit.alerts.state import Silence

__all__ = ["alert", "silence"]


def alert(one: Listed) -> ShownAlert:
    """An alert, as :meth:`lockkit.alerts.desk.Desk.alerts` lists it."""
    seen = one.alert
    return ShownAlert(
        fingerprint=seen.fingerprint,
        rule=seen.rule,
        severity=seen.severity,
        state=cast("Literal['pending', 'firing', 'resolved']", one.state),
        hidden=cast("Literal['silenced', 'inhibited'] | None", one.hidden or None),
        told=one.told,
        labels=seen.labels,
        text=seen.text,
        command=seen.command or None,
        since=rfc3339(seen.since),
        since_seconds=seen.since,
        times=seen.times,
        acknowledged_by=seen.acknowledged_by or None,
        silenced_by=list(one.silenced_by),
    )


def silence(one: Silence) -> ShownSilence:
    """A silence."""
    return ShownSilence(
        id=one.id,
        author=one.author,
        comment=one.comment or None,
        rule=one.rule,
        labels=one.labels,
        fingerprint=one.fingerprint or None,
        starts=rfc3339(one.starts),
        starts_seconds=one.starts,
        ends=rfc3339(one.ends),
        ends_seconds=one.ends,
    )
