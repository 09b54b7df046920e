"""The endpoints about alerts: the current ones, and people's decisions about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lockkit.alerts.desk import Desk, folder_of
from lockkit.errors import ConfigError
from lockkit.server.audit import audited
from lockkit.server.problems import HttpProblem
from lockkit.views import documents, parts
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.alerts.desk import Listed
    from lockkit.server.calls import Call

__all__ = ["acknowledge", "alerts", "end_silence", "silence"]

T = TypeVar("T")


def alerts(call: Call) -> documents.Alerts:
    """The alerts that the engine of this user on this host knows, and the silences."""
    desk = _desk(call)
    return documents.Alerts(
        alerts=[made_of(parts.ShownAlert, one, one.alert) for one in _read(desk.alerts)],
        silences=[made_of(parts.ShownSilence, one) for one in _read(desk.silences)],
    )


def acknowledge(call: Call) -> documents.AlertAck:
    """Say that the sender deals with an alert, or take that back."""
    desk, visitor, fingerprint = _desk(call), call.visitor, call.path["fingerprint"]
    assert visitor is not None
    _find(desk, fingerprint)
    undo, comment = call.body.undo, call.body.comment
    with audited(
        call, call.store, "take_back" if undo else "acknowledge", alert=fingerprint, comment=comment
    ) as outcome:
        if undo:
            member = _write(lambda: desk.take_back(fingerprint))
        else:
            member = _write(lambda: desk.acknowledge(fingerprint, author=visitor.name, comment=comment))
        outcome.word = "absent" if member is None else "taken back" if undo else "acknowledged"
    if member is None and undo:
        text = f"nobody deals with the alert {fingerprint!r}"
        raise HttpProblem(404, "no_such_acknowledgement", text, hint="see: GET /api/alerts")
    if member is None:
        raise _absent(fingerprint)
    return made_of(documents.AlertAck, member)


def silence(call: Call) -> documents.AlertSilence:
    """Tell nothing of an alert for a time."""
    desk, visitor, fingerprint = _desk(call), call.visitor, call.path["fingerprint"]
    assert visitor is not None
    _find(desk, fingerprint)
    seconds, comment = call.body.seconds, call.body.comment
    with audited(call, call.store, "silence", alert=fingerprint, seconds=seconds, comment=comment) as outcome:
        begun = _write(
            lambda: desk.silence(
                author=visitor.name, seconds=seconds, comment=comment, fingerprint=fingerprint
            )
        )
        outcome.word = f"silence {begun.id}"
    return made_of(documents.AlertSilence, silence=begun, ended=False)


def end_silence(call: Call) -> documents.AlertSilence:
    """End a silence at once."""
    desk, identity = _desk(call), call.path["id"]
    if all(one.id != identity for one in _read(desk.silences)):
        raise _no_silence(identity)
    with audited(call, call.store, "end_silence", silence=identity) as outcome:
        ended = _write(lambda: desk.end_silence(identity))
        outcome.word = "absent" if ended is None else "ended"
    if ended is None:
        raise _no_silence(identity)
    return made_of(documents.AlertSilence, silence=ended, ended=True)


def _no_silence(identity: str) -> HttpProblem:
    return HttpProblem(
        404, "no_such_silence", f"there is no silence {identity!r}", hint="see: GET /api/alerts"
    )


def _desk(call: Call) -> Desk:
    return Desk(folder_of(call.store.client.config))


def _find(desk: Desk, fingerprint: str) -> Listed:
    found = next((one for one in _read(desk.alerts) if one.alert.fingerprint == fingerprint), None)
    if found is None:
        raise _absent(fingerprint)
    return found


def _absent(fingerprint: str) -> HttpProblem:
    return HttpProblem(
        404, "no_such_alert", f"there is no alert {fingerprint!r}", hint="see: GET /api/alerts"
    )


def _read(look: Callable[[], T]) -> T:
    """Read the files of the alerts.

    Raises:
        HttpProblem: They cannot be read, which the sender of the request cannot change.
    """
    try:
        return look()
    except (OSError, ConfigError) as error:
        raise HttpProblem(503, "no_alerts", f"the alerts cannot be read: {error}") from None


def _write(change: Callable[[], T]) -> T:
    """Change the files of the alerts. A forbidden change is a ConfigError.

    Raises:
        HttpProblem: They cannot be written.
    """
    try:
        return change()
    except OSError as error:
        raise HttpProblem(503, "no_alerts", f"the decision cannot be written: {error}") from None
