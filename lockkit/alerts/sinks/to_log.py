"""The log and the journal: every notification reaches both, whatever the channels do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from lockkit.alerts.commands import shown
from lockkit.alerts.notification import Notification, Severity
from lockkit.alerts.spool import encoded
from lockkit.alerts.wording import subject

__all__ = ["ToLog"]

_log = logging.getLogger("lockkit.alerts")
_LEVELS: Mapping[Severity, int] = {"P0": logging.CRITICAL, "P1": logging.ERROR, "P2": logging.WARNING}


class ToLog:
    """The sink. Call it before the channels, on the thread of the engine.

    Args:
        journal: Writes a record to stable storage; None for no journal. With :mod:`lockkit.observe.journal`:
            ``functools.partial(journal.append, state_dir, file="alerts.jsonl")``.
    """

    def __init__(self, journal: Callable[[Mapping[str, object]], object] | None = None) -> None:
        self._journal = journal

    def __call__(self, notification: Notification) -> None:
        """Log a notification, then write it to the journal. Never raises; a failing journal is logged."""
        over = notification.reason == "all_resolved"
        level = logging.INFO if over else _LEVELS[notification.severity]
        commands = [command for member in notification.members if (command := shown(member.command))][:1]
        next_one = "" if over or not commands else f"; next: {commands[0]}"
        _log.log(
            level,
            "%s [%s, group %s]%s",
            subject(notification),
            notification.reason,
            notification.group,
            next_one,
        )
        if self._journal is None:
            return
        told = encoded(notification)
        try:
            self._journal({"kind": "alert", **told})
        except Exception as error:
            _log.error("the alert could not be written to the journal: %s", error)
