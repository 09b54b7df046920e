"""Happenings and looks: the engine's input, reduced to what rules need. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.alerts.notification import Severity
from lockkit.facts import NOTHING, Alert, Event
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.names import LONGEST_NAME

__all__ = ["Happening", "Look", "Subject", "counted", "of_alert", "of_event"]

_MOST = LONGEST_NAME
"""Characters of a label or message that are kept: a part of a name would be another name."""
_EMPTY: Mapping[str, str] = {}


class Happening(NamedTuple):
    """Something that happened, as rules count it.

    Attributes:
        source: ``alert.KIND``, ``event.KIND`` or ``counter.NAME``.
        labels: The subject, if known: ``lock``, ``gpu``, ``host``, ``owner``, ``kind``, and ``claim``.
        message: The happening, in words.
        number: How many of it.
        severity: The severity that an alert says; None for all else.
    """

    source: str
    labels: Mapping[str, str] = _EMPTY
    message: str = ""
    number: int = 1
    severity: Severity | None = None


class Subject(NamedTuple):
    """One thing that a look shows: a claim of a dead owner, for instance."""

    labels: Mapping[str, str] = _EMPTY
    message: str = ""


class Look(NamedTuple):
    """The result of one look at the store.

    Attributes:
        unreachable: Why the store does not answer; empty if it does.
        elected: Whether this process is the one that looks at the locks; if not, the fields below are empty.
        subjects: The findings, by the ``what`` of the rules.
        held: The names of the locks that are held.
        last: When a regular job's lock was last released or lost, as stored by its holder, in s since 1970.
        unread: The locks that were not read, so that what was seen of them before may still be there.
    """

    unreachable: str = ""
    elected: bool = True
    subjects: Mapping[str, tuple[Subject, ...]] = NOTHING  # type: ignore[assignment]  # nothing is in it
    held: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    last: Mapping[str, float] = NOTHING  # type: ignore[assignment]


def of_event(event: Event) -> Happening:
    """An event as rules count it."""
    return Happening(f"event.{event.kind}", _labels(event), str(event.reason)[:_MOST])


def of_alert(alert: Alert) -> Happening:
    """An alert as rules count it."""
    return Happening(f"alert.{alert.kind}", _labels(alert), alert.message[:_MOST], 1, alert.priority)


def counted(before: Mapping[str, int], now: Mapping[str, int]) -> list[Happening]:
    """The steps of a client's counters between two readings. A smaller one is new, from another client."""
    steps = (
        (name, value - (old if value >= (old := before.get(name, 0)) else 0)) for name, value in now.items()
    )
    return [Happening(f"counter.{name}", number=step) for name, step in steps if step > 0]


def _labels(what: Event | Alert) -> Mapping[str, str]:
    data = what.data
    known = {
        "lock": what.name,
        "claim": what.claim_id,
        "kind": what.kind,
        "gpu": data.get("uuid"),
        "host": data.get("host"),
        "owner": data.get("owner") or data.get("holder"),
    }
    return {key: str(value)[:_MOST] for key, value in known.items() if value}
